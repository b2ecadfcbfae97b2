"""The fields in which two renderings differ, and which of these differences promotion.yaml allows.

Two lists of Kubernetes objects are compared by what they mean: the order of objects and of named
things (containers, variables, volumes) counts for nothing, a text that holds Airflow's settings or
a pod's template is compared setting by setting. What follows from other fields (a checksum) is a
difference like every other: promotion.yaml says why it may be there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from configparser import ConfigParser
from configparser import Error as ConfigParserError
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import yaml

from lab.cluster.chart import NAMESPACE
from lab.config import TREE
from lab.errors import EnvironmentFileError, PromotionError

PROMOTION = Path("eks", "promotion.yaml")
WHOLE = "*"  # the field of an object that is on one side only
THERE = "there"  # what is said of it, and of an item that has nothing but its name
Object = Mapping[str, Any]
Field = tuple[str, str | None, str | None]  # its path, and what the two sides say

# Kinds without a namespace. The chart leaves the namespace of all others to helm.
CLUSTER_WIDE = re.compile(
    "Namespace|Node|PersistentVolume|StorageClass|CSIDriver|PriorityClass|RuntimeClass|IngressClass"
    "|CustomResourceDefinition|APIService|Cluster[A-Z].*|(Validating|Mutating).*"
)
# What tells the items of a list of mappings apart, the first that an item has.
KEYS = ("mountPath", "name", "topologyKey", "key", "containerPort", "port", "ip")
# Lists whose order matters: of plain values, and of things that have names, too.
ORDERED, ONE_BY_ONE = {"command", "args"}, {"initContainers"}
SETTINGS, TEMPLATE = "airflow.cfg", "pod_template_file.yaml"  # in the chart's ConfigMap
CONFIG_MAP = f"ConfigMap/{NAMESPACE}/airflow-config"


@dataclass(frozen=True, order=True)
class Difference:
    """One field that the two renderings do not agree about; None where it is not."""

    object: str  # Kind/namespace/name, or Kind/name
    field: str  # spec.template.spec.containers[base].image; `*` for a whole object
    kind: str | None
    eks: str | None


@dataclass(frozen=True)
class Allowed:
    """Differences that may be, and why. `*` stands for any text, `?` for any character.

    The field `*` allows that the object is on one side only, and nothing else: all of an object's
    fields are `?*`. What names an option allows nothing where that option is off.
    """

    object: str
    field: str
    reason: str
    kind: str = "*"  # what the two sides may say; empty: only that it is not there
    eks: str = "*"
    option: str = ""

    @property
    def why(self) -> str:
        """The reason, as a person reads it."""
        return f"{self.option}: {self.reason}" if self.option else self.reason

    def covers(self, row: Difference) -> bool:
        """Whether it allows this difference."""
        if (self.field == WHOLE) != (row.field == WHOLE):
            return False
        pairs = (
            (self.object, row.object),
            (self.field, row.field),
            (self.kind, row.kind or ""),
            (self.eks, row.eks or ""),
        )
        return all(matches(glob, said) for glob, said in pairs)


def matches(glob: str, text: str) -> bool:
    """Whether the text is of this form. Brackets stand for themselves: names of items have them."""
    return bool(
        re.fullmatch(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL)
    )


# --- What differs -------------------------------------------------------------------------------


def rows(kind: Iterable[Object], eks: Iterable[Object]) -> list[Difference]:
    """What the renderings for kind and for EKS do not agree about, in a fixed order."""
    one, other = named(kind), named(eks)
    found = [row for name in one.keys() & other.keys() for row in of(name, one[name], other[name])]
    found += [Difference(name, WHOLE, THERE, None) for name in one.keys() - other.keys()]
    found += [Difference(name, WHOLE, None, THERE) for name in other.keys() - one.keys()]
    return sorted(found, key=lambda row: (row.object, row.field, row.kind or "", row.eks or ""))


def named(objects: Iterable[Object]) -> dict[str, Object]:
    """The objects by their names. Raises PromotionError when two have the same."""
    found: dict[str, Object] = {}
    for entry in objects:
        if (name := name_of(entry)) in found:
            raise PromotionError(
                f"{name} is rendered twice: the second would replace the first",
                "the overlay and the chart must not both make it",
            )
        found[name] = entry
    return found


def name_of(entry: Object) -> str:
    """Kind/namespace/name, or Kind/name for what is in no namespace."""
    kind, metadata = entry["kind"], entry["metadata"]
    inner = [] if CLUSTER_WIDE.fullmatch(kind) else [metadata.get("namespace", NAMESPACE)]
    return "/".join([kind, *inner, metadata["name"]])


def of(name: str, one: Object, other: Object) -> Iterator[Difference]:
    """What two objects of one name do not agree about."""
    if name == CONFIG_MAP:
        one, other = taken_apart(one), taken_apart(other)
    for field, here, there in between("", one, other):
        if field != "metadata.namespace":  # it is in the name, given or not
            yield Difference(name, field, here, there)


def taken_apart(entry: Object) -> Object:
    """The chart's ConfigMap, with Airflow's settings and the pod's template as what they say."""
    try:
        data = dict(entry["data"])
        apart = {SETTINGS: settings(data.pop(SETTINGS)), TEMPLATE: yaml.safe_load(data[TEMPLATE])}
    except (KeyError, ConfigParserError, yaml.YAMLError) as error:
        raise PromotionError(
            f"{CONFIG_MAP} is not as this version of the chart has it: {error}",
            "correct eks/difference.py for the new chart",
        ) from error
    del data[TEMPLATE]
    return {**entry, "data": data, **apart}


