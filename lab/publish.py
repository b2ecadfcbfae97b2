"""Publishing the checkout's DAGs to the lab's own git server."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from lab.git import CONFIG, git
from lab.model import Access

BRANCH = "main"
MESSAGE = "Publish the DAGs of the lab's checkout"


def dags(lab: Access, url: str, source: Path, folder: str) -> str | None:
    """The repository at `url` holds the Python files of `source` in `folder`; the commit that does.

    A branch whose newest commit somebody else made is theirs: it is left as it is, and the answer
    is None.
    """
    with tempfile.TemporaryDirectory(prefix="lab-publish-") as name:
        clone = Path(name) / "pipelines"
        git(lab, "clone", "--quiet", url, clone, cwd=Path(name))
        if not ours(lab, clone):
            print(f"  {url} has commits of its own: its DAGs are left as they are")
            return None
        mirror(source, clone / folder)
        git(lab, "add", "--all", "--", folder, cwd=clone)
        if git(lab, "status", "--porcelain", cwd=clone):
            git(lab, "commit", "--quiet", "--message", MESSAGE, cwd=clone)
            git(lab, "push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}", cwd=clone)
        return git(lab, "rev-parse", "HEAD", cwd=clone).strip()


def ours(lab: Access, clone: Path) -> bool:
    """Whether the branch is empty, or its newest commit is one that this module made."""
    if not git(lab, "for-each-ref", "refs/remotes", cwd=clone):
        git(lab, "checkout", "--quiet", "-B", BRANCH, cwd=clone)
        return True
    return git(lab, "log", "-1", "--format=%ae", cwd=clone).strip() == CONFIG["user.email"]


def mirror(source: Path, target: Path) -> None:
    """`target` holds the Python files of `source`, and no others."""
    shutil.rmtree(target, ignore_errors=True)
    only = shutil.ignore_patterns("__pycache__", "*.pyc", ".[!a]*")  # but .airflowignore
    shutil.copytree(source, target, ignore=only, copy_function=shutil.copyfile)
