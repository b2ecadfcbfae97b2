"""`lab verify` on real servers, by real DVC: green on sound data, red on lost or damaged data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from lab import layout
from lab.__main__ import show_data_sets
from lab.client import data, dvc_process, versions
from lab.client.dvc_process import Locate, Place, Question
from lab.client.history import History
from lab.client.objects import Bucket
from lab.client.trailers import find_maker
from lab.errors import CommitError, LabError, ProofError
from lab.lab import Lab
from tests.support.histories import NOTHING
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
    declared: Mapping[str, str] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)

    @property
    def lab(self) -> Lab:
        return replace(self.project.lab, data_sets=self.declared)

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


def join_project(
    template: Project, folder: Path, declared: Mapping[str, str] = NOTHING
) -> Colleague:
    project = new_project(template.stores, folder)
    shutil.copytree(template.bare, project.bare)
    colleague = Colleague(project, folder / "clone", declared)
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
    assert find_maker(merged.lab.dataset("main~5")) == "import"
    assert find_maker(merged.lab.dataset("main~4")) == "hand"


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
    """The history of the grown repository, and where DVC says that its data is."""

    lab: Lab
    history: History
    answers: dict[str, data.Answers]

    locate: Locate

    def check_older(self) -> None:
        older = [(v, self.answers[v.commit]) for v in self.history.versions[1:]]
        data.check_older(self.locate, Bucket(self.lab), older)

    def fetch(self, commit: str, into: Path) -> dict[str, Path]:
        """Download the data of a version."""
        bucket = Bucket(self.lab)
        (version,) = (v for v in self.history.versions if v.commit == commit)
        found = data.open_data(bucket, version, *self.answers[commit][0])
        return data.fetch_data(self.locate, bucket, found, into)


@pytest.fixture(scope="module")
def located(grown: Colleague) -> Iterator[Located]:
    with (
        versions.temporary_clone(grown.lab) as clone,
        dvc_process.locating(grown.lab, clone) as locate,
    ):
        history = versions.read_graph(grown.lab, clone, "main")
        answers = data.locate_versions(locate, {"dataset": history})["dataset"]
        yield Located(grown.lab, history, answers, locate)


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


# --- Several data sets --------------------------------------------------------------------------

READINGS, WEIGHTS, OTHER = "data/readings", "models/weights.bin", "data/other.parquet"
DECLARED = {"weights": WEIGHTS, "readings": READINGS, "later": "data/later"}
ODD = ("-x", "a b", "zwei ü", "zwei u\u0308", "sub/empty")  # one umlaut in both normal forms


def track(me: Colleague, run: str, parents: dict[str, str]) -> None:
    """Have plain DVC add and push what is at these paths, and commit it as a run does."""
    paths = [*parents]
    for words in (("add", "--quiet", "--", *paths), ("push", "--quiet", "--", *paths)):
        with dvc_process.running_dvc(
            me.lab, me.clone.parent / "dvc", "-m", "dvc", *words, cwd=me.clone
        ) as (process, errors):
            assert process.wait(60) == 0, errors.read_text("utf-8")
    said = [f"Run-Id: {run}"]  # no DAG: Airflow is not asked
    for path in paths:
        (out,) = yaml.safe_load((me.clone / f"{path}.dvc").read_text("utf-8"))["outs"]
        said += [f"Data-Path: {path}", f"Data-Md5: {out['md5']}", f"Data-Size: {out['size']}"]
        said += [f"Data-Parent: {parents[path]}"] if parents[path] else []
        parents[path] = out["md5"]
    me.git("add", "--all")
    me.git("commit", "--quiet", "--message", f"{run}\n\n" + "\n".join(said))
    me.remember(run)


@pytest.fixture(scope="module")
def several(template: Project, tmp_path_factory: pytest.TempPathFactory) -> Colleague:
    """Return a repository in which two runs published a folder, a model and another file.

    Nobody has pushed the data of a pointer that a person put there.
    """
    me = join_project(template, tmp_path_factory.mktemp("several"), DECLARED)
    for name in ODD:
        write_bytes(me.clone / READINGS / name, b"" if "empty" in name else name.encode())
    write_bytes(me.clone / WEIGHTS, b"\0weights")
    write_bytes(me.clone / OTHER, b"PAR1")
    parents = dict.fromkeys((READINGS, WEIGHTS, OTHER), "")
    track(me, "r1", parents)
    write_bytes(me.clone / READINGS / "-x", b"changed")
    track(me, "r2", {READINGS: parents[READINGS]})
    write_text(me.clone / "data" / "mine.dvc", f"outs:\n- md5: {'0a' * 16}\n  path: mine\n")
    me.commit("by hand")
    me.git("rm", "--quiet", POINTER)
    me.commit("no dataset")
    me.git("push", "--quiet", "origin", "main~1:main", "main:others")
    return me


def write_bytes(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_every_data_set_of_a_commit_is_proved_by_one_pull_and_one_question(
    several: Colleague, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, running = [], dvc_process.running_dvc

    def count(lab: Lab, home: Path, *words: str | Path, **more: Any) -> Any:
        started.append(words)
        return running(lab, home, *words, **more)

    monkeypatch.setattr(dvc_process, "running_dvc", count)
    proof = several.lab.verify()
    assert len(started) == 2
    sizes = {each.name: (each.path, each.size, each.files) for each in proof.data}
    folder = sum(len(name.encode()) for name in ODD[1:-1]) + len(b"changed")
    assert sizes == {
        "dataset": (PATH, proof.size, None),
        "weights": (WEIGHTS, 8, None),
        "readings": (READINGS, folder, len(ODD)),
        OTHER: (OTHER, 4, None),
    }
    made = {each.name: (each.made_by, each.run_id, each.parents_checked) for each in proof.data}
    assert made["dataset"] == (proof.made_by, proof.run_id, 0) == ("import", None, 0)
    assert (made["weights"], made["readings"]) == (("run", "r1", 0), ("run", "r2", 1))
    commits = {each.name: each.commit for each in proof.data}
    assert commits["readings"] == several.commits["r2"]
    assert commits["weights"] == commits[OTHER] == several.commits["r1"]
    assert proof.commit == commits["dataset"]


def test_a_commit_without_the_dataset_is_proved_by_its_other_data_sets(several: Colleague) -> None:
    proof = several.lab.verify("others")
    assert [each.name for each in proof.data] == ["weights", "readings", OTHER]
    assert (proof.commit, proof.md5) == (several.commits["r1"], md5_of(b"\0weights"))


def test_a_missing_object_of_one_data_set_is_its_alone(several: Colleague) -> None:
    key = key_of(md5_of(b"\0weights"))
    with other_bytes(several.lab, key, None):
        with pytest.raises(ProofError, match=f"^weights: .*{key}.*{several.commits['r1']}"):
            several.lab.verify()
        proof = several.lab.verify(data="readings")
        with pytest.raises(ProofError, match=f"^there is no object .*{key}"):
            several.lab.verify(data=WEIGHTS)
    assert [each.name for each in proof.data] == ["readings"]
    assert (proof.ok, proof.md5) == (True, several.lab.version("readings").md5)


def test_a_damaged_file_in_an_older_version_of_a_folder_is_found(several: Colleague) -> None:
    key = key_of(md5_of(b"-x"))
    with other_bytes(several.lab, key, b"-y"), pytest.raises(ProofError) as raised:
        several.lab.verify()
    assert raised.value.what.startswith(f"readings: s3://{layout.BUCKET}/{key} holds 2 bytes")
    assert f"the folder at {several.commits['r1']}" in raised.value.what


def test_a_data_set_that_the_commit_does_not_have_is_refused(several: Colleague) -> None:
    for name in ("later", "nothing"):
        with pytest.raises(CommitError, match=f"no data set '{name}': there is dataset, weights, "):
            several.lab.verify(data=name)


def test_status_lists_each_data_set(several: Colleague, capsys: pytest.CaptureFixture[str]) -> None:
    facts: dict[str, Any] = {}
    show_data_sets(several.lab, facts)
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [
        *("dataset", "weights", "readings", "later"),
        f"{OTHER},",
    ]
    assert f"{READINGS}, {len(ODD)} files, " in lines[2]
    assert lines[3] == "  later                data/later: no version yet"
    dataset, _, readings, later, other = facts["data"]
    assert facts["dataset"] == {k: dataset[k] for k in ("path", "commit", "md5", "size")}
    assert (readings["commit"], readings["files"]) == (several.commits["r2"], len(ODD))
    assert later == {"name": "later", "path": "data/later", "error": "no version yet"}
    assert (other["name"], other["size"], other["files"]) == (OTHER, 4, None)


def test_a_version_of_any_data_set_can_be_looked_at(several: Colleague) -> None:
    newest, older = several.lab.history(name="readings")
    assert several.lab.version("readings", "main~1") == newest
    with several.lab.checkout(older.commit, READINGS, WEIGHTS) as checkout:
        assert {name: checkout.read(f"{READINGS}/{name}") for name in ODD} == {
            name: b"" if "empty" in name else name.encode() for name in ODD
        }
        assert checkout.read(WEIGHTS) == b"\0weights"


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


def test_paths_of_several_projects_of_dvc_are_pulled(colleague: Colleague) -> None:
    """One below has a configuration and a cache of its own."""
    content = b"of the project below"
    colleague.put(md5_of(content), content)
    config = (colleague.clone / ".dvc" / "config").read_text("utf-8")
    write_bytes(colleague.clone / "below" / ".dvc" / "config", config.encode())
    out = f"outs:\n- md5: {md5_of(content)}\n  hash: md5\n  path: x\n"
    write_text(colleague.clone / "below" / "x.dvc", out)
    dvc_process.pull(colleague.lab, colleague.clone, PATH, "below/x")
    assert (colleague.clone / "below" / "x").read_bytes() == content
    assert (colleague.clone / PATH).is_file()


QUESTION = Question("HEAD", POINTER, "", ())


def test_a_process_that_ends_instead_of_answering_is_told(colleague: Colleague) -> None:
    with dvc_process.locating(colleague.lab, colleague.clone) as locate:
        assert locate([]) == []
        here = [c for c in psutil.Process().children() if c.cwd() == str(colleague.clone)]
        here[0].kill()
        with pytest.raises(LabError, match=r"^DVC fails: it does not say why$"):
            locate([QUESTION])


def test_a_process_that_answers_too_late_is_ended(
    colleague: Colleague, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dvc_process, "SECONDS", 0.01)
    with (
        dvc_process.locating(colleague.lab, colleague.clone) as locate,
        pytest.raises(LabError, match=r"^DVC took more than 0\.01 s$"),
    ):
        locate([QUESTION])


def is_pull(process: psutil.Process) -> bool:
    return process.cmdline()[3:5] == ["dvc", "pull"]


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
    with dvc_process.locating(colleague.lab, colleague.clone) as locate:
        said = locate(questions)
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
    facts: dict[str, Any] = {}
    show_data_sets(colleague.lab, facts)
    why = f"main has no {POINTER}: this commit has no dataset"
    assert capsys.readouterr().out == f"data sets:\n  dataset              {PATH}: {why}\n"
    assert facts["dataset"] == {"path": PATH, "error": why}
    assert colleague.lab.dataset("main~1").commit == colleague.lab.history()[0].commit
