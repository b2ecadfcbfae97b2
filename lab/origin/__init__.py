"""An existing DVC repository, taken in: its history unchanged, its objects in the lab's store.

fetch           all that is taken, from the origin to a folder of the project
mirror          the origin's branches and tags, and the pointers of all commits
objects         the objects that these name, copied by a process with DVC
remote_objects  the program that runs there
found           what an origin has, and what of it is missing
deliver         all of it, from that folder to the lab's store and datasets repository
"""