def settings(text: str) -> dict[str, dict[str, str]]:
    """The settings of a file of Airflow's, by section."""
    parser = ConfigParser(interpolation=None, strict=True)
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def between(path: str, one: object, other: object) -> Iterator[Field]:
    """Each field below `path` that differs. What is null is not there, as for Kubernetes."""
    if both(Mapping, one, other):
        left, right = mapping(one), mapping(other)
        for key in {**left, **right}:
            inner = f"{path}.{key}" if path else str(key)
            yield from between(inner, left.get(key), right.get(key))
    elif both(list, one, other):
        yield from lists(path, listed(one), listed(other))
    elif said(one) != said(other):
        yield path, said(one), said(other)


def both(kind: type, one: object, other: object) -> bool:
    """Whether each side is of this kind or not there, and there is something in them."""
    return bool(one or other) and all(
        side is None or isinstance(side, kind) for side in (one, other)
    )


def mapping(side: object) -> Mapping[str, object]:
    return side if isinstance(side, Mapping) else {}


def listed(side: object) -> list[object]:
    return side if isinstance(side, list) else []


def lists(path: str, one: list[object], other: list[object]) -> Iterator[Field]:
    """What differs in two lists: place by place, name by name, or as items that one side has."""
    if path.rpartition(".")[2] in ORDERED:
        for index, (here, there) in enumerate(zip_longest(one, other)):
            yield from between(f"{path}[{index}]", here, there)
    elif (left := by_name(one)) is None or (right := by_name(other)) is None:
        yield from sets(f"{path}[]", Counter(map(item, one)), Counter(map(item, other)))
    else:
        for name in {**left, **right}:
            yield from items(f"{path}[{name}]", left.get(name), right.get(name))
        if path.rpartition(".")[2] in ONE_BY_ONE:
            yield from orders(path, left, right)


def orders(path: str, one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[Field]:
    """The names that both sides have, where they come in another order."""
    left, right = [name for name in one if name in other], [name for name in other if name in one]
    if left != right:
        yield path, ", ".join(left), ", ".join(right)


def items(path: str, one: object, other: object) -> Iterator[Field]:
    """What differs in two things of one name; one that is on one side only is one row."""
    if one is None or other is None:
        yield path, item(one), item(other)
    else:
        yield from between(path, one, other)


def item(value: object) -> str | None:
    """An item as text; one that has nothing but its name is there."""
    return THERE if value == {} else said(value)


def sets(path: str, one: Counter[str | None], other: Counter[str | None]) -> Iterator[Field]:
    """What two lists without names do not share; if that is one item on each side, as a pair."""
    here, there = (
        sorted((one - other).elements(), key=str),
        sorted((other - one).elements(), key=str),
    )
    if len(here) == len(there) == 1:
        yield path, here[0], there[0]
    else:
        yield from ((path, value, None) for value in here)
        yield from ((path, None, value) for value in there)


def by_name(values: list[object]) -> dict[str, object] | None:
    """The items without their names, by these; None where an item has none, or two the same."""
    found = dict(parted(value) for value in values)
    return None if None in found or len(found) < len(values) else {str(k): found[k] for k in found}


def parted(value: object) -> tuple[str | None, object]:
    """An item's own name, or that of the one thing to which it refers; and the rest of it."""
    if not isinstance(value, Mapping):
        return None, value
    for key in KEYS:
        if key in value and not isinstance(value[key], Mapping | list):
            return str(value[key]), {k: v for k, v in value.items() if k != key}
    inner = [
        part["name"] for part in value.values() if isinstance(part, Mapping) and "name" in part
    ]
    return (str(inner[0]), value) if len(inner) == 1 else (None, value)


def said(value: object) -> str | None:
    """A value as text: itself, or JSON where it is no text or could be taken for something else."""
    if value is None or (isinstance(value, str) and not ambiguous(value)):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def ambiguous(text: str) -> bool:
    """Whether a text reads as a number or the like, or as nothing."""
    try:
        return not isinstance(json.loads(text), dict | list)
    except ValueError:
        return not text


# --- What may differ ----------------------------------------------------------------------------


def judge(
    found: Iterable[Difference], allowed: Sequence[Allowed], options: Collection[str] = ()
) -> list[tuple[Difference, str | None]]:
    """Each difference, and why the first entry allows it that does; None where none does.

    An entry of an option counts where that is one of `options`.
    """
    counting = [entry for entry in allowed if not entry.option or entry.option in options]
    return [(row, next((e.why for e in counting if e.covers(row)), None)) for row in found]


def allowed(path: Path = TREE / PROMOTION) -> list[Allowed]:
    """The list of what may differ. Raises EnvironmentFileError when it makes no sense."""
    try:
        listed = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EnvironmentFileError(f"{path} can't be read: {error}", "correct it") from error
    if not isinstance(listed, list):
        raise EnvironmentFileError(f"{path} is no list", "write one entry per allowed difference")
    return [entry_of(path, number, entry) for number, entry in enumerate(listed, 1)]


def entry_of(path: Path, number: int, entry: object) -> Allowed:
    """One entry of the list, checked."""
    where = f"{path}, entry {number}"
    if not isinstance(entry, dict):
        raise EnvironmentFileError(f"{where} is no mapping", "give it object, field and reason")
    known = set(Allowed.__dataclass_fields__)
    if odd := {str(key) for key in entry} - known:
        raise EnvironmentFileError(f"{where} has an unknown {min(odd)}", "correct it")
    for key in ("object", "field", "reason"):
        if not str(entry.get(key) or "").strip():
            raise EnvironmentFileError(f"{where} has no {key}", "say it: nothing is allowed so")
    if not all(isinstance(value, str) for value in entry.values()):
        raise EnvironmentFileError(f"{where} has something that is no text", "put it into quotes")
    return Allowed(**entry)
