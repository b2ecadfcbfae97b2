"""Directories in the DVC remote: as DVC keeps them, proved file by file, only what is new sent."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.config import Config

from dataset_steps import pointer, remote, transfer
from dataset_steps.content import Content
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import part_of, remove
from dataset_steps.pointer import Pointer
from dataset_steps.s3_errors import Missing
from dataset_steps.transfer import SMALL
from lab import layout
from tests.support.directories import PATH, Clone, count_requests, environment, make_clone
from tests.support.names import ODD
from tests.support.steps import MEASURE
from tests.support.stores import dvc_2_md5_of, md5_of

if TYPE_CHECKING:
    from tests.support.stores import Stores

Make = Callable[..., Clone]


@pytest.fixture
def make(stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return a function that makes a clone whose remote has the options that it is given."""
    return lambda *options, **named: make_clone(stores, tmp_path, monkeypatch, *options, **named)


@pytest.fixture
def clone(make: Make) -> Clone:
    return make()


def listed(content: Content) -> set[str]:
    return {file.md5 for file in content.files}


# --- As DVC does it


def test_what_is_stored_is_what_dvc_pushes_and_pulls(make: Make) -> None:
    ours, theirs = make(), make()
    for clone in (ours, theirs):
        clone.fill(*ODD)
        (clone.data / "empty").write_bytes(b"")
        (clone.data / "twin").write_bytes(b"a b")
        (clone.data / "large").write_bytes(bytes(SMALL + 1))
    expected = ours.read()
    ours.publish()
    theirs.run_dvc("add", "--quiet", PATH)
    theirs.run_dvc("push", "--quiet")
    assert ours.pointer_file.read_bytes() == theirs.pointer_file.read_bytes()
    assert ours.list_objects() == theirs.list_objects()
    assert len(ours.list_objects()) == len(ODD) + 3
    assert theirs.download() == expected
    remove(ours.data)
    ours.run_dvc("pull", "--quiet")
    assert ours.read() == expected


def test_a_directory_of_dvc_2_is_read(clone: Clone) -> None:
    """Its layout of the remote is another one, and it hashed texts with LF for CRLF."""
    files = {"a.csv": b"a,b\r\n1,2\r\n", "in/b.bin": bytes(range(256)), "in/c.csv": b"a\n"}
    large = b"a,b\r\n" * SMALL
    rows = [{"md5": dvc_2_md5_of(text), "relpath": name} for name, text in files.items()]
    rows.append({"md5": md5_of_text(large), "relpath": "large.csv"})
    for text in files.values():
        clone.put(dvc_2_md5_of(text), text, "")
    clone.put(md5_of_text(large), large, "")
    listing = json.dumps(rows, sort_keys=True).encode()
    clone.put(f"{md5_of(listing)}.dir", listing, "")
    size = sum(len(text) for text in (*files.values(), large))
    named = f"outs:\n- md5: {md5_of(listing)}.dir\n  size: {size}\n  nfiles: 4\n  path: {PATH}\n"
    clone.pointer_file.write_text(named, encoding="utf-8")
    assert clone.download() == files | {"large.csv": large}
    content = clone.publish(base=pointer.read(clone.pointer_file), pulled=True)
    assert not content.pointer.legacy
    assert clone.download() == files | {"large.csv": large}
    assert md5_of(files["a.csv"]) in listed(content)


def md5_of_text(text: bytes) -> str:
    """Return DVC 2's hash of a text that is longer than the block that it reads at a time."""
    block = 2**20
    parts = (text[start : start + block] for start in range(0, len(text), block))
    return md5_of(b"".join(part.replace(b"\r\n", b"\n") for part in parts))


def test_modes_are_kept_as_dvc_keeps_them(clone: Clone) -> None:
    clone.fill("a", "tool")
    (clone.data / "tool").chmod(0o755)
    clone.publish()
    clone.download()
    assert not (clone.data / "tool").stat().st_mode & 0o111
    remove(clone.data)
    clone.data.write_bytes(b"#!/bin/sh\n")
    clone.data.chmod(0o755)
    assert clone.publish().pointer.executable
    clone.pull()
    assert clone.data.stat().st_mode & 0o700 == 0o700


