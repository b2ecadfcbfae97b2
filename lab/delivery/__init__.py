"""The checkout's DAGs, brought to a lab's git server.

publish   the commit that holds the DAGs, and the wait until Airflow has parsed them
pushes    how Airflow hears of a push
ssh       keys, and what both ends of SSH read
ssh_door  the git server's second way in: its keys, for both backends
"""
