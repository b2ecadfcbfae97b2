"""Pointers and configurations that somebody has written: kept, understood, or refused at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from dataset_steps import repository
from dataset_steps.content import Content
from dataset_steps.pointer import Pointer
from lab import layout
from tests.support.steps import STEPS, open_remote, reproduce_dataset
from tests.support.stores import (
    FOLDER,
    PATH,
    PREFIX,
    dvc_2_md5_of,
    employees,
    md5_of,
    write_text,
)

if TYPE_CHECKING:
    from tests.support.stores import Project

NAME = Path(PATH).name
ARCHIVE = "archive/files/md5"


def crlf(count: int, mark: str) -> bytes:
    """Return a dataset whose lines end as Windows ends them: DVC 2's MD5 is none of its bytes."""
    return employees(count, mark).replace(b"\n", b"\r\n")


def set_config(clone: Path, text: str) -> None:
    """Add to DVC's configuration in a clone."""
    with (clone / ".dvc" / "config").open("a", encoding="utf-8") as file:
        file.write(text)


def remote_text(name: str, *options: str) -> str:
    return "\n".join([f"['remote \"{name}\"']", *options, ""])


# --- A pointer is edited --------------------------------------------------------------------------

ANNOTATED = """\
# Who may read this: the wiki knows.
desc: Pay of all employees
outs:
- md5: {md5} # newest
  size: {size}
  hash: md5
  path: {name}
  desc: Export of the payroll
  type: table
  labels:
  - pii
  meta:
    owner: me
  persist: true
meta:
  note: |
    several
    lines
# the end
"""


def test_a_run_changes_two_values_of_the_pointer_and_nothing_else(project: Project) -> None:
    first = project.list_commits()[-1]
    project.replace_pointer(ANNOTATED.format(md5=first.md5, size=first.size, name=NAME))
    for _ in range(2):
        project.run().run_steps(*STEPS)
        newest = project.prove_commits()[-1]
        shown = project.git("show", f"main:{PATH}.dvc")
        assert shown == ANNOTATED.format(md5=newest.md5, size=newest.size, name=NAME)
    assert newest.md5 != first.md5


def test_a_pointer_keeps_its_mode(project: Project) -> None:
    project.push_change(lambda clone: (clone / f"{PATH}.dvc").chmod(0o755))
    project.run().run_steps(*STEPS)
    assert project.git("ls-tree", "main", f"{PATH}.dvc").startswith("100755 ")
    project.prove_commits()


# --- A pointer of DVC 2 ---------------------------------------------------------------------------


def test_a_run_takes_over_from_dvc_2(project: Project, tmp_path: Path) -> None:
    content = crlf(40, project.name)
    project.adopt_dvc_2(content, "# theirs\n")
    run = project.run()
    run.run_steps(*STEPS)
    *_, old, new = project.prove_commits()
    assert (old.legacy, new.legacy) == (True, False)
    assert new.trailers["Data-Parent"] == dvc_2_md5_of(content)
    assert project.git("show", f"main:{PATH}.dvc") == (
        f"# theirs\nouts:\n- md5: {new.md5}\n  size: {new.size}\n  path: {NAME}\n  hash: md5\n"
    )
    assert reproduce_dataset(project, new.hash, tmp_path / "new").startswith(content)
    assert reproduce_dataset(project, old.hash, tmp_path / "old") == content


def test_overlapping_and_repeated_runs_on_a_pointer_of_dvc_2(project: Project) -> None:
    """What a run pulled is compared with what main names now, by the hash that names it there."""
    project.adopt_dvc_2(crlf(40, project.name))
    run, other = project.run(), project.with_own_folder().run()
    run.run_steps("pull", "modify")
    project.push_change(lambda clone: write_text(clone / "README.md", "# Data\n"))
    run.kill_step("publish", "before", "repository:push")
    assert "of version" not in run.run_steps("pull", "modify")
    other.run_steps("pull", "modify")
    with other.holding_step("publish", "repository:push"):
        said = run.run_steps("publish")
    assert "of version" not in said
    assert project.list_run_ids() == [run.id, other.id]
    project.prove_commits()


def test_other_bytes_than_dvc_2_named_are_refused(project: Project) -> None:
    content = crlf(40, project.name)
    key = project.adopt_dvc_2(content)
    where = f"s3://{layout.BUCKET}/{key}"
    for other in (content.replace(b"note 3", b"note 4"), content[:-9], b""):
        project.stores.client.put_object(Bucket=layout.BUCKET, Key=key, Body=other)
        said = project.run().expect_refusal("pull")
        assert f"the object {where} is not what its pointer names" in said
    project.stores.client.delete_object(Bucket=layout.BUCKET, Key=key)
    assert f"the remote has no object {where}" in project.run().expect_refusal("pull")


# --- A remote of the pointer's own ----------------------------------------------------------------


