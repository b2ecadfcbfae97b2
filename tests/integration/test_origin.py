"""An existing DVC repository, taken in: from its remotes to the lab's real stores, and proved."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from lab import layout
from lab.backends.embedded.gitserver import repositories
from lab.backends.embedded.services import gitserver
from lab.client import dvc_process
from lab.errors import LabError, ProofError
from lab.lab import Lab
from lab.origin.deliver import deliver_origin
from lab.origin.fetch import fetch_origin
from lab.origin.found import FOLDER, Origin, read_found
from tests.support.histories import Repository
from tests.support.stores import PATH, Project, Stores, md5_of, new_project

PICTURES = "data/pictures"
BUCKET, PREFIX = "elsewhere", "somebody/else"
CRLF = b"id,name\r\n1,Anna\r\n2,Bert\r\n"
DOS2UNIX = md5_of(CRLF.replace(b"\r\n", b"\n"))  # what DVC 2 took for that text's MD5
FILES = {"a.png": b"\x89PNG a", "below/b \xc3\xbc.png".encode("latin-1").decode(): b"\x89PNG b"}
CONFIG = """[core]
    remote = disk
[cache]
    dir = /nowhere/at/all
['remote "disk"']
    url = ../../remote
['remote "bucket"']
    url = s3://{bucket}/{prefix}
    endpointurl = {endpoint}
    region = eu-west-1
"""
# What runs in place of a function of `lab.origin`: the process ends as if it were killed there.
KILLED = """
import json, os, signal, sys
from importlib import import_module
from pathlib import Path
asked = json.load(sys.stdin)
module = import_module("lab.origin." + asked["module"])
function = getattr(module, asked["name"])
def stop(*arguments, **named):
    if asked["after"]:
        function(*arguments, **named)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(module, asked["name"], stop)
from lab.lab import Lab
from lab.origin.deliver import deliver_origin
from lab.origin.fetch import fetch_origin
if asked["lab"]:
    deliver_origin(Lab(**asked["lab"]), Path(asked["project"]))
else:
    fetch_origin(asked["url"], Path(asked["project"]), dict(os.environ))
"""


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


@dataclass
class Somebody:
    """A person with a DVC repository: a remote in a folder, and one in a bucket elsewhere."""

    stores: Stores
    folder: Path
    commits: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.repository = Repository(self.folder / "repository", PATH)
        self.git = self.repository.git

    @property
    def url(self) -> str:
        return str(self.repository.folder)

    @property
    def environment(self) -> dict[str, str]:
        """The person's shell: it has the access to their bucket."""
        lab = self.stores.lab
        keys = {"AWS_ACCESS_KEY_ID": lab.s3_access_key, "AWS_SECRET_ACCESS_KEY": lab.s3_secret_key}
        return {**os.environ, **keys}

    def put(self, name: str, content: bytes, *, layout: str = "files/md5") -> str:
        """Have an object in the remote that is a folder; return its name."""
        write_bytes(self.folder / "remote" / layout / name[:2] / name[2:], content)
        return name

    def upload(self, name: str, content: bytes) -> str:
        """Have an object in the bucket; return its name."""
        key = f"{PREFIX}/files/md5/{name[:2]}/{name[2:]}"
        self.stores.client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return name

    def commit(self, name: str, files: Mapping[str, str]) -> str:
        self.commits[name] = self.repository.commit(name, dict(files))
        return self.commits[name]

    def commit_version(self, name: str) -> str:
        """Commit a version of the table whose bytes are its name."""
        content = f"id\n{name}\n".encode()
        md5 = self.put(md5_of(content), content)
        out = {"md5": md5, "size": len(content), "hash": "md5"}
        return self.commit(name, {f"{PATH}.dvc": write_pointer(PATH, **out)})

    def list_files(self) -> dict[str, tuple[bytes, float]]:
        """Return all that the person has on this machine, with the time of each change."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {str(path): (path.read_bytes(), path.stat().st_mtime) for path in found}

    def list_refs(self) -> dict[str, str]:
        return parse_refs(self.git("for-each-ref", "--format=%(refname) %(objectname)"))


def parse_refs(text: str) -> dict[str, str]:
    return dict(line.split(" ", 1) for line in text.splitlines())


def write_pointer(path: str, **out: object) -> str:
    return yaml.safe_dump({"outs": [{**out, "path": Path(path).name}]}, sort_keys=False)


def write_pipeline(md5: str) -> dict[str, str]:
    """Return the files of a pipeline of DVC's own with one output, which the remote has."""
    lock = {"cmd": "train", "outs": [{"path": "m.bin", "hash": "md5", "md5": md5, "size": 5}]}
    return {
        "dvc.yaml": yaml.safe_dump({"stages": {"train": {"cmd": "train", "outs": ["m.bin"]}}}),
        "dvc.lock": yaml.safe_dump({"schema": "2.0", "stages": {"train": lock}}),
    }


