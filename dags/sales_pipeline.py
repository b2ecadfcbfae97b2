"""Sales from the landing zone to the warehouse, each day at six and whenever a file arrives.

Files are put under `landing/sales/` in the lab's bucket: CSV with the columns id, amount and city.
A run makes the whole warehouse from all that has landed, so two runs for one arrival make the same
bytes, and no arrival needs a run of its own. While nothing has landed, it is made of a sample.

Each file passes the quality gate, or the run fails and the warehouse stays as it is: the owner is
told which file and why, and mends it by putting a better one in its place, which starts a run.

Tasks that hold records run in pods of their own where there are pods: large files would fill
Airflow's own memory. They hand each other keys and hashes; the records are in the bucket, under
`results/sales_pipeline/runs/`, for the newest runs. `--conf '{"fail_times": 2}'` shows the retries.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypedDict

from airflow.sdk import DAG, AssetOrTimeSchedule, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

import lab_bucket
from assets import LANDED_SALES, SALES_FILES, SALES_LANDING, SALES_WAREHOUSE
from lab_notifications import tell
from steps import IN_A_POD, clock, named

OWNER = "data-engineering"
WAREHOUSE, LINEAGE, RUNS = "warehouse.csv", "lineage.json", "runs"  # in the DAG's folder
KEPT_RUNS = 10  # whose records stay in the bucket, for reading and for clearing their tasks
COLUMNS = ("id", "amount", "city")
AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
HIGH, MEDIUM = 500, 100  # an amount above it is of that revenue category

Row = dict[str, Any]  # a record; None stands for what a row does not have


class Reference(TypedDict):
    """Where records are, and how many: all that one task says to the next."""

    key: str
    sha256: str
    records: int


class File(TypedDict):
    """One file of the landing zone and its records."""

    key: str
    etag: str
    records: list[Row]


# --- Files ----------------------------------------------------------------------------------------


def landed() -> list[File]:
    """All files of the landing zone, by key. Raises AirflowFailException for an unreadable one."""
    client = lab_bucket.client()
    files = []
    for found in lab_bucket.listing(SALES_LANDING):
        if found.key.endswith(SALES_FILES):
            answer = client.get_object(Bucket=lab_bucket.bucket(), Key=found.key)
            records = rows(found.key, answer["Body"].read())
            files.append(File(key=found.key, etag=answer["ETag"].strip('"'), records=records))
    return files


def sample() -> File:
    """What there is to see before anything has landed."""
    records = [{"id": str(i), "amount": str(100 + i * 10), "city": "NYC"} for i in range(1000)]
    return File(key="a sample", etag="", records=records)


def rows(key: str, content: bytes) -> list[Row]:
    """The rows of a CSV file. Raises AirflowFailException when it is none, or lacks a column."""
    try:
        lines = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        missing = [name for name in COLUMNS if name not in (lines.fieldnames or ())]
        found = [cells(line) for line in lines]
    except (UnicodeDecodeError, csv.Error) as error:
        raise AirflowFailException(f"{key} is not CSV in UTF-8: {error}") from error
    if missing:
        raise AirflowFailException(f"{key} has no column {' and no column '.join(missing)}")
    return found


def cells(line: Mapping[Any, Any]) -> Row:
    """The columns that are wanted; each is None where the row has more cells than the header."""
    fits = None not in line
    return {name: line.get(name) if fits else None for name in COLUMNS}


# --- What is done with records --------------------------------------------------------------------


def flaw(record: Row, known: Iterable[str]) -> str | None:
    """What is wrong with a record, or None; `known` are the ids that others have."""
    if None in record.values():
        return "it has not the columns of the header"
    if not record["id"].strip():
        return "it has no id"
    if record["id"] in known:
        return f"its id {record['id']!r} is not unique"
    if not AMOUNT.fullmatch(record["amount"]):
        return f"its amount {record['amount']!r} is no number"
    if Decimal(record["amount"]) <= 0:
        return f"its amount {record['amount']} is not above 0"
    return None


def sift(file: File, known: set[str]) -> tuple[File, list[str]]:
    """The file with its good records only, whose ids join `known`; what is wrong with others."""
    good, flaws = [], []
    for number, record in enumerate(file["records"], start=1):
        if why := flaw(record, known):
            flaws.append(f"record {number}: {why}")
        else:
            known.add(record["id"])
            good.append(record)
    return File(key=file["key"], etag=file["etag"], records=good), flaws


def refuse_bad(files: list[File], min_valid: float) -> list[File]:
    """The files with their good records. Raises AirflowFailException where too few are good."""
    known: set[str] = set()
    sifted = [(file, *sift(file, known)) for file in files]
    refused = [
        f"{file['key']}: {len(good['records'])} of {len(file['records'])} records are valid, "
        f"at least {min_valid:.1%} must be ({flaws[0]})"
        for file, good, flaws in sifted
        if flaws and len(good["records"]) / len(file["records"]) < min_valid
    ]
    if refused:
        raise AirflowFailException("; ".join(refused))
    for file, _, flaws in sifted:
        print(f"{file['key']}: {len(file['records'])} records", *flaws, sep="\n  ")
    return [good for _, good, _ in sifted]


def categorised(record: Row) -> Row:
    amount = Decimal(record["amount"])
    category = "high" if amount > HIGH else "medium" if amount > MEDIUM else "low"
    return {**record, "revenue_category": category}


def table(files: list[File]) -> bytes:
    """All records as the warehouse has them."""
    text = io.StringIO(newline="")
    lines = csv.DictWriter(text, [*COLUMNS, "revenue_category"], lineterminator="\n")
    lines.writeheader()
    for file in files:
        lines.writerows(file["records"])
    return text.getvalue().encode()


# --- The bucket, and people -----------------------------------------------------------------------


def folder(ti: Any) -> str:
    """Where the DAG's results are: the one of production has another name, and its own results."""
    return f"results/{ti.dag_id}"


