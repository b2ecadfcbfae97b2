"""Clean the orders and summarise them by month: two data sets in one commit.

Each morning, what was pushed to the orders since is cleaned, too. A run that changes no byte makes
no commit.
"""

from __future__ import annotations

from airflow.sdk import DAG

from steps import DEFAULTS, clock, named, publish, pull, step

STEPS = ("python", "-m", "churn_steps")  # of the image `steps`

with DAG(
    named("churn_pipeline"),
    description="Clean the orders, summarise them by month, publish both",
    schedule=clock("0 4 * * *"),  # UTC
    catchup=False,
    default_args=DEFAULTS,
    tags=["data"],
    doc_md=__doc__,
):
    (
        pull("orders")
        >> step("clean", *STEPS, "clean", image="steps")
        >> step("summarise", *STEPS, "summarise", image="steps")
        >> publish("orders", "summary", message="clean and summarise")
    )
