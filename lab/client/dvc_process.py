"""DVC, as a process that sees nothing of this machine: it says where data is, and pulls it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from configparser import ConfigParser, Error
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.client import s3
from lab.client.taken_in import TakenIn, find_store, find_store_of_checkout
from lab.errors import LabError, ProofError
from lab.files import write_private_file
from lab.model import Access
from lab.shell import talk

SECONDS = 1800
LOCATIONS = Path(__file__).with_name("dvc_locations.py")
# What holds in a clone of ours, whatever its commit says: where a cache is was said for the machine
# of whoever wrote it. An empty name of a cache is none to DVC.
SETTINGS = {"cache": {"dir": "cache", "local": ""}, "core": {"check_update": "false"}}
MEND = "git checkout and dvc pull in a clone say the same: mend it there, in a new commit"
NO_REMOTE = "No remote provided and no default remote set"
REMOTE = re.compile(r"^[\s-]+remote:\s*['\"]?([\w.-]+)", re.MULTILINE)  # of an output, in a pointer
MISSING = re.compile(r"Missing cache files:\n(.+): (.+)")
GENERAL = re.compile(
    r"(failed to pull data from the cloud|configuration error|unexpected error) - "
    r"| Having any troubles\?.*"
)


@dataclass(frozen=True)
class Question:
    """A pointer, and a commit by whose configuration DVC shall say where the data is."""

    commit: str
    path: str  # of the pointer
    text: str
    config: tuple[str, ...]  # equal where the configuration is
    oids: tuple[str, ...] = ()  # hashes of files in the folder that the pointer names


@dataclass(frozen=True)
class Place:
    """Where DVC keeps what a pointer names."""

    endpoint: str | None  # None: the lab's own
    bucket: str
    key: str
    keys: tuple[str, ...]  # of the files asked for
    hash: str  # "md5", or "md5-dos2unix", which DVC 2 took
    store: str  # equal where equal hashes have equal keys
    output: str  # where DVC puts the data in a clone


Locate = Callable[[Sequence[Question]], list[Place | str]]


def environment(lab: Access, folder: Path) -> dict[str, str]:
    """Return DVC's environment: no configuration and no cache but those below this folder."""
    places = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "DVC_NO_ANALYTICS": "1",
        **{name: str(folder / name.lower()) for name in places},
        **s3.environment(lab),
    }


