"""Which pods have which role, on kind and on EKS: `manifests/base/associations.yaml`.

What can't be right is refused when the file is read, which is before anything is applied.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lab.cluster.workloads import AIRFLOW
from lab.errors import AssociationError

FILE = Path("manifests", "base", "associations.yaml")
ACCOUNTS = Path("manifests", "base", "service-accounts.yaml")  # of the namespace `airflow`
POLICIES = Path("eks", "policies")
LINE = "line of the file"  # a key that no file can have: keys are words there
WORDS = {
    "policies": {"role", "policy"},
    "associations": {"namespace", "serviceAccount", "role"},
}
OPTION = "option"
NAME = re.compile(r"[a-z][a-z0-9]{2,30}")  # of a role or policy: a part of names in AWS and MinIO

Entry = Mapping[str, Any]


@dataclass(frozen=True)
class Role:
    """A role, its policies, and the service accounts whose pods have it."""

    name: str
    policies: tuple[str, ...]  # files of `eks/policies/`, without .json
    accounts: tuple[str, ...]  # in the namespace `airflow`


class Lines(yaml.SafeLoader):
    """Reads YAML, and gives each mapping the number of its line."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        return {**super().construct_mapping(node, deep), LINE: node.start_mark.line + 1}


def read_roles(kit: Path, options: Collection[str] = ()) -> list[Role]:
    """Return the roles that some service account has, with these options. Raises AssociationError.

    Every entry is checked, also those of options that are off.
    """
    policies, associations = read_tables(kit)
    refuse_missing_policies(kit, policies)
    refuse_wrong_associations(kit, policies, associations)
    given: dict[str, list[str]] = {}
    for entry in select(associations, options):
        given.setdefault(entry["role"], []).append(entry["serviceAccount"])
    return [
        Role(name, tuple(list_policies(policies, name, options)), tuple(accounts))
        for name, accounts in given.items()
    ]


def list_accounts(roles: Iterable[Role]) -> list[str]:
    """Return the service accounts whose pods have a role."""
    return [account for role in roles for account in role.accounts]


def select(entries: Iterable[Entry], options: Collection[str | None]) -> list[Entry]:
    """Return the entries that count where these options are on."""
    return [entry for entry in entries if entry.get(OPTION) in (None, *options)]


def list_policies(
    policies: Iterable[Entry], role: str, options: Collection[str | None]
) -> list[str]:
    return [entry["policy"] for entry in select(policies, options) if entry["role"] == role]


def read_tables(kit: Path) -> tuple[list[Entry], list[Entry]]:
    """Return the entries of both tables, each with its line. Raises AssociationError."""
    try:
        text = (kit / FILE).read_text("utf-8")
        content = yaml.load(text, Loader=Lines)  # noqa: S506 - a SafeLoader that counts lines
        tables = [list(content[name]) for name in WORDS]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise AssociationError(f"{FILE} can't be read: {error}", "correct it") from error
    for (name, words), entries in zip(WORDS.items(), tables, strict=True):
        for entry in entries:
            refuse_other_words(name, words, entry)
    return tables[0], tables[1]


def refuse_other_words(table: str, words: set[str], entry: Any) -> None:
    """Raise AssociationError unless the entry has these words, each with a text, and no other."""
    if not isinstance(entry, dict):
        raise AssociationError(f"{FILE}: {entry!r} of {table} is no mapping", f"give it {words}")
    for word in sorted(words):
        if not isinstance(entry.get(word), str) or not entry[word]:
            raise entry_error(entry, f"the entry of {table} names no {word}", f"name its {word}")
    for word in sorted(words & {"role", "policy"}):
        if not NAME.fullmatch(entry[word]):
            fix = "use three to 31 small letters and digits"
            raise entry_error(entry, f"{entry[word]} is no name of a {word}", fix)
    if odd := sorted(map(str, set(entry) - words - {OPTION, LINE})):
        raise entry_error(entry, f"{odd[0]} is no word of {table}", "leave it out")


def refuse_missing_policies(kit: Path, policies: Iterable[Entry]) -> None:
    """Raise AssociationError for a policy of which there is no document."""
    for entry in policies:
        document = POLICIES / f"{entry['policy']}.json"
        if not (kit / document).is_file():
            raise entry_error(entry, f"there is no {document}", "write it, or name another policy")


def refuse_wrong_associations(kit: Path, policies: list[Entry], associations: list[Entry]) -> None:
    """Raise AssociationError for an association that gives nobody anything, or two things."""
    known, lines = read_accounts(kit), dict[str, int]()
    for entry in associations:
        account, role = entry["serviceAccount"], entry["role"]
        if not list_policies(policies, role, [entry.get(OPTION)]):
            raise entry_error(entry, f"the role {role} has no policy", f"give {role} one, above")
        if entry["namespace"] != AIRFLOW or account not in known:
            where = f"{entry['namespace']}/{account}"
            raise entry_error(
                entry,
                f"there is no service account {where}",
                f"choose one of {', '.join(sorted(known))} in {AIRFLOW}, or add it to {ACCOUNTS}",
            )
        if account in lines:
            what = f"{account} has a role already, by line {lines[account]}"
            raise entry_error(entry, what, "leave one of the two out")
        lines[account] = entry[LINE]


def read_accounts(kit: Path) -> set[str]:
    """Return the names of the service accounts that the manifests make."""
    found = yaml.safe_load_all((kit / ACCOUNTS).read_text("utf-8"))
    return {one["metadata"]["name"] for one in found}


def entry_error(entry: Entry, what: str, fix: str) -> AssociationError:
    return AssociationError(f"{FILE}, line {entry[LINE]}: {what}", fix)