def test_a_pointer_s_own_remote_is_pulled_from_and_pushed_to(
    project: Project, tmp_path: Path
) -> None:
    content = employees(20, project.name)
    project.stores.put_object(content, prefix=ARCHIVE)
    project.push_change(
        lambda clone: set_config(
            clone, remote_text("archive", f"url = s3://{layout.BUCKET}/archive")
        )
    )
    text = f"outs:\n- md5: {md5_of(content)}\n  size: {len(content)}\n  hash: md5\n"
    project.replace_pointer(f"{text}  path: {NAME}\n  remote: archive\n")
    project.run().run_steps(*STEPS)
    newest = project.list_commits()[-1]
    assert md5_of(project.stores.read_object(newest.md5, prefix=ARCHIVE)) == newest.md5
    for prefix in (PREFIX, FOLDER):
        with pytest.raises(ClientError, match="NoSuchKey"):
            project.stores.read_object(newest.md5, prefix=prefix)
    assert project.git("show", f"main:{PATH}.dvc").endswith("  remote: archive\n")
    assert reproduce_dataset(project, newest.hash, tmp_path / "clone").startswith(content)


def test_a_remote_s_own_server_and_a_person_s_profile(project: Project) -> None:
    """DVC asks the server that the repository names, and so does what stores and proves."""
    own = (f"endpointurl = {project.lab.s3_endpoint}", "profile = nobody", "credentialpath = ~/k")
    project.push_change(lambda clone: set_config(clone, "\n    ".join(["", *own, ""])))
    run = project.run()
    for step in STEPS:
        done = run.run_step(step, AWS_ENDPOINT_URL_S3="http://127.0.0.1:1")
        assert done.code == 0, done.output
    assert project.list_run_ids() == [run.id]
    project.prove_commits()


def test_what_a_remote_s_options_ask_of_an_upload(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run, content = project.run(), b"a,b\n1,2\n" + project.name.encode()
    sent: list[object] = []
    run.run_steps("pull")
    set_config(run.folder / "repository", "    acl = bucket-owner-full-control\n")
    remote = open_remote(run, monkeypatch)
    named = Pointer(hashlib.md5(content, usedforsecurity=False).hexdigest(), len(content))

    def record(request: Any, **_: object) -> None:
        sent.append(request.headers["x-amz-acl"])

    remote.s3(named).meta.events.register("before-send.s3.PutObject", record)
    (tmp_path / "file").write_bytes(content)
    remote.store(Content(named), tmp_path / "file")
    assert sent == [b"bucket-owner-full-control"]


# --- What no retry helps --------------------------------------------------------------------------


def append(clone: Path, text: str) -> None:
    """Add lines to the pointer in a clone."""
    path = clone / f"{PATH}.dvc"
    write_text(path, path.read_text(encoding="utf-8") + text)


def rename(clone: Path) -> None:
    """Have the pointer name another file."""
    path = clone / f"{PATH}.dvc"
    write_text(path, path.read_text(encoding="utf-8").replace(NAME, "other.csv"))


REFUSED: dict[str, Callable[[Path], None]] = {
    f".dvcignore:1:*.csv hides {PATH} from DVC": lambda clone: write_text(
        clone / ".dvcignore", "*.csv\n"
    ),
    "the DVC remote s3 is gs; these steps need s3": lambda clone: write_text(
        clone / ".dvc" / "config", f"[core]\nremote = s3\n{remote_text('s3', 'url = gs://b')}"
    ),
    "neither the pointer nor .dvc/config names a remote": lambda clone: write_text(
        clone / ".dvc" / "config", ""
    ),
    "says `cache: false`": lambda clone: append(clone, "  cache: false\n"),
    "extra keys not allowed": lambda clone: append(clone, "unknown: 1\n"),
    f"is about datasets/other.csv, and not about {PATH}": rename,
}


@pytest.mark.parametrize(("why", "change"), REFUSED.items(), ids=list(REFUSED))
def test_a_hopeless_fault_is_told_at_once(
    project: Project, why: str, change: Callable[[Path], None]
) -> None:
    """Code 65: Airflow tries it no more."""
    project.push_change(change)
    said = project.run().expect_refusal("pull")
    assert why in said
    assert said.count("\n") == 1


def test_no_commit_names_what_dvc_could_not_pull(project: Project) -> None:
    """It is looked at in the very state that is about to be committed."""
    run = project.run()
    run.run_steps("pull", "modify")
    before = project.push_change(lambda clone: write_text(clone / ".dvcignore", "*.csv\n"))
    assert f"hides {PATH} from DVC" in run.expect_refusal("publish")
    assert project.tip() == before


def test_a_dataset_that_git_keeps_as_well(project: Project) -> None:
    def keep(clone: Path) -> None:
        (clone / PATH).with_name(".gitignore").unlink()
        (clone / PATH).write_bytes(employees(300))

    project.push_change(keep)
    assert f"`git rm -r --cached {PATH}`" in project.run().expect_refusal("pull")


# --- What else a step writes into ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("there", "after"),
    [
        (None, b"/a.csv\n"),
        (b"", b"/a.csv\n"),
        (b"# theirs\n*.tmp", b"# theirs\n*.tmp\n/a.csv\n"),
        (b"*.tmp\r\n", b"*.tmp\r\n/a.csv\r\n"),
        (b"/a.csv\r\n# \xff\n", b"/a.csv\r\n# \xff\n"),
    ],
)
def test_a_line_is_added_to_gitignore(tmp_path: Path, there: bytes | None, after: bytes) -> None:
    path = tmp_path / ".gitignore"
    if there is not None:
        path.write_bytes(there)
    for _ in range(2):
        assert repository.ignore_file(tmp_path / "a.csv") == path
        assert path.read_bytes() == after
