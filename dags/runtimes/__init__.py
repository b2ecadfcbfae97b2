"""Where a step can run: one module each, with `task(...)` and `EXECUTOR`.

`task(task_id, argv, variables, template=, memory=, keep=, **options)` is the step's operator, made
with Airflow's own `options`; EXECUTOR is what runs a TaskFlow task that shall have a pod of its
own, where there are pods.
"""

HOPELESS = 65  # EX_DATAERR: the step says that trying again won't help