@contextmanager
def running_dvc(
    lab: Access, home: Path, *words: str | Path, cwd: Path, talks: bool = False
) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Start Python with DVC; yield it and the file of its stderr. It ends with the block.

    It imports nothing from the folder that it runs in: a dataset may have a `yaml.py` beside it.
    What it prints to stdout is dropped unless it `talks`.
    """
    home.mkdir(exist_ok=True)
    with (home / "stderr").open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-I", *words],
            cwd=cwd,
            env=environment(lab, home),
            stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
            stdout=subprocess.PIPE if talks else subprocess.DEVNULL,
            stderr=told,
            encoding="utf-8",
        )
        try:
            yield process, home / "stderr"
        finally:
            process.kill()
            process.communicate()


def timeout_error() -> LabError:
    return LabError(f"DVC took more than {SECONDS} s", "lab status shows what runs")


# --- Where data is --------------------------------------------------------------------------------


@contextmanager
def locating(lab: Access, clone: Path, taken: TakenIn | None = None) -> Iterator[Locate]:
    """Yield a function that returns DVC's answer to each question: a place, or why there is none.

    One process reads the clone's commits for all of them: to import DVC takes longer than hundreds
    of answers. `taken` says how the repository was taken in, if it was. The function raises
    LabError when DVC fails or takes too long.
    """
    home = clone.parent / "locations"

    def describe(question: Question) -> dict[str, object]:
        return {**asdict(question), "store": find_store(lab, taken, question.commit)}

    with running_dvc(lab, home, LOCATIONS, cwd=clone, talks=True) as (process, errors):

        def locate(questions: Sequence[Question]) -> list[Place | str]:
            if not questions:
                return []
            asked = json.dumps([describe(question) for question in questions])
            if said := ask(process, asked):
                answers = json.loads(said)
                return [each if isinstance(each, str) else read_place(each) for each in answers]
            process.wait()
            reason = find_dvc_reason(read_text(errors), clone)
            raise LabError(f"DVC fails: {reason}", "report this: it is a bug")

        yield locate


def ask(process: subprocess.Popen[str], line: str) -> str:
    """Return what the process answers to a line; none when it has ended. Raises LabError."""
    try:
        return talk(process, line, SECONDS)
    except subprocess.TimeoutExpired:
        raise timeout_error() from None


def read_text(path: Path) -> str:
    return path.read_text("utf-8", "replace")


def read_place(said: dict[str, Any]) -> Place:
    """Return the place that the process describes."""
    return Place(**{**said, "keys": tuple(said["keys"])})


# --- Pulling --------------------------------------------------------------------------------------


def pull(lab: Access, clone: Path, *paths: str) -> None:
    """Have `dvc pull` bring files or folders that DVC tracks into the clone's work tree.

    Raises ProofError with DVC's reason when it can't.
    """
    with pulling(lab, clone, *paths, store=find_store_of_checkout(lab, clone)) as finish:
        finish()


@contextmanager
def pulling(
    lab: Access, clone: Path, *paths: str, store: str | None = None
) -> Iterator[Callable[[], None]]:
    """Run `dvc pull` beside the block, and yield a function that ends as `pull` does.

    One process pulls all paths of a DVC project: from `store`, if that stands for the remotes of
    the commit that is checked out. The block's failure ends DVC at once.
    """
    projects: dict[Path, list[str]] = {}
    for path in paths:
        projects.setdefault(find_project(clone, path), []).append(path)
    with ExitStack() as stack:
        ends = [
            stack.enter_context(pulling_project(lab, clone, project, number, here, store))
            for number, (project, here) in enumerate(projects.items())
        ]

        def finish() -> None:
            for end in ends:
                end()

        yield finish


@contextmanager
def pulling_project(
    lab: Access,
    clone: Path,
    project: Path,
    number: int,
    paths: Sequence[str],
    store: str | None = None,
) -> Iterator[Callable[[], None]]:
    """Run `dvc pull` of paths of one DVC project, as `pulling` does.

    With `store`, that is where all of them are, whatever remote the commit names.
    """
    write_settings(project)
    pointers = [str((clone / f"{path}.dvc").relative_to(project)) for path in paths]
    if store:
        write_remotes(project, pointers, store)
    home, words = clone.parent / f"pull-{number}", ("-m", "dvc", "pull", "--", *pointers)
    with running_dvc(lab, home, *words, cwd=project) as (process, errors):
        yield lambda: require_pulled(paths, wait_for(process), read_text(errors), clone)


def wait_for(process: subprocess.Popen[str]) -> int:
    """Wait for a process and return its exit code. Raises LabError when it takes too long."""
    try:
        return process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        raise timeout_error() from None


def find_project(clone: Path, path: str) -> Path:
    """Return the folder of the DVC project that a path belongs to: the clone's unless one below."""
    above = [clone / each for each in Path(path).parents]
    return next((folder for folder in above if (folder / ".dvc").is_dir()), clone)


def write_settings(project: Path) -> None:
    """Have DVC keep its cache in the project, whatever the commit says of caches."""
    file, text = project / ".dvc" / "config.local", io.StringIO()
    parser = ConfigParser(interpolation=None)
    try:
        parser.read(file, "utf-8")
        parser.read_dict(SETTINGS)
        parser.write(text)
        write_private_file(file, text.getvalue())
    except (Error, OSError):
        return  # there is no project, or its settings are none: DVC says so


def write_remotes(project: Path, pointers: Sequence[str], url: str) -> None:
    """Have one place be the default remote, and each that a pointer names: no other is left."""
    with suppress(OSError):  # there is no pointer or no project: DVC says so
        found = (REMOTE.findall(read_text(project / pointer)) for pointer in pointers)
        names = dict.fromkeys(["store", *(name for each in found for name in each)])
        sections = (f"['remote \"{name}\"']\nurl = {url}\n" for name in names)
        text = "".join(["[core]\nremote = store\n", *sections])
        write_private_file(project / ".dvc" / "config", text)


def require_pulled(paths: Sequence[str], code: int, said: str, clone: Path) -> None:
    """Raise ProofError with DVC's reason unless it has pulled."""
    if code:
        reason = find_dvc_reason(said, clone)
        raise ProofError(
            f"dvc pull does not bring {', '.join(paths)} back: {reason}",
            s3.RESTORE if MISSING.search(said) else MEND,
        )


def find_dvc_reason(said: str, clone: Path) -> str:
    """Return in one line why DVC failed, from what it wrote to stderr.

    Of several errors the first is the cause. Of an object that is missing DVC only warns.
    """
    if NO_REMOTE in said:
        return ".dvc/config names no default remote"
    if missing := MISSING.search(said):
        return f"the remote has no object of {missing[1]} {missing[2]}"
    lines = [line for line in said.splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        return lines[-1]
    words = " ".join(" ".join(line for line in lines if not line.startswith("WARNING: ")).split())
    first = next(filter(None, words.split("ERROR: ")), "it does not say why")
    return GENERAL.sub("", first).strip().replace(f"{clone}/", "")
