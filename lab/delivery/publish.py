"""Publish a project's DAGs to the lab's own git server, and start its repositories.

Every branch that Airflow follows starts with the same commit, which holds no DAG yet: Airflow
can't follow an empty repository, and branches with a common root are promoted by a plain push.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.client import runs
from lab.client.git import CONFIG, run_git
from lab.delivery.bundle import FOLDER
from lab.model import Access

STAGING, PRODUCTION = "main", "release"
MESSAGE = "Publish the DAGs of the lab's project"
JOINED = f"Begin where {PRODUCTION} begins, so that it can follow by a plain push"
# A fixed date gives the first commit the same hash wherever and whenever it is made.
MOMENT = "1767225600 +0000"
README = f"""\
DAGs are in `{FOLDER}/`. What is pushed to `{STAGING}` runs in Airflow after some seconds.
"""
PROMOTED = f"""\
`{STAGING}` is staging. To production: `git push origin {STAGING}:{PRODUCTION}`
"""
IGNORED = "# Files that hold no DAG, by their names.\n"
PARSE_SECONDS = 180  # for all files, once the one of the project's own DAG is parsed


def publish_dags(
    lab: Access, url: str, write: Callable[[Path], None], folder: str = FOLDER
) -> str | None:
    """Push what `write` writes to `folder` of the repository at `url`; return the commit.

    Creates the production branch unless it exists, and never moves it. Returns None and pushes
    no DAG when the newest commit of the staging branch is somebody else's: the branch is theirs.
    """
    with temporary_clone(lab, url) as clone:
        first = ensure_branches(lab, clone, README + PROMOTED, STAGING, PRODUCTION)
        if run_git(lab, "log", "-1", "--format=%ae", cwd=clone).strip() != CONFIG["user.email"]:
            print(f"  {url} has commits of its own: its DAGs are left as they are")
            return None
        merge_first_commit(lab, clone, first)
        write(clone / folder)
        run_git(lab, "add", "--all", "--", folder, cwd=clone)
        if run_git(lab, "status", "--porcelain", cwd=clone):
            run_git(lab, "commit", "--quiet", "--message", MESSAGE, cwd=clone)
        run_git(lab, "push", "--quiet", "origin", f"HEAD:refs/heads/{STAGING}", cwd=clone)
        return run_git(lab, "rev-parse", "HEAD", cwd=clone).strip()


def wait_until_parsed(lab: Access, files: list[str], commit: str) -> None:
    """Wait until Airflow has parsed these files at this commit.

    Print which of them hold no DAG; `lab status` says which are broken.
    """
    if silent := runs.wait_for_files(lab, files, commit, PARSE_SECONDS):
        print(f"  Airflow has found no DAG in {', '.join(silent)}: lab logs airflow-dag-processor")


def ensure_first_commit(lab: Access, url: str) -> None:
    """Push a first commit without DAGs to the repository at `url` unless it has commits.

    Airflow can follow it afterwards. What somebody has pushed there stays as it is.
    """
    with temporary_clone(lab, url) as clone:
        ensure_branches(lab, clone, README, STAGING)


@contextmanager
def temporary_clone(lab: Access, url: str) -> Iterator[Path]:
    """Yield a clone that is deleted after the block."""
    with tempfile.TemporaryDirectory(prefix="lab-publish-") as name:
        clone = Path(name) / "clone"
        run_git(lab, "clone", "--quiet", "--no-checkout", url, clone, cwd=Path(name))
        yield clone


def ensure_branches(lab: Access, clone: Path, readme: str, *branches: str) -> str:
    """Create the branches that the server lacks, check out the first one; return their root commit.

    Existing branches stay where they are.
    """
    first = write_first_commit(lab, clone, readme)
    known = run_git(lab, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes", cwd=clone)
    if missing := [name for name in branches if name not in known.split()]:
        refs = [f"{first}:refs/heads/{name}" for name in missing]
        run_git(lab, "push", "--quiet", "origin", *refs, cwd=clone)
    run_git(lab, "checkout", "--quiet", "-B", branches[0], f"origin/{branches[0]}", cwd=clone)
    return first


def write_first_commit(lab: Access, clone: Path, readme: str) -> str:
    """Write the root commit, which holds `readme` and a folder without DAGs; return its hash."""
    folder = write_tree(
        lab, clone, f"100644 blob {write_blob(lab, clone, IGNORED)}\t.airflowignore"
    )
    root = write_tree(
        lab,
        clone,
        f"100644 blob {write_blob(lab, clone, readme)}\tREADME.md",
        f"040000 tree {folder}\t{FOLDER}",
    )
    who = f"{CONFIG['user.name']} <{CONFIG['user.email']}> {MOMENT}"
    text = f"tree {root}\nauthor {who}\ncommitter {who}\n\nBegin\n"
    return write_object(lab, clone, "commit", text)


def write_blob(lab: Access, clone: Path, text: str) -> str:
    return write_object(lab, clone, "blob", text)


def write_object(lab: Access, clone: Path, kind: str, text: str) -> str:
    """Write a git object into the clone and return its hash."""
    command = ("hash-object", "-w", "-t", kind, "--stdin")
    return run_git(lab, *command, cwd=clone, stdin=text).strip()


def write_tree(lab: Access, clone: Path, *entries: str) -> str:
    """Write a git tree with these entries into the clone and return its hash."""
    listed = "".join(f"{entry}\n" for entry in entries)
    return run_git(lab, "mktree", cwd=clone, stdin=listed).strip()


def merge_first_commit(lab: Access, clone: Path, first: str) -> None:
    """Merge `first` into the checked-out branch unless it contains it; its files don't change.

    Labs of earlier versions started their branch without it.
    """
    if first not in run_git(lab, "rev-list", "HEAD", cwd=clone).split():
        flags = ("--quiet", "--allow-unrelated-histories", "--strategy=ours")
        run_git(lab, "merge", *flags, "--message", JOINED, first, cwd=clone)
