"""A lab's home, `.lab/`, and the processes that run from it.

state      the choices that a lab was made with; the lock that one command holds
ports      free ports, chosen once and kept
secrets    random values, in one file of mode 0600
processes  service processes of this machine
code       which modules they have imported
"""
