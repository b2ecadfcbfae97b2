"""One module per service of the embedded backend: its command, its ports, its readiness.

airflow, gitserver, postgresql, seaweedfs   one service each
ssh_door   the git server's second way in: its keys, for both backends
pushes     how Airflow hears of a push, on both backends
"""
