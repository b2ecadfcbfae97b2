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
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.client import s3
from lab.errors import LabError, ProofError
from lab.files import write_private_file
from lab.model import Access

SECONDS = 1800
LOCATIONS = Path(__file__).with_name("dvc_locations.py")
# What holds in a clone of ours, whatever its commit says: where a cache is was said for the machine
# of whoever wrote it. An empty name of a cache is none to DVC.
SETTINGS = {"cache": {"dir": "cache", "local": ""}, "core": {"check_update": "false"}}
MEND = "git checkout and dvc pull in a clone say the same: mend it there, in a new commit"
NO_REMOTE = "No remote provided and no default remote set"
MISSING = re.compile(r"Missing cache files:\n(.+): (.+)")
GENERAL = re.compile(
    r"(failed to pull data from the cloud|configuration error|unexpected error) - "
    r"| Having any troubles\?.*"
)


@dataclass(frozen=True)
class Done:
    """A process that has ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


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
    lab: Access, home: Path, *words: str | Path, cwd: Path, stdin: str = ""
) -> Iterator[Callable[[], Done]]:
    """Start Python with DVC, and yield a function that waits for it; end it with the block.

    It imports nothing from the folder that it runs in: a dataset may have a `yaml.py` beside it.
    The function raises LabError when that takes too long.
    """
    home.mkdir(exist_ok=True)
    given, out, err = (home / name for name in ("stdin", "stdout", "stderr"))
    given.write_text(stdin, "utf-8")
    with given.open() as source, out.open("w") as said, err.open("w") as told:
        process = subprocess.Popen(
            [sys.executable, "-I", *words],
            cwd=cwd,
            env=environment(lab, home),
            stdin=source,
            stdout=said,
            stderr=told,
        )
        try:
            yield lambda: wait_for(process, out, err)
        finally:
            process.kill()
            process.wait()


def wait_for(process: subprocess.Popen[bytes], out: Path, err: Path) -> Done:
    """Wait for a process and return what it wrote. Raises LabError when it takes too long."""
    try:
        code = process.wait(SECONDS)
    except subprocess.TimeoutExpired:
        raise LabError(f"DVC took more than {SECONDS} s", "lab status shows what runs") from None
    return Done(code, out.read_text("utf-8", "replace"), err.read_text("utf-8", "replace"))


# --- Where data is --------------------------------------------------------------------------------


def locate(lab: Access, clone: Path, questions: Sequence[Question]) -> list[Place | str]:
    """Return DVC's answer to each question: a place, or why there is none.

    One process reads the clone's commits for all of them: to import DVC takes longer than hundreds
    of answers.
    """
    asked = json.dumps([asdict(question) for question in questions])
    home = clone.parent / "locations"
    with running_dvc(lab, home, LOCATIONS, cwd=clone, stdin=asked) as wait:
        done = wait()
    if done.code:
        raise LabError(f"DVC fails: {find_dvc_reason(done.err, clone)}", "report this: it is a bug")
    said = json.loads(done.out)
    return [each if isinstance(each, str) else read_place(each) for each in said]


def read_place(said: dict[str, Any]) -> Place:
    """Return the place that the process describes."""
    return Place(**{**said, "keys": tuple(said["keys"])})


# --- Pulling --------------------------------------------------------------------------------------


def pull(lab: Access, clone: Path, *paths: str) -> None:
    """Have `dvc pull` bring files or folders that DVC tracks into the clone's work tree.

    Raises ProofError with DVC's reason when it can't.
    """
    for path in paths:
        with pulling(lab, clone, path) as finish:
            finish()


@contextmanager
def pulling(lab: Access, clone: Path, path: str) -> Iterator[Callable[[], None]]:
    """Run `dvc pull` beside the block, and yield a function that ends as `pull` does.

    The block's failure ends DVC at once.
    """
    project = find_project(clone, path)
    write_settings(project)
    pointer = str((clone / f"{path}.dvc").relative_to(project))
    words = ("-m", "dvc", "pull", "--", pointer)
    with running_dvc(lab, clone.parent / "pull", *words, cwd=project) as wait:
        yield lambda: require_pulled(path, wait(), clone)


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


def require_pulled(path: str, done: Done, clone: Path) -> None:
    """Raise ProofError with DVC's reason unless it has pulled."""
    if done.code:
        raise ProofError(
            f"dvc pull does not bring {path} back: {find_dvc_reason(done.err, clone)}",
            s3.RESTORE if MISSING.search(done.err) else MEND,
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
