"""The `.dvc` file: read from what DVC writes, written as DVC writes it, refused when it is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from dataset_steps import pointer, yaml_files
from dataset_steps.content import measure
from dataset_steps.errors import StepError
from dataset_steps.pointer import Pointer

OF_DATA = Pointer("afeb7f7605333ab111049317604e7efa.dir", 24, nfiles=3)
MD5 = hashlib.md5(b"a,b\n1,2\n", usedforsecurity=False).hexdigest()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.csv.dvc"


def test_what_is_written_is_read(path: Path) -> None:
    pointer.write(path, Pointer(MD5, 8))
    assert pointer.read(path) == Pointer(MD5, 8)


@pytest.mark.parametrize("md5", ["0" * 32, "12345678" * 4, "1" * 29 + "e10", "0" * 31 + "7"])
def test_a_hash_that_looks_like_a_number_stays_a_text(path: Path, md5: str) -> None:
    pointer.write(path, Pointer(md5, 8))
    assert pointer.read(path) == Pointer(md5, 8)
    assert yaml.safe_load(path.read_bytes())["outs"][0]["md5"] == md5


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repo:
    """Return a DVC repository that nothing of this machine's configuration reaches."""
    for variable in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return Repo.init(str(tmp_path), no_scm=True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
@pytest.mark.parametrize("name", ["data.csv", "größe 1.csv", "a'b: c.csv", "yes"])
def test_the_text_is_the_one_of_dvc_add(tmp_path: Path, repo: Repo, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"a,b\n1,2\n")
    repo.add(str(path))
    added = tmp_path / f"{name}.dvc"
    expected = added.read_bytes()
    assert pointer.read(added) == Pointer(MD5, 8)
    assert pointer.parse(expected.decode(), added.name) == Pointer(MD5, 8)
    added.unlink()
    pointer.write(added, Pointer(MD5, 8))
    assert added.read_bytes() == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
@pytest.mark.parametrize("mode", [0o644, 0o744, 0o645])
def test_the_mode_of_a_file_is_kept_as_dvc_keeps_it(tmp_path: Path, repo: Repo, mode: int) -> None:
    path = tmp_path / "tool"
    path.write_bytes(b"a,b\n1,2\n")
    path.chmod(mode)
    named = measure("tool", path, keep_all).pointer
    assert named == Pointer(MD5, 8, executable=mode != 0o644)
    repo.add(str(path))
    added = tmp_path / "tool.dvc"
    expected = added.read_bytes()
    assert pointer.read(added) == named
    added.unlink()
    pointer.write(added, named)
    assert added.read_bytes() == expected


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
def test_the_text_is_the_one_of_dvc_add_for_a_directory(tmp_path: Path, repo: Repo) -> None:
    fill(tmp_path / "data")
    repo.add(str(tmp_path / "data"))
    added = tmp_path / "data.dvc"
    expected = added.read_bytes()
    assert (pointer.read(added), b"nfiles: 3" in expected) == (OF_DATA, True)
    added.unlink()
    pointer.write(added, OF_DATA)
    assert added.read_bytes() == expected


def fill(folder: Path) -> None:
    """Make the directory that OF_DATA names."""
    (folder / "inner").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "inner/a.csv"):
        (folder / name).write_bytes(b"a,b\n1,2\n")
    (folder / "a.csv").chmod(0o755)


def keep_all(_: str, folders: list[str], files: list[str]) -> tuple[list[str], list[str]]:
    return folders, files


# --- A pointer that somebody has written something into