def handed_over(ti: Any, name: str, files: list[File]) -> Reference:
    """The bucket has the files' records: what the next task needs to know."""
    content = json.dumps(files).encode()
    digest = hashlib.sha256(content).hexdigest()
    # Named by its content: what a killed attempt writes late is in nobody's way.
    run = f"{folder(ti)}/{RUNS}/{lab_bucket.name_of_run(ti.run_id)}"
    lab_bucket.write(key := f"{run}/{name}-{digest[:12]}.json", content)
    return Reference(key=key, sha256=digest, records=count(files))


def taken_over(reference: Reference) -> list[File]:
    """The very files that the last task spoke of. Raises AirflowFailException without them."""
    content = lab_bucket.read(reference["key"])
    if content is None or hashlib.sha256(content).hexdigest() != reference["sha256"]:
        raise AirflowFailException(
            f"{reference['key']} is gone or was changed: clear the run from extract_sales_data on"
        )
    files: list[File] = json.loads(content)
    return files


def count(files: list[File]) -> int:
    return sum(len(file["records"]) for file in files)


def lineage(run_id: str, files: list[File], content: bytes) -> bytes:
    """Which run made the warehouse of what."""
    sources = [
        {"key": file["key"], "etag": file["etag"], "records": len(file["records"])}
        for file in files
    ]
    made = {"run_id": run_id, "warehouse_sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps({**made, "records": count(files), "sources": sources}, indent=1).encode()


def sweep(prefix: str) -> None:
    """Of the folders there, the bucket has the newest only, where the lab's key may delete."""
    from botocore.exceptions import ClientError

    client, bucket = lab_bucket.client(), lab_bucket.bucket()
    found = list(lab_bucket.entries(prefix, client))
    found.sort(key=lambda entry: entry["LastModified"], reverse=True)
    newest_first = list(dict.fromkeys(folder_of(entry["Key"]) for entry in found))
    old = set(newest_first[KEPT_RUNS:])
    try:
        for key in (entry["Key"] for entry in found if folder_of(entry["Key"]) in old):
            client.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        print(f"what old runs left stays in the bucket: {error}")


def folder_of(key: str) -> str:
    return key.rpartition("/")[0]


def tell_owner(context: Mapping[str, Any]) -> None:
    """The owner knows which task of which run has failed for good, and why."""
    ti = context["ti"]
    why = context.get("exception") or "nobody knows why: its log may"
    tell(ti.dag_id, ti.run_id, [OWNER], f"{ti.dag_id}: {ti.task_id} failed", str(why))


with DAG(
    named("sales_pipeline"),
    description="Sales from the landing zone: extract, validate, transform, load, notify",
    schedule=AssetOrTimeSchedule(timetable=clock("0 6 * * *"), assets=LANDED_SALES),
    catchup=False,
    max_active_runs=1,
    default_args={
        "owner": OWNER,
        "retries": 3,
        # Short, to be watched: a pipeline that waits for other people's servers has 5 and 30 min.
        "retry_delay": timedelta(seconds=2),
        "retry_exponential_backoff": 2,
        "max_retry_delay": timedelta(seconds=10),
        "execution_timeout": timedelta(minutes=5),
        "on_failure_callback": tell_owner,
        "multiple_outputs": False,
    },
    params={
        "fail_times": Param(
            0,
            type="integer",
            minimum=0,
            maximum=3,
            description="How many attempts of extract_sales_data fail before one works",
        ),
        "min_valid": Param(
            0.95,
            type="number",
            minimum=0,
            maximum=1,
            description="The share of a file's records that must be valid; others are left out",
        ),
    },
    tags=["sales", "production"],
    doc_md=__doc__,
):

    @task(**IN_A_POD)
    def extract_sales_data(
        ti: Any, params: Mapping[str, Any], triggering_asset_events: Any
    ) -> Reference:
        """The bucket has the records of all files that have landed, or of the sample."""
        if ti.try_number <= params["fail_times"]:
            raise AirflowException(f"attempt {ti.try_number} fails, as the run's conf asks for")
        for event in triggering_asset_events[LANDED_SALES]:
            arrived = event.extra.get("payload") or {}  # an event by hand has none
            print(f"started by the arrival of {arrived.get('key', 'something')}")
        files = landed() or [sample()]
        print(f"{count(files)} records from {', '.join(file['key'] for file in files)}")
        return handed_over(ti, "extracted", files)

    @task(**IN_A_POD)
    def validate_data(extracted: Reference, ti: Any, params: Mapping[str, Any]) -> Reference:
        """The bucket has the good records. Raises AirflowFailException when too few are good."""
        files = refuse_bad(taken_over(extracted), params["min_valid"])
        return handed_over(ti, "valid", files)

    @task(**IN_A_POD)
    def transform_data(valid: Reference, ti: Any) -> Reference:
        """The bucket has the good records, each with its revenue category."""
        files = taken_over(valid)
        for file in files:
            file["records"] = [categorised(record) for record in file["records"]]
        return handed_over(ti, "transformed", files)

    @task(**IN_A_POD, outlets=[SALES_WAREHOUSE])
    def load_to_warehouse(transformed: Reference, ti: Any, outlet_events: Any) -> int:
        """The warehouse has these records and no others, and says what they were made of."""
        files = taken_over(transformed)
        content = table(files)
        lab_bucket.write(f"{folder(ti)}/{WAREHOUSE}", content)
        lab_bucket.write(f"{folder(ti)}/{LINEAGE}", lineage(ti.run_id, files, content))
        outlet_events[SALES_WAREHOUSE].extra = {"run_id": ti.run_id, "records": count(files)}
        return count(files)

    @task
    def send_notification(records: int, ti: Any) -> str:
        """The owner knows how many records the warehouse has; old runs' records are gone."""
        sweep(f"{folder(ti)}/{RUNS}/")
        text = f"{records} records are in the warehouse, made of what {LINEAGE} says: {folder(ti)}/"
        return tell(ti.dag_id, ti.run_id, [OWNER], f"{ti.dag_id}: {records} records", text)

    extracted = extract_sales_data()
    records = load_to_warehouse(transform_data(validate_data(extracted)))
    send_notification(records)
