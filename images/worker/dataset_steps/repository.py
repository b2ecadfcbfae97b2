"""Git, as a step needs it. Credentials reach git by a helper that reads the environment."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.patience import patiently

BRANCH = "main"
GIT_SECONDS = 300

# The shell runs inside git; what it prints goes to git alone. Nothing secret is in an argument.
HELPER = (
    '!f() { test "$1" = get && '
    'printf "username=%s\\npassword=%s\\n" "$GIT_SYNC_USERNAME" "$GIT_SYNC_PASSWORD"; }; f'
)
CONFIG = {
    "credential.helper": HELPER,
    "init.defaultBranch": BRANCH,
    "core.fsync": "all",
    "commit.gpgSign": "false",
    # One branch, so nothing to filter on the server: version 2's extra request costs 40 ms.
    "protocol.version": "0",
    # A server that stops sending is given up after 30 s below 1 byte/s.
    "http.lowSpeedLimit": "1",
    "http.lowSpeedTime": "30",
}
REFUSED = (
    "Authentication failed",
    "could not read Username",
    "The requested URL returned error: 403",
)
FULL_HASH = re.compile("[0-9a-f]{40,64}")
LOST_RACE = ("[rejected]", "[remote rejected]")


class PushRejected(Exception):
    """The branch moved since it was fetched."""


def environment() -> dict[str, str]:
    """Git sees this step's settings and nobody else's: no user's or machine's configuration."""
    env = {
        **{name: value for name, value in os.environ.items() if not foreign(name)},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "LC_ALL": "C",
    }
    config = {**CONFIG, **author()}
    for index, (key, value) in enumerate(config.items()):
        env |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return {**env, "GIT_CONFIG_COUNT": str(len(config))}


def author() -> dict[str, str]:
    """Who makes a commit: the pipeline."""
    name = os.environ.get("DAG_ID") or "lab"
    return {"user.name": name, "user.email": f"{name}@localhost"}


def foreign(name: str) -> bool:
    """Whether a variable would change what git does (GIT_DIR, GIT_SSH, …)."""
    return name.startswith("GIT_") and not name.startswith("GIT_SYNC_")


def git(*arguments: str, cwd: Path, stdin: str = "") -> str:
    """What git printed. Raises StepError when git refuses, TemporaryError when a server fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            env=environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
            close_fds=False,  # git holds the workspace's lock too: an orphan keeps a retry out
        )
    except subprocess.TimeoutExpired:
        raise TemporaryError(f"git {arguments[0]} took more than {GIT_SECONDS} s") from None
    if done.returncode:
        raise failure(arguments[0], done.stdout + done.stderr)
    return done.stdout


def failure(command: str, output: str) -> Exception:
    """The exception that says what git's output means."""
    tail = " ".join(output.split())[-400:]
    if any(word in output for word in REFUSED):
        return StepError(
            f"the git server refused the step's credentials during git {command}; "
            f"was the token revoked? ({tail})"
        )
    if command == "push" and any(word in output for word in LOST_RACE):
        return PushRejected(tail)
    return TemporaryError(f"git {command} failed: {tail}")


def clone(url: str, into: Path) -> None:
    """`into`, which must not exist, is a clone; its branch is checked out where it has a commit."""
    into.mkdir(parents=True)
    git("init", "--quiet", cwd=into)
    git("remote", "add", "origin", url, cwd=into)
    fetch(into)
    if tip(into):
        reset(into)


@patiently
def fetch(repository: Path) -> None:
    """`origin/main` is what the server has now."""
    refs = "+refs/heads/*:refs/remotes/origin/*"
    git("fetch", "--quiet", "--no-tags", "origin", refs, cwd=repository)


def tip(repository: Path) -> str | None:
    """The commit at `origin/main`, or None in a repository without commits."""
    found = git(
        "for-each-ref", "--format=%(objectname)", f"refs/remotes/origin/{BRANCH}", cwd=repository
    )
    return found.strip() or None


def reset(repository: Path) -> None:
    """The work tree is that of `origin/main`; files that git ignores stay."""
    git("checkout", "--quiet", "--force", "-B", BRANCH, f"origin/{BRANCH}", cwd=repository)


def checkout(repository: Path, commit: str) -> None:
    """The work tree is that of any commit; files that git ignores stay."""
    git("checkout", "--quiet", "--force", "--detach", commit, cwd=repository)


def resolve(repository: Path, name: str) -> str | None:
    """The full hash of a commit, by its branch on the server or the beginning of its hash.

    None when there is no such commit, or more than one.
    """
    asked = f"origin/{name}" if name == BRANCH else name
    said = git(
        "cat-file",
        "--batch-check=%(objectname)",
        cwd=repository,
        stdin=f"{asked}^{{commit}}\n",
    )
    return said.strip() if FULL_HASH.fullmatch(said.strip()) else None


def last_change(repository: Path, commit: str, path: str) -> str | None:
    """The newest commit up to `commit` that changed the file, or None when none has it."""
    return git("log", "-1", "--format=%H", commit, "--", path, cwd=repository).strip() or None


def content(repository: Path, commit: str, path: str) -> str:
    """The text of a file at a commit, which must have it."""
    return git("show", f"{commit}:{path}", cwd=repository)


def unlock(repository: Path) -> None:
    """Lock files of a git that was killed are gone; the workspace's lock says no other git runs."""
    for pattern in ("*.lock", "refs/**/*.lock"):
        for lock in (repository / ".git").glob(pattern):
            lock.unlink(missing_ok=True)


def ignore(file: Path) -> Path:
    """Git ignores a file that DVC versions, its pointer is what git has; the list that says so."""
    path = file.with_name(".gitignore")
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    line = f"/{file.name}"
    if line not in lines:
        path.write_text("\n".join([*lines, line]) + "\n", encoding="utf-8")
    return path


def message(subject: str, trailers: dict[str, str]) -> str:
    """A commit message: one line for people, trailers for `commit_with` and `lab verify`."""
    lines = "\n".join(f"{key}: {value}" for key, value in trailers.items())
    return f"{subject}\n\n{lines}\n"


def commit(repository: Path, paths: list[Path], message: str) -> None:
    """A commit of these files, and of nothing else, on top of the work tree's."""
    names = [str(path.relative_to(repository)) for path in paths]
    git("add", "--", *names, cwd=repository)
    git("commit", "--quiet", "--file=-", "--", *names, cwd=repository, stdin=message)


@patiently
def push(repository: Path) -> None:
    """The server's branch is this commit: compare-and-swap, since only a fast-forward is taken.

    Pushing again what the server took already changes nothing there.
    Raises PushRejected when the branch moved since the last fetch.
    """
    git("push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}", cwd=repository)


def head(repository: Path) -> str:
    """The commit that is checked out."""
    return git("rev-parse", "HEAD", cwd=repository).strip()


def commit_with(repository: Path, trailers: dict[str, str]) -> str | None:
    """The newest commit of `origin/main` that carries all these trailers, or None."""
    if tip(repository) is None:
        return None
    shown = "%x1f".join(f"%(trailers:key={key},valueonly,separator=%x1e)" for key in trailers)
    first = next(iter(trailers.items()))
    log = git(
        "log",
        f"origin/{BRANCH}",
        "--fixed-strings",
        f"--grep={first[0]}: {first[1]}",
        f"--format=%H%x1f{shown}",
        cwd=repository,
    )
    wanted = list(trailers.values())
    rows = (line.split("\x1f") for line in log.split("\n"))
    return next((row[0] for row in rows if row[1:] == wanted), None)
