"""Read versions of the dataset in a task of Airflow's own: git, the pointer, the object in S3.

The steps do this with DVC, in the worker image. Airflow's image has git and boto3, and a pointer
names an object by its MD5: that is enough to read the object and to verify it, in the layout of
DVC 3 and in that of DVC 2.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypedDict

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowException, AirflowFailException

import lab_bucket
from dataset_steps.contract import DATASET
from steps import DECLARED

GIT_CONNECTION = "lab_git"
BRANCH = "main"
GIT_SECONDS = 120
BLOCK = 1 << 20  # bytes read at a time; DVC 2's hash depends on it
HEAD = 512  # bytes of a block by which DVC 2 tells text
TEXT = bytes(range(32, 127)) + b"\n\r\t\f\b"
REFUSED = ("Authentication failed", "could not read Username", "error: 403", "Repository not found")
# git runs this shell and reads what it prints. No secret is in an argument.
HELPER = (
    '!f() { test "$1" = get && '
    'printf "username=%s\\npassword=%s\\n" "$READER" "$READERS_PASSWORD"; }; f'
)
CONFIG = {"credential.helper": HELPER, "http.lowSpeedLimit": "1", "http.lowSpeedTime": "30"}
# DVC's configuration as the INI dialect of ConfigObj, which writes it.
SECTION = re.compile(r"""\[\s*(['"]?)(?P<name>.*?)\1\s*\](?:\s*#.*)?""")
OPTION = re.compile(
    r"""(?P<name>[^=]+?)\s*=\s*(?:"(?P<double>.*?)"|'(?P<single>.*?)'|(?P<bare>[^#]*?))\s*(?:#.*)?"""
)


class Version(TypedDict):
    """One version of the dataset: its place in git and S3, and the MD5 that verifies it."""

    commit: str
    path: str
    md5: str
    size: int  # bytes
    bucket: str
    key: str
    endpoint: str | None  # where it is not the lab's server
    legacy: bool  # the MD5 is DVC 2's


class Pointer(NamedTuple):
    """What a `.dvc` file says of its only file."""

    md5: str
    size: int  # bytes
    legacy: bool
    remote: str | None  # None: the default one


class Remote(NamedTuple):
    """A DVC remote on S3."""

    bucket: str
    prefix: str
    endpoint: str | None


def find_newest_version() -> Version:
    """Return the version that the datasets' branch names now.

    Raise AirflowFailException when it names none, AirflowException when git does not answer.
    """
    known = lab_bucket.contract()
    path = DECLARED.paths.get(DATASET) or known["DATASET_PATH"]
    with tempfile.TemporaryDirectory(prefix="datasets-") as folder:
        options = ("--quiet", "--depth=1", "--no-checkout", f"--branch={BRANCH}")
        git("clone", *options, known["GIT_URL"], folder, cwd=Path(folder))
        commit = git("rev-parse", "HEAD", cwd=Path(folder)).strip()
        text = read_file(commit, f"{path}.dvc", Path(folder))
        config = read_file(commit, ".dvc/config", Path(folder))
    pointer = parse_pointer(text, f"{path}.dvc at {commit}")
    remote = parse_remote(config, f".dvc/config at {commit}", pointer.remote)
    return {
        "commit": commit,
        "path": path,
        "md5": pointer.md5,
        "size": pointer.size,
        "bucket": remote.bucket,
        "key": object_key(remote.prefix, pointer),
        "endpoint": remote.endpoint,
        "legacy": pointer.legacy,
    }


def object_key(prefix: str, pointer: Pointer) -> str:
    """Return the key of the bytes, in the layout of the DVC that wrote the pointer."""
    layout = "" if pointer.legacy else "files/md5"
    return posixpath.join(prefix, layout, pointer.md5[:2], pointer.md5[2:])


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


def parse_pointer(text: str, where: str) -> Pointer:
    """Parse a pointer. Raise AirflowFailException unless it names one file."""
    import yaml

    try:
        first, *others = yaml.safe_load(text)["outs"]
        md5, size = str(first["md5"]), int(first["size"])
        legacy, remote = "hash" not in first, first.get("remote")
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise AirflowFailException(f"{where} is not a pointer to one file: {error}") from error
    if others:
        raise AirflowFailException(f"{where} names {1 + len(others)} files, and not one")
    if not re.fullmatch("[0-9a-f]{32}", md5):
        raise AirflowFailException(f"{where} names {md5!r}, which is not the MD5 of a file")
    return Pointer(md5, size, legacy, remote)


def parse_remote(text: str, where: str, name: str | None = None) -> Remote:
    """Return the remote of this name, or the default one.

    Raise AirflowFailException unless it is on S3.
    """
    sections = parse_sections(text)
    options = find_options(sections, name or sections.get("core", {}).get("remote", ""))
    if "url" not in options:
        what = f"remote {name!r}" if name else "default remote"
        raise AirflowFailException(f"{where} names no {what}")
    url = options["url"]
    if not url.lower().startswith("s3://"):
        raise AirflowFailException(f"{where}: the remote {url!r} is not on S3")
    bucket, _, prefix = url[len("s3://") :].partition("/")
    return Remote(bucket, prefix, options.get("endpointurl"))


def find_options(sections: dict[str, dict[str, str]], name: str) -> dict[str, str]:
    """Return a remote's options, with those of the remote of which it is a folder."""
    others = dict(sections)
    options = others.pop(f'remote "{name.lower()}"', {})
    if not options.get("url", "").startswith("remote://"):
        return options
    base, _, folder = options["url"].removeprefix("remote://").partition("/")
    outer = find_options(others, base)
    place = {"url": posixpath.join(outer["url"], folder)} if "url" in outer else {}
    return {**outer, **options, **place}


def parse_sections(text: str) -> dict[str, dict[str, str]]:
    """Return the options of each section of DVC's configuration; names are in small letters."""
    found: dict[str, dict[str, str]] = {}
    options: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if section := SECTION.fullmatch(line):
            options = found.setdefault(section["name"].lower(), {})
        elif option := OPTION.fullmatch(line):
            value = option["double"] or option["single"] or option["bare"] or ""
            options[option["name"].lower()] = value
    return found


def read_blocks(version: Version) -> Iterator[bytes]:
    """Yield the version's bytes as they arrive; they are verified at the iterator's end.

    Raise AirflowFailException there when they are not what the pointer names, and at once when
    the object does not exist.
    """
    s3 = lab_bucket.client(version["endpoint"])
    where = f"s3://{version['bucket']}/{version['key']}"
    try:
        body = s3.get_object(Bucket=version["bucket"], Key=version["key"])["Body"]
    except s3.exceptions.NoSuchKey:
        raise AirflowFailException(
            f"there is no object {where}: was it deleted, or does the pointer name a wrong hash?"
        ) from None
    digest = hashlib.md5(usedforsecurity=False)
    for block in cut_blocks(body.iter_chunks(BLOCK)):
        digest.update(hashed_bytes(block) if version["legacy"] else block)
        yield block
    if digest.hexdigest() != version["md5"]:
        raise AirflowFailException(
            f"{where} is not what the pointer at {version['commit']} names: "
            f"its MD5 is {digest.hexdigest()}"
        )


def cut_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the chunks' bytes in blocks of BLOCK bytes; the last one may be shorter."""
    rest = b""
    for chunk in chunks:
        rest += chunk
        while len(rest) >= BLOCK:
            yield rest[:BLOCK]
            rest = rest[BLOCK:]
    if rest:
        yield rest


def hashed_bytes(block: bytes) -> bytes:
    """Return what DVC 2 hashes of a block: LF for CRLF where it looks like text."""
    head = block[:HEAD]
    is_text = b"\0" not in head and len(head.translate(None, TEXT)) / len(head) <= 0.30
    return block.replace(b"\r\n", b"\n") if is_text else block
