"""What a plan warns of, and what it says that no apply brings."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eks import advice, environment
from eks.cluster_choices import Choices
from eks.environment import Environment

WHOLE = Choices(
    nat_per_zone=True,
    public_access_cidrs=("203.0.113.0/24",),
    sizes={"airflow": {"volumeSize": 80}},
)
NETWORK = Choices(vpc={"id": "vpc-1", "private": {"a": "subnet-1", "b": "subnet-2"}})


@pytest.fixture
def production() -> Environment:
    """Return a production that lacks nothing."""
    found = environment.load("production")
    return replace(found, options=("rds", "ingress", "oidc"), choices=WHOLE)


def test_nothing_is_said_of_a_production_that_has_all(production: Environment) -> None:
    assert advice.list_warnings(production) == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("rds", ["database is one pod", "nothing copies"]),
        ("ingress", ["no TLS"]),
        ("oidc", ["no single sign-on"]),
    ],
)
def test_each_option_that_production_lacks_is_named(
    production: Environment, option: str, words: list[str]
) -> None:
    lacking = tuple(one for one in production.options if one != option)
    found = advice.list_warnings(replace(production, options=lacking))
    assert len(found) == len(words)
    assert all(word in line for word, line in zip(words, found, strict=True))


def test_one_gateway_and_unsigned_attestations_are_named(production: Environment) -> None:
    (line,) = advice.list_warnings(replace(production, choices=Choices()))
    assert "nat_per_zone" in line
    assert advice.list_warnings(replace(production, choices=NETWORK)) == [], "its own affair"
    (line,) = advice.list_warnings(replace(production, attestation_key=""))
    assert "attestation_key" in line
    (line,) = advice.list_warnings(replace(production, untested_images=True))
    assert "untested_images" in line


def test_staging_is_not_warned() -> None:
    assert advice.list_warnings(environment.load("staging")) == []


@pytest.mark.parametrize(
    ("changed", "said", "unsaid"),
    [
        ({}, ["not scaled", "[sizes.GROUP]", "public_access_cidrs", "[vpc]"], ["gateway endpoint"]),
        ({"choices": WHOLE}, ["not scaled", "[vpc]"], ["sizes", "public_access_cidrs"]),
        ({"choices": NETWORK}, ["gateway endpoint"], ["[vpc]"]),
        ({"make_cluster": False}, ["gateway endpoint"], ["[vpc]", "sizes", "public_access_cidrs"]),
    ],
)
def test_what_no_apply_brings_depends_on_what_is_chosen(
    changed: dict[str, object], said: list[str], unsaid: list[str]
) -> None:
    chosen = replace(environment.load("staging"), **changed)  # type: ignore[arg-type]
    shown = "\n".join(advice.find_omissions(chosen))
    assert "eks -- policy" in shown
    assert all(word in shown for word in said)
    assert not any(word in shown for word in unsaid)
