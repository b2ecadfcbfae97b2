"""Notifications and dataset versions in Airflow's tasks, against the lab's real servers."""

from __future__ import annotations

import importlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from botocore.exceptions import ClientError

from lab import layout
from lab.backends.embedded.services import gitserver
from tests.support.dag_tasks import with_plugins
from tests.support.stores import PATH, PREFIX, Project, Stores, employees, md5_of, write_text

RUN = "manual__2026-01-02T03:04:05.678901+00:00"
TEXT = "Grüße: 500 records"


@pytest.fixture(scope="module", autouse=True)
def airflow(stores: Stores, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Set up what a task of Airflow sees: plugins, the DAG folder, no key in its variables."""
    folder = tmp_path_factory.mktemp("contract")
    runtime = {"STEP_RUNTIME": "process"}
    with with_plugins(tmp_path_factory, **runtime), pytest.MonkeyPatch.context() as patch:
        set_contract(patch, folder, stores.site.step_environment)
        yield


def set_contract(patch: pytest.MonkeyPatch, folder: Path, contract: dict[str, str]) -> None:
    """Write the lab's contract and point Airflow at it, as the embedded backend does."""
    file = folder / "contract.json"
    write_text(file, json.dumps(contract))
    patch.setenv("STEP_ENVIRONMENT_FILE", str(file))


# --- Notifications --------------------------------------------------------------------------------


def read_messages(stores: Stores, dag_id: str) -> list[dict[str, Any]]:
    """Return the notifications of a DAG's runs."""
    place = {"Bucket": layout.BUCKET, "Prefix": f"notifications/{dag_id}/"}
    found = stores.client.list_objects_v2(**place).get("Contents", [])
    bodies = [stores.client.get_object(Bucket=layout.BUCKET, Key=o["Key"]) for o in found]
    return [json.loads(body["Body"].read()) for body in bodies]


def test_a_notification_says_who_was_told_what_and_why(stores: Stores) -> None:
    tell = importlib.import_module("lab_notifications").tell
    key = tell("told_once", RUN, ["owner", "boss"], "Fertig: 100 %", TEXT)
    (message,) = read_messages(stores, "told_once")
    assert message.pop("at").startswith("20")
    expected = {"who": ["owner", "boss"], "subject": "Fertig: 100 %", "text": TEXT, "run_id": RUN}
    assert message == expected
    assert key.startswith("notifications/told_once/manual__2026-01-02T03-04-05.678901-00-00-")


def test_who_is_told_again_finds_one_message(stores: Stores) -> None:
    tell = importlib.import_module("lab_notifications").tell
    first = tell("told_again", RUN, ["owner"], "late", "at first")
    again = tell("told_again", RUN, ["owner"], "late", "then")
    assert again == first
    assert [message["text"] for message in read_messages(stores, "told_again")] == ["then"]


def test_other_subjects_people_and_runs_are_other_messages(stores: Stores) -> None:
    tell = importlib.import_module("lab_notifications").tell
    similar = RUN.replace("+", "-")
    told = [
        (RUN, ["owner"], "late"),
        (RUN, ["owner"], "later"),
        (RUN, ["boss"], "late"),
        (similar, ["owner"], "late"),
    ]
    assert len({tell("told_all", *one, "") for one in told}) == 4
    assert len(read_messages(stores, "told_all")) == 4


def test_a_bucket_that_refuses_is_an_error(
    stores: Stores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contract = {**stores.site.step_environment, "AWS_SECRET_ACCESS_KEY": "wrong"}
    set_contract(monkeypatch, tmp_path, contract)
    with pytest.raises(ClientError, match=r"403|SignatureDoesNotMatch"):
        importlib.import_module("lab_notifications").tell("told_none", RUN, ["owner"], "s", "t")


# --- Names of runs --------------------------------------------------------------------------------


def test_what_a_run_of_the_longest_name_writes_can_be_read() -> None:
    """An S3 server that keeps objects as files has no longer name for one than 255 bytes."""
    bucket = importlib.import_module("lab_bucket")
    for run_id in ("x" * 250, "x" * 249 + "y"):
        bucket.write(f"results/a_dag/{bucket.name_of_run(run_id)}.json", run_id.encode())
    for run_id in ("x" * 250, "x" * 249 + "y"):
        key = f"results/a_dag/{bucket.name_of_run(run_id)}.json"
        assert bucket.read(key) == run_id.encode()


# --- Versions of the dataset ----------------------------------------------------------------------


@pytest.fixture
def versions(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module; its account may read this project's repository."""
    set_repository(project, tmp_path, monkeypatch, project.lab.git_url)
    set_account(monkeypatch, gitserver.password(project.stores.site.secrets, layout.OWNER))
    return importlib.import_module("dataset_versions")


def set_repository(project: Project, folder: Path, patch: pytest.MonkeyPatch, url: str) -> None:
    """Write a contract that names this repository and the project's dataset."""
    known = project.stores.site.step_environment
    set_contract(patch, folder, {**known, "GIT_URL": url, "DATASET_PATH": PATH})


def set_account(patch: pytest.MonkeyPatch, password: str) -> None:
    """Set the connection's account and password."""
    connection = {"conn_type": "git", "login": layout.OWNER, "password": password}
    patch.setenv("AIRFLOW_CONN_LAB_GIT", json.dumps(connection))


def test_the_newest_version_is_read_and_proved(versions: ModuleType, project: Project) -> None:
    content = employees(250_000, "newer")  # several blocks, which end within lines
    key = project.replace_dataset(content)
    version = versions.find_newest_version()
    assert version == {
        "commit": project.tip(),
        "path": PATH,
        "md5": md5_of(content),
        "size": len(content),
        "bucket": layout.BUCKET,
        "key": key,
        "endpoint": None,
        "legacy": False,
    }
    assert b"".join(versions.read_blocks(version)) == content


def test_a_version_of_dvc_2_is_read_and_proved(versions: ModuleType, project: Project) -> None:
    content = employees(40, project.name).replace(b"\n", b"\r\n")
    key = project.adopt_dvc_2(content)
    version = versions.find_newest_version()
    assert (version["key"], version["legacy"]) == (key, True)
    assert b"".join(versions.read_blocks(version)) == content
    place = {"Bucket": layout.BUCKET, "Key": key}
    project.stores.client.put_object(**place, Body=content.replace(b"note 3", b"note 4"))
    with pytest.raises(AirflowFailException, match="is not what the pointer at"):
        list(versions.read_blocks(version))


def test_a_version_in_a_remote_of_its_own(
    versions: ModuleType, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pointer names the remote, and that its server."""
    content, url = employees(9, project.name), project.lab.s3_endpoint
    project.stores.put_object(content, prefix="archive/files/md5")
    section = f"['remote \"archive\"']\nurl = s3://{layout.BUCKET}/archive\nendpointurl = {url}\n"
    project.push_change(lambda clone: write_text(clone / ".dvc" / "config", section))
    out = {"md5": md5_of(content), "size": len(content), "hash": "md5", "remote": "archive"}
    project.replace_pointer(json.dumps({"outs": [{**out, "path": Path(PATH).name}]}))
    version = versions.find_newest_version()
    known = {**project.stores.site.step_environment, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:1"}
    set_contract(monkeypatch, tmp_path, known)
    assert b"".join(versions.read_blocks(version)) == content


def test_nothing_secret_is_in_an_argument(
    versions: ModuleType, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, seen = subprocess.run, []

    def record_command(command: list[str], **options: Any) -> Any:
        seen.append(" ".join(command))
        return run(command, **options)

    monkeypatch.setattr(versions.subprocess, "run", record_command)
    versions.find_newest_version()
    assert seen
    assert not project.stores.find_leaks("\n".join(seen))


def test_other_bytes_are_refused_when_all_were_read(versions: ModuleType, project: Project) -> None:
    version = versions.find_newest_version()
    other = b"x" * version["size"]
    place = {"Bucket": version["bucket"], "Key": version["key"]}
    kept = project.stores.client.get_object(**place)["Body"].read()
    project.stores.client.put_object(**place, Body=other)
    try:
        with pytest.raises(AirflowFailException, match=f"its MD5 is {md5_of(other)}"):
            list(versions.read_blocks(version))
    finally:
        project.stores.client.put_object(**place, Body=kept)


def test_an_object_that_is_gone_is_refused(versions: ModuleType, project: Project) -> None:
    out = {"md5": "0" * 32, "size": 1, "hash": "md5", "path": Path(PATH).name}
    project.replace_pointer(json.dumps({"outs": [out]}))  # JSON is YAML, too
    wanted = f"no object s3://{layout.BUCKET}/{PREFIX}/00/{'0' * 30}"
    with pytest.raises(AirflowFailException, match=wanted):
        list(versions.read_blocks(versions.find_newest_version()))


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("outs: []\n", "is not a pointer to one file"),
        ("[", "is not a pointer to one file"),
        ("", "is not a pointer to one file"),
        ("outs: [{md5: ../../../etc, size: 1}]\n", "not the MD5 of a file"),
    ],
)
def test_a_file_that_is_no_pointer_is_refused(
    versions: ModuleType, project: Project, text: str, why: str
) -> None:
    commit = project.replace_pointer(text)
    with pytest.raises(AirflowFailException, match=why) as caught:
        versions.find_newest_version()
    assert f"{PATH}.dvc at {commit}" in str(caught.value)


def test_a_commit_without_a_pointer_is_refused(versions: ModuleType, project: Project) -> None:
    commit = project.push_change(lambda clone: (clone / f"{PATH}.dvc").unlink())
    with pytest.raises(AirflowFailException, match=f"commit {commit} has no {PATH}.dvc"):
        versions.find_newest_version()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "names no default remote"),
        ("[core]\nremote = store\n", "names no default remote"),
        ("no config", "names no default remote"),
        ("[core]\nremote = store\n['remote \"store\"']\nurl = /tmp/x\n", "is not on S3"),
    ],
)
def test_a_remote_that_is_not_s3_is_refused(
    versions: ModuleType, project: Project, text: str, why: str
) -> None:
    project.push_change(lambda clone: write_text(clone / ".dvc" / "config", text))
    with pytest.raises(AirflowFailException, match=why):
        versions.find_newest_version()


def test_a_refused_account_is_named_without_its_password(
    versions: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_account(monkeypatch, "a-wrong-password")
    with pytest.raises(AirflowFailException, match="see the connection lab_git") as caught:
        versions.find_newest_version()
    assert "a-wrong-password" not in str(caught.value)


def test_a_server_that_does_not_answer_is_worth_another_try(
    versions: ModuleType, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_repository(project, tmp_path, monkeypatch, "http://127.0.0.1:1/lab/datasets.git")
    with pytest.raises(AirflowException, match="git clone failed") as caught:
        versions.find_newest_version()
    assert not isinstance(caught.value, AirflowFailException)
