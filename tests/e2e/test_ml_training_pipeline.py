"""ml_training_pipeline: each run publishes one model, which its commit brings back."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import joblib
import pytest
import yaml

from lab.errors import CommitError, ConfError, RunError
from lab.lab import Lab
from lab.model import Model
from tests.support.mailbox import read_messages

DAG = "ml_training_pipeline"
MODEL, METRICS, SCHEMA = (
    f"models/attrition.{end}" for end in ("joblib", "metrics.json", "schema.json")
)
SEED = 11  # of no other test: a model that is published already makes no commit


@pytest.fixture(scope="module")
def model(lab: Lab) -> Model:
    """Train a model of the lab's first dataset and return it."""
    return train_model(lab, data_commit=lab.history()[-1].commit, seed=SEED)


def train_model(lab: Lab, **conf: object) -> Model:
    """Run the pipeline with this conf and return the model that it published."""
    run = lab.run(DAG, conf)
    found = lab.model()
    assert found.trailers["Run-Id"] == run.id
    return found


def find_newest_model(lab: Lab) -> Model | None:
    try:
        return lab.model()
    except CommitError:
        return None


def test_a_run_publishes_a_model_that_its_commit_brings_back(lab: Lab, model: Model) -> None:
    with lab.checkout(model.commit, MODEL) as checkout:
        content = checkout.read(MODEL)
        metrics = json.loads(checkout.read(METRICS))
        columns = json.loads(checkout.read(SCHEMA))["features"]
        pipeline = joblib.load(checkout.folder / MODEL)
        described = yaml.safe_load(checkout.read("dvc.yaml"))
    assert hashlib.md5(content).hexdigest() == model.md5
    assert described["metrics"] == [METRICS]
    assert metrics == model.metrics
    rows = read_held_out_records(lab, model)
    said = pipeline.predict([[row[name] for name in columns] for row in rows])
    right = sum(answer == row["Attrition"] for answer, row in zip(said, rows, strict=True))
    assert metrics["accuracy"] == pytest.approx(right / len(rows), abs=1e-5)
    assert metrics["roc_auc"] >= metrics["threshold"] == 0.75
    assert metrics["held_out_records"] == len(rows)


def read_held_out_records(lab: Lab, model: Model) -> list[dict[str, str]]:
    """Read the records of the model's data commit that it must not have been trained on."""
    assert model.data_commit
    with lab.checkout(model.data_commit) as checkout:
        text = checkout.read(lab.dataset_path).decode()
    return [row for row in csv.DictReader(text.splitlines()) if row["dataset_type"] == "test"]


def test_a_model_s_commit_names_the_run_and_the_data(lab: Lab, model: Model) -> None:
    data, trailers = lab.history()[-1], model.trailers
    assert (trailers["Dag-Id"], len(trailers["Dag-Version"])) == (DAG, 40)
    assert (trailers["Data-Path"], trailers["Data-Md5"]) == (MODEL, model.md5)
    assert trailers["Data-Size"] == str(model.size)
    (source,) = lab.version("model", model.commit).sources
    assert (source.path, source.commit, source.md5) == (lab.dataset_path, data.commit, data.md5)
    assert model.data_commit == data.commit


@pytest.mark.long
def test_a_model_of_the_newest_dataset_while_datasets_are_published(lab: Lab, model: Model) -> None:
    """Each run makes one commit, and the dataset's own line is as it was without models."""
    lab.run("dataset_pipeline")
    before = lab.history()
    started = lab.trigger(DAG, {"seed": 7})
    record = lab.run("dataset_pipeline")
    lab.follow(started)
    found = lab.model()
    assert found.trailers["Run-Id"] == started.id
    assert found.data_commit in {version.commit for version in lab.history()[:2]}
    assert found.data_commit != model.data_commit
    after = lab.history()
    assert after[-len(before) :] == before
    assert record.id in {version.trailers.get("Run-Id") for version in after}
    assert all(version.trailers.get("Dag-Id") != DAG for version in after)
    proof = lab.verify()
    assert (proof.ok, proof.commit) == (True, after[0].commit)
    assert lab.verify(found.commit).ok


def test_those_who_wait_for_the_model_are_told(lab: Lab, model: Model) -> None:
    told = read_messages(lab, DAG, model.trailers["Run-Id"])
    assert [message["who"] for message in told] == [["ml-engineering"]]
    for word in (model.commit, str(model.data_commit), str(model.metrics["roc_auc"]), "0.75"):
        assert word in told[0]["text"]


# --- What is refused, and leaves the newest model as it is ----------------------------------------


