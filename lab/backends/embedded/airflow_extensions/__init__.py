"""Extensions that Airflow's own processes load; the kit imports none of them.

component  runs a command of Airflow, with what the plugins do before it starts
executor   a LocalExecutor that starts tasks fast and survives the loss of a worker
plugin     a middleware that serializes writing requests in the api-server, on SQLite
sqlite     settings of Airflow's connection to SQLite
"""
