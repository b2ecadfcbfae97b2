"""Validation of rendered objects against Kubernetes' own schemas, without a cluster."""

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

from eks.difference import CONFIG_MAP, TEMPLATE, object_name, parse_config_map

SCHEMAS = "kubernetes-json-schema/v{version}-local-strict/{file}.json"
GROUP = re.compile(r"^([^./]*)(?:\.[^/]*)?/")  # of an apiVersion; file names omit its domain
Object = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """The result of the validation."""

    valid: int
    refused: tuple[str, ...]  # one line each: object, field and reason
    unknown: tuple[str, ...]  # objects of kinds that are not built into Kubernetes


def validate_objects(objects: Iterable[Object], kubernetes: str) -> Verdict:
    """Validate each object against the schema of its kind; unknown fields are refused, too."""
    valid, refused, unknown = 0, [], []
    for entry in [part for given in objects for part in expand_object(given)]:
        schema = find_validator(entry["kind"], entry["apiVersion"], nearest_version(kubernetes))
        if schema is None:
            unknown.append(object_name(entry))
        elif error := best_match(schema.iter_errors(entry)):
            refused.append(
                f"{object_name(entry)} {error.json_path.removeprefix('$.')}: {error.message}"
            )
        else:
            valid += 1
    return Verdict(valid, tuple(refused), tuple(unknown))


def expand_object(entry: Object) -> list[Object]:
    """Return the object, and for the chart's ConfigMap also the pod template in it."""
    return (
        [entry, parse_config_map(entry)[TEMPLATE]] if object_name(entry) == CONFIG_MAP else [entry]
    )


@functools.cache
def nearest_version(kubernetes: str) -> str:
    """Return the newest version with schemas that is not newer than `kubernetes`."""
    known = [v for v in all_versions() if Version(major_minor(v)) <= Version(kubernetes)]
    return str(known[-1])


@functools.cache
def find_validator(kind: str, api_version: str, version: str) -> Draft202012Validator | None:
    """Return the validator for objects of this kind; None for a kind without a schema."""
    group = GROUP.sub(r"\1-", api_version)
    file = f"{kind.lower()}-{group}"
    try:
        schema = schema_contents(SCHEMAS.format(version=version, file=file), version)
    except FileNotFoundError:
        return None
    return Draft202012Validator(schema, registry=load_definitions(version))


@functools.cache
def load_definitions(version: str) -> Registry[Any]:
    """Load the definitions that all schemas of a version refer to; large, so cached."""
    shared = schema_contents(SCHEMAS.format(version=version, file="_definitions"), version)
    return Resource.from_contents(shared) @ Registry()