@pytest.mark.variation
def test_a_model_below_the_threshold_is_not_published(lab: Lab, model: Model) -> None:
    kept = lab.model()
    with pytest.raises(RunError) as caught:
        lab.run(DAG, {"threshold": 0.99, "data_commit": model.data_commit, "seed": SEED})
    said = str(caught.value)
    assert "failed in validate_model" in said
    assert f"roc_auc is {model.metrics['roc_auc']} on" in said
    assert "below the threshold of 0.99" in said
    assert lab.model() == kept


@pytest.mark.variation
def test_the_very_same_model_makes_no_commit_and_nobody_is_told(lab: Lab, model: Model) -> None:
    kept = train_model(lab, data_commit=model.data_commit, seed=SEED + 1)
    run = lab.run(DAG, {"data_commit": model.data_commit, "seed": SEED + 1})
    assert "no commit was made" in lab.log(run, "version_model")
    assert lab.outcomes(run)["notify"].state == "skipped"
    assert (lab.model(), read_messages(lab, DAG, run.id)) == (kept, [])


@pytest.mark.variation
def test_a_data_commit_that_does_not_exist(lab: Lab) -> None:
    kept = find_newest_model(lab)
    missing = "0123456789abcdef0123456789abcdef01234567"
    with pytest.raises(RunError, match=f"has no commit {missing} on any branch"):
        lab.run(DAG, {"data_commit": missing})
    assert find_newest_model(lab) == kept


@pytest.mark.parametrize(
    "conf",
    [
        {"threshold": 1.5},
        {"threshold": "high"},
        {"seed": -1},
        {"seed": 1.5},
        {"data_commit": "HEAD"},
        {"data_commit": "main; rm -rf /"},
        {"data_commit": None},
        {"accept_schema_change": "yes"},
    ],
    ids=str,
)
def test_a_conf_that_makes_no_sense_starts_no_run(lab: Lab, conf: dict[str, object]) -> None:
    before = count_runs(lab)
    with pytest.raises(ConfError):
        lab.trigger(DAG, conf)
    assert count_runs(lab) == before


def count_runs(lab: Lab) -> int:
    """Count the runs of the DAG that Airflow knows."""
    from airflow_client.client import DagRunApi

    with lab.airflow() as client:
        return int(DagRunApi(client).get_dag_runs(DAG, limit=1).total_entries)


@pytest.mark.variation
def test_a_dataset_of_another_schema_is_refused_until_it_is_accepted(
    lab: Lab, model: Model
) -> None:
    """Back on the first data, the same seed makes the very same model again, in a new commit."""
    kept = lab.model()
    commit = push_other_schema(lab, model)
    with pytest.raises(RunError) as caught:
        lab.run(DAG, {"data_commit": commit})
    said = str(caught.value)
    assert "failed in prepare_features" in said
    for part in ("'Age' is missing", "'Birthday' is new", "accept_schema_change"):
        assert part in said
    assert lab.model() == kept
    accepted = train_model(lab, data_commit=commit, accept_schema_change=True)
    assert accepted.data_commit == commit
    back = train_model(lab, data_commit=model.data_commit, accept_schema_change=True, seed=SEED)
    assert (back.md5, back.metrics) == (model.md5, model.metrics)
    assert back.commit != model.commit


def push_other_schema(lab: Lab, model: Model) -> str:
    """Push a dataset with a renamed column to a branch of its own; return the commit."""
    assert model.data_commit
    with lab.checkout(model.data_commit) as checkout:
        clone, old = checkout.folder, checkout.read(lab.dataset_path)
        content = old.replace(b",Age,", b",Birthday,", 1)
        assert content != old
        lab.git("checkout", "--quiet", "-b", "another-schema", cwd=clone)
        write_version(lab, clone, content)
        lab.git("commit", "--quiet", "--all", "--message", "rename a column", cwd=clone)
        lab.git("push", "--quiet", "origin", "another-schema", cwd=clone)
        return lab.git("rev-parse", "HEAD", cwd=clone).strip()


def write_version(lab: Lab, clone: Path, content: bytes) -> None:
    """Put this content into the bucket and into the clone's pointer."""
    pointer = clone / f"{lab.dataset_path}.dvc"
    md5 = hashlib.md5(content).hexdigest()
    described = yaml.safe_load(pointer.read_text("utf-8"))
    described["outs"][0] |= {"md5": md5, "size": len(content)}
    pointer.write_text(yaml.safe_dump(described), "utf-8")
    lab.put_object(lab.object_key(md5), content)
