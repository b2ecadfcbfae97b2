"""What a DAG and its steps agree on: data sets and their names, a run's folder, exit codes.

DAGs import it, too, so it needs nothing but the standard library.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dataset_steps.errors import Overtaken, StepError

# Exit codes: no retry can help; the steps between pull and publish have to run again.
HOPELESS, OVERTAKEN = StepError.exit_code, Overtaken.exit_code
# Variables of `publish`: the steps that it may run again itself, as JSON, and that its operator has
# just run those that it may not.
AGAIN, HAVE_RUN = "AGAIN", "STEPS_HAVE_RUN"

DATASET = "dataset"  # the data set of the steps that are no `pull` and no `publish`
NAME = re.compile("[a-z][a-z0-9_]{0,39}")  # DATA_<NAME> is a variable of each step
FILE = "declared.json"  # beside the DAGs: what lab.toml declares, as the kit delivered it
# Names that git and DVC give a meaning to.
TOOLS_OWN = {".git", ".dvc", ".hg", ".gitignore", ".dvcignore", "dvc.yaml", "dvc.lock"}
# DVC reads `a:b` as output b of the stages in a, and can't push what has a backslash.
UNTAKEN = {":", "\\"}
LONGEST = 251  # bytes of a name; with `.dvc` at its end it is a pointer's


class DataSetError(StepError):
    """A declaration of data sets can't be right."""


def run_key(dag_id: str, run_id: str) -> str:
    """Return the name of a run's folder: readable, and different for different runs."""
    digest = hashlib.sha256(f"{dag_id}\0{run_id}".encode()).hexdigest()[:16]
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{dag_id}-{run_id}")[:60].strip("-") + "-" + digest


def variable_name(name: str) -> str:
    """Return the variable that tells a step where a data set is."""
    return f"DATA_{name.upper()}"


def find_path(data_sets: Mapping[str, str], name: str) -> str:
    """Return the path of a data set. Raise DataSetError when it is not declared."""
    if name not in data_sets:
        raise DataSetError(
            f"no data set {name} is declared: write [data.{name}] and its path into lab.toml; "
            f"there are {', '.join(sorted(data_sets))}"
        )
    return data_sets[name]


# --- Declarations ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Declared:
    """What lab.toml declares, as a DAG knows it."""

    main: str  # the data set whose path the lab chooses: it is DATASET_PATH in a step's environment
    paths: Mapping[str, str]  # of the other data sets, by name
    memory: Mapping[str, str | None]  # of each image of one's own: what its steps may use


def read_declared(file: Path) -> Declared:
    """Return what the file declares. Raise DataSetError when it can't be right."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        main, paths = str(content["main"]), {**content["data"]}
        memory = {str(name): each.get("memory") for name, each in content["images"].items()}
    except FileNotFoundError:
        raise DataSetError(
            f"{file} is not there: the kit writes it from lab.toml when it delivers the DAGs"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataSetError(f"{file.name} does not say what lab.toml declares: {error!r}") from error
    checked = {name: require_inside(path, describe_path(name)) for name, path in paths.items()}
    check_data_sets(checked)
    if main not in checked:
        raise DataSetError(f"{file.name} names {main!r} as its main data set, and declares none")
    del checked[main]
    return Declared(main, checked, memory)


def describe_path(name: str) -> str:
    return f"the path of data set {name}"


def check_data_sets(paths: Mapping[str, str]) -> None:
    """Raise DataSetError for a name that can't be one, and for data sets that share files."""
    for name in paths:
        if not NAME.fullmatch(name):
            raise DataSetError(
                f"{name!r} is no name of a data set: use a letter, then letters, digits and _ "
                "(lower case, 40 at most)"
            )
    ordered = sorted((PurePosixPath(path).parts, name) for name, path in paths.items())
    for (first, one), (second, other) in itertools.pairwise(ordered):
        if second[: len(first)] == first:
            how = "are both at" if first == second else "are inside each other:"
            raise DataSetError(
                f"the data sets {one} and {other} {how} {paths[other]}: give each a path of its own"
            )


def require_inside(path: str, what: str) -> str:
    """Return `path`, tidied; raise DataSetError unless it is inside the repository.

    Neither .git nor .dvc is, nor a name that DVC or git gives a meaning to, or can't take.
    """
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or not path.isprintable():
        raise DataSetError(f"{what}, {path!r}, is not a path inside the repository")
    if TOOLS_OWN & set(pure.parts):
        raise DataSetError(f"{what}, {path!r}, is git's or DVC's own: choose another path")
    if set(path) & UNTAKEN or path != path.strip() or len(os.fsencode(pure.name)) > LONGEST:
        raise DataSetError(
            f"{what}, {path!r}, is none that DVC takes: it has no `:`, no `\\`, no blank at an "
            f"end, and its last name has {LONGEST} bytes at most"
        )
    if pure.suffix == ".dvc":
        raise DataSetError(f"{what}, {path!r}, is a pointer's: name the data and not its pointer")
    return str(pure)


def parse_data_sets(text: str) -> dict[str, str]:
    """Return the declared data sets that a step finds in the variable DATA_SETS."""
    try:
        found = json.loads(text or "{}").items()
    except (ValueError, AttributeError) as error:
        raise DataSetError("DATA_SETS holds no data sets: it is JSON, of name and path") from error
    return {str(name): require_inside(str(path), describe_path(str(name))) for name, path in found}
