"""The rules of sales_pipeline: the format of a file, valid records, pauses between retries."""

from __future__ import annotations

import csv
import importlib
import io
import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.support.dag_tasks import with_plugins

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def sales(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Yield the module of the DAG, imported as the DAG processor imports it."""
    with with_plugins(tmp_path_factory, STEP_RUNTIME="process"):
        yield importlib.import_module("sales_pipeline")


def record(id: str = "1", amount: str | None = "10", city: str = "Rome") -> dict[str, Any]:  # noqa: A002
    return {"id": id, "amount": amount, "city": city}


def file(key: str, *records: dict[str, Any]) -> Any:
    return {"key": key, "etag": "e", "records": list(records)}


# --- Files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "id,amount,city\n1,10,Rome\n",
        "id,amount,city\r\n1,10,Rome",
        "\ufeffid,amount,city\n1,10,Rome\n\n",
        'city,note,id,amount\nRome,"a, b\nc",1,10\n',
        "id;amount;city\r\n1;10;Rome\r\n",
    ],
)
def test_columns_are_found_by_name(sales: ModuleType, text: str) -> None:
    assert sales.parse_rows("a.csv", text.encode()) == [record()]


def test_a_file_with_a_header_only_has_no_records(sales: ModuleType) -> None:
    assert sales.parse_rows("a.csv", b"id,amount,city\n") == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"id,amount,city\n1,10,\xff\n", "byte 0xFF at offset 20, in line 2, is not UTF-8"),
        (b'id,amount,city\n1,10,"Rome', "a quote in the record of line 2 is never closed"),
        (b"PK\x03\x04\x00\x00", "has a NUL byte at offset 4"),
        (b"id,name\n1,x\n", "has no column amount and no column city"),
        (b"id,amount,amount,city\n1,250,999,NYC\n", "has more than one column amount"),
        (b"id,sum,city\n1,10,Rome\n", "has no column amount"),
        (b"", "is empty"),
    ],
)
def test_an_unreadable_file_is_named(sales: ModuleType, content: bytes, why: str) -> None:
    with pytest.raises(sales.AirflowFailException, match=f"a.csv: {why}"):
        sales.parse_rows("a.csv", content)


@pytest.mark.parametrize("row", ["1,10", "1", "1,10,Rome,more"])
def test_a_row_of_another_length_is_a_bad_record(sales: ModuleType, row: str) -> None:
    (found,) = sales.parse_rows("a.csv", f"id,amount,city\n{row}\n".encode())
    assert sales.find_flaw(found, ()) == "it has not the columns of the header"


# --- Records ------------------------------------------------------------------------------------


@pytest.mark.parametrize("amount", ["1", "0.01", "100", "999999999999999.999999", "007"])
def test_an_amount_above_zero_is_good(sales: ModuleType, amount: str) -> None:
    assert sales.find_flaw(record(amount=amount), {"2"}) is None


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (record(amount="0"), "not above 0"),
        (record(amount="-3"), "not above 0"),
        (record(amount="0.000"), "not above 0"),
        (record(amount=""), "no number"),
        (record(amount="NaN"), "no number"),
        (record(amount="inf"), "no number"),
        (record(amount="1e999999"), "no number"),
        (record(amount="1,5"), "no number"),
        (record(amount="٣"), "no number"),
        (record(amount="1\n"), "no number"),
        (record(id=" "), "no id"),
        (record(id="2"), "not unique"),
        (record(amount=None), "columns"),
    ],
)
def test_a_bad_record_is_known_by_its_flaw(
    sales: ModuleType, bad: dict[str, Any], why: str
) -> None:
    assert why in sales.find_flaw(bad, {"2"})


def test_bad_records_are_left_out_while_they_are_few(sales: ModuleType) -> None:
    good = [record(str(number)) for number in range(19)]
    (left,) = sales.refuse_bad([file("a.csv", *good, record("0"))], 0.95)
    assert left["records"] == good


def test_too_many_bad_records_in_one_file_refuse_all_and_are_counted(sales: ModuleType) -> None:
    good = file("a.csv", *(record(str(number)) for number in range(1000)))
    bad = file("b.csv", record("x"), record("y", "-1"), record("5"))
    with pytest.raises(sales.AirflowFailException) as refused:
        sales.refuse_bad([good, bad], 0.95)
    assert str(refused.value) == (
        "b.csv: 1 of 3 records are valid, at least 95.0% must be "
        "(record 2: its amount -1 is not above 0)"
    )


def test_the_share_is_exact(sales: ModuleType) -> None:
    for total in range(1, 400):
        bad = total * 5 // 100
        records = [record(str(n), "-1" if n < bad else "1") for n in range(total)]
        assert sales.refuse_bad([file("a.csv", *records)], 0.95)
        records[bad]["amount"] = "-1"
        with pytest.raises(sales.AirflowFailException):
            sales.refuse_bad([file("a.csv", *records)], 0.95)


@pytest.mark.parametrize(
    ("amount", "category"),
    [("0.5", "low"), ("100", "low"), ("100.01", "medium"), ("500", "medium"), ("500.01", "high")],
)
def test_the_category_of_an_amount(sales: ModuleType, amount: str, category: str) -> None:
    assert sales.categorise(record(amount=amount))["revenue_category"] == category


def test_the_warehouse_brings_back_every_record(sales: ModuleType) -> None:
    odd = record('a"b', "1.50", "Saint-Étienne, Loire\nFrance")
    content = sales.render_warehouse([file("a.csv", sales.categorise(odd)), file("b.csv")])
    assert list(csv.DictReader(io.StringIO(content.decode()))) == [
        {**odd, "revenue_category": "low"}
    ]


# --- Retries ------------------------------------------------------------------------------------


def test_the_pauses_between_attempts_grow_up_to_a_limit(sales: ModuleType) -> None:
    """Airflow itself computes them here."""
    from airflow.models.taskinstance import TaskInstance

    task = sales.extracted.operator
    known = {"dag_id": "sales_pipeline", "task_id": task.task_id, "logical_date": None}
    pauses: list[timedelta] = [
        TaskInstance.next_retry_datetime(
            SimpleNamespace(
                **known, task=task, try_number=attempt, end_date=NOW, retry_delay_override=None
            )
        )
        - NOW
        for attempt in range(1, 8)
    ]
    limit = timedelta(seconds=10)
    assert all(earlier < later or later == limit for earlier, later in itertools.pairwise(pauses))
    assert pauses[0] < pauses[1] < pauses[2] <= limit
    assert pauses[-1] == limit


def test_each_task_is_tried_again_and_may_not_run_for_ever(sales: ModuleType) -> None:
    dag = sales.extracted.operator.dag
    assert len(dag.tasks) == 5
    for task in dag.tasks:
        assert task.retries == 3
        assert task.execution_timeout == timedelta(minutes=5)
