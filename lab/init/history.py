"""The git repository of a new project, and its first commit."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from lab.errors import LabError, MachineError
from lab.shell import run

SECONDS = 60
# What says for one command of git where a repository is; a hook that calls `lab` would have it set.
LOCAL = (
    *("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX"),
    *("GIT_COMMON_DIR", "GIT_NAMESPACE", "GIT_ALTERNATE_OBJECT_DIRECTORIES"),
)


def require_git() -> None:
    """Raise MachineError where there is no git."""
    if not shutil.which("git"):
        raise MachineError("there is no git on PATH", "install git 2.31 or newer")


def begin_history(folder: Path, message: str) -> str | None:
    """Make a repository of the folder, with one commit by the person; return why there is none.

    Then everything is staged.
    """
    git(folder, "init", "--quiet", "--initial-branch", "main")
    # A project is whole, whatever this person has told git to ignore elsewhere.
    git(folder, "-c", f"core.excludesFile={os.devnull}", "add", "--all")
    own = ("-c", "user.useConfigOnly=true")  # the person's identity, and none that git makes up
    try:
        for who in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"):
            git(folder, *own, "var", who)
    except LabError:
        return "git does not know who you are (git config --global user.name and user.email)"
    try:
        git(folder, *own, "commit", "--quiet", "--message", message)
    except LabError as error:
        return error.what
    return None


def git(folder: Path, *words: str) -> str:
    env = {name: value for name, value in os.environ.items() if name not in LOCAL}
    env["GIT_TERMINAL_PROMPT"] = "0"
    return run(["git", *words], cwd=folder, env=env, timeout=SECONDS)