ANNOTATED = f"""\
# Who may read this: the wiki knows.
desc: Pay of all employees
outs:   # one file
    # as exported
    - md5: {MD5}   # of the export
      size: 8
      desc: 'a description that goes on and on and on, well beyond the eighty columns of a line'
      type: table
      labels: [pii, "eu"]
      hash: md5
      path: data.csv # theirs
      meta: {{owner: me, unit: 012}}
      persist: true
      remote: archive
      push: false
      # last of the out
meta:
  note: |
    several
    lines
  folded: >
    one
    paragraph
  empty:
# the end
"""
OF_DVC_2 = f"outs:\n- md5: {MD5}\n  size: 8\n  path: data.csv # theirs\n# the end\n"
OF_A_FOLDER = OF_DVC_2.replace("  size", "  nfiles: 7\n  size")
OF_A_CLOUD = f"""\
outs:
- cloud:
    archive: {{etag: 0123, version_id: abc}}
  md5: {MD5} # theirs
  size: 8
  hash: md5
  path: data.csv
"""
OF_AN_IMPORT = f"""\
md5: 4155a96f0b12af21e85e84531acb2005
frozen: true # until spring
deps:
- path: https://example.org/data.csv
  etag: "0123" # of then
  hash: md5
outs:
- md5: {MD5}
  size: 8
  hash: md5
  path: data.csv
"""
IN_JSON = f'{{"outs": [{{"md5": "{MD5}", "size": 8, "hash": "md5", "path": "data.csv"}}]}}'
TEXTS = {
    "annotated": ANNOTATED,
    "of DVC 2": OF_DVC_2,
    "of a folder": OF_A_FOLDER,
    "with versions": OF_A_CLOUD,
    "of an import": OF_AN_IMPORT,
    "JSON": IN_JSON,
    "CRLF": ANNOTATED.replace("\n", "\r\n"),
    "anchors": ANNOTATED.replace("{owner", "&who {owner").replace("empty:", "empty: *who"),
}
NEW = Pointer(hashlib.md5(b"a,b\n1,2\n3,4\n", usedforsecurity=False).hexdigest(), 12)


OF_A_TOOL = OF_DVC_2.replace("  path", "  isexec: true\n  path")
TEXTS |= {"of a tool": OF_A_TOOL, "of a directory": OF_A_FOLDER.replace(MD5, f"{MD5}.dir")}


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_is_edited_as_dvc_add_edits_it_for_a_directory(
    path: Path, repo: Repo, text: str
) -> None:
    path.write_bytes(text.encode())
    pointer.write(path, OF_DATA)
    ours = path.read_bytes()
    path.write_bytes(text.encode())
    fill(path.with_suffix(""))
    repo.add(str(path.with_suffix("")))
    assert ours == path.read_bytes()
    assert (pointer.read(path).md5, pointer.read(path).nfiles) == (OF_DATA.md5, 3)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:dvc")
@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_it_is_edited_as_dvc_add_edits_it(path: Path, repo: Repo, text: str) -> None:
    path.write_bytes(text.encode())
    path.chmod(0o750)
    pointer.write(path, NEW)
    ours = (path.read_bytes(), path.stat().st_mode)
    path.write_bytes(text.encode())
    path.with_suffix("").write_bytes(b"a,b\n1,2\n3,4\n")
    repo.add(str(path.with_suffix("")))
    assert ours == (path.read_bytes(), path.stat().st_mode)
    assert (pointer.read(path).md5, pointer.read(path).size) == (NEW.md5, NEW.size)
    if "# the end" in text or "# theirs" in text:
        assert b"# theirs" in ours[0]


def test_what_dvc_would_leave_out_as_its_default_stays(path: Path) -> None:
    """`dvc add` takes for nothing what says what holds anyway; somebody wrote it all the same."""
    text = """\
outs:
- md5: {}
  size: {}
  hash: md5
  path: data.csv
  cache: true
  persist: false
frozen: false
wdir: . # here
"""
    path.write_text(text.format(MD5, 8), encoding="utf-8")
    pointer.write(path, NEW)
    assert path.read_text(encoding="utf-8") == text.format(NEW.md5, NEW.size)


@pytest.mark.parametrize("mine", ["", "  owner: me # not you\n"])
def test_what_an_older_kit_noted_of_its_run_goes(path: Path, mine: str) -> None:
    """It would be told of another version; it is in the commit's message now."""
    old = f"meta:\n{mine}  data_commit: 0123abc\n  dag_id: d\n  run_id: one\n"
    text = f"outs:\n- md5: {MD5}\n  size: 8\n  hash: md5\n  path: data.csv\n"
    path.write_text(text + old, encoding="utf-8")
    pointer.write(path, NEW)
    kept = f"meta:\n{mine}" if mine else ""
    assert (
        path.read_text("utf-8") == text.replace(MD5, NEW.md5).replace("8\n", f"{NEW.size}\n") + kept
    )