def make_history(me: Somebody) -> None:
    """Commit what years have left: two remotes, DVC 2, a branch, a tag, a version that is lost."""
    stores = me.stores
    config = CONFIG.format(bucket=BUCKET, prefix=PREFIX, endpoint=stores.lab.s3_endpoint)
    me.git("checkout", "--quiet", "-b", "master")
    me.put(DOS2UNIX, CRLF, layout="")
    old = {f"{PATH}.dvc": write_pointer(PATH, md5=DOS2UNIX, size=len(CRLF))}
    me.commit("of DVC 2", {".dvc/config": config, **old})
    me.commit_version("overwritten")
    me.git("tag", "--annotate", "--message=one", "v1")
    me.git("checkout", "--quiet", "-b", "feature/x")
    me.commit_version("theirs")
    me.git("checkout", "--quiet", "master")
    entries = [{"md5": me.upload(md5_of(FILES[p]), FILES[p]), "relpath": p} for p in sorted(FILES)]
    listing = json.dumps(entries).encode()
    md5 = me.upload(f"{md5_of(listing)}.dir", listing)
    size = sum(map(len, FILES.values()))
    out = {"md5": md5, "size": size, "nfiles": len(FILES), "hash": "md5", "remote": "bucket"}
    me.commit("pictures", {f"{PICTURES}.dvc": write_pointer(PICTURES, **out)})
    me.commit_version("lost")
    lost = md5_of(b"id\nlost\n")
    (me.folder / "remote" / "files" / "md5" / lost[:2] / lost[2:]).unlink()
    me.commit_version("newest")
    by_git = write_pointer("notes.txt", md5="0a" * 16, size=1, hash="md5", cache=False)
    model = me.put(md5_of(b"model"), b"model")
    large = random.Random(1).randbytes(3 << 20).hex()  # more than git sends in one piece
    files = {"Notes.txt.dvc": by_git, "large.txt": large, **write_pipeline(model)}
    me.commit("pipeline", files)


@dataclass(frozen=True)
class Taken:
    """A repository that was taken in, and all that was seen of it on the way."""

    origin: Somebody
    before: dict[str, tuple[bytes, float]]
    found: Origin
    project: Project
    folder: Path
    main: str | None

    @property
    def lab(self) -> Lab:
        return replace(self.project.lab, data_sets={"pictures": PICTURES})

    def git(self, *words: str | Path) -> str:
        return self.project.git(*words)


def begin_project(stores: Stores, folder: Path) -> Project:
    """Return a project whose repository has no commit."""
    project = new_project(stores, folder)
    repositories.create_repository(stores.config.data / gitserver.NAME, project.name)
    return project


