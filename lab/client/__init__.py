"""What can be done with a running lab.

runs           DAG runs: starting and following them, and what Airflow reports of them
versions       the data sets of a commit and their versions, in the datasets repository
history        the graph of commits in which a pointer changes
trailers       what a commit says of the data sets that its run changed
verify         the proof: commit, pointer, object, bytes, run and lineage
data           the data of a version: an object, or a folder's list and its files' objects
objects        the bucket's objects: what they hold, and what they must
hashes         the hashes by which DVC names them
dvc_process    DVC as a process: where data is, and pulling it
dvc_locations  the program that runs there for the former
taken_in       the commit by which the lab took a repository in, and what that one had no more
clones         paths of data, in clones that live as long as the process
git, s3        clients of the lab's servers
"""
