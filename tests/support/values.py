"""The chart's values, and what a rendering exposes."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema

from tests.support.renderings import Object, packed, the

SECRET = re.compile("passw|secret|token|key|credential|connection", re.IGNORECASE)
# Names of Secrets, of entries in them, and of files, are no secrets.
REFERENCE = re.compile(
    r"(^|/)(secretName|\w+SecretName|credentialsSecret|sshKeySecret|secret/secretKey|\w+_KEY_FILE)$"
    r"|/(secretKeyRef|matchExpressions|podAffinityTerm)/|/checksum/"
    r"|(tolerations|items|remoteRef|extract)/key$|^spec/data/secretKey$"
    r"|topologySpreadConstraints/(topologyKey|matchLabelKeys)$"
)
HARMLESS = {
    "GITEA__security__PASSWORD_HASH_ALGO",
    "GITEA__server__SSH_SERVER_HOST_KEYS",  # where the file is
    "keytab",
}
KEYS = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
Place = tuple[str, ...]


@functools.cache
def schema() -> Object:
    """The chart's own schema; unlike there, an object that has names has no others."""
    found: Object = json.loads(packed("values.schema.json"))
    return {**closed(found), "definitions": found["definitions"], "additionalProperties": False}


def closed(part: Any) -> Any:
    """Part of a schema, so that it refuses each key that it does not describe."""
    if isinstance(part, list):
        return [closed(item) for item in part]
    if not isinstance(part, dict):
        return part
    inner = {key: value if key == "default" else closed(value) for key, value in part.items()}
    describes = isinstance(part.get("properties"), dict) and "type" in part
    return {"additionalProperties": False, **inner} if describes else inner


def check(found: object) -> None:
    """Raises ValidationError unless the chart takes these values."""
    jsonschema.Draft7Validator(schema()).validate(found)


def scalars(part: object, place: Place = ()) -> Iterator[tuple[Place, object]]:
    """Each value that is neither a mapping nor a list, and the keys that lead to it.

    An environment variable's value is found under its name.
    """
    if isinstance(part, list):
        for item in part:
            yield from scalars(item, place)
    elif isinstance(part, dict):
        if "name" in part and "value" in part:
            yield (*place, str(part["name"])), part["value"]
        for key, value in part.items():
            yield from scalars(value, (*place, str(key)))
    else:
        yield place, part


def exposed(part: object) -> list[Place]:
    """Where a secret's value is written out."""
    return [
        place
        for place, value in scalars(part)
        if isinstance(value, str) and value and place and is_secret(place)
    ]


def is_secret(place: Place) -> bool:
    refers = REFERENCE.search("/".join(place)) or place[-1] in HARMLESS
    return not refers and bool(SECRET.search(place[-1]))


def variables(name: str) -> set[str]:
    """What the PodTemplate of a rendering says itself, and what it takes from its ConfigMap."""
    container = the("PodTemplate", "step", name)["template"]["spec"]["containers"][0]
    maps = [source["configMapRef"]["name"] for source in container["envFrom"]]
    given = {key for each in maps for key in the("ConfigMap", each, name)["data"]}
    return given | {variable["name"] for variable in container["env"]}
