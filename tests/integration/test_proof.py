"""`lab verify` on real servers, by real DVC: green on sound data, red on lost or damaged data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

from lab import layout
from lab.__main__ import show_dataset
from lab.client import data, dvc_process, verify, versions
from lab.client.dvc_process import Place, Question
from lab.client.history import History
from lab.client.objects import Bucket
from lab.errors import CommitError, ProofError
from lab.lab import Lab
from tests.support.stores import PATH, Project, md5_of, new_project, write_text

POINTER = f"{PATH}.dvc"
STORE, OLD_STORE = "store/files/md5", "store"  # of DVC 3 and of DVC 2
CRLF = b"id,name\r\n1,Anna\r\n2,Bert\r\n"
DOS2UNIX = md5_of(CRLF.replace(b"\r\n", b"\n"))  # what DVC 2 took for that text's MD5
FILES = {"one.csv": b"id\n1\n", "below/zwei ü.csv": b"id\r\n2\r\n", "empty": b""}
CONFIG = """[core]
    remote = s3
    analytics = false
{more}
['remote "s3"']
    url = s3://{bucket}/{prefix}
"""


def key_of(md5: str, store: str = STORE) -> str:
    return f"{store}/{md5[:2]}/{md5[2:]}"


@dataclass
class Colleague:
    """Somebody's clone of a project's repository: what is committed there, no step has made."""

    project: Project
    clone: Path
    commits: dict[str, str] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        return self.project.lab

    def git(self, *words: str | Path) -> str:
        return self.project.git(*words, cwd=self.clone).strip()

    def put(self, md5: str, content: bytes, store: str = STORE) -> None:
        key = key_of(md5, store)
        self.project.stores.client.put_object(Bucket=layout.BUCKET, Key=key, Body=content)

    def commit(self, name: str) -> str:
        """Commit everything, and remember the commit by its message."""
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", name)
        return self.remember(name)

    def remember(self, name: str) -> str:
        self.commits[name] = self.git("rev-parse", "HEAD")
        return self.commits[name]

    def write_pointer(self, md5: str, **more: object) -> None:
        out = {"md5": md5, "path": Path(PATH).name, **more}
        write_text(self.clone / POINTER, yaml.safe_dump({"outs": [out]}))

    def configure(self, prefix: str, more: str = "") -> None:
        text = CONFIG.format(bucket=layout.BUCKET, prefix=prefix, more=more)
        write_text(self.clone / ".dvc" / "config", text)

    def commit_file(self, name: str, store: str = STORE) -> str:
        """Commit a version of one file, whose bytes are its name."""
        content = f"id\n{name}\n".encode()
        self.put(md5_of(content), content, store)
        self.write_pointer(md5_of(content), size=len(content), hash="md5")
        return self.commit(name)

    def commit_folder(self, name: str, store: str, hashes: dict[str, str], **more: object) -> str:
        """Commit a version that is a folder of FILES, which are named by these hashes."""
        for path, content in FILES.items():
            self.put(hashes[path], content, store)
        entries = [{"md5": hashes[path], "relpath": path} for path in sorted(FILES)]
        content = json.dumps(entries, sort_keys=True).encode()
        md5 = f"{md5_of(content)}.dir"
        self.put(md5, content, store)
        size = sum(map(len, FILES.values()))
        self.write_pointer(md5, size=size, nfiles=len(FILES), **more)
        return self.commit(name)


def join_project(template: Project, folder: Path) -> Colleague:
    project = new_project(template.stores, folder)
    shutil.copytree(template.bare, project.bare)
    colleague = Colleague(project, folder / "clone")
    project.git("clone", "--quiet", project.lab.git_url, colleague.clone, cwd=folder)
    return colleague


@contextmanager
def other_bytes(lab: Lab, key: str, content: bytes | None) -> Iterator[None]:
    """Have other bytes at an object's key, or no object, while the block runs."""
    kept = lab.read_object(key)
    lab.delete_object(key)
    try:
        if content is not None:
            lab.put_object(key, content)
        yield
    finally:
        lab.put_object(key, kept)


# --- A history with a merge and a removal ---------------------------------------------------------


