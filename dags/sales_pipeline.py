"""Sales from the landing zone to the warehouse, each day at six and whenever a file arrives.

Files are put under `landing/sales/` in the lab's bucket: CSV with the columns id, amount and city.
A run builds the whole warehouse from all files that have landed, so two runs for one arrival make
the same bytes, and no arrival needs a run of its own. Before the first file, it is built from a
sample.

Each file passes the quality gate, or the run fails and the warehouse stays as it is: the owner is
notified which file and why, and replaces it by a better one, which starts a run.

Tasks that hold records run in pods of their own where there are pods: large files would fill
Airflow's own memory. They hand each other keys and hashes; the records of the newest runs are in
the bucket, under `results/sales_pipeline/runs/`. `--conf '{"fail_times": 2}'` shows the retries.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypedDict

from airflow.sdk import DAG, AssetOrTimeSchedule, Param, task
from airflow.sdk.exceptions import AirflowException, AirflowFailException

import lab_bucket
from assets import LANDED_SALES, SALES_FILES, SALES_LANDING, SALES_WAREHOUSE
from dataset_steps.table import Table, TableError
from lab_notifications import tell
from steps import IN_A_POD, clock, named

OWNER = "data-engineering"
WAREHOUSE, LINEAGE, RUNS = "warehouse.csv", "lineage.json", "runs"  # in the DAG's folder
KEPT_RUNS = 10  # runs whose records stay in the bucket, for inspection and for clearing tasks
COLUMNS = ("id", "amount", "city")
AMOUNT = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,6})?")
HIGH, MEDIUM = 500, 100  # amounts above them are in that revenue category

Row = dict[str, Any]  # a record; None stands for a missing cell


class Reference(TypedDict):
    """The key, hash and number of stored records: all that one task hands to the next."""

    key: str
    sha256: str
    records: int


class File(TypedDict):
    """One file of the landing zone and its records."""

    key: str
    etag: str
    records: list[Row]


# --- Files ----------------------------------------------------------------------------------------


def read_landed_files() -> list[File]:
    """Read the landing zone's files, by key. Raise AirflowFailException if one is unreadable."""
    client = lab_bucket.client()
    files = []
    for found in lab_bucket.listing(SALES_LANDING):
        if found.key.endswith(SALES_FILES):
            answer = client.get_object(Bucket=lab_bucket.bucket(), Key=found.key)
            records = parse_rows(found.key, answer["Body"].read())
            files.append(File(key=found.key, etag=answer["ETag"].strip('"'), records=records))
    return files


def sample_file() -> File:
    """Return the file that stands in before anything has landed."""
    records = [{"id": str(i), "amount": str(100 + i * 10), "city": "NYC"} for i in range(1000)]
    return File(key="a sample", etag="", records=records)


def parse_rows(key: str, content: bytes) -> list[Row]:
    """Parse a CSV file into rows. Raise AirflowFailException if it is none, or lacks a column."""
    try:
        table = Table([content], key)
        places = table.find_columns(COLUMNS)
        width = len(table.columns)
        return [
            pick_columns(row, places, width) for block in table.blocks() for row in block.rows()
        ]
    except TableError as error:
        raise AirflowFailException(str(error)) from error


def pick_columns(row: Sequence[str], places: Sequence[int], width: int) -> Row:
    """Return the cells of COLUMNS; all are None unless the row has `width` cells."""
    fits = len(row) == width
    pairs = zip(COLUMNS, places, strict=True)
    return {name: row[place] if fits else None for name, place in pairs}


# --- Records --------------------------------------------------------------------------------------


def find_flaw(record: Row, known: Iterable[str]) -> str | None:
    """Return what is wrong with a record, or None; `known` are the ids of earlier records."""
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


def sift_records(file: File, known: set[str]) -> tuple[File, list[str]]:
    """Return the file with its good records, and the flaws of the others. Add ids to `known`."""
    good, flaws = [], []
    for number, record in enumerate(file["records"], start=1):
        if why := find_flaw(record, known):
            flaws.append(f"record {number}: {why}")
        else:
            known.add(record["id"])
            good.append(record)
    return File(key=file["key"], etag=file["etag"], records=good), flaws


def refuse_bad(files: list[File], min_valid: float) -> list[File]:
    """Return the files with their good records. Raise AirflowFailException for too few."""
    known: set[str] = set()
    sifted = [(file, *sift_records(file, known)) for file in files]
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


def categorise(record: Row) -> Row:
    amount = Decimal(record["amount"])
    category = "high" if amount > HIGH else "medium" if amount > MEDIUM else "low"
    return {**record, "revenue_category": category}


def render_warehouse(files: list[File]) -> bytes:
    """Render all records as the warehouse's CSV."""
    text = io.StringIO(newline="")
    lines = csv.DictWriter(text, [*COLUMNS, "revenue_category"], lineterminator="\n")
    lines.writeheader()
    for file in files:
        lines.writerows(file["records"])
    return text.getvalue().encode()


# --- The bucket, and notifications ----------------------------------------------------------------


def results_folder(ti: Any) -> str:
    """Return the folder of the DAG's results; production's DAG has another id and folder."""
    return f"results/{ti.dag_id}"


