"""DVC's own view of a clone: the remote of a pointer, and what keeps DVC from pulling a file."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dataset_steps import configuration
from dataset_steps.errors import StepError, TemporaryError

if TYPE_CHECKING:
    from dvc.repo import Repo

MD5 = "54e1eb987b2a9ffe06e8a530ca469b18"
PATH = "datasets/data.csv"
OUT = f"- md5: {MD5}\n  size: 8\n  hash: md5\n"
POINTER = f"outs:\n{OUT}  path: data.csv\n"
DEFAULT = "[core]\nremote = store\n"


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a clone as a step finds it: with a pointer, in a machine without DVC's own files."""
    for variable in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for variable in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(variable)
    folder = tmp_path / "clone"
    (folder / "datasets").mkdir(parents=True)
    (folder / ".dvc").mkdir()
    write(folder / f"{PATH}.dvc", POINTER)
    env = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "--quiet"], cwd=folder, env=env, check=True)
    return folder


def write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def open_clone(clone: Path, config: str) -> Repo:
    write(clone / ".dvc" / "config", config)
    return configuration.open_repository(clone)


def remote_text(url: str, *options: str, name: str = "store") -> str:
    """Return the section of a remote in DVC's configuration."""
    return "\n".join([f"['remote \"{name}\"']", f"    url = {url}", *options, ""])


# --- Remotes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("s3://bucket/store", "bucket/store"),
        ("s3://bucket/", "bucket"),
        ("S3://bucket/a/b//", "bucket/a/b/"),
        ("remote://archive/part", "kept/all/part"),
    ],
)
def test_both_layouts_of_a_remote(clone: Path, url: str, folder: str) -> None:
    other = remote_text("s3://kept/all", name="archive")
    repo = open_clone(clone, DEFAULT + remote_text(url) + other)
    remote = configuration.find_remote(repo, None)
    assert remote.odb.oid_to_path(MD5) == f"{folder}/files/md5/{MD5[:2]}/{MD5[2:]}"
    assert remote.legacy_odb.oid_to_path(MD5) == f"{folder}/{MD5[:2]}/{MD5[2:]}"


def test_a_configuration_of_aws_that_is_not_there(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(clone))
    with pytest.raises(StepError, match="could not be found"):
        configuration.find_remote(open_clone(clone, DEFAULT + remote_text("s3://bucket")), None)


def test_a_pointer_s_own_remote_comes_before_the_default_one(clone: Path) -> None:
    config = DEFAULT + remote_text("gs://none") + remote_text("s3://kept", name="archive")
    remote = configuration.find_remote(open_clone(clone, config), "archive")
    assert remote.odb.oid_to_path("abcd") == "kept/files/md5/ab/cd"


REMOTES = {
    "": "names a remote: `dvc remote default NAME`",
    remote_text("s3://bucket"): "names a remote: `dvc remote default NAME`",
    DEFAULT: "remote 'store' doesn't exist",
    "[core": "Invalid line",
    "[core]\nunknown = 1\n": "extra keys not allowed",
    "[core]\nremote = %(x)s\n": 'missing option "x"',
    "[cache]\nlocal = nowhere\n": "remote 'nowhere' doesn't exist",
    "[cache]\ntype = wish\n": r"Unsupported cache type\(s\): wish",
    DEFAULT + remote_text("gs://bucket"): "the DVC remote store is gs; these steps need s3",
    DEFAULT + remote_text("ssh://host/x"): "the DVC remote store is ssh; these steps need s3",
    DEFAULT + remote_text("https://host/x"): "the DVC remote store is https; these steps need s3",
    DEFAULT + remote_text("../x"): "the DVC remote store is local; these steps need s3",
    DEFAULT + remote_text("wish://host/x"): "Unsupported URL type wish",
    DEFAULT + remote_text("s3://bucket", "acl = private", "grant_read = me"): "mutually exclusive",
    DEFAULT + remote_text("s3://bucket", "version_aware = true"): "keeps versions of files",
    DEFAULT + remote_text("s3://bucket", "worktree = true"): "keeps versions of files",
    DEFAULT + remote_text("s3://bucket", "ssl_verify = /no/ca.pem"): "/no/ca.pem`, which no step",
}


@pytest.mark.parametrize(("config", "why"), REMOTES.items(), ids=list(REMOTES.values()))
def test_what_no_retry_helps_is_refused_in_one_line(clone: Path, config: str, why: str) -> None:
    with pytest.raises(StepError, match=why) as refusal:
        configuration.find_remote(open_clone(clone, config), None)
    assert not isinstance(refusal.value, TemporaryError)
    assert "\n" not in str(refusal.value)