@pytest.fixture(scope="module")
def merged(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Colleague:
    """Return a repository whose main has a colleague's branch in it, and lost its pointer once.

    Its configuration names caches of another machine, and Python's modules have namesakes in it.
    """
    folder = tmp_path_factory.mktemp("merged")
    me = join_project(template, folder)
    places = f"    site_cache_dir = {folder / 'site'}\n[cache]\n    dir = {folder / 'cache'}"
    me.configure("store", places)
    write_text(me.clone / "yaml.py", "raise ImportError('a file of the repository')\n")
    me.commit_file("first")
    me.git("checkout", "--quiet", "-b", "feature/x")
    me.commit_file("theirs")
    me.git("checkout", "--quiet", "main")
    me.commit_file("ours")
    me.git("merge", "--quiet", "--no-commit", "--strategy=ours", "feature/x")
    me.commit_file("merge")
    me.git("rm", "--quiet", POINTER)
    me.commit("removal")
    me.git("revert", "--no-edit", "HEAD")
    me.remember("revert")
    me.git("push", "--quiet", "--all", "origin")
    return me


def test_a_merge_of_other_data_and_a_reverted_removal_are_proved(merged: Colleague) -> None:
    proof = merged.lab.verify()
    assert (proof.ok, proof.commit) == (True, merged.commits["revert"])
    assert (proof.made_by, proof.run_id, proof.parents_checked) == ("hand", None, 5)
    names = ("revert", "merge", "ours", "theirs", "first")
    made = [version.commit for version in merged.lab.history()]
    assert made[:-1] == [merged.commits[name] for name in names]


def test_a_proof_fills_no_cache_that_the_configuration_names(merged: Colleague) -> None:
    with merged.lab.checkout("feature/x") as checkout:
        assert checkout.read(PATH) == b"id\ntheirs\n"
    assert sorted(path.name for path in merged.clone.parent.iterdir()) == ["clone", "shared"]


def test_a_commit_without_the_pointer_has_no_dataset(merged: Colleague) -> None:
    removal = merged.commits["removal"]
    why = f"^{removal} has no {POINTER}: this commit has no dataset$"
    for ask in (merged.lab.verify, merged.lab.dataset):
        with pytest.raises(CommitError, match=why):
            ask(removal)


def test_an_object_of_a_merged_branch_is_missed(merged: Colleague) -> None:
    key, content = key_of(md5_of(b"id\ntheirs\n")), b"id\ntheirX\n"
    with other_bytes(merged.lab, key, content), pytest.raises(ProofError) as raised:
        merged.lab.verify()
    assert key in raised.value.what
    assert f"the pointer at {merged.commits['theirs']} says" in raised.value.what


def test_the_import_is_told_from_a_commit_by_hand(merged: Colleague) -> None:
    assert verify.find_maker(merged.lab.dataset("main~5")) == "import"
    assert verify.find_maker(merged.lab.dataset("main~4")) == "hand"


# --- What DVC has written since version 2, and moved remotes --------------------------------------


@pytest.fixture(scope="module")
def grown(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Colleague:
    """Return a repository that old and new DVC have written to, and whose remote has moved."""
    me = join_project(template, tmp_path_factory.mktemp("grown"))
    me.put(DOS2UNIX, CRLF, OLD_STORE)
    me.write_pointer(DOS2UNIX, size=len(CRLF))
    me.commit("text of DVC 2")
    me.put(md5_of(b"id\n1\n"), b"id\n1\n", OLD_STORE)
    me.write_pointer(md5_of(b"id\n1\n"))
    me.commit("text of DVC 1")
    normalised = {path: md5_of(text.replace(b"\r\n", b"\n")) for path, text in FILES.items()}
    me.commit_folder("folder of DVC 2", OLD_STORE, normalised)
    me.commit_folder("folder", STORE, {p: md5_of(text) for p, text in FILES.items()}, hash="md5")
    write_text(me.clone / ".dvc" / "config", "[core]\n    analytics = false\n")
    me.commit_file("before there was a remote", "moved/files/md5")
    me.configure("moved")
    me.commit("a remote")
    me.commit_file("after the move", "moved/files/md5")
    me.git("push", "--quiet", "origin", "main")
    return me


FOLDER_SIZE = sum(map(len, FILES.values()))


@pytest.mark.parametrize(
    ("name", "store", "size"),
    [
        ("text of DVC 2", "store/", len(CRLF)),
        ("folder of DVC 2", "store/", FOLDER_SIZE),
        ("a remote", "moved/files/md5/", 29),
    ],
)
def test_dvc_says_where_the_data_of_a_commit_is(
    name: str, store: str, size: int, grown: Colleague
) -> None:
    version = grown.lab.dataset(grown.commits[name])
    proof = grown.lab.verify(grown.commits[name])
    key = f"{store}{version.md5[:2]}/{version.md5[2:]}"
    assert (proof.object, proof.size) == (f"s3://{layout.BUCKET}/{key}", size)
    assert proof.parents_checked == len(grown.lab.history(grown.commits[name])) - 1


@dataclass(frozen=True)
class Located:
    """A clone of the grown repository, and where DVC says that its data is."""

    lab: Lab
    clone: Path
    history: History
    answers: dict[str, data.Answers]

    def check_older(self) -> None:
        older = [(v, self.answers[v.commit]) for v in self.history.versions[1:]]
        data.check_older(self.lab, self.clone, Bucket(self.lab), older)

    def fetch(self, commit: str, into: Path) -> dict[str, Path]:
        """Download the data of a version."""
        bucket = Bucket(self.lab)
        (version,) = (v for v in self.history.versions if v.commit == commit)
        found = data.open_data(bucket, version, *self.answers[commit][0])
        return data.fetch_data(self.lab, self.clone, bucket, found, into)


@pytest.fixture(scope="module")
def located(grown: Colleague) -> Iterator[Located]:
    with versions.temporary_clone(grown.lab) as clone:
        history = versions.read_graph(grown.lab, clone, "main")
        answers = data.locate_versions(grown.lab, clone, history)
        yield Located(grown.lab, clone, history, answers)


TWO = FILES["below/zwei ü.csv"]
BROKEN = [
    ("text of DVC 2", key_of(DOS2UNIX, OLD_STORE), None),
    ("text of DVC 2", key_of(DOS2UNIX, OLD_STORE), CRLF.replace(b"Anna", b"Anne")),
    ("folder of DVC 2", key_of(md5_of(TWO.replace(b"\r\n", b"\n")), OLD_STORE), None),
    ("folder", key_of(md5_of(TWO)), TWO.replace(b"2", b"3")),
    (
        "before there was a remote",
        key_of(md5_of(b"id\nbefore there was a remote\n"), "moved/files/md5"),
        None,
    ),
]


@pytest.mark.parametrize(("name", "key", "content"), BROKEN)
def test_what_is_missing_or_damaged_in_an_older_version_is_found(
    name: str, key: str, content: bytes | None, located: Located, grown: Colleague
) -> None:
    with other_bytes(grown.lab, key, content), pytest.raises(ProofError) as raised:
        located.check_older()
    assert key in raised.value.what
    assert grown.commits[name] in raised.value.what


def test_a_folder_whose_list_is_not_what_its_hash_says_is_found(
    located: Located, grown: Colleague
) -> None:
    key = key_of(grown.lab.dataset(grown.commits["folder"]).md5)
    with other_bytes(grown.lab, key, b"[]"), pytest.raises(ProofError, match=key):
        located.check_older()
    located.check_older()


def test_the_data_to_be_proved_is_checked_file_by_file(
    located: Located, grown: Colleague, tmp_path: Path
) -> None:
    folder = grown.commits["folder of DVC 2"]
    copies = located.fetch(folder, tmp_path / "sound")
    found = {path.removeprefix(f"{PATH}/"): copy.read_bytes() for path, copy in copies.items()}
    assert found == FILES
    key = key_of(md5_of(TWO.replace(b"\r\n", b"\n")), OLD_STORE)
    damaged = TWO.replace(b"2", b"3")
    with other_bytes(grown.lab, key, damaged), pytest.raises(ProofError, match=key):
        located.fetch(folder, tmp_path / "damaged")


# --- What DVC says --------------------------------------------------------------------------------


@pytest.fixture
def colleague(template: Project, tmp_path: Path) -> Colleague:
    return join_project(template, tmp_path)


def test_what_dvc_says_of_an_ignored_dataset_is_in_the_error(colleague: Colleague) -> None:
    write_text(colleague.clone / ".dvcignore", "*.csv\n")
    colleague.commit("ignored")
    colleague.git("push", "--quiet", "origin", "main")
    with pytest.raises(ProofError) as raised:
        colleague.lab.verify()
    assert raised.value.what == (
        f"dvc pull does not bring {PATH} back: Path '{PATH}' is ignored by .dvcignore:1:*.csv"
    )


def test_what_dvc_says_of_an_object_or_of_s3_is_in_the_error(colleague: Colleague) -> None:
    colleague.write_pointer("0a" * 16, size=3, hash="md5")
    dvc = (colleague.lab, colleague.clone, PATH)
    with pytest.raises(ProofError, match=f": the remote has no object of md5 {'0a' * 16}$") as why:
        dvc_process.pull(*dvc)
    assert why.value.fix.startswith("bring the object back")
    settings = colleague.clone / ".dvc" / "config"
    write_text(settings, f"{settings.read_text('utf-8')}    profile = work\n")
    with pytest.raises(ProofError, match=r": .* - The config profile \(work\) could not be found$"):
        dvc_process.pull(*dvc)


def test_a_pull_ends_with_the_block_that_does_not_wait_for_it(colleague: Colleague) -> None:
    with dvc_process.pulling(colleague.lab, colleague.clone, PATH):
        started = {child.pid for child in psutil.Process().children() if is_pull(child)}
        assert started
    assert not started & {child.pid for child in psutil.Process().children()}


def is_pull(process: psutil.Process) -> bool:
    return process.cmdline()[-4:-2] == ["dvc", "pull"]


OUT = f"outs:\n- md5: {'0a' * 16}\n  hash: md5\n  path: {Path(PATH).name}\n"
S3 = "[core]\n    remote = x\n['remote \"x\"']\n    url = s3://bucket/100%/\n"
ANSWERS = [
    (S3, OUT, f"100%/files/md5/0a/{'0a' * 15}"),
    (
        f"{S3}['remote \"y\"']\n    url = s3://y\n",
        f"{OUT}  remote: y\n",
        f"files/md5/0a/{'0a' * 15}",
    ),
    ("", OUT, ".dvc/config names no default remote"),
    ("[core]\n    remote = x\n", OUT, "config file error: remote 'x' doesn't exist"),
    (S3.replace("s3://bucket", "/bucket"), OUT, "its remote 'x' is local, and not S3"),
    (S3.replace("s3:", "gs:"), OUT, "gs is supported, but requires 'dvc-gs' to be installed"),
    (f"{S3}    worktree = true\n", OUT, "its remote 'x' is version_aware"),
    (f"{S3}    spam = 1\n", OUT, "config file error: extra keys not allowed"),
    ("nonsense\n", OUT, "config file error: Invalid line ('nonsense')"),
    (S3, f"{OUT}  cache: false\n", "it says `cache: false`"),
    (S3, f"{OUT}  spam: 1\n", f"'/{POINTER}' validation failed: extra keys not allowed"),
    (S3, OUT.replace("md5: 0a", "etag: 0a"), "it names no hash"),
    (
        S3,
        f"{OUT}deps:\n- path: a\n  repo:\n    url: b\n",
        "it was imported from another repository",
    ),
]


def test_dvc_says_where_data_is_or_why_it_can_not(colleague: Colleague) -> None:
    questions = []
    for config, text, _ in ANSWERS:
        write_text(colleague.clone / ".dvc" / "config", config)
        questions.append(Question(colleague.commit("configured"), POINTER, text, (config,)))
    shutil.rmtree(colleague.clone / ".dvc")
    questions.append(Question(colleague.commit("no DVC"), POINTER, OUT, ()))
    said = dvc_process.locate(colleague.lab, colleague.clone, questions)
    found = [each.key if isinstance(each, Place) else each for each in said]
    wanted = [*(answer for *_, answer in ANSWERS), "you are not inside of a DVC repository"]
    wrong = [pair for pair in zip(found, wanted, strict=True) if not pair[0].startswith(pair[1])]
    assert not wrong
    assert not [each for each in found if "\n" in each]


def test_the_status_of_a_dataset_that_was_moved_says_that_main_has_none(
    colleague: Colleague, capsys: pytest.CaptureFixture[str]
) -> None:
    colleague.git("mv", POINTER, "datasets/people.csv.dvc")
    colleague.commit("moved")
    colleague.git("push", "--quiet", "origin", "main")
    facts: dict[str, dict[str, str]] = {}
    show_dataset(colleague.lab, facts)
    why = f"main has no {POINTER}: this commit has no dataset"
    assert capsys.readouterr().out == f"dataset: {why}\n"
    assert facts["dataset"] == {"path": PATH, "error": why}
    assert colleague.lab.dataset("main~1").commit == colleague.lab.history()[0].commit
