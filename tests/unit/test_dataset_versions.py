"""What Airflow's tasks read of the datasets' repository, held against DVC itself."""

from __future__ import annotations

import importlib
import random
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from dvc.repo import Repo
from dvc_data.hashfile.hash import file_md5

from tests.support.dag_tasks import with_plugins
from tests.support.stores import md5_of

MD5 = "54e1eb987b2a9ffe06e8a530ca469b18"
BLOCK = 1 << 20


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModuleType]:
    """Return the module, as a task of Airflow imports it."""
    with with_plugins(tmp_path_factory, STEP_RUNTIME="process"):
        yield importlib.import_module("dataset_versions")


SECTION = "['remote \"store\"']\n"
CONFIGS = {
    "as DVC writes it": f"[core]\n    remote = store\n    analytics = false\n{SECTION}    url = s3://b/p",
    "a bucket": f"[core]\nremote = store\n{SECTION}url = s3://b",
    "slashes": f"[core]\nremote = store\n{SECTION}url = s3://b//p//q/",
    "quotes": f"[core]\nremote = \"store\"\n{SECTION}url = 's3://b/p q'  # theirs",
    "comments": f"# a\n[core] # b\nremote = store # c\n\n{SECTION}url = s3://b/p # was: s3://c",
    "indents": f"[core]\nremote = store\n   analytics = false\n  {SECTION}\turl=s3://b/p\n acl=x",
    "no quotes": '[core]\nremote = store\n[remote "store"]\nurl = s3://b/p',
    "capitals": "[Core]\nRemote = Store\n['remote \"Store\"']\nURL = s3://b/P",
    "a percent sign": f"[core]\nremote = store\n{SECTION}url = s3://b/100%",
    "a folder of another": f"[core]\nremote = store\n{SECTION}url = remote://other/in/it\n"
    "['remote \"other\"']\nurl = s3://b/p\nendpointurl = http://localhost:9",
    "another server": f"[core]\nremote = store\n{SECTION}url = s3://b/p\nendpointurl = 'http://a:1'",
    "others": f"['remote \"a\"']\nurl = s3://a\n{SECTION}url = s3://b/p\n['remote \"c\"']\nurl = s3://c\n"
    "[core]\nremote = store",
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_an_object_is_where_dvc_has_it(
    versions: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    config: str,
    *,
    legacy: bool,
) -> None:
    for variable in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.delenv("AWS_CONFIG_FILE", raising=False)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text(config, "utf-8")
    remote = Repo(str(tmp_path), config={"core": {"no_scm": True}}).cloud.get_remote()
    objects = remote.legacy_odb if legacy else remote.odb
    found = versions.parse_remote(config, "here")
    key = versions.object_key(found.prefix, versions.Pointer(MD5, 1, legacy, None))
    assert f"{found.bucket}/{key}" == objects.oid_to_path(MD5)
    assert found.endpoint == remote.fs.fs_args.get("client_kwargs", {}).get("endpoint_url")


def test_a_pointer_s_own_remote(versions: ModuleType) -> None:
    config = CONFIGS["others"]
    assert versions.parse_remote(config, "here", "c").bucket == "c"
    with pytest.raises(Exception, match="here names no remote 'd'"):
        versions.parse_remote(config, "here", "d")


def test_remotes_that_lead_to_one_another(versions: ModuleType) -> None:
    config = (
        "[core]\nremote = a\n['remote \"a\"']\nurl = remote://b\n['remote \"b\"']\nurl = remote://a"
    )
    with pytest.raises(Exception, match="is not on S3"):
        versions.parse_remote(config, "here")


@pytest.mark.parametrize(
    ("more", "legacy", "remote"),
    [("hash: md5", False, None), ("remote: archive", True, "archive"), ("desc: x", True, None)],
)
def test_a_pointer(versions: ModuleType, more: str, remote: str | None, *, legacy: bool) -> None:
    text = f"# theirs\nouts:\n- md5: {MD5}\n  size: 8\n  {more}\n  path: a.csv\n"
    assert versions.parse_pointer(text, "here") == (MD5, 8, legacy, remote)


def test_a_pointer_to_two_files(versions: ModuleType) -> None:
    out = f"- md5: {MD5}\n  size: 8\n"
    with pytest.raises(Exception, match="here names 2 files, and not one"):
        versions.parse_pointer(f"outs:\n{out}{out}", "here")


# Where a block ends matters to DVC 2: it converts each on its own, and tells text by its head.
CONTENTS = {
    "LF": b"a,b\n1,2\n",
    "CRLF": b"a,b\r\n1,2\r\n",
    "nothing": b"",
    "bytes": b"a\0b\r\n" * 9,
    "CRLF over the end of a block": b"x" * (BLOCK - 1) + b"\r\ny\r\n",
    "text, then bytes": b"line\r\n" * (BLOCK // 6 + 1) + bytes(range(128, 256)) * (BLOCK // 128),
    "few letters": "Größe: 王\r\n".encode() * 200_000,
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_the_hash_of_dvc_2(versions: ModuleType, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    chance, chunks, rest = random.Random(1), [], content
    while rest:  # as a connection delivers them
        size = chance.randrange(1, 3 * BLOCK // 2)
        chunks.append(rest[:size])
        rest = rest[size:]
    hashed = b"".join(map(versions.hashed_bytes, versions.cut_blocks(chunks)))
    assert md5_of(hashed) == file_md5(str(path), name="md5-dos2unix")
    assert b"".join(versions.cut_blocks(chunks)) == content