def test_a_person_s_own_files_are_none_of_a_step(clone: Path) -> None:
    """A profile that the step's machine lacks was an error that a retry might have helped."""
    own = ("profile = nobody", "credentialpath = ~/keys", "configpath = ~/aws")
    text = DEFAULT + remote_text("s3://bucket", *own, "endpointurl = http://localhost:9")
    found = configuration.find_remote(open_clone(clone, text), None).fs.fs_args
    assert "profile" not in found
    assert found["client_kwargs"] == {"endpoint_url": "http://localhost:9"}
    assert found["config_kwargs"] == {"connect_timeout": 5, "read_timeout": 60}
    assert not {"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"} & os.environ.keys()


# --- What keeps DVC from pulling a file -----------------------------------------------------------


def require_pullable(clone: Path) -> None:
    configuration.require_pullable(open_clone(clone, DEFAULT + remote_text("s3://bucket")), PATH)


@pytest.mark.parametrize("text", [POINTER, f"outs:\n{OUT}  path: datasets/data.csv\nwdir: ..\n"])
def test_a_file_that_dvc_pulls(clone: Path, text: str) -> None:
    write(clone / f"{PATH}.dvc", text)
    write(clone / ".dvcignore", "*.tmp\n!*.csv\n")
    require_pullable(clone)


@pytest.mark.parametrize(
    "pattern",
    [
        "*.csv",
        "/datasets/data.csv",
        "datasets",
        "*.dvc",
    ],
)
def test_what_dvcignore_hides(clone: Path, pattern: str) -> None:
    write(clone / ".dvcignore", f"# theirs\n{pattern}\n")
    with pytest.raises(StepError) as refusal:
        require_pullable(clone)
    assert str(refusal.value).startswith(f".dvcignore:2:{pattern} hides {PATH} from DVC")


OF_A_DIRECTORY = POINTER.replace(MD5, f"{MD5}.dir").replace("  hash", "  nfiles: 1\n  hash")


def test_a_directory_that_dvc_pulls(clone: Path) -> None:
    write(clone / f"{PATH}.dvc", OF_A_DIRECTORY)
    write(clone / ".dvcignore", "*.tmp\ndata.csv/part.csv\n")
    require_pullable(clone)


@pytest.mark.parametrize("pattern", ["data.csv/", "/datasets/data.csv", "datasets/*/", "*.dvc"])
def test_what_hides_a_directory(clone: Path, pattern: str) -> None:
    """A pattern that ends in a slash hides directories only: the pointer says that this is one."""
    write(clone / ".dvcignore", f"{pattern}\n")
    if pattern.endswith("/"):
        require_pullable(clone)
    write(clone / f"{PATH}.dvc", OF_A_DIRECTORY)
    with pytest.raises(StepError, match=f"hides {PATH} from DVC"):
        require_pullable(clone)


POINTERS = {
    f"outs:\n{OUT}  path: other.csv\n": "is about datasets/other.csv, and not about datasets/data",
    f"outs:\n{OUT}  path: data.csv\nwdir: ..\n": "is about data.csv, and not about datasets/data",
    f"outs:\n{OUT}  path: data.csv\n  cache: false\n": "says `cache: false`",
    f"deps:\n- path: a\n  repo: {{url: ../other}}\n{POINTER}": "imports its data from another",
    f"{POINTER}unknown: 1\n": "extra keys not allowed",
    f"outs:\n{OUT}  path: data.csv\n  colour: red\n": "extra keys not allowed",
    "<<<<<<< HEAD\nouts:\n": "YAML",
}


@pytest.mark.parametrize(("text", "why"), POINTERS.items(), ids=list(POINTERS.values()))
def test_what_a_run_can_t_replace(clone: Path, text: str, why: str) -> None:
    write(clone / f"{PATH}.dvc", text)
    with pytest.raises(StepError, match=why) as refusal:
        require_pullable(clone)
    assert f"{PATH}.dvc" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not isinstance(refusal.value, TemporaryError)


def test_a_pointer_that_git_ignores(clone: Path) -> None:
    """DVC does not pull it, though somebody has forced git to keep it."""
    write(clone / ".gitignore", "*.dvc\n")
    with pytest.raises(StepError, match="is git-ignored"):
        require_pullable(clone)
