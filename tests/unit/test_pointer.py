"""The `.dvc` file: read from what DVC writes, written as DVC writes it, refused when it is none."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

from dataset_steps import pointer, yaml_files
from dataset_steps.errors import StepError
from dataset_steps.pointer import Pointer

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
    added.unlink()
    pointer.write(added, Pointer(MD5, 8))
    assert added.read_bytes() == expected


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
  isexec: true
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


def test_metadata_of_a_run_joins_what_is_there(path: Path) -> None:
    path.write_text(ANNOTATED, encoding="utf-8")
    pointer.write(path, NEW, {"run_id": "one", "dag_id": "d"})
    pointer.write(path, NEW, {"run_id": "two"})
    meta = yaml.safe_load(path.read_bytes())["meta"]
    assert list(meta) == ["note", "folded", "empty", "run_id", "dag_id"]
    assert (meta["run_id"], meta["note"]) == ("two", "several\nlines\n")
    assert "# the end" in path.read_text(encoding="utf-8")


def test_metadata_that_has_no_keys_is_not_replaced(path: Path) -> None:
    text = ANNOTATED.replace("meta:\n  note", "meta:\n- note")
    path.write_text(text[: text.index("  folded")], encoding="utf-8")
    before = path.read_bytes()
    with pytest.raises(StepError, match=r"`meta` in data\.csv\.dvc is no mapping"):
        pointer.write(path, NEW, {"run_id": "one"})
    assert path.read_bytes() == before


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


# --- What is no pointer to one file


def test_a_missing_pointer(path: Path) -> None:
    with pytest.raises(StepError, match=r"no data\.csv\.dvc: import the dataset first"):
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
        f"outs:\n- md5: {MD5}.dir\n  size: 8\n",
        f"outs:\n- md5: {MD5.upper()}\n  size: 8\n",
        f"outs:\n- md5: {MD5[1:]}\n  size: 8\n",
        "outs:\n- md5: ../../../../../../etc/shadow/root\n  size: 8\n",
        "outs:\n- md5:\n  size: 8\n",
        f"<<<<<<< HEAD\nouts:\n- {OUT}=======\n",
    ],
)
def test_what_is_no_pointer_to_one_file(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(StepError, match=r"data\.csv\.dvc") as refusal:
        pointer.read(path)
    assert refusal.value.exit_code == 65


def test_bytes_that_are_no_text(path: Path) -> None:
    path.write_bytes(b"outs:\n- md5: \xff\xfe\x00\n")
    with pytest.raises(StepError, match="is not a pointer"):
        pointer.read(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"outs:\n- {OUT}- {OUT}", r"names 2 files, .* leave only data\.csv in it"),
        (f"outs:\n- md5: {MD5}.dir\n  size: 8\n  path: x\n", r"names a folder, .*`dvc remove"),
        (f"outs:\n- md5: {MD5}\n  path: x\n", "with a size: `dvc add` the file again"),
        (f"outs:\n- md5: {MD5}\n  size: 8\n  hash: sha256\n", "is not the MD5 of a file"),
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
