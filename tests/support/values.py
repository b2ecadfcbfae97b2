"""The chart's values, and the secrets that a rendering writes out."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from tests.support.renderings import Object, find_object, read_chart_file

SECRET = re.compile("passw|secret|token|key|credential|connection", re.IGNORECASE)
# Names of Secrets, of their entries and of files are no secrets.
REFERENCE = re.compile(
    r"(^|/)(secretName|\w+SecretName|credentialsSecret|sshKeySecret|secret/secretKey|\w+_KEY_FILE)$"
    r"|/(secretKeyRef|matchExpressions|podAffinityTerm)/|/checksum/"
    r"|(tolerations|items|remoteRef|extract)/key$|^spec/data/secretKey$"
    r"|topologySpreadConstraints/(topologyKey|matchLabelKeys)$"
)
HARMLESS = {
    "GITEA__security__PASSWORD_HASH_ALGO",
    "GITEA__server__SSH_SERVER_HOST_KEYS",  # the file's path
    "keytab",
}
KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
Place = tuple[str, ...]


@functools.cache
def strict_schema() -> Object:
    """Return the chart's own schema, which here also refuses keys that it does not describe."""
    found: Object = json.loads(read_chart_file("values.schema.json"))
    return {
        **close_schema(found),
        "definitions": found["definitions"],
        "additionalProperties": False,
    }


def close_schema(part: Any) -> Any:
    """Return a part of a schema with `additionalProperties: false` wherever it has properties."""
    if isinstance(part, list):
        return [close_schema(item) for item in part]
    if not isinstance(part, dict):
        return part
    inner = {key: value if key == "default" else close_schema(value) for key, value in part.items()}
    describes = isinstance(part.get("properties"), dict) and "type" in part
    return {"additionalProperties": False, **inner} if describes else inner


def check_values(found: object) -> None:
    """Raise ValidationError unless the chart takes these values."""
    jsonschema.Draft7Validator(strict_schema()).validate(found)


def find_scalars(part: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Yield each value that is neither a mapping nor a list, after the keys that lead to it.

    An environment variable's value comes under the variable's name, too.
    """
    if isinstance(part, list):
        for item in part:
            yield from find_scalars(item, place)
    elif isinstance(part, dict):
        if "name" in part and "value" in part:
            yield (*place, str(part["name"])), part["value"]
        for key, value in part.items():
            yield from find_scalars(value, (*place, str(key)))
    else:
        yield place, part


def find_exposed(part: object) -> list[Place]:
    """List the places at which a secret's value is written out."""
    return [
        place
        for place, value in find_scalars(part)
        if isinstance(value, str) and value and place and is_secret(place)
    ]


def is_secret(place: Place) -> bool:
    refers = REFERENCE.search("/".join(place)) or place[-1] in HARMLESS
    return not refers and bool(SECRET.search(place[-1]))


def step_variables(name: str) -> set[str]:
    """Return the variables that a rendering's PodTemplate sets or takes from its ConfigMap."""
    container = find_object("PodTemplate", "step", name)["template"]["spec"]["containers"][0]
    maps = [source["configMapRef"]["name"] for source in container["envFrom"]]
    given = {key for each in maps for key in find_object("ConfigMap", each, name)["data"]}
    return given | {variable["name"] for variable in container["env"]}
