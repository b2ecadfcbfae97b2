"""What each trigger rule does with a branch that succeeds, one that fails and one that is skipped.

For each rule and each combination of the three branches there is a task with that rule, downstream
of just these branches. The last task writes the states of them all to the bucket. Only the branches
and the last task start a process: the others do nothing, and the scheduler sets their states.

The branches end one after another: `succeed`, `fail`, `skip`. Rules that do not wait for all
branches go by the first that decides. If the skip came first, `all_success` after both a failure
and a skip would be skipped instead of failed.
"""

from __future__ import annotations

import json
from datetime import timedelta
from itertools import combinations
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, TaskGroup, TriggerRule, task
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

import lab_bucket
from steps import named

BRANCHES = ("succeed", "fail", "skip")
COMBINATIONS = [some for size in (1, 2, 3) for some in combinations(BRANCHES, size)]
# Every rule but the one for teardowns, which looks at the states of their setups.
RULES = [rule.value for rule in TriggerRule if rule is not TriggerRule.ALL_DONE_SETUP_SUCCESS]

with DAG(
    named("trigger_rules"),
    description="Every trigger rule, with branches that succeed, fail and are skipped",
    schedule=None,
    catchup=False,
    default_args={"retries": 1, "retry_delay": timedelta(seconds=3)},
    tags=["rules"],
    doc_md=__doc__,
):

    @task
    def succeed() -> None:
        print("this branch succeeds")

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def fail() -> None:
        raise AirflowFailException("this branch fails, as it should")

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def skip() -> None:
        raise AirflowSkipException("this branch is skipped, as it should be")

    @task(trigger_rule=TriggerRule.ALL_DONE)
    def table(ti: Any, run_id: str) -> None:
        """Write the states of all combinations of all rules in this run to the bucket."""
        states = ti.get_task_states(dag_id=ti.dag_id, run_ids=[run_id])[run_id]
        names = ["_".join(some) for some in COMBINATIONS]
        rows = {rule: {name: states[f"{rule}.{name}"] for name in names} for rule in RULES}
        text = json.dumps({"run_id": run_id, "states": rows}, indent=1)
        print(text)
        key = f"results/{ti.dag_id}/{lab_bucket.name_of_run(run_id)}.json"
        lab_bucket.write(key, text.encode())

    branches = {"succeed": succeed(), "fail": fail(), "skip": skip()}
    branches["succeed"] >> branches["fail"] >> branches["skip"]
    last = table()
    for rule in RULES:
        with TaskGroup(rule):
            for some in COMBINATIONS:
                decided = EmptyOperator(task_id="_".join(some), trigger_rule=rule, retries=0)
                [branches[name] for name in some] >> decided >> last
