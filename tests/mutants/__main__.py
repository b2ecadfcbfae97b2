"""Mutation tests: `python -m tests.mutants [REVISION] [--only WORD]`.

Each fault of mutants.toml is put alone into a checkout of the revision (HEAD by default), with an
environment of its own, where the tests that its entry names must fail. Exits with 1 if a fault is
not caught. About 20 minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
LIST = Path(__file__).with_name("mutants.toml")
SECONDS = 900  # for the tests of one fault


@dataclass(frozen=True)
class Mutant:
    """One fault: `old` becomes `new` in a file, and the test files that must catch it."""

    file: str
    old: str
    new: str
    tests: list[str]
    what: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", nargs="?", default="HEAD")
    parser.add_argument("--only", default="", help="faults whose file or description has this word")
    asked = parser.parse_args()
    entries = tomllib.loads(LIST.read_text("utf-8"))["mutant"]
    mutants = [m for m in (Mutant(**e) for e in entries) if asked.only in f"{m.file} {m.what}"]
    with checkout(asked.revision) as tree:
        caught = [try_mutant(tree, mutant) for mutant in mutants]
    print(f"{sum(caught)} of {len(caught)} faults are caught at {asked.revision}")
    return 0 if all(caught) else 1


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """Yield a checkout of the revision with an environment; delete both afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder, "tree")
        run_command("git", "-C", TREE, "worktree", "add", "--quiet", "--detach", tree, revision)
        try:
            run_command(sys.executable, "-m", "nox", "-s", "lint", cwd=tree)
            yield tree
        finally:
            run_command("git", "-C", TREE, "worktree", "remove", "--force", tree)


def run_command(*command: str | Path, cwd: Path = TREE) -> None:
    subprocess.run([str(word) for word in command], cwd=cwd, check=True, stdout=subprocess.DEVNULL)


def try_mutant(tree: Path, mutant: Mutant) -> bool:
    """Return whether the tests catch the fault; print the test that does."""
    began = time.monotonic()
    file = tree / mutant.file
    text = file.read_text("utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(f"{mutant.file} does not hold this once:\n{mutant.old}")
    file.write_text(text.replace(mutant.old, mutant.new), "utf-8")
    try:
        test = find_failing_test(tree, mutant)
    finally:
        file.write_text(text, "utf-8")
    seconds = time.monotonic() - began
    print(f"{seconds:4.0f} s  {mutant.file}: {mutant.what}: {test or 'NOT CAUGHT'}", flush=True)
    return test is not None


def find_failing_test(tree: Path, mutant: Mutant) -> str | None:
    """Return the first test that fails, or None if all pass. Exits if none has run."""
    programs = tree / ".nox" / "lint" / "bin"
    env = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    command = [
        str(programs / "python"),
        "-m",
        "pytest",
        "--exitfirst",
        "-q",
        "--show-capture=no",
        *mutant.tests,
    ]
    done = subprocess.run(
        command, cwd=tree, env=env, capture_output=True, text=True, check=False, timeout=SECONDS
    )
    if done.returncode == 0:
        return None
    found = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if not found:
        raise SystemExit(f"the tests do not start:\n{done.stdout}{done.stderr}")
    return found[0].partition(" ")[2].partition(" - ")[0]


if __name__ == "__main__":
    sys.exit(main())
