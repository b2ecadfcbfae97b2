"""Read versions of the dataset in a task of Airflow's own: git, the pointer, the object in S3.

The steps do this with DVC, in the worker image. Airflow's image has git and boto3, and a pointer
names an object by its MD5: that is enough to read the object and to verify it.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from configparser import ConfigParser
from configparser import Error as NotAConfig
from pathlib import Path
from typing import TypedDict

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException

import lab_bucket

GIT_CONNECTION = "lab_git"
BRANCH = "main"
GIT_SECONDS = 120
BLOCK = 1 << 20  # bytes read at a time
REFUSED = ("Authentication failed", "could not read Username", "error: 403", "Repository not found")
# git runs this shell and reads what it prints. No secret is in an argument.
HELPER = (
    '!f() { test "$1" = get && '
    'printf "username=%s\\npassword=%s\\n" "$READER" "$READERS_PASSWORD"; }; f'
)
CONFIG = {"credential.helper": HELPER, "http.lowSpeedLimit": "1", "http.lowSpeedTime": "30"}


class Version(TypedDict):
    """One version of the dataset: its place in git and S3, and the MD5 that verifies it."""

    commit: str
    path: str
    md5: str
    size: int  # bytes
    bucket: str
    key: str


def find_newest_version() -> Version:
    """Return the version that the datasets' branch names now.

    Raise AirflowFailException when it names none, AirflowException when git does not answer.
    """
    known = lab_bucket.contract()
    path = known["DATASET_PATH"]
    with tempfile.TemporaryDirectory(prefix="datasets-") as folder:
        options = ("--quiet", "--depth=1", "--no-checkout", f"--branch={BRANCH}")
        git("clone", *options, known["GIT_URL"], folder, cwd=Path(folder))
        commit = git("rev-parse", "HEAD", cwd=Path(folder)).strip()
        pointer = read_file(commit, f"{path}.dvc", Path(folder))
        config = read_file(commit, ".dvc/config", Path(folder))
    md5, size = parse_pointer(pointer, f"{path}.dvc at {commit}")
    bucket, prefix = parse_remote(config, f".dvc/config at {commit}")
    key = "/".join(filter(None, (prefix, "files/md5", md5[:2], md5[2:])))
    return {"commit": commit, "path": path, "md5": md5, "size": size, "bucket": bucket, "key": key}


def git(*arguments: str, cwd: Path) -> str:
    """Run git, return its output. Raise AirflowFailException if refused, else AirflowException."""
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=cwd,
            env=git_environment(cwd),
            capture_output=True,
            text=True,
            timeout=GIT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise AirflowException(f"git {arguments[0]} took more than {GIT_SECONDS} s") from None
    if done.returncode == 0:
        return done.stdout
    tail = " ".join(done.stderr.split())[-300:]
    if any(word in tail for word in REFUSED):
        raise AirflowFailException(
            f"the git server does not let Airflow's account read the datasets ({tail}): "
            f"see the connection {GIT_CONNECTION}"
        )
    raise AirflowException(f"git {arguments[0]} failed: {tail}")


def git_environment(folder: Path) -> dict[str, str]:
    """Return git's environment: it reads no other configuration, and never prompts."""
    connection = Connection.get(GIT_CONNECTION)
    env = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(folder),
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_COUNT": str(len(CONFIG)),
        "READER": connection.login or "",
        "READERS_PASSWORD": connection.password or "",
    }
    for index, (name, value) in enumerate(CONFIG.items()):
        env |= {f"GIT_CONFIG_KEY_{index}": name, f"GIT_CONFIG_VALUE_{index}": value}
    return env


def read_file(commit: str, path: str, repository: Path) -> str:
    """Return a file's text at a commit. Raise AirflowFailException if the commit lacks it."""
    if not git("ls-tree", commit, "--", path, cwd=repository):
        raise AirflowFailException(f"the datasets' commit {commit} has no {path}")
    return git("show", f"{commit}:{path}", cwd=repository)


def parse_pointer(text: str, where: str) -> tuple[str, int]:
    """Return a pointer's MD5 and size. Raise AirflowFailException unless it names one file."""
    import yaml

    try:
        (out,) = yaml.safe_load(text)["outs"]
        md5, size = str(out["md5"]), int(out["size"])
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise AirflowFailException(f"{where} is not a pointer to one file: {error}") from error
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise AirflowFailException(f"{where} names {md5!r}, which is not the MD5 of a file")
    return md5, size


def parse_remote(text: str, where: str) -> tuple[str, str]:
    """Return the default remote's bucket and prefix. Raise AirflowFailException unless it is S3."""
    parser = ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        url = parser.get(f"'remote \"{parser.get('core', 'remote')}\"'", "url")
    except NotAConfig as error:
        raise AirflowFailException(f"{where} names no default remote: {error}") from error
    if not url.startswith("s3://"):
        raise AirflowFailException(f"{where}: the remote {url!r} is not on S3")
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    return bucket, prefix.rstrip("/")


def read_blocks(version: Version) -> Iterator[bytes]:
    """Yield the version's bytes as they arrive; they are verified at the iterator's end.

    Raise AirflowFailException there when they are not what the pointer names, and at once when
    the object does not exist.
    """
    s3 = lab_bucket.client()
    where = f"s3://{version['bucket']}/{version['key']}"
    try:
        body = s3.get_object(Bucket=version["bucket"], Key=version["key"])["Body"]
    except s3.exceptions.NoSuchKey:
        raise AirflowFailException(
            f"there is no object {where}: was it deleted, or does the pointer name a wrong hash?"
        ) from None
    digest = hashlib.md5(usedforsecurity=False)
    for block in body.iter_chunks(BLOCK):
        digest.update(block)
        yield block
    if digest.hexdigest() != version["md5"]:
        raise AirflowFailException(
            f"{where} is not what the pointer at {version['commit']} names: "
            f"its MD5 is {digest.hexdigest()}"
        )


def decode_lines(blocks: Iterator[bytes]) -> Iterator[str]:
    """Yield the lines of the blocks, without newlines. Raise ValueError when they are not UTF-8."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from (line.decode() for line in whole)
    if rest:
        yield rest.decode()
