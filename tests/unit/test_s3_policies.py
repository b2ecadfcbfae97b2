"""AWS's policies of the roles, translated for MinIO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lab.backends.kind.s3_policies import ADMINISTRATION, read_role_policy, translate
from lab.cluster.associations import POLICIES, Role, read_roles
from lab.config import KIT
from lab.errors import AssociationError

READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/store/*"}
LISTS = {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": "arn:aws:s3:::b"}


def test_words_and_lists_become_lists_and_names_go() -> None:
    assert translate([{"Sid": "Any", **READ}]) == [
        {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::b/store/*"]}
    ]


def test_a_condition_that_counts_if_its_key_exists_becomes_two_statements() -> None:
    given = {**LISTS, "Condition": {"StringLikeIfExists": {"s3:prefix": "store/*"}}}
    assert [one["Condition"] for one in translate([given])] == [
        {"StringLike": {"s3:prefix": ["store/*"]}},
        {"Null": {"s3:prefix": ["true"]}},
    ]


def test_two_such_conditions_become_each_combination() -> None:
    condition = {
        "StringLikeIfExists": {"s3:prefix": ["a/*", "b/*"]},
        "StringEqualsIfExists": {"s3:delimiter": "/"},
    }
    like, equal = {"s3:prefix": ["a/*", "b/*"]}, {"s3:delimiter": ["/"]}
    assert [one["Condition"] for one in translate([{**LISTS, "Condition": condition}])] == [
        {"StringLike": like, "StringEquals": equal},
        {"StringLike": like, "Null": {"s3:delimiter": ["true"]}},
        {"Null": {"s3:prefix": ["true"]}, "StringEquals": equal},
        {"Null": {"s3:prefix": ["true"], "s3:delimiter": ["true"]}},
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({**READ, "NotAction": "s3:PutObject"}, "a statement has NotAction"),
        ({**READ, "Principal": "*"}, "a statement has Principal"),
        ({**READ, "Action": ["s3:GetObject", "ecr:GetImage"]}, "ecr:GetImage is no action of S3"),
        ({**READ, "Condition": {"Bool": {"aws:SecureTransport": "true"}}}, "Bool of aws:Secure"),
        ({**LISTS, "Condition": {"StringLike": {"s3:max-keys": "1"}}}, "StringLike of s3:max-keys"),
        (
            {
                **LISTS,
                "Condition": {
                    "StringLikeIfExists": {"s3:prefix": "a"},
                    "StringLike": {"s3:prefix": "b"},
                },
            },
            "StringLike of s3:prefix twice",
        ),
    ],
)
def test_what_has_no_translation_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        translate([given])


def test_a_file_that_can_t_be_translated_is_named(tmp_path: Path) -> None:
    folder = tmp_path / POLICIES
    folder.mkdir(parents=True)
    (folder / "mine.json").write_text('{"Statement": [{"Effect": "${aws:username}"}]}')
    with pytest.raises(AssociationError, match=r"policies/mine\.json can't be translated"):
        read_role_policy(tmp_path, Role("mine", ("mine",), ()), "b")


@pytest.mark.parametrize("role", read_roles(KIT, ["remote-logs"]), ids=lambda role: role.name)
def test_each_role_of_the_kit_has_a_translation(role: Role) -> None:
    made = read_role_policy(KIT, role, "of-a-lab")
    *statements, last = made["Statement"]
    assert last == ADMINISTRATION
    assert statements
    assert all(one.startswith("arn:aws:s3:::of-a-lab") for s in statements for one in s["Resource"])
