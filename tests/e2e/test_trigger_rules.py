"""trigger_rules: the table of outcomes is Airflow's documentation, tried out."""

from __future__ import annotations

import json

from lab.client import s3
from lab.lab import Lab
from lab.model import Run

DAG = "trigger_rules"
STATES = {"S": "success", "F": "upstream_failed", "-": "skipped"}
BRANCHES = {"s": "succeed", "f": "fail", "k": "skip"}
# By hand, from Airflow's documentation of trigger rules, for branches that end in this order.
EXPECTED = """
    upstream:                    s f k sf sk fk sfk
    all_success                  S F - F  -  F  F
    all_failed                   - S - -  -  -  -
    all_done                     S S S S  S  S  S
    all_done_min_one_success     S F - S  -  -  -
    all_skipped                  - - S -  -  -  -
    one_success                  S F - S  S  F  S
    one_failed                   - S - S  -  S  S
    one_done                     S S - S  S  S  S
    none_failed                  S F S F  S  F  F
    none_failed_min_one_success  S F - F  S  F  F
    none_skipped                 S S - S  -  -  -
    always                       S S S S  S  S  S
"""


def expected() -> dict[str, dict[str, str]]:
    (_, *heads), *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    branches = ["_".join(BRANCHES[letter] for letter in head) for head in heads]
    return {
        rule: dict(zip(branches, [STATES[letter] for letter in letters], strict=True))
        for rule, *letters in rows
    }


def written(lab: Lab, run: Run) -> dict[str, dict[str, str]]:
    """The table that this run has put into the bucket."""
    client = s3.client(lab)
    place = {"Bucket": lab.s3_bucket, "Prefix": f"results/{DAG}/"}
    keys = [found["Key"] for found in client.list_objects_v2(**place)["Contents"]]
    objects = [client.get_object(Bucket=lab.s3_bucket, Key=key)["Body"].read() for key in keys]
    (states,) = [table["states"] for table in map(json.loads, objects) if table["run_id"] == run.id]
    return dict(states)


def test_every_rule_does_as_documented_with_every_combination_of_branches(lab: Lab) -> None:
    run = lab.run(DAG)
    assert written(lab, run) == expected()
    states = {name: outcome.state for name, outcome in lab.outcomes(run).items()}
    assert (states["succeed"], states["fail"], states["skip"]) == ("success", "failed", "skipped")
    for rule, row in expected().items():
        assert {branches: states[f"{rule}.{branches}"] for branches in row} == row
