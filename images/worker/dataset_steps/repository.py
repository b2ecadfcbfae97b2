"""The git commands of a step. Credentials reach git by a helper that reads the environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path

from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.patience import with_retries

BRANCH = "main"
GIT_SECONDS = 300

# git runs this shell and reads what it prints. No secret is in an argument.
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
    # Give up on a server that sends less than 1 byte/s for 30 s.
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


def git_environment() -> dict[str, str]:
    """Return git's environment: this step's settings, and no user's or machine's configuration."""
    env = {
        **{name: value for name, value in os.environ.items() if not is_foreign(name)},
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_LITERAL_PATHSPECS": "1",  # a data set's name may hold * or [
        "LC_ALL": "C",
    }
    config = {**CONFIG, **author_config()}
    for index, (key, value) in enumerate(config.items()):
        env |= {f"GIT_CONFIG_KEY_{index}": key, f"GIT_CONFIG_VALUE_{index}": value}
    return {**env, "GIT_CONFIG_COUNT": str(len(config))}


def author_config() -> dict[str, str]:
    """Return git's configuration of the author: the pipeline."""
    name = os.environ.get("DAG_ID") or "lab"
    return {"user.name": name, "user.email": f"{name}@localhost"}


def is_foreign(name: str) -> bool:
    """Return whether a variable would change what git does (GIT_DIR, GIT_SSH, …)."""
    return name.startswith("GIT_") and not name.startswith("GIT_SYNC_")


def git(*arguments: str, cwd: Path, stdin: str = "") -> str:
    """Run git, return its output. Raise StepError if refused, TemporaryError if a server fails."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            env=git_environment(),
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
        raise error_from_output(arguments[0], done.stdout + done.stderr)
    return done.stdout


def error_from_output(command: str, output: str) -> Exception:
    """Return the exception for git's output: credentials, a lost race, or a failing server."""
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
    """Clone into `into`, which must not exist; check its branch out if it has a commit."""
    into.mkdir(parents=True)
    git("init", "--quiet", cwd=into)
    git("remote", "add", "origin", url, cwd=into)
    fetch(into)
    if tip(into):
        reset(into)


@with_retries
def fetch(repository: Path) -> None:
    """Fetch all branches, `origin/main` among them."""
    refs = "+refs/heads/*:refs/remotes/origin/*"
    git("fetch", "--quiet", "--no-tags", "origin", refs, cwd=repository)


def tip(repository: Path) -> str | None:
    """Return the commit at `origin/main`, or None in a repository without commits."""
    found = git(
        "for-each-ref", "--format=%(objectname)", f"refs/remotes/origin/{BRANCH}", cwd=repository
    )
    return found.strip() or None


def reset(repository: Path) -> None:
    """Reset the work tree to `origin/main`; files that git ignores stay."""
    git("checkout", "--quiet", "--force", "-B", BRANCH, f"origin/{BRANCH}", cwd=repository)


def checkout(repository: Path, commit: str) -> None:
    """Check any commit out into the work tree; files that git ignores stay."""
    git("checkout", "--quiet", "--force", "--detach", commit, cwd=repository)


def resolve(repository: Path, name: str) -> str | None:
    """Return a commit's full hash, by its branch on the server or the beginning of its hash.

    None when there is no such commit, or more than one.
    """
    return find_object(repository, f"{f'origin/{name}' if name == BRANCH else name}^{{commit}}")


def find_object(repository: Path, name: str) -> str | None:
    """Return the full hash of the only object of this name, or None."""
    said = git("cat-file", "--batch-check=%(objectname)", cwd=repository, stdin=f"{name}\n")
    return said.strip() if FULL_HASH.fullmatch(said.strip()) else None


def find_last_change(repository: Path, commit: str, path: str) -> str | None:
    """Return the newest commit up to `commit` that changed the file, or None if none has it."""
    return git("log", "-1", "--format=%H", commit, "--", path, cwd=repository).strip() or None


def read_file(repository: Path, commit: str, path: str) -> str:
    """Return the text of a file at a commit, which must have it."""
    return git("show", f"{commit}:{path}", cwd=repository)


