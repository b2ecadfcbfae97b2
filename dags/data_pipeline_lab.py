"""Generate, validate, aggregate, notify: a pipeline to look at, each task in a pod of its own.

The records come from a seeded generator: a task that is tried again, and any run with the same
params, writes the very same bytes. They are in the lab's bucket under `results/data_pipeline_lab/`,
in a folder named after the params; the tasks hand each other keys and numbers, not the records.
`--conf '{"invalid_share": 0.5}'` has bad records made, more than validation lets pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import timedelta
from random import Random
from typing import Any, TypedDict

from airflow.sdk import DAG, Param, task
from airflow.sdk.exceptions import AirflowFailException

import lab_bucket
from lab_notifications import tell
from steps import IN_A_POD, named

OWNER = "data-engineering"
CATEGORIES = ("A", "B", "C")
LOWEST, HIGHEST = 10, 1000  # what a good record's value lies between
TOLERATED = 0.05  # the share of records that may be bad: they are left out

Record = dict[str, Any]


class Generated(TypedDict):
    """Where the records are."""

    key: str
    records: int


class Validated(TypedDict):
    """Where the good ones of them are."""

    key: str
    valid: int
    invalid: int


class Aggregated(TypedDict):
    """Where the totals are."""

    key: str
    valid: int
    invalid: int


class Category(TypedDict):
    """What all records of a category come to."""

    records: int
    total: float
    average: float


def record(number: int, random: Random, bad: bool) -> Record:
    """A record; a bad one has a value that no sale can have."""
    value = round(random.uniform(LOWEST, HIGHEST), 2)
    category = random.choice(CATEGORIES)
    return {"id": number, "value": -value if bad else value, "category": category}


def is_valid(record: Record) -> bool:
    return record["value"] > 0 and record["category"] in CATEGORIES


def category(values: list[float]) -> Category:
    total = math.fsum(values)
    return {
        "records": len(values),
        "total": round(total, 2),
        "average": round(total / len(values), 2),
    }


def folder(params: Mapping[str, Any]) -> str:
    """Where in the bucket is what comes of these params."""
    share = float(params["invalid_share"])  # a conf's 0 is the default's 0.0
    name = f"seed-{params['seed']}_records-{params['records']}_invalid-{share}"
    return f"results/{named('data_pipeline_lab')}/{name}"


def store(folder: str, name: str, content: Any) -> str:
    """The key under which the bucket has `content`, as JSON."""
    key = f"{folder}/{name}.json"
    lab_bucket.write(key, json.dumps(content).encode())
    return key


def folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def stored(key: str) -> Any:
    """What the bucket has under the key. Raises AirflowFailException when it has nothing."""
    content = lab_bucket.read(key)
    if content is None:
        raise AirflowFailException(f"the bucket has no {key} any more: run the whole DAG again")
    return json.loads(content)


with DAG(
    named("data_pipeline_lab"),
    description="Generate, validate, aggregate, notify",
    schedule=None,
    catchup=False,
    default_args={
        "owner": OWNER,
        "retries": 1,
        "retry_delay": timedelta(seconds=5),
        "multiple_outputs": False,
    },
    params={
        "seed": Param(42, type="integer", description="Of the generator of records"),
        "records": Param(500, type="integer", minimum=1, maximum=100_000),
        "invalid_share": Param(
            0.0,
            type="number",
            minimum=0,
            maximum=1,
            description=f"How many of them are made bad; more than {TOLERATED:.0%} are refused",
        ),
    },
    tags=["lab"],
    doc_md=__doc__,
):

    @task(**IN_A_POD)
    def generate(params: Mapping[str, Any]) -> Generated:
        """The bucket has the records."""
        count = params["records"]
        random = Random(params["seed"])
        bad = set(random.sample(range(count), round(count * params["invalid_share"])))
        records = [record(number, random, number in bad) for number in range(count)]
        print(f"generated {count} records, {len(bad)} of them bad")
        return {"key": store(folder(params), "records", records), "records": count}

    @task(**IN_A_POD)
    def validate(generated: Generated) -> Validated:
        """The bucket has the good records. Raises AirflowFailException when too few are good."""
        records = stored(generated["key"])
        valid = [record for record in records if is_valid(record)]
        invalid = len(records) - len(valid)
        print(f"{len(valid)} of {len(records)} records are valid")
        if invalid > TOLERATED * len(records):
            raise AirflowFailException(
                f"{invalid} of {len(records)} records are bad, more than {TOLERATED:.0%}: "
                f"look at {generated['key']} in the bucket"
            )
        key = store(folder_of(generated["key"]), "valid", valid)
        return {"key": key, "valid": len(valid), "invalid": invalid}

    @task(**IN_A_POD)
    def aggregate(validated: Validated) -> Aggregated:
        """The bucket has number, total and average of each category."""
        values: dict[str, list[float]] = {}
        for found in stored(validated["key"]):
            values.setdefault(found["category"], []).append(found["value"])
        summary = {name: category(values[name]) for name in sorted(values)}
        print(json.dumps(summary, indent=1))
        key = store(folder_of(validated["key"]), "summary", summary)
        return {"key": key, "valid": validated["valid"], "invalid": validated["invalid"]}

    @task(**IN_A_POD)
    def notify(aggregated: Aggregated, ti: Any) -> str:
        """The owner has been told the totals: the notification's key."""
        lines = [
            f"Category {name}: {it['records']} records, total {it['total']:.2f}, "
            f"average {it['average']:.2f}"
            for name, it in stored(aggregated["key"]).items()
        ]
        lines.append(f"Left out as bad: {aggregated['invalid']}")
        subject = f"{ti.dag_id}: {aggregated['valid']} records"
        return tell(ti.dag_id, ti.run_id, [OWNER], subject, "\n".join(lines))

    notify(aggregate(validate(generate())))
