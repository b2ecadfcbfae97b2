"""Delivery of a project's DAGs to a lab's git server.

bundle    the folder of DAGs: the project's own, and the library (library/, no code of the kit's)
publish   the commit that holds the DAGs, and the wait until Airflow has parsed them
pushes    the address and the secret by which Airflow is notified of a push
ssh       SSH keys and the client's configuration files
ssh_door  the keys of the git server's SSH endpoint, for both backends
"""
