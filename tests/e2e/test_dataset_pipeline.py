"""dataset_pipeline: each run publishes one version, which its commit brings back."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from airflow_client.client import DagRunApi, TriggerDAGRunPostBody
from airflow_client.client.exceptions import ApiException

from lab.errors import CommitError, DagError, RunError
from lab.lab import Lab
from lab.model import Run, Version
from tests.support.control import Control
from tests.support.dag_runs import requested_run_ids

DAG = "dataset_pipeline"


def read_dataset(lab: Lab, version: Version) -> bytes:
    with lab.checkout(version.commit) as checkout:
        return checkout.read(lab.dataset_path)


def test_a_run_publishes_a_dataset_that_its_commit_reproduces(lab: Lab) -> None:
    before = lab.dataset()
    run = lab.run(DAG)
    after = lab.dataset()
    assert after.md5 != before.md5
    assert after.trailers["Run-Id"] == run.id
    assert after.trailers["Dag-Version"] == run.dag_version
    assert read_dataset(lab, after).startswith(read_dataset(lab, before))


def ensure_two_versions(lab: Lab) -> list[Version]:
    """List all versions, two at least: run the DAG if there is only one."""
    if len(found := lab.history()) > 1:
        return found
    lab.run(DAG)
    return lab.history()


def test_the_appended_record_looks_like_the_others(lab: Lab) -> None:
    newest, before, *_ = ensure_two_versions(lab)
    old, new = read_dataset(lab, before), read_dataset(lab, newest)
    header, *rows = csv.reader(old.decode().splitlines())
    (record,) = csv.reader(new[len(old) :].decode().splitlines())
    assert int(record[0]) == max(int(row[0]) for row in rows) + 1
    for column in range(1, len(header)):
        assert record[column] in {row[column] for row in rows}


@pytest.mark.variation
def test_the_column_that_is_told_is_counted_on(lab: Lab) -> None:
    before = lab.dataset()
    run = lab.run(DAG, {"key": "Employee ID"})
    old, new = read_dataset(lab, before), read_dataset(lab, lab.dataset())
    rows = csv.DictReader(old.decode().splitlines())
    highest = max(int(row["Employee ID"]) for row in rows)
    assert new[len(old) :].startswith(f"{highest + 1},".encode())
    assert "counted on the column 'Employee ID', as the param `key` says" in lab.log(
        run, "modify_data"
    )


@pytest.mark.variation
def test_the_longest_id_and_one_of_a_run_that_was_deleted(lab: Lab) -> None:
    """Airflow refuses an id whose run could have no log; a known one makes no second commit."""
    with pytest.raises(ApiException, match=r"does not match regex pattern '.*\{1,200\}") as refusal:
        trigger(lab, "x" * 201)
    assert refusal.value.status == 400
    run = lab.follow(trigger(lab, "x" * 200))
    published = lab.dataset()
    assert published.trailers["Run-Id"] == run.id
    assert f"published commit {published.commit}" in lab.log(run, "push_data")
    with lab.airflow() as client:
        DagRunApi(client).delete_dag_run(DAG, run.id)
    again = lab.log(lab.follow(trigger(lab, run.id)), "push_data")
    assert f"commit {published.commit} of this run was published before" in again
    assert lab.dataset() == published


def trigger(lab: Lab, run_id: str) -> Run:
    """Start a run of this id, as Airflow's page does."""
    with lab.airflow() as client:
        body = TriggerDAGRunPostBody(dag_run_id=run_id, logical_date=None)
        DagRunApi(client).trigger_dag_run(DAG, body)
    return next(run for run in lab.runs_of(DAG) if run.id == run_id)


def test_the_proof_holds_for_the_newest_and_for_an_earlier_commit(lab: Lab) -> None:
    newest, *_, first = ensure_two_versions(lab)
    proof = lab.verify()
    assert (proof.ok, proof.commit, proof.md5) == (True, newest.commit, newest.md5)
    assert proof.parents_checked == len(lab.history()) - 1
    old = lab.verify(first.commit)
    assert (old.run_id, old.parents_checked) == (None, 0)


def test_a_plain_http_client_can_start_a_run(lab: Lab) -> None:
    login = {"username": lab.airflow_user, "password": lab.airflow_password}
    token = requests.post(f"{lab.airflow_url}/auth/token", json=login, timeout=30).json()
    reply = requests.post(
        f"{lab.airflow_url}/api/v2/dags/{DAG}/dagRuns",
        json={"logical_date": None, "dag_run_id": "from-ci-42", "conf": {"note": "nightly"}},
        headers={"Authorization": f"Bearer {token['access_token']}"},
        timeout=30,
    )
    reply.raise_for_status()
    found = lab.find_run(DAG, "from-ci-42")
    assert found is not None
    lab.follow(found)
    assert lab.dataset().trailers["Run-Id"] == "from-ci-42"


def test_nobody_is_let_in_without_credentials(lab: Lab) -> None:
    wrong = {"username": lab.airflow_user, "password": "wrong"}
    assert requests.post(f"{lab.airflow_url}/auth/token", json=wrong, timeout=30).status_code == 401
    assert requests.get(f"{lab.airflow_url}/api/v2/dags", timeout=30).status_code == 401
    assert requests.get(f"{lab.s3_endpoint}/{lab.s3_bucket}", timeout=30).status_code == 403
    refs = f"{lab.git_url}/info/refs?service=git-upload-pack"
    assert requests.get(refs, timeout=30).status_code == 401
    assert requests.get(refs, auth=(lab.git_user, "wrong"), timeout=30).status_code == 401


def test_what_can_not_run_is_refused_before_a_run_exists(lab: Lab) -> None:
    with pytest.raises(DagError, match="no DAG 'no_such_dag'"):
        lab.trigger("no_such_dag")
    with pytest.raises(CommitError):
        lab.verify("0123456789abcdef0123456789abcdef01234567")


def test_eight_runs_at_once_while_the_servers_are_killed(lab: Lab, control: Control) -> None:
    """As many steps as a lab on kind has room for at once."""
    before = lab.history()
    old = read_dataset(lab, before[0])
    with ThreadPoolExecutor(8) as pool:
        started = list(pool.map(lambda _: lab.trigger(DAG), range(8)))
    for server in control.list_stores():
        control.kill(server)
        control.restore()
    for run in started:
        lab.follow(run)
    after = lab.history()
    made = after[: len(after) - len(before)]
    assert after[len(made) :] == before
    assert requested_run_ids(made) == sorted(run.id for run in started)
    new = read_dataset(lab, after[0])
    assert new.startswith(old)
    assert len(new[len(old) :].splitlines()) == len(made)
    assert lab.verify().parents_checked == len(after) - 1


def test_a_run_that_can_not_succeed_says_why(lab: Lab) -> None:
    newest = lab.dataset()
    key = lab.object_key(newest.md5)
    kept = lab.read_object(key)
    lab.delete_object(key)
    try:
        with pytest.raises(RunError, match="the remote has no object"):
            lab.run(DAG)
        assert lab.dataset() == newest
    finally:
        lab.put_object(key, kept)
    lab.run(DAG)
