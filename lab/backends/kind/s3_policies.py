"""AWS's documents of a role's policies, translated for MinIO: they mean the same there.

They are translated by nothing else, and what can't be translated is refused. On AWS a role may do
what its documents allow and no more; MinIO lets every key change its own secret and make more keys
with its rights unless that is denied, so each translation ends with that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

from lab.cluster.associations import POLICIES, Role
from lab.errors import AssociationError

PARTITION = "aws"
WORDS = {"Sid", "Effect", "Action", "Resource", "Condition"}
OPERATORS = {"StringLike", "StringEquals", "StringNotLike", "StringNotEquals", "Null"}
KEYS = {"s3:prefix", "s3:delimiter"}  # that a condition may name: MinIO and AWS have both
IF_EXISTS = "IfExists"  # the end of an operator that MinIO does not have
ADMINISTRATION = {"Effect": "Deny", "Action": ["admin:*"]}

Statement = dict[str, Any]


def read_role_policy(kit: Path, role: Role, bucket: str) -> dict[str, Any]:
    """Return all documents of a role as one policy for MinIO. Raises AssociationError."""
    statements = [
        made for name in role.policies for made in translate_file(kit, f"{name}.json", bucket)
    ]
    return {"Version": "2012-10-17", "Statement": [*statements, ADMINISTRATION]}


def translate_file(kit: Path, name: str, bucket: str) -> list[Statement]:
    """Return the statements of a file of `eks/policies/`. Raises AssociationError."""
    text = (kit / POLICIES / name).read_text("utf-8")
    try:
        content = json.loads(Template(text).substitute(partition=PARTITION, bucket=bucket))
        return translate(content["Statement"])
    except (ValueError, KeyError, TypeError) as error:
        raise AssociationError(
            f"{POLICIES / name} can't be translated for MinIO: {error}",
            "write it as lab/backends/kind/s3_policies.py can translate it",
        ) from error


def translate(statements: Iterable[Mapping[str, Any]]) -> list[Statement]:
    """Return statements that mean the same on MinIO. Raises ValueError for what has no such."""
    return [made for one in statements for made in translate_statement(one)]


def translate_statement(one: Mapping[str, Any]) -> list[Statement]:
    """Return a statement as one or more for MinIO: one for each way to meet its conditions."""
    if odd := sorted(set(one) - WORDS):
        raise ValueError(f"a statement has {odd[0]}")
    plain = {
        "Effect": one["Effect"],
        "Action": as_list(one["Action"]),
        "Resource": as_list(one["Resource"]),
    }
    for action in plain["Action"]:
        if not action.startswith("s3:"):
            raise ValueError(f"{action} is no action of S3")
    ways = list_ways(one.get("Condition", {}))
    return [{**plain, **({"Condition": way} if way else {})} for way in ways]


def list_ways(condition: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the conditions of which one must be met: a pair of operator and key has one or two."""
    pairs = [
        alternatives(operator, key, as_list(values))
        for operator, tests in condition.items()
        for key, values in tests.items()
    ]
    return [merge_tests(way) for way in product(*pairs)]


def alternatives(operator: str, key: str, values: list[str]) -> list[tuple[str, str, list[str]]]:
    """Return a test as those that MinIO has: a request without the key meets `IfExists`, too."""
    plain = operator.removesuffix(IF_EXISTS)
    if plain not in OPERATORS or key not in KEYS:
        raise ValueError(f"a condition has {operator} of {key}")
    tests = [(plain, key, values)]
    return tests if plain == operator else [*tests, ("Null", key, ["true"])]


def merge_tests(tests: Iterable[tuple[str, str, list[str]]]) -> dict[str, Any]:
    """Return the tests as one condition. Raises ValueError for two of one operator and key."""
    merged: dict[str, Any] = {}
    for operator, key, values in tests:
        if key in merged.setdefault(operator, {}):
            raise ValueError(f"a condition has {operator} of {key} twice")
        merged[operator][key] = values
    return merged


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
