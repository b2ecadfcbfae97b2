"""Datasets as other programs write them: a run appends to them, or says what can't be right."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest

from tests.support.steps import STEPS
from tests.support.stores import md5_of

if TYPE_CHECKING:
    from tests.support.stores import Project

# What somebody pushes, and what a run appends to it.
TAKEN = {
    "a byte order mark, no final newline": (
        b"\xef\xbb\xbfid,name\n1,a\n2,a\n3,a",
        b"\n4,a",
    ),
    "a quoted newline": (
        b'id,comment\n1,"first line\nsecond, line"\n',
        b'2,"first line\nsecond, line"\n',
    ),
    "semicolons, CRLF, padded keys": (b'"nr_id";"x"\r\n"000124";1,5\r\n', b'"000125";1,5\r\n'),
    "a polygon of 170 kB": (
        b'id,shape\n1,"POLYGON ((' + b"1 2, " * 34_000 + b'1 2))"\n',
        b'2,"POLYGON ((' + b"1 2, " * 34_000 + b'1 2))"\n',
    ),
    "one column without a key": (b"word\nhello\n", b"hello\n"),
}


def test_a_run_appends_a_record_in_the_dialect_of_the_file(project: Project) -> None:
    for name, (content, record) in TAKEN.items():
        project.replace_dataset(content)
        run = project.run()
        output = run.run_steps(*STEPS)
        newest = project.list_commits()[-1]
        assert newest.trailers["Run-Id"] == run.id
        assert project.stores.read_object(newest.md5) == content + record, name
        assert newest.md5 == md5_of(content + record)
        assert "counted on" in output
        assert len(output) < 10_000, "a log that nobody can read"


def test_the_column_that_is_told_is_counted_on_after_a_race_too(project: Project) -> None:
    content = b"customer_id,order_id\n7,0041\n8,0042\n"
    project.replace_dataset(content)
    run = project.run()
    told = {"KEY_COLUMN": "order_id"}
    assert [run.run_step(step, **told).code for step in ("pull", "modify")] == [0, 0]
    project.replace_dataset(content + b"9,0099\n")
    assert run.run_step("publish", **told).code == 0
    newest = project.stores.read_object(project.list_commits()[-1].md5)
    (*_, record) = csv.reader(io.StringIO(newest.decode()))
    assert record[1] == "0100"


@pytest.mark.parametrize(
    ("content", "env", "why"),
    [
        (b"id,name\n" + b"1,a\n" * 50 + b"2\n", {}, "line 52 has 1 fields, the header 2"),
        (b"id,name\n1,M\xfcller\n", {}, "byte 0xFC at offset 11, in line 2, is not UTF-8"),
        (b"1,2\n3,4\n", {}, "has no header"),
        (b"id,name\n1,a\n", {"KEY_COLUMN": "nr"}, "has no column nr: it has id, name"),
    ],
)
def test_what_can_not_be_right_fails_each_run_at_once(
    project: Project, content: bytes, env: dict[str, str], why: str
) -> None:
    """Such a file came with a push: `lab up --dataset` refuses it by the same words."""
    project.replace_dataset(content)
    before = project.tip()
    run = project.run()
    run.run_steps("pull")
    assert why in run.expect_refusal("modify", **env)
    assert project.tip() == before