def find_blob(repository: Path, commit: str, path: str) -> str | None:
    """Return the object that a path is at a commit, or None where there is no such path."""
    return find_object(repository, f"{commit}:{path}")


def is_tracked(repository: Path, path: str) -> bool:
    """Return whether the checked-out commit has a file at this path, or files below it."""
    return bool(git("ls-files", "-z", "--", path, cwd=repository))


def list_strays(repository: Path) -> list[str]:
    """List the files in the work tree that git has other content of, or none; not ignored ones."""
    said = git("status", "--porcelain", "-z", "--no-renames", cwd=repository)
    return [row[3:] for row in said.split("\0") if row]


def open_publishing_tree(repository: Path, tree: Path) -> None:
    """Check `origin/main` out, with nothing else, into a work tree in which a commit is made.

    It has the objects and the branches of `repository`, where the steps work: that one stays as
    it is.
    """
    if not (tree / ".git").exists():
        shutil.rmtree(tree, ignore_errors=True)
        git("worktree", "prune", cwd=repository)
        git("worktree", "add", "--force", "--detach", "--no-checkout", str(tree), cwd=repository)
    git("reset", "--quiet", "--hard", f"origin/{BRANCH}", cwd=tree)
    git("clean", "--quiet", "-ffdx", cwd=tree)


def remove_stale_locks(repository: Path) -> None:
    """Delete lock files of a killed git; the workspace's lock guarantees that no other git runs."""
    for pattern in ("*.lock", "refs/**/*.lock", "worktrees/*/*.lock"):
        for lock in (repository / ".git").glob(pattern):
            lock.unlink(missing_ok=True)


def ignore_file(file: Path) -> Path:
    """Have git ignore a file that DVC versions. Return the path of the `.gitignore`.

    A line is appended to it, as its other lines end; what is there stays.
    """
    path = file.with_name(".gitignore")
    path.parent.mkdir(parents=True, exist_ok=True)
    there = path.read_bytes() if path.exists() else b""
    line, end = f"/{file.name}".encode(), b"\r\n" if b"\r\n" in there else b"\n"
    if line not in there.splitlines():
        gap = end if there and not there.endswith(b"\n") else b""
        with path.open("ab") as rules:
            rules.write(gap + line + end)
    return path


def format_message(subject: str, trailers: Iterable[tuple[str, str]]) -> str:
    """Return a commit message: a subject line, and trailers for `find_commit` and `lab verify`."""
    lines = "\n".join(f"{key}: {value}" for key, value in trailers)
    return f"{subject}\n\n{lines}\n"


def commit(repository: Path, paths: list[Path], message: str) -> None:
    """Commit these files, and nothing else, on top of the checked-out commit."""
    names = [str(path.relative_to(repository)) for path in paths]
    git("add", "--", *names, cwd=repository)
    git("commit", "--quiet", "--file=-", "--", *names, cwd=repository, stdin=message)


@with_retries
def push(repository: Path) -> None:
    """Push HEAD to the server's branch: compare-and-swap, since only a fast-forward is accepted.

    Pushing again what the server has already accepted changes nothing there.
    Raise PushRejected when the branch moved since the last fetch.
    """
    git("push", "--quiet", "origin", f"HEAD:refs/heads/{BRANCH}", cwd=repository)


def head(repository: Path) -> str:
    """Return the commit that is checked out."""
    return git("rev-parse", "HEAD", cwd=repository).strip()


def read_trailers(repository: Path, commit: str) -> list[tuple[str, str]]:
    """Return the trailers of a commit, in their order."""
    shown = "%(trailers:only,unfold,separator=%x1e)"
    log = git("log", "-1", f"--format={shown}", commit, cwd=repository).removesuffix("\n")
    pairs = (line.partition(": ") for line in log.split("\x1e") if line)
    return [(key, value) for key, _, value in pairs]


def find_commit(repository: Path, trailers: dict[str, str]) -> str | None:
    """Return the newest commit of `origin/main` that has all these trailers, or None."""
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