def test_a_write_that_fails_leaves_the_old_pointer(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text(ANNOTATED, encoding="utf-8")
    monkeypatch.setattr(yaml_files, "dumps_yaml", lambda _: pytest.fail("the disk is full"))
    with pytest.raises(pytest.fail.Exception, match="full"):
        pointer.write(path, NEW)
    assert path.read_text(encoding="utf-8") == ANNOTATED


def test_the_remote_and_the_age_of_a_pointer_are_read(path: Path) -> None:
    path.write_text(ANNOTATED, encoding="utf-8")
    assert pointer.read(path) == Pointer(MD5, 8, remote="archive")
    path.write_text(OF_DVC_2, encoding="utf-8")
    assert pointer.read(path) == Pointer(MD5, 8, legacy=True)
    pointer.write(path, NEW)
    assert pointer.read(path) == NEW
    path.write_text(OF_A_FOLDER.replace(MD5, f"{MD5}.dir"), encoding="utf-8")
    assert pointer.read(path) == Pointer(f"{MD5}.dir", 8, legacy=True, nfiles=7)
    assert pointer.read(path).is_directory


# --- What is no pointer to one file or one directory


def test_a_missing_pointer(path: Path) -> None:
    with pytest.raises(StepError, match=r"no data\.csv\.dvc: import the data set first"):
        pointer.read(path)


OUT = f"md5: {MD5}\n  size: 8\n  path: data.csv\n"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "just words",
        "outs: [",
        "outs:\n\t- tabs: 1",
        "outs:\n",
        "outs: []\n",
        f"outs:\n- {OUT}- {OUT}",
        f"outs:\n- md5: {MD5}\n",
        "outs:\n- size: 8\n",
        f"outs:\n- md5: {MD5}\n  size: many\n",
        f"outs:\n- md5: {MD5}\n  size:\n",
        f"outs:\n- md5: {MD5}.dir\n  nfiles: 8\n",
        f"outs:\n- md5: {MD5}.dir.dir\n  size: 8\n",
        f"outs:\n- md5: {MD5.upper()}\n  size: 8\n",
        f"outs:\n- md5: {MD5[1:]}\n  size: 8\n",
        "outs:\n- md5: ../../../../../../etc/shadow/root\n  size: 8\n",
        "outs:\n- md5:\n  size: 8\n",
        f"<<<<<<< HEAD\nouts:\n- {OUT}=======\n",
    ],
)
def test_what_is_no_pointer(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    for read in (pointer.read, lambda file: pointer.parse(text, file.name)):
        with pytest.raises(StepError, match=r"data\.csv\.dvc") as refusal:
            read(path)
        assert refusal.value.exit_code == 65


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(b"outs:\n- md5: \xff\xfe\x00\n")
    with pytest.raises(StepError, match="is not a pointer"):
        pointer.read(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"outs:\n- {OUT}- {OUT}", r"names 2 outs, .* leave only data\.csv in it"),
        (f"outs:\n- md5: {MD5}\n  path: x\n", "with a size: `dvc add` the data again"),
        (f"outs:\n- md5: {MD5}\n  size: 8\n  hash: sha256\n", "is not the MD5 of a file or a dir"),
    ],
)
def test_what_to_do_is_said_in_one_line(path: Path, text: str, why: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StepError, match=why) as refusal:
        pointer.read(path)
    assert "\n" not in str(refusal.value)
    assert "values to unpack" not in str(refusal.value)


def test_a_link_is_no_pointer(path: Path) -> None:
    """Git would commit the link; what it leads to may be anywhere on the machine."""
    other = path.with_name("other")
    other.write_text(ANNOTATED, encoding="utf-8")
    path.symlink_to(other)
    for touch in (pointer.read, lambda link: pointer.write(link, NEW)):
        with pytest.raises(StepError, match=r"data\.csv\.dvc is a symbolic link"):
            touch(path)
    assert other.read_text(encoding="utf-8") == ANNOTATED
