"""The table of differences: allowed ones in short, others in full."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from eks import tables
from eks.difference import Difference
from eks.site import Row

DEPLOYMENTS = ("Deployment/airflow/api", "Deployment/airflow/triggerer", "StatefulSet/airflow/s")
KEY = "spec.template.spec.{}[{}].env[KEY]"


def draw_table(*judged: tuple[Difference, str | None]) -> str:
    console = Console(width=160, highlight=False, file=io.StringIO(), record=True)
    console.print(tables.render_differences(judged))
    return console.export_text()


def test_what_is_the_same_in_many_containers_and_objects_stands_once() -> None:
    rows = [
        Difference(name, KEY.format(field, name.rpartition("/")[2]), "a secret", None)
        for name in DEPLOYMENTS
        for field in ("containers", "initContainers")
    ]
    shown = draw_table(*((row, "no keys") for row in rows))
    assert shown.count("containers[…].env[KEY]") == 1 and shown.count("a secret") == 1
    assert "Deployment/airflow/api, triggerer" in shown and "StatefulSet/airflow/s" in shown
    assert "no keys (6)" in shown


def test_of_many_fields_of_one_object_the_first_are_shown() -> None:
    rows = [Difference("ConfigMap/a/b", f"data.k{n}", str(n), None) for n in range(9)]
    shown = draw_table(*((row, "because") for row in rows))
    assert "data.k3" in shown and "data.k4" not in shown and "… and 5 more" in shown
    assert shown.count("ConfigMap/a/b") == 1


def test_what_is_not_allowed_is_shown_whole_and_first_as_it_was_given() -> None:
    rows = [Difference(name, KEY.format("containers", "c"), "x", str(n)) for n, name in
            enumerate(DEPLOYMENTS * 4)]  # fmt: skip
    shown = draw_table(*((row, None) for row in rows))
    assert shown.count("spec.template.spec.containers[c].env[KEY]") == len(rows)
    assert "NOT ALLOWED by eks/promotion.yaml (12)" in shown


def test_no_difference_is_said_to_be_none() -> None:
    assert "none" in draw_table()


def test_a_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    assert "[red]x[/red]" in draw_table((Difference("a", "b", "[red]x[/red]", "[/]"), "r"))


@pytest.mark.parametrize(
    ("one", "other", "left", "right"),
    [
        ("a", None, "a", "—"),
        ("a\n  b", "a b c", "a b", "a b c"),
        ("x" * 100, "x" * 56, "…" + "x" * 56, "x" * 56),
    ],
)
def test_values_are_shown_in_a_line(one: str, other: str | None, left: str, right: str) -> None:
    assert tables.shorten_pair(one, other) == (left, right)


def test_long_values_are_shown_from_where_they_begin_to_differ() -> None:
    same, rest = "s" * 200, "r" * 200
    left, right = tables.shorten_pair(f"{same}ONE{rest}", f"{same}TWO{rest}")
    assert left.startswith("…") and left.endswith("…") and len(left) == tables.MOST_LETTERS + 2
    assert "sONEr" in left and "sTWOr" in right


def test_what_is_made_is_listed_with_what_it_costs() -> None:
    console = Console(width=160, file=io.StringIO(), record=True)
    rows = [Row("S3 bucket", "a-bucket", "private", "GB-months"), Row("IAM role", "r", "trusts")]
    console.print(tables.render_resources(rows))
    shown = console.export_text()
    assert all(
        text in shown for text in ("S3 bucket", "a-bucket", "private", "GB-months", "trusts")
    )