def test_a_prefix_of_odd_letters(make: Make) -> None:
    clone = make(prefix="größe a+b%20~ (1)")
    clone.fill("a", "b")
    clone.publish()
    assert len(clone.list_objects()) == 3
    clone.run_dvc("pull", "--quiet", "--force")
    assert clone.download() == {"a": b"a", "b": b"b"}


def test_what_is_there_is_replaced_whole(clone: Clone) -> None:
    clone.fill("a", "in/b")
    clone.publish()
    clone.fill("c", "in/d")
    part_of(clone.data).mkdir()
    (part_of(clone.data) / "of a killed step").write_bytes(b"x")
    assert clone.download() == {"a": b"a", "in/b": b"in/b"}
    remove(clone.data)
    clone.data.write_bytes(b"a file")
    assert clone.download() == {"a": b"a", "in/b": b"in/b"}


# --- Only what is new


def test_only_what_has_changed_is_sent(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.fill(*(f"{n}" for n in range(20)))
    before = clone.publish()
    noted = count_requests(monkeypatch)
    (clone.data / "7").write_bytes(b"new")
    (clone.data / "8").unlink()
    after = clone.publish(base=before.pointer, pulled=True)
    assert noted["put"] == [md5_of(b"new")]
    assert noted["send"] == [after.pointer.md5]
    assert noted["head"] == []


def test_what_was_not_pulled_in_this_run_is_looked_for(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill(*(f"{n}" for n in range(40)))
    before = clone.publish()
    lost = [file.md5 for file in before.files[:30]]
    for md5 in lost:
        clone.delete(md5)
    clone.put(before.files[35].md5, b"of somebody else")
    noted = count_requests(monkeypatch)
    clone.publish(base=before.pointer)
    assert sorted(noted["put"]) == sorted([*lost, before.files[35].md5])
    assert sorted(noted["head"]) == sorted(listed(before))
    assert len(clone.download()) == 40


def test_a_base_whose_listing_is_lost_or_elsewhere_is_none(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill("a", "b")
    before = clone.publish()
    noted = count_requests(monkeypatch)
    clone.publish(base=replace(before.pointer, remote="archive"), pulled=True)
    clone.delete(before.pointer.md5)
    clone.publish(base=before.pointer, pulled=True)
    clone.publish(base=Pointer(md5_of(b"a file"), 6), pulled=True)
    assert len(noted["put"]) == 3 * 2
    assert noted["send"] == [before.pointer.md5]
    assert len(clone.download()) == 2


def test_a_file_that_is_there_twice_is_sent_once(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill("a", "b")
    for name in ("c", "d"):
        (clone.data / name).write_bytes(b"a")
    noted = count_requests(monkeypatch)
    content = clone.publish()
    assert (len(noted["put"]), content.pointer.nfiles, content.pointer.size) == (2, 4, 4)
    assert clone.download() == {"a": b"a", "b": b"b", "c": b"a", "d": b"a"}
    assert len(noted["get"]) == 2


# Stores the directory in a fork of a process that has imported what a step needs, as the embedded
# backend does; after some PUTs it is killed.
STORE = """
import os, signal, sys
from itertools import count
from pathlib import Path
from dataset_steps.remote import Remote
from dataset_steps.transfer import FastStore
tasks = Path("/proc/self/task")
assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "an import has started threads"
clone, after = Path(sys.argv[1]), int(sys.argv[2])
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) % 256)
numbers, put = count(1), FastStore.put
def killing(*arguments):
    if next(numbers) == after:
        os.kill(os.getpid(), signal.SIGKILL)
    return put(*arguments)
FastStore.put = killing
remote = Remote(clone)
content = remote.measure("data", clone / "data")
remote.store(content, clone / "data", journal=clone / "journal")
"""


def store_in_a_process(clone: Clone, kill_after: int) -> int:
    """Return the exit code of a process that stores the directory and is killed at a PUT."""
    env = {"PATH": os.environ["PATH"], "HOME": str(clone.folder), **environment(clone)}
    command = [sys.executable, "-c", STORE, str(clone.folder), str(kill_after)]
    return subprocess.run(command, env=env, check=False).returncode


def test_an_interrupted_push_goes_on_where_it_was(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill(*(f"{n}" for n in range(400)))
    journal = clone.folder / "journal"
    assert store_in_a_process(clone, 300) == -signal.SIGKILL % 256
    confirmed = {line.split()[0] for line in journal.read_text("utf-8").split("\n") if line}
    assert 300 - transfer.AT_ONCE <= len(confirmed) < 300
    (other,) = listed(clone.remote.measure(PATH, clone.fill("of another remote"))) - {
        md5_of(f"{n}".encode()) for n in range(400)
    }
    with journal.open("a", encoding="utf-8") as file:
        file.write(f"\n{other} elsewhere/files/md5\n0123456789abcdef")  # cut off
    noted = count_requests(monkeypatch)
    content = clone.publish(journal=journal)
    assert sorted(noted["put"]) == sorted(listed(content) - confirmed)
    assert other in noted["put"]
    clone.publish(journal=journal)
    assert len(noted["put"]) == 401 - len(confirmed)
    assert len(clone.download()) == 401


# --- The proof


def test_the_listing_comes_last(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC takes a directory whose listing is there for stored."""
    clone.fill(*(f"{n}" for n in range(200)))
    assert store_in_a_process(clone, 190) == -signal.SIGKILL % 256
    assert not [key for key in clone.list_objects() if key.endswith(".dir")]


@pytest.mark.parametrize("size", [0, SMALL])
def test_a_file_that_changes_meanwhile_is_not_stored(clone: Clone, size: int) -> None:
    clone.fill("a", "b", size=size)
    content = clone.remote.measure(PATH, clone.data)
    before = clone.data / "a"
    before.write_bytes(before.read_bytes()[:-1] + b"z")
    with pytest.raises(TemporaryError, match=r"was changed while|BadDigest"):
        clone.remote.store(content, clone.data)
    assert not {key[:2] + key[3:] for key in clone.list_objects()} & {content.files[0].md5}


@pytest.mark.parametrize("tag", [None, "an-other", "0" * 32])
def test_an_entity_tag_that_is_no_md5_is_no_proof(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, tag: str | None
) -> None:
    """Under KMS, and of what was lost on the way: boto3 looks at each object, or sends it again."""
    clone.fill("a", "b")
    looked_at: list[str] = []
    is_stored = remote.Remote.is_stored
    put = transfer.FastStore.put

    def note(self: Any, named: Pointer) -> bool:
        looked_at.append(named.md5)
        return is_stored(self, named)

    def answer(self: Any, key: str, content: bytes) -> str | None:
        if tag == "an-other":
            put(self, key, content)
        return tag

    monkeypatch.setattr(remote.Remote, "is_stored", note)
    monkeypatch.setattr(transfer.FastStore, "put", answer)
    content = clone.publish()
    assert {*listed(content)} < {*looked_at}
    assert clone.download() == {"a": b"a", "b": b"b"}


def test_what_is_too_long_for_one_put_goes_in_parts(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SINGLE_PUT", 5_000_000)
    clone.fill("a", "b", size=9_000_000)
    expected = clone.read()
    content = clone.publish()
    for file in content.files:
        said = clone.project.stores.client.head_object(
            Bucket=layout.BUCKET, Key=clone.key(file.md5)
        )
        assert "-" in said["ETag"]
    assert clone.download() == expected
    clone.put(content.files[0].md5, b"of somebody else")
    clone.publish()
    assert clone.download() == expected


def test_memory_does_not_grow_with_the_directory(clone: Clone) -> None:
    few, many = (measure_peak(clone, count) for count in (200, 800))
    assert many < 250 << 20
    assert many - few < 50 << 20  # of 120 MB more


# Stores what is there, and fetches it in its place.
STORE_AND_FETCH = """
import sys
from pathlib import Path
from dataset_steps import pointer
from dataset_steps.remote import Remote
clone = Path(sys.argv[1])
content = Remote(clone).measure("data", clone / "data")
Remote(clone).store(content, clone / "data", journal=clone / "journal")
pointer.write(clone / "data.dvc", content.pointer)
Remote(clone).download(content.pointer, "data", clone / "data")
"""


def measure_peak(clone: Clone, count: int) -> int:
    """Return the most memory, in bytes, that a directory of that many files takes."""
    clone.fill(*(f"{n}" for n in range(count)), size=200_000)
    return store_and_fetch(clone)


def store_and_fetch(clone: Clone) -> int:
    """Store the data and fetch it again, in a process; return the most memory that it took."""
    env = {"PATH": os.environ["PATH"], "HOME": str(clone.folder), **environment(clone)}
    words = [
        sys.executable,
        "-c",
        MEASURE,
        sys.executable,
        "-c",
        STORE_AND_FETCH,
        str(clone.folder),
    ]
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    code, most = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    print(f"{most >> 20} MB of memory at most")
    return int(most)


@pytest.mark.long  # three minutes
def test_a_hundred_thousand_files(clone: Clone) -> None:
    clone.fill(*(f"{n % 317}/{n}" for n in range(100_000)), size=100)
    expected = clone.read()
    assert store_in_a_process(clone, 50_000) == -signal.SIGKILL % 256
    assert store_and_fetch(clone) < 400 << 20
    assert clone.read() == expected
    named = pointer.read(clone.pointer_file)
    assert named.nfiles == 100_000
    assert clone.remote.is_stored(named)


@pytest.mark.long  # five minutes, and 15 GiB of disk
def test_more_bytes_than_one_put_takes(clone: Clone) -> None:
    size = remote.SINGLE_PUT + 1
    with clone.data.open("wb") as file:
        file.write(b"a")
        file.truncate(size)
    assert store_and_fetch(clone) < 400 << 20
    named = pointer.read(clone.pointer_file)
    assert (named.size, clone.data.stat().st_size) == (size, size)
    tag = clone.remote.head(named)["ETag"]
    assert "-" in tag
    clone.delete(named.md5)


# --- What somebody has damaged


def damage(clone: Clone, *, lost: bool) -> str:
    """Delete or replace one file's object, and return its key."""
    clone.fill("a", "in/b", "c")
    content = clone.publish()
    md5 = content.files[1].md5
    clone.delete(md5) if lost else clone.put(md5, b"x")
    return clone.key(md5)


@pytest.mark.parametrize("lost", [True, False])
def test_an_object_that_is_damaged_is_named(clone: Clone, *, lost: bool) -> None:
    key = damage(clone, lost=lost)
    why = "the remote has no object" if lost else "is not what its pointer names"
    with pytest.raises(StepError, match=why) as refusal:
        clone.download()
    assert f"s3://{layout.BUCKET}/{key}" in str(refusal.value)
    assert isinstance(refusal.value, Missing) == lost
    assert not isinstance(refusal.value, TemporaryError)
    assert not clone.data.exists()


@pytest.mark.parametrize("lost", [True, False])
def test_a_listing_that_is_damaged_is_named(clone: Clone, *, lost: bool) -> None:
    clone.fill("a", "b")
    md5 = clone.publish().pointer.md5
    clone.delete(md5) if lost else clone.put(md5, b"[]")
    with pytest.raises(StepError, match="has no object" if lost else "is not what its") as refusal:
        clone.download()
    assert clone.key(md5) in str(refusal.value)
    assert not clone.data.exists()


def test_bytes_that_are_lost_on_the_way_are_worth_another_try(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill("a", "b")
    clone.publish()
    monkeypatch.setattr(transfer.FastObject, "read", lambda _: b"x")
    assert clone.download() == {"a": b"a", "b": b"b"}
    monkeypatch.setattr(transfer.FastStore, "get", lambda *_: None)
    monkeypatch.setattr(remote, "write_blocks", lambda _, file: [b"x"][: file.write(b"x")])
    with pytest.raises(TemporaryError, match="arrived as 1 bytes"):
        clone.download()
    assert not clone.data.exists()


def test_a_full_disk_leaves_nothing(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault of the server's, which is not asked again; what was written is taken away."""
    clone.fill(*(f"{n}" for n in range(400)))
    clone.publish()
    before = {path.name for path in clone.folder.iterdir()} - {PATH}
    write_bytes, left = Path.write_bytes, iter(range(20))

    def write(path: Path, content: bytes) -> int:
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    noted = count_requests(monkeypatch)
    with pytest.raises(OSError, match="No space left"):
        clone.download()
    assert {path.name for path in clone.folder.iterdir()} == before
    assert len(noted["get"]) < 400


LISTINGS = {
    "outside": [{"md5": md5_of(b"a"), "relpath": "../a"}],
    "absolute": [{"md5": md5_of(b"a"), "relpath": "/tmp/a"}],
    "twice": [{"md5": md5_of(b"a"), "relpath": "a"}] * 2,
    "inside of a file": [{"md5": md5_of(b"a"), "relpath": name} for name in ("a", "a/b/c")],
    "another hash": [{"etag": "a", "relpath": "a"}],
    "no hash": [{"md5": "../../../a", "relpath": "a"}],
    "no names": [{"md5": md5_of(b"a"), "relpath": name} for name in ("", "a\0", "a//b")],
    "no text": [{"md5": md5_of(b"a"), "relpath": "\ud800"}],
    "nothing": [],
    "no list": {"a": 1},
}


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_a_listing_that_makes_no_sense_is_refused(clone: Clone, listing: object) -> None:
    text = json.dumps(listing).encode()
    named = Pointer(f"{md5_of(text)}.dir", 1, nfiles=1)
    clone.put(named.md5, text)
    clone.put(md5_of(b"a"), b"a")
    pointer.write(clone.pointer_file, named)
    with pytest.raises(StepError, match="is no listing of a directory"):
        clone.download()
    assert not clone.data.exists()
    assert not (clone.folder / "a").exists()


def test_a_pointer_with_another_size(clone: Clone) -> None:
    clone.fill("a", "b")
    content = clone.publish()
    pointer.write(clone.pointer_file, replace(content.pointer, size=3))
    with pytest.raises(StepError, match="have 2 bytes, and its pointer says 3"):
        clone.download()
    assert not clone.data.exists()


# --- Where obstore is of no use


def test_a_remote_s_own_server_and_key(stores: Stores, make: Make) -> None:
    """obstore is told what the repository says, and reads nothing of it in the environment."""
    lab = stores.lab
    own = {"endpointurl": lab.s3_endpoint, "access_key_id": lab.s3_access_key}
    own |= {"secret_access_key": lab.s3_secret_key, "region": lab.s3_region}
    clone = make(*(f"{name} = {value}" for name, value in own.items()))
    clone.fill("a", "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        patch.setenv("AWS_ACCESS_KEY_ID", "of-another-server")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "of-another-server")
        noted = count_requests(patch)
        content = clone.publish()
        assert clone.download() == {"a": b"a", "b": b"b"}
        assert noted["send"] == [content.pointer.md5], "boto3 had to help"
        assert len(noted["get"]) == 2


def break_certificates(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transfer, "client_options", lambda *_: Path("/nowhere").read_bytes())


def break_requests(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(transfer, "find_address", lambda *_: ("http://127.0.0.1:1", False))
    patch.setattr(transfer, "RETRIES", 0)


@pytest.mark.parametrize("break_it", [break_certificates, break_requests])
def test_what_obstore_can_t_do_is_done_by_boto3_and_dvc(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, break_it: Callable[[pytest.MonkeyPatch], None]
) -> None:
    clone.fill(*(f"{n}" for n in range(30)))
    expected = clone.read()
    noted = count_requests(monkeypatch)
    break_it(monkeypatch)
    clone.publish()
    assert clone.download() == expected
    assert len(noted["send"]) == 31


def test_what_a_remote_s_options_ask_of_an_upload(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone = make("acl = bucket-owner-full-control")
    clone.fill("a", "b")
    noted = count_requests(monkeypatch)
    clone.publish()
    assert (len(noted["send"]), noted["put"]) == (3, [])
    assert clone.download() == {"a": b"a", "b": b"b"}


def hasten(patch: pytest.MonkeyPatch) -> None:
    """Have nothing tried again: a test does not wait for it."""
    patch.setattr(remote, "CLIENT", Config(retries={"total_max_attempts": 1}))
    patch.setattr(transfer, "RETRIES", 0)


def test_a_server_that_is_gone_is_worth_another_try(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill(*(f"{n}" for n in range(200)))
    content = clone.remote.measure(PATH, clone.data)
    hasten(monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    with pytest.raises(TemporaryError, match="no answer from S3"):
        clone.remote.store(content, clone.data)


def test_a_key_that_is_refused_is_not_tried_again(
    clone: Clone, monkeypatch: pytest.MonkeyPatch
) -> None:
    clone.fill("a", "b")
    content = clone.remote.measure(PATH, clone.data)
    (clone.folder / ".dvc" / "config.local").write_text(
        "['remote \"s3\"']\naccess_key_id = revoked\nsecret_access_key = revoked\n", "utf-8"
    )
    hasten(monkeypatch)
    with pytest.raises(StepError, match="refused the step's key") as refusal:
        clone.remote.store(content, clone.data)
    assert not isinstance(refusal.value, TemporaryError)
