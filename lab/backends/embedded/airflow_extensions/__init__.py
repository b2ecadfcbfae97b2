"""What the lab adds to Airflow's own processes: Airflow loads it, the kit imports none of it.

executor   a LocalExecutor that starts tasks fast and survives the loss of a worker
plugin     one writing request at a time in the api-server, on SQLite
sqlite     how Airflow connects to SQLite
"""
