"""Git as the lab's owner; a credential helper reads the environment, so no argument has them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from lab.errors import AccessError, LabError, ProofError
from lab.model import Access
from lab.reasons import find_reason
from lab.shell import run

SECONDS = 120
HELPER = (
    '!f() { test "$1" = get && '
    'printf "username=%s\npassword=%s\n" "$GIT_USER" "$GIT_PASSWORD"; }; f'
)
CONFIG = {
    "credential.helper": HELPER,
    "user.name": "lab",
    "user.email": "lab@localhost",
    "init.defaultBranch": "main",
    "commit.gpgSign": "false",
    "core.autocrlf": "false",
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "30",
}


def run_git(lab: Access, *arguments: str | Path, cwd: Path, stdin: str = "") -> str:
    """Run git and return its output. Raises AccessError when the server refuses, else LabError."""
    fix = "lab status shows whether the git server runs"
    try:
        return run(
            ["git", *arguments],
            timeout=SECONDS,
            fix=fix,
            cwd=cwd,
            env=environment(lab),
            stdin=stdin,
        )
    except LabError as error:
        if "Authentication failed" in error.output or "error: 403" in error.output:
            raise AccessError(
                f"the git server refused the account {lab.git_user!r}",
                "its password is in `lab env`; `lab down --purge` and `lab up` make new ones",
            ) from error
        raise


def read_texts(
    names: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float = SECONDS
) -> list[str]:
    """Return the text of each file that is named, by one git process.

    Raises LabError when git fails, and ProofError for a name that is not a file's.
    """
    said, at, texts = read_objects(names, cwd, env, timeout), 0, []
    for name in names:
        begin = said.index(b"\n", at) + 1
        if not (head := re.fullmatch(rb"[0-9a-f]+ blob (\d+)\n", said[at:begin])):
            raise ProofError(f"{name} is not a file of that commit", "look at the commit with git")
        end = begin + int(head[1])
        texts.append(said[begin:end].decode("utf-8", "replace"))
        at = end + 1
    return texts


def read_objects(names: Sequence[str], cwd: Path, env: Mapping[str, str], timeout: float) -> bytes:
    """Return what `git cat-file --batch` says of these names, in bytes: a file may hold any."""
    done = subprocess.run(
        ["git", "cat-file", "--batch"],
        cwd=cwd,
        env=env,
        input="".join(f"{name}\n" for name in names).encode(),
        timeout=timeout,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        reason = find_reason(done.stderr.decode("utf-8", "replace"))
        raise LabError(f"git cat-file can't read {cwd}: {reason}", "try again: it is a fresh clone")
    return done.stdout


def airflow_connection(url: str, user: str, password: str) -> dict[str, object]:
    """Return Airflow's connection to a repository over HTTP."""
    return {"conn_type": "git", "host": url, "login": user, "password": password}


def git_sync_keys(user: str, password: str) -> dict[str, str]:
    """Return the four keys that git-sync's versions 3 and 4 read; the steps read the first two."""
    return {
        "GIT_SYNC_USERNAME": user,
        "GIT_SYNC_PASSWORD": password,
        "GITSYNC_USERNAME": user,
        "GITSYNC_PASSWORD": password,
    }


def environment(lab: Access) -> dict[str, str]:
    """Return git's environment: no configuration of the machine or its user, and no prompt."""
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": os.environ.get("HOME", "/"),
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(CONFIG)),
        "LC_ALL": "C",
        "GIT_USER": lab.git_user,
        "GIT_PASSWORD": lab.git_password,
    }
    for index, (key, value) in enumerate(CONFIG.items()):
        env |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return env