@pytest.fixture(scope="module")
def somebody(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Somebody:
    stores.client.create_bucket(Bucket=BUCKET)
    me = Somebody(stores, tmp_path_factory.mktemp("some body"))
    make_history(me)
    return me


@pytest.fixture(scope="module")
def taken(somebody: Somebody, tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """Return the repository, taken in by attempts that were killed and then one that was not."""
    folder = tmp_path_factory.mktemp("mine")
    before = somebody.list_files()
    for module, name, after in (
        ("mirror", "clone", True),
        ("fetch", "write_found", False),
    ):
        kill_at(module, name, after=after, url=somebody.url, project=folder, env=somebody)
    found = fetch_origin(somebody.url, folder, somebody.environment)
    project = begin_project(somebody.stores, folder)
    for module, name, after in (
        ("deliver", "store_objects", False),
        ("deliver", "push_history", False),
        ("deliver", "commit_settings", True),
    ):
        kill_at(module, name, after=after, lab=project.lab, project=folder, env=somebody)
        assert not project.git("for-each-ref"), "git names what the store may not have"
    main = deliver_origin(project.lab, folder)
    return Taken(somebody, before, found, project, folder, main)


def kill_at(module: str, name: str, *, env: Somebody, project: Path, **more: Any) -> None:
    """Run a command of the lab that is killed before or after one of its functions."""
    lab = asdict(more.pop("lab")) if "lab" in more else None
    asked = {"url": "", **more, "module": module, "name": name, "lab": lab, "project": str(project)}
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        input=json.dumps(asked),
        env=env.environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == -9, done.stderr


@contextmanager
def other_bytes(lab: Lab, md5: str, content: bytes | None) -> Iterator[None]:
    """Have other bytes in the lab's store, or none, while the block runs."""
    key = lab.object_key(md5)
    kept = lab.read_object(key)
    lab.delete_object(key)
    try:
        if content is not None:
            lab.put_object(key, content)
        yield
    finally:
        lab.put_object(key, kept)


# --- What is taken --------------------------------------------------------------------------------


def test_all_that_the_origin_has_is_found_and_what_it_lacks_is_listed(taken: Taken) -> None:
    found, commits = taken.found, taken.origin.commits
    assert (found.branch, found.commits) == ("master", len(commits))
    assert (found.branches, found.tags) == (("feature/x", "master"), ("v1",))
    assert found.data == {Path(PATH).stem: PATH, "pictures": PICTURES}
    assert list(found.refused) == ["Notes.txt"]
    (missing,) = found.missing
    assert missing.md5 == md5_of(b"id\nlost\n")
    assert missing.commits == {f"{PATH}.dvc": (commits["lost"],)}
    assert "does not have it" in missing.why
    assert (found.objects, found.unread) == (8, ())
    assert read_found(taken.folder / FOLDER) == found


def test_the_origin_is_as_it_was(taken: Taken) -> None:
    assert taken.origin.list_files() == taken.before


def test_no_commit_is_another_one_and_main_begins_where_the_default_branch_ends(
    taken: Taken,
) -> None:
    refs = parse_refs(taken.git("for-each-ref", "--format=%(refname) %(objectname)"))
    assert refs.pop("refs/heads/main") == taken.main
    assert refs == taken.origin.list_refs()
    assert taken.git("rev-parse", "main^").strip() == refs["refs/heads/master"]
    changed = taken.git("diff", "--name-only", "main^", "main").split()
    assert changed == [".dvc/config"]


def test_all_objects_are_in_the_store_by_both_layouts(taken: Taken) -> None:
    lab = taken.lab
    legacy = f"{layout.STORE}/{DOS2UNIX[:2]}/{DOS2UNIX[2:]}"
    assert lab.read_object(legacy) == CRLF
    for content in (b"model", b"id\ntheirs\n", *FILES.values()):
        assert lab.read_object(lab.object_key(md5_of(content))) == content


def test_a_second_time_changes_nothing(taken: Taken) -> None:
    assert deliver_origin(taken.lab, taken.folder) is None
    assert taken.git("rev-parse", "main").strip() == taken.main


# --- The proof ------------------------------------------------------------------------------------


def test_main_is_proved_though_an_older_version_was_lost(taken: Taken) -> None:
    proof = taken.lab.verify()
    assert [each.name for each in proof.data] == [taken.lab.dataset_name, "pictures"]
    assert (proof.commit, proof.parents_checked) == (taken.origin.commits["newest"], 2)


@pytest.mark.parametrize("name", ["of DVC 2", "feature/x", "v1"])
def test_an_old_commit_is_proved_by_what_the_store_has(name: str, taken: Taken) -> None:
    proof = taken.lab.verify(taken.origin.commits.get(name, name))
    assert proof.object.startswith(f"s3://{layout.BUCKET}/{layout.STORE}/")


def test_a_commit_that_was_lost_before_says_so(taken: Taken) -> None:
    with pytest.raises(ProofError, match="its origin had no object of") as raised:
        taken.lab.verify(taken.origin.commits["lost"])
    assert md5_of(b"id\nlost\n") in raised.value.what
    assert taken.origin.commits["lost"] in raised.value.what


def test_a_file_that_the_store_lost_or_has_otherwise_is_missed(taken: Taken) -> None:
    md5, commit = md5_of(FILES["a.png"]), taken.origin.commits["pictures"]
    with other_bytes(taken.lab, md5, b"\x89PNG A"), pytest.raises(ProofError, match=md5):
        taken.lab.verify(commit, "pictures")
    with other_bytes(taken.lab, md5, None), pytest.raises(ProofError, match="there is no object"):
        taken.lab.verify(commit, "pictures")


# --- What a person does ---------------------------------------------------------------------------


def test_an_old_commit_is_pulled_as_the_lab_s_commit_says(taken: Taken, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    taken.project.git("clone", "--quiet", taken.lab.git_url, clone, cwd=tmp_path)
    message = taken.project.git("show", "--no-patch", "--format=%B", "main")
    commands = [line.strip() for line in message.splitlines() if line.startswith("    ")]
    for command in commands:
        program, *words = command.replace("COMMIT", taken.origin.commits["pictures"]).split()
        if program == "git":
            taken.project.git(*words, cwd=clone)
        else:
            shutil.rmtree(clone / ".dvc" / "cache", ignore_errors=True)
            cache = ("config", "--local", "cache.dir", "cache")  # this one's is on no machine
            run_dvc(taken.lab, clone, *cache)
            run_dvc(taken.lab, clone, *words)
    pulled = {path: (clone / PICTURES / path).read_bytes() for path in FILES}
    assert (pulled, (clone / PATH).read_bytes()) == (FILES, b"id\noverwritten\n")
    assert not taken.project.git("status", "--porcelain", "--untracked-files=no", cwd=clone)


def run_dvc(lab: Lab, clone: Path, *words: str) -> None:
    home = clone.parent / "home"
    with dvc_process.running_dvc(lab, home, "-m", "dvc", *words, cwd=clone) as (process, errors):
        assert process.wait(120) == 0, errors.read_text("utf-8")


def test_a_run_goes_on_from_the_newest_commit(taken: Taken) -> None:
    run = taken.project.run()
    run.run_steps("pull")
    run.dataset.write_bytes(b"id\nnewest\nours\n")
    run.run_steps("publish")
    version = taken.lab.dataset()
    assert version.trailers["Data-Parent"] == md5_of(b"id\nnewest\n")
    assert taken.lab.read_object(taken.lab.object_key(version.md5)) == b"id\nnewest\nours\n"


# --- Refused --------------------------------------------------------------------------------------


def test_without_access_to_a_remote_it_is_named_and_nothing_is_delivered(
    somebody: Somebody, tmp_path: Path
) -> None:
    strange = {"AWS_ACCESS_KEY_ID": "strange", "AWS_SECRET_ACCESS_KEY": "strange"}
    with pytest.raises(LabError, match=r"^the origin's remote bucket \(s3://.*can't be read"):
        fetch_origin(somebody.url, tmp_path, {**os.environ, **strange})
    project = begin_project(somebody.stores, tmp_path)
    with pytest.raises(LabError, match="has not all of the origin"):
        deliver_origin(project.lab, tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(LabError, match="is a copy of"):
        fetch_origin(str(other), tmp_path, dict(os.environ))


def test_what_is_no_dvc_repository_is_refused(somebody: Somebody, tmp_path: Path) -> None:
    plain = Repository(tmp_path / "plain", PATH)
    with pytest.raises(LabError, match="has no commit on a branch"):
        fetch_origin(str(plain.folder), tmp_path / "one", dict(os.environ))
    plain.commit("no data", {"README.md": "hello"})
    with pytest.raises(LabError, match="is no DVC repository"):
        fetch_origin(str(plain.folder), tmp_path / "two", dict(os.environ))
    with pytest.raises(LabError) as raised:
        fetch_origin(f"file://{tmp_path}/nothing", tmp_path / "three", dict(os.environ))
    assert "nothing' does not appear to be a git repository" in raised.value.what
