"""Whether Kubernetes would take the objects of a rendering, by its own schemas and no cluster."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from kubernetes_validate.utils import all_versions, major_minor, schema_contents
from packaging.version import Version
from referencing import Registry, Resource

from eks.difference import CONFIG_MAP, TEMPLATE, name_of, taken_apart

SCHEMAS = "kubernetes-json-schema/v{version}-local-strict/{file}.json"
GROUP = re.compile(r"^([^./]*)(?:\.[^/]*)?/")  # of an apiVersion; the files lack its domain
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What Kubernetes would say of the objects."""

    valid: int
    refused: tuple[str, ...]  # object, field and why, a line each
    unknown: tuple[str, ...]  # objects of kinds that Kubernetes itself does not have


def judge(objects: Iterable[Object], kubernetes: str) -> Verdict:
    """Each object held against the schema of its kind; unknown fields are refused, too."""
    valid, refused, unknown = 0, [], []
    for entry in [part for given in objects for part in parts(given)]:
        schema = validator(entry["kind"], entry["apiVersion"], nearest(kubernetes))
        if schema is None:
            unknown.append(name_of(entry))
        elif error := best_match(schema.iter_errors(entry)):
            refused.append(
                f"{name_of(entry)} {error.json_path.removeprefix('$.')}: {error.message}"
            )
        else:
            valid += 1
    return Verdict(valid, tuple(refused), tuple(unknown))


def parts(entry: Object) -> list[Object]:
    """The object; and beside the chart's ConfigMap the pod which Airflow makes from it."""
    return [entry, taken_apart(entry)[TEMPLATE]] if name_of(entry) == CONFIG_MAP else [entry]


@functools.cache
def nearest(kubernetes: str) -> str:
    """The newest version that there are schemas of, and that is not newer than this one."""
    known = [v for v in all_versions() if Version(major_minor(v)) <= Version(kubernetes)]
    return str(known[-1])


@functools.cache
def validator(kind: str, api_version: str, version: str) -> Draft202012Validator | None:
    """What tells whether an object is of this kind; None for a kind without a schema."""
    group = GROUP.sub(r"\1-", api_version)
    file = f"{kind.lower()}-{group}"
    try:
        schema = schema_contents(SCHEMAS.format(version=version, file=file), version)
    except FileNotFoundError:
        return None
    return Draft202012Validator(schema, registry=definitions(version))


@functools.cache
def definitions(version: str) -> Registry[Any]:
    """What all schemas of a version refer to: large, so read once."""
    shared = schema_contents(SCHEMAS.format(version=version, file="_definitions"), version)
    return Resource.from_contents(shared) @ Registry()
