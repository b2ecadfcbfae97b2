"""trigger_rules: the table of outcomes is as Airflow's documentation says."""

from __future__ import annotations

import json

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


def parse_expected() -> dict[str, dict[str, str]]:
    (_, *heads), *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    branches = ["_".join(BRANCHES[letter] for letter in head) for head in heads]
    return {
        rule: dict(zip(branches, [STATES[letter] for letter in letters], strict=True))
        for rule, *letters in rows
    }


def read_table(lab: Lab, run: Run) -> dict[str, dict[str, str]]:
    """Read the table that this run has written to the bucket."""
    keys = [found["Key"] for found in lab.list_objects(f"results/{DAG}/")]
    tables = [json.loads(lab.read_object(key)) for key in keys]
    (states,) = [table["states"] for table in tables if table["run_id"] == run.id]
    return dict(states)


def test_every_rule_does_as_documented_with_every_combination_of_branches(lab: Lab) -> None:
    run = lab.run(DAG)
    assert read_table(lab, run) == parse_expected()
    states = {name: outcome.state for name, outcome in lab.outcomes(run).items()}
    assert (states["succeed"], states["fail"], states["skip"]) == ("success", "failed", "skipped")
    for rule, row in parse_expected().items():
        assert {branches: states[f"{rule}.{branches}"] for branches in row} == row
