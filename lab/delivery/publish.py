"""Publishing the checkout's DAGs to the lab's own git server, and beginning its repositories.

Every branch that Airflow follows begins with the same commit, which holds no DAG yet: Airflow
can't follow an empty repository, and what has a common beginning can be promoted by a plain push.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.client import runs
from lab.client.git import CONFIG, git
from lab.config import FIRST_DAG
from lab.model import Access

STAGING, PRODUCTION = "main", "release"
FOLDER = "dags"  # in each repository of pipelines
MESSAGE = "Publish the DAGs of the lab's checkout"
JOINED = f"Begin where {PRODUCTION} begins, so that it can follow by a plain push"
# One and the same commit wherever and whenever it is made: who began is never in question.
MOMENT = "1767225600 +0000"
README = f"""\
DAGs are in `{FOLDER}/`. What is pushed to `{STAGING}` runs in Airflow after some seconds.
"""
PROMOTED = f"""\
`{STAGING}` is staging. To production: `git push origin {STAGING}:{PRODUCTION}`
"""
IGNORED = "# Files that hold no DAG, by their names.\n"
DECLARED = re.compile(r"\bDAG\(|@dag\b")  # in a file that declares DAGs
PARSE_SECONDS = 180  # for all files, once the first is parsed
NOT_DAGS = shutil.ignore_patterns("__pycache__", "*.pyc", ".[!a]*")  # but .airflowignore


def dags(lab: Access, url: str, source: Path, folder: str = FOLDER) -> str | None:
    """The repository at `url` holds the Python files of `source` in `folder`; the commit that does.

    Its production branch is there and stays where it is. A branch whose newest commit somebody
    else made is theirs: it is left as it is, and the answer is None.
    """
    with cloned(lab, url) as clone:
        first = begin(lab, clone, README + PROMOTED, STAGING, PRODUCTION)
        if git(lab, "log", "-1", "--format=%ae", cwd=clone).strip() != CONFIG["user.email"]:
            print(f"  {url} has commits of its own: its DAGs are left as they are")
            return None
        join(lab, clone, first)
        mirror(source, clone / folder)
        git(lab, "add", "--all", "--", folder, cwd=clone)
        if git(lab, "status", "--porcelain", cwd=clone):
            git(lab, "commit", "--quiet", "--message", MESSAGE, cwd=clone)
        git(lab, "push", "--quiet", "origin", f"HEAD:refs/heads/{STAGING}", cwd=clone)
        return git(lab, "rev-parse", "HEAD", cwd=clone).strip()


def await_parsed(lab: Access, source: Path, commit: str, timeout: float) -> None:
    """Airflow has parsed the files of `source` at this commit, of which the first DAG's is one.

    Raises ServiceError when the first DAG is not there after `timeout` seconds, DagError when it
    can't be. Of the other files it is said which has no DAG; `lab status` says which are broken.
    """
    runs.await_dag(lab, FIRST_DAG, commit, timeout)
    if silent := runs.await_files(lab, dag_files(source), commit, PARSE_SECONDS):
        print(f"  Airflow has found no DAG in {', '.join(silent)}: lab logs airflow-dag-processor")


def dag_files(source: Path) -> list[str]:
    """The files of `source` that declare DAGs, by their paths in it."""
    found = (
        path for path in source.rglob("*.py") if DECLARED.search(path.read_text("utf-8", "replace"))
    )
    return sorted(path.relative_to(source).as_posix() for path in found)


def empty(lab: Access, url: str) -> None:
    """The repository at `url` can be followed: it has a commit, where it had none one without DAGs.

    What somebody has pushed there stays as it is.
    """
    with cloned(lab, url) as clone:
        begin(lab, clone, README, STAGING)


@contextmanager
def cloned(lab: Access, url: str) -> Iterator[Path]:
    """A clone that is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="lab-publish-") as name:
        clone = Path(name) / "clone"
        git(lab, "clone", "--quiet", "--no-checkout", url, clone, cwd=Path(name))
        yield clone


def begin(lab: Access, clone: Path, readme: str, *branches: str) -> str:
    """The server has these branches, and the clone the first of them; the commit that begins them.

    A branch that is there already is left where it is.
    """
    first = first_commit(lab, clone, readme)
    known = git(lab, "for-each-ref", "--format=%(refname:lstrip=3)", "refs/remotes", cwd=clone)
    if missing := [name for name in branches if name not in known.split()]:
        refs = [f"{first}:refs/heads/{name}" for name in missing]
        git(lab, "push", "--quiet", "origin", *refs, cwd=clone)
    git(lab, "checkout", "--quiet", "-B", branches[0], f"origin/{branches[0]}", cwd=clone)
    return first


def first_commit(lab: Access, clone: Path, readme: str) -> str:
    """The commit that holds `readme` and a folder without DAGs, and has no parent."""
    folder = tree(lab, clone, f"100644 blob {blob(lab, clone, IGNORED)}\t.airflowignore")
    root = tree(
        lab,
        clone,
        f"100644 blob {blob(lab, clone, readme)}\tREADME.md",
        f"040000 tree {folder}\t{FOLDER}",
    )
    who = f"{CONFIG['user.name']} <{CONFIG['user.email']}> {MOMENT}"
    text = f"tree {root}\nauthor {who}\ncommitter {who}\n\nBegin\n"
    return written(lab, clone, "commit", text)


def blob(lab: Access, clone: Path, text: str) -> str:
    return written(lab, clone, "blob", text)


def written(lab: Access, clone: Path, kind: str, text: str) -> str:
    """The name of the object, which the clone has."""
    command = ("hash-object", "-w", "-t", kind, "--stdin")
    return git(lab, *command, cwd=clone, stdin=text).strip()


def tree(lab: Access, clone: Path, *entries: str) -> str:
    """The name of the tree with these entries, which the clone has."""
    listed = "".join(f"{entry}\n" for entry in entries)
    return git(lab, "mktree", cwd=clone, stdin=listed).strip()


def join(lab: Access, clone: Path, first: str) -> None:
    """The branch that is checked out has `first` among its commits, and its files are as before.

    Labs of earlier versions began their branch without it.
    """
    if first not in git(lab, "rev-list", "HEAD", cwd=clone).split():
        flags = ("--quiet", "--allow-unrelated-histories", "--strategy=ours")
        git(lab, "merge", *flags, "--message", JOINED, first, cwd=clone)


def mirror(source: Path, target: Path) -> None:
    """`target` holds the Python files of `source`, and no others."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=NOT_DAGS, copy_function=shutil.copyfile)
