"""The fields in which two renderings differ, and which of these differences promotion.yaml allows.

Two lists of Kubernetes objects are compared by meaning: the order of objects and of named items
(containers, variables, volumes) is ignored, and a text that holds airflow.cfg or a pod template is
compared field by field. A field derived from others (a checksum) is a difference like any other:
promotion.yaml has to give the reason for it.
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
from string import Template
from typing import Any

import yaml

from lab.cluster.chart import NAMESPACE
from lab.config import KIT
from lab.errors import EnvironmentFileError, PromotionError

PROMOTION = Path("eks", "promotion.yaml")
IMAGE = "${image}"  # in an entry of promotion.yaml: each of the project's own images
WHOLE = "*"  # the field of an object that is on one side only
THERE = "there"  # stands for such an object, and for an item that has only a name
Object = Mapping[str, Any]
Field = tuple[str, str | None, str | None]  # path, value on each side

# Kinds without a namespace. For all others the chart leaves the namespace to Helm.
CLUSTER_WIDE = re.compile(
    "Namespace|Node|PersistentVolume|StorageClass|CSIDriver|PriorityClass|RuntimeClass|IngressClass"
    "|CustomResourceDefinition|APIService|Cluster[A-Z].*|(Validating|Mutating).*"
)
# Keys that identify an item in a list of mappings; the first that the item has is used.
KEYS = ("mountPath", "name", "topologyKey", "key", "containerPort", "port", "ip")
# Lists whose order matters: of plain values, and of named items.
ORDERED, ONE_BY_ONE = {"command", "args"}, {"initContainers"}
SETTINGS, TEMPLATE = "airflow.cfg", "pod_template_file.yaml"  # in the chart's ConfigMap
CONFIG_MAP = f"ConfigMap/{NAMESPACE}/airflow-config"


@dataclass(frozen=True, order=True)
class Difference:
    """A field that differs between the two renderings; None on the side that lacks it."""

    object: str  # Kind/namespace/name, or Kind/name
    field: str  # spec.template.spec.containers[base].image; `*` for a whole object
    kind: str | None
    eks: str | None


@dataclass(frozen=True)
class Allowed:
    """An entry of promotion.yaml: allowed differences, as globs of `*` and `?`, and the reason.

    The field `*` allows an object to be on one side only, and nothing else: all of an object's
    fields are `?*`. An entry with an option allows nothing where that option is off.
    """

    object: str
    field: str
    reason: str
    kind: str = "*"  # allowed value on kind, as `eks` on EKS; empty: the field is absent
    eks: str = "*"
    option: str = ""

    @property
    def why(self) -> str:
        """The reason as shown to the user, with the option if there is one."""
        return f"{self.option}: {self.reason}" if self.option else self.reason

    def covers(self, row: Difference) -> bool:
        """Return whether the entry allows this difference."""
        if (self.field == WHOLE) != (row.field == WHOLE):
            return False
        pairs = (
            (self.object, row.object),
            (self.field, row.field),
            (self.kind, row.kind or ""),
            (self.eks, row.eks or ""),
        )
        return all(matches_glob(glob, text) for glob, text in pairs)


def matches_glob(glob: str, text: str) -> bool:
    """Return whether the glob matches the whole text. Brackets are literal, as in item names."""
    return bool(
        re.fullmatch(re.escape(glob).replace(r"\*", ".*").replace(r"\?", "."), text, re.DOTALL)
    )


# --- Comparing ----------------------------------------------------------------------------------


def find_differences(kind: Iterable[Object], eks: Iterable[Object]) -> list[Difference]:
    """Return the differences between the renderings for kind and for EKS, sorted."""
    one, other = objects_by_name(kind), objects_by_name(eks)
    found = [
        row
        for name in one.keys() & other.keys()
        for row in diff_objects(name, one[name], other[name])
    ]
    found += [Difference(name, WHOLE, THERE, None) for name in one.keys() - other.keys()]
    found += [Difference(name, WHOLE, None, THERE) for name in other.keys() - one.keys()]
    return sorted(found, key=lambda row: (row.object, row.field, row.kind or "", row.eks or ""))


def objects_by_name(objects: Iterable[Object]) -> dict[str, Object]:
    """Return the objects by name. Raise PromotionError when two have the same name."""
    found: dict[str, Object] = {}
    for entry in objects:
        if (name := object_name(entry)) in found:
            raise PromotionError(
                f"{name} is rendered twice: the second would replace the first",
                "the overlay and the chart must not both make it",
            )
        found[name] = entry
    return found


def object_name(entry: Object) -> str:
    """Return Kind/namespace/name, or Kind/name for a cluster-wide object."""
    kind, metadata = entry["kind"], entry["metadata"]
    inner = [] if CLUSTER_WIDE.fullmatch(kind) else [metadata.get("namespace", NAMESPACE)]
    return "/".join([kind, *inner, metadata["name"]])


def diff_objects(name: str, one: Object, other: Object) -> Iterator[Difference]:
    """Yield the differences between two objects of the same name."""
    if name == CONFIG_MAP:
        one, other = parse_config_map(one), parse_config_map(other)
    for field, here, there in diff_values("", one, other):
        if field != "metadata.namespace":  # part of the object's name, explicit or not
            yield Difference(name, field, here, there)


def parse_config_map(entry: Object) -> Object:
    """Return the chart's ConfigMap with airflow.cfg and the pod template parsed.

    Raise PromotionError when the chart has changed its form.
    """
    try:
        data = dict(entry["data"])
        apart = {
            SETTINGS: parse_settings(data.pop(SETTINGS)),
            TEMPLATE: yaml.safe_load(data[TEMPLATE]),
        }
    except (KeyError, ConfigParserError, yaml.YAMLError) as error:
        raise PromotionError(
            f"{CONFIG_MAP} is not as this version of the chart has it: {error}",
            "correct eks/difference.py for the new chart",
        ) from error
    del data[TEMPLATE]
    return {**entry, "data": data, **apart}


def parse_settings(text: str) -> dict[str, dict[str, str]]:
    """Parse the text of an airflow.cfg; return its settings by section."""
    parser = ConfigParser(interpolation=None, strict=True)
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def diff_values(path: str, one: object, other: object) -> Iterator[Field]:
    """Yield each field below `path` that differs. Null counts as absent, as in Kubernetes."""
    if both_are(Mapping, one, other):
        left, right = as_mapping(one), as_mapping(other)
        for key in {**left, **right}:
            inner = f"{path}.{key}" if path else str(key)
            yield from diff_values(inner, left.get(key), right.get(key))
    elif both_are(list, one, other):
        yield from diff_lists(path, as_list(one), as_list(other))
    elif value_text(one) != value_text(other):
        yield path, value_text(one), value_text(other)


def both_are(kind: type, one: object, other: object) -> bool:
    """Return whether each side is of this type or None, and at least one is not empty."""
    return bool(one or other) and all(
        side is None or isinstance(side, kind) for side in (one, other)
    )


def as_mapping(side: object) -> Mapping[str, object]:
    return side if isinstance(side, Mapping) else {}


def as_list(side: object) -> list[object]:
    return side if isinstance(side, list) else []


def diff_lists(path: str, one: list[object], other: list[object]) -> Iterator[Field]:
    """Yield what differs between two lists: by index, by name, or as items that one side lacks."""
    if path.rpartition(".")[2] in ORDERED:
        for index, (here, there) in enumerate(zip_longest(one, other)):
            yield from diff_values(f"{path}[{index}]", here, there)
    elif (left := items_by_name(one)) is None or (right := items_by_name(other)) is None:
        yield from diff_unnamed_items(
            f"{path}[]", Counter(map(item_text, one)), Counter(map(item_text, other))
        )
    else:
        for name in {**left, **right}:
            yield from diff_items(f"{path}[{name}]", left.get(name), right.get(name))
        if path.rpartition(".")[2] in ONE_BY_ONE:
            yield from diff_order(path, left, right)


def diff_order(
    path: str, one: Mapping[str, object], other: Mapping[str, object]
) -> Iterator[Field]:
    """Yield the names that both sides have, if their order differs."""
    left, right = [name for name in one if name in other], [name for name in other if name in one]
    if left != right:
        yield path, ", ".join(left), ", ".join(right)


def diff_items(path: str, one: object, other: object) -> Iterator[Field]:
    """Yield what differs between two items of the same name; one on one side only is one row."""
    if one is None or other is None:
        yield path, item_text(one), item_text(other)
    else:
        yield from diff_values(path, one, other)


def item_text(value: object) -> str | None:
    """Return an item as text; THERE if it has nothing but its name."""
    return THERE if value == {} else value_text(value)


def diff_unnamed_items(
    path: str, one: Counter[str | None], other: Counter[str | None]
) -> Iterator[Field]:
    """Yield the unnamed items that only one list has; one on each side makes a pair."""
    here, there = (
        sorted((one - other).elements(), key=str),
        sorted((other - one).elements(), key=str),
    )
    if len(here) == len(there) == 1:
        yield path, here[0], there[0]
    else:
        yield from ((path, value, None) for value in here)
        yield from ((path, None, value) for value in there)


def items_by_name(values: list[object]) -> dict[str, object] | None:
    """Return the items by name, without it; None if one has no name or two have the same."""
    found = dict(split_key(value) for value in values)
    return None if None in found or len(found) < len(values) else {str(k): found[k] for k in found}


def split_key(value: object) -> tuple[str | None, object]:
    """Split an item into its name, or the name of the only thing it refers to, and the rest."""
    if not isinstance(value, Mapping):
        return None, value
    for key in KEYS:
        if key in value and not isinstance(value[key], Mapping | list):
            return str(value[key]), {k: v for k, v in value.items() if k != key}
    inner = [
        part["name"] for part in value.values() if isinstance(part, Mapping) and "name" in part
    ]
    return (str(inner[0]), value) if len(inner) == 1 else (None, value)


def value_text(value: object) -> str | None:
    """Return a string or None as it is; another value, or an ambiguous string, as JSON."""
    if value is None or (isinstance(value, str) and not is_ambiguous(value)):
        return value
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def is_ambiguous(text: str) -> bool:
    """Return whether a string is empty or reads as a JSON number, string, boolean or null."""
    try:
        return not isinstance(json.loads(text), dict | list)
    except ValueError:
        return not text


# --- promotion.yaml -----------------------------------------------------------------------------


def judge_differences(
    found: Iterable[Difference], allowed: Sequence[Allowed], options: Collection[str] = ()
) -> list[tuple[Difference, str | None]]:
    """Return each difference with the reason of the first entry that allows it, None without one.

    An entry with an option counts only if the option is one of `options`.
    """
    counting = [entry for entry in allowed if not entry.option or entry.option in options]
    return [(row, next((e.why for e in counting if e.covers(row)), None)) for row in found]


def read_allowed(
    path: Path = KIT / PROMOTION, project: str = "", own: Iterable[str] = ()
) -> list[Allowed]:
    """Read promotion.yaml. Raise EnvironmentFileError when it is invalid.

    An entry with `${image}` is there for each of the project's own images, and for none else.
    """
    entries = read_entries(path)
    fills = [{"project": project, "image": image} for image in own]
    return [
        each
        for entry in entries
        for each in ([fill_entry(entry, f) for f in fills] if IMAGE in entry.object else [entry])
    ]


def fill_entry(entry: Allowed, words: Mapping[str, str]) -> Allowed:
    """Return the entry for one image: each `${word}` is replaced."""
    given = {key: Template(value).substitute(words) for key, value in vars(entry).items()}
    return Allowed(**given)


def read_entries(path: Path) -> list[Allowed]:
    """Read the entries as they are written. Raise EnvironmentFileError when one is invalid."""
    try:
        listed = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise EnvironmentFileError(f"{path} can't be read: {error}", "correct it") from error
    if not isinstance(listed, list):
        raise EnvironmentFileError(f"{path} is no list", "write one entry per allowed difference")
    return [parse_entry(path, number, entry) for number, entry in enumerate(listed, 1)]


def parse_entry(path: Path, number: int, entry: object) -> Allowed:
    """Return one entry of the list. Raise EnvironmentFileError when it is invalid."""
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