def store_files(ti: Any, name: str, files: list[File]) -> Reference:
    """Write the files' records to the bucket. Return the reference that the next task needs."""
    content = json.dumps(files).encode()
    digest = hashlib.sha256(content).hexdigest()
    # Named by its content: a late write of a killed attempt overwrites nothing else.
    run = f"{results_folder(ti)}/{RUNS}/{lab_bucket.name_of_run(ti.run_id)}"
    lab_bucket.write(key := f"{run}/{name}-{digest[:12]}.json", content)
    return Reference(key=key, sha256=digest, records=count_records(files))


def load_files(reference: Reference) -> list[File]:
    """Read the files of a reference. Raise AirflowFailException if they are gone or changed."""
    content = lab_bucket.read(reference["key"])
    if content is None or hashlib.sha256(content).hexdigest() != reference["sha256"]:
        raise AirflowFailException(
            f"{reference['key']} is gone or was changed: clear the run from extract_sales_data on"
        )
    files: list[File] = json.loads(content)
    return files


def count_records(files: list[File]) -> int:
    return sum(len(file["records"]) for file in files)


def render_lineage(run_id: str, files: list[File], content: bytes) -> bytes:
    """Render which run made the warehouse, and from which files."""
    sources = [
        {"key": file["key"], "etag": file["etag"], "records": len(file["records"])}
        for file in files
    ]
    made = {"run_id": run_id, "warehouse_sha256": hashlib.sha256(content).hexdigest()}
    return json.dumps(
        {**made, "records": count_records(files), "sources": sources}, indent=1
    ).encode()


def delete_old_runs(prefix: str) -> None:
    """Delete all but the newest KEPT_RUNS folders, if the lab's key may delete."""
    from botocore.exceptions import ClientError

    client, bucket = lab_bucket.client(), lab_bucket.bucket()
    found = list(lab_bucket.entries(prefix, client))
    found.sort(key=lambda entry: entry["LastModified"], reverse=True)
    newest_first = list(dict.fromkeys(parent_folder(entry["Key"]) for entry in found))
    old = set(newest_first[KEPT_RUNS:])
    try:
        for key in (entry["Key"] for entry in found if parent_folder(entry["Key"]) in old):
            client.delete_object(Bucket=bucket, Key=key)
    except ClientError as error:
        print(f"what old runs left stays in the bucket: {error}")


def parent_folder(key: str) -> str:
    return key.rpartition("/")[0]


def tell_owner(context: Mapping[str, Any]) -> None:
    """Notify the owner which task of which run has failed for good, and why."""
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
        # Short, to be watched: a pipeline that waits for other servers would have 5 and 30 min.
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
        """Store the records of all files that have landed, or of the sample."""
        if ti.try_number <= params["fail_times"]:
            raise AirflowException(f"attempt {ti.try_number} fails, as the run's conf asks for")
        for event in triggering_asset_events[LANDED_SALES]:
            arrived = event.extra.get("payload") or {}  # an event made by hand has none
            print(f"started by the arrival of {arrived.get('key', 'something')}")
        files = read_landed_files() or [sample_file()]
        print(f"{count_records(files)} records from {', '.join(file['key'] for file in files)}")
        return store_files(ti, "extracted", files)

    @task(**IN_A_POD)
    def validate_data(extracted: Reference, ti: Any, params: Mapping[str, Any]) -> Reference:
        """Store the good records. Raise AirflowFailException when too few are good."""
        files = refuse_bad(load_files(extracted), params["min_valid"])
        return store_files(ti, "valid", files)

    @task(**IN_A_POD)
    def transform_data(valid: Reference, ti: Any) -> Reference:
        """Store the good records, each with its revenue category."""
        files = load_files(valid)
        for file in files:
            file["records"] = [categorise(record) for record in file["records"]]
        return store_files(ti, "transformed", files)

    @task(**IN_A_POD, outlets=[SALES_WAREHOUSE])
    def load_to_warehouse(transformed: Reference, ti: Any, outlet_events: Any) -> int:
        """Replace the warehouse by these records, and write their lineage."""
        files = load_files(transformed)
        content = render_warehouse(files)
        lab_bucket.write(f"{results_folder(ti)}/{WAREHOUSE}", content)
        lab_bucket.write(
            f"{results_folder(ti)}/{LINEAGE}", render_lineage(ti.run_id, files, content)
        )
        outlet_events[SALES_WAREHOUSE].extra = {
            "run_id": ti.run_id,
            "records": count_records(files),
        }
        return count_records(files)

    @task
    def send_notification(records: int, ti: Any) -> str:
        """Notify the owner of the number of records, and delete old runs' records."""
        where = results_folder(ti)
        delete_old_runs(f"{where}/{RUNS}/")
        text = f"{records} records are in the warehouse, made of what {LINEAGE} says: {where}/"
        return tell(ti.dag_id, ti.run_id, [OWNER], f"{ti.dag_id}: {records} records", text)

    extracted = extract_sales_data()
    records = load_to_warehouse(transform_data(validate_data(extracted)))
    send_notification(records)
