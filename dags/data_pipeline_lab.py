"""Generate, validate, aggregate, notify: an example pipeline, each task in a pod of its own.

The records come from a seeded generator: a task that is retried, and any run with the same params,
writes the very same bytes. They are in the lab's bucket under `results/data_pipeline_lab/`, in a
folder named after the params; the tasks hand each other keys and numbers, not the records.
`--conf '{"invalid_share": 0.5}'` generates more bad records than validation tolerates.
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
LOWEST, HIGHEST = 10, 1000  # the range of a good record's value
TOLERATED = 0.05  # the share of bad records that are dropped; a larger one fails the run

Record = dict[str, Any]


class Generated(TypedDict):
    """The generated records: their key in the bucket and their number."""

    key: str
    records: int


class Validated(TypedDict):
    """The valid records: their key, and the numbers of valid and invalid ones."""

    key: str
    valid: int
    invalid: int


class Aggregated(TypedDict):
    """The totals: their key, and the numbers of valid and invalid records."""

    key: str
    valid: int
    invalid: int


class Category(TypedDict):
    """The totals of one category."""

    records: int
    total: float
    average: float


def make_record(number: int, random: Random, bad: bool) -> Record:
    """Make a random record; a bad one has a negative value."""
    value = round(random.uniform(LOWEST, HIGHEST), 2)
    category = random.choice(CATEGORIES)
    return {"id": number, "value": -value if bad else value, "category": category}


def is_valid(record: Record) -> bool:
    return record["value"] > 0 and record["category"] in CATEGORIES


def summarise_category(values: list[float]) -> Category:
    total = math.fsum(values)
    return {
        "records": len(values),
        "total": round(total, 2),
        "average": round(total / len(values), 2),
    }


def results_folder(params: Mapping[str, Any]) -> str:
    """Return the bucket's folder for the results of these params."""
    share = float(params["invalid_share"])  # 0 in a conf names the same folder as the default 0.0
    name = f"seed-{params['seed']}_records-{params['records']}_invalid-{share}"
    return f"results/{named('data_pipeline_lab')}/{name}"


def store_json(folder: str, name: str, content: Any) -> str:
    """Write `content` to the bucket as JSON. Return its key."""
    key = f"{folder}/{name}.json"
    lab_bucket.write(key, json.dumps(content).encode())
    return key


def parent_folder(key: str) -> str:
    return key.rpartition("/")[0]


def load_json(key: str) -> Any:
    """Read an object as JSON. Raise AirflowFailException when it does not exist."""
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
        """Write generated records to the bucket."""
        count = params["records"]
        random = Random(params["seed"])
        bad = set(random.sample(range(count), round(count * params["invalid_share"])))
        records = [make_record(number, random, number in bad) for number in range(count)]
        print(f"generated {count} records, {len(bad)} of them bad")
        return {"key": store_json(results_folder(params), "records", records), "records": count}

    @task(**IN_A_POD)
    def validate(generated: Generated) -> Validated:
        """Write the good records to the bucket. Raise AirflowFailException for too few."""
        records = load_json(generated["key"])
        valid = [record for record in records if is_valid(record)]
        invalid = len(records) - len(valid)
        print(f"{len(valid)} of {len(records)} records are valid")
        if invalid > TOLERATED * len(records):
            raise AirflowFailException(
                f"{invalid} of {len(records)} records are bad, more than {TOLERATED:.0%}: "
                f"look at {generated['key']} in the bucket"
            )
        key = store_json(parent_folder(generated["key"]), "valid", valid)
        return {"key": key, "valid": len(valid), "invalid": invalid}

    @task(**IN_A_POD)
    def aggregate(validated: Validated) -> Aggregated:
        """Write the number, total and average of each category to the bucket."""
        values: dict[str, list[float]] = {}
        for record in load_json(validated["key"]):
            values.setdefault(record["category"], []).append(record["value"])
        summary = {name: summarise_category(values[name]) for name in sorted(values)}
        print(json.dumps(summary, indent=1))
        key = store_json(parent_folder(validated["key"]), "summary", summary)
        return {"key": key, "valid": validated["valid"], "invalid": validated["invalid"]}

    @task(**IN_A_POD)
    def notify(aggregated: Aggregated, ti: Any) -> str:
        """Notify the owner of the totals. Return the notification's key."""
        lines = [
            f"Category {name}: {it['records']} records, total {it['total']:.2f}, "
            f"average {it['average']:.2f}"
            for name, it in load_json(aggregated["key"]).items()
        ]
        lines.append(f"Left out as bad: {aggregated['invalid']}")
        subject = f"{ti.dag_id}: {aggregated['valid']} records"
        return tell(ti.dag_id, ti.run_id, [OWNER], subject, "\n".join(lines))

    notify(aggregate(validate(generate())))
