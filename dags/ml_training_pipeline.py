"""Train a model on the dataset of one data commit, and publish it when it is good enough.

It runs each Sunday, and when triggered by hand: for another data commit, say, or another threshold.
A model below the threshold, or of a dataset whose columns differ from the newest model's, is not
published: the newest model stays as it is.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from steps import DEFAULTS, clock, named, publish, pull, step

PARAMS = {
    "data_commit": Param(
        "main",
        type="string",
        pattern="^(main|[0-9a-f]{7,40})$",
        description="The commit of lab/datasets whose dataset is trained on: main, or a hash",
    ),
    "threshold": Param(
        0.75,
        type="number",
        minimum=0,
        maximum=1,
        description="The least roc_auc, on the records held out, of a model that is published",
    ),
    "seed": Param(
        42,
        type="integer",
        minimum=0,
        maximum=2**32 - 1,
        description="The same data and the same seed make the same model",
    ),
    "accept_schema_change": Param(
        False,
        type="boolean",
        description="Publish a model of a dataset whose columns are not those of the newest model",
    ),
}
REQUEST = {
    "THRESHOLD": "{{ params.threshold }}",
    "SEED": "{{ params.seed | int }}",
    "ACCEPT_SCHEMA_CHANGE": "{{ params.accept_schema_change | string | lower }}",
}
MODEL: dict[str, Any] = {"template": "model", "repeatable": True, "variables": REQUEST}
# The training has a pod template of its own: where there are accelerators, its pod gets one.
TRAINING = {**MODEL, "template": "training"}
# Beside the model, in git itself.
SCHEMA, METRICS = "models/attrition.schema.json", "models/attrition.metrics.json"
RESULT = "model.json"
RECIPIENTS = ["ml-engineering"]


@task
def notify() -> str:
    """Notify the recipients of the published model. Return the notification's key."""
    import json

    from airflow.sdk import get_current_context
    from airflow.sdk.exceptions import AirflowSkipException

    from lab_bucket import read
    from lab_notifications import tell

    run = get_current_context()["dag_run"]
    result = json.loads(read(f"results/{run.dag_id}/{RESULT}") or b"{}")
    if result.get("run_id") != run.run_id:
        raise AirflowSkipException(
            "there is nothing to tell: the run made the very model that is published already, or "
            f"run {result.get('run_id')} has published one since"
        )
    metrics, (data,) = result["metrics"], result["from"]
    text = (
        f"Commit {result['commit']} has a model trained on data commit {data['commit']}: "
        f"its roc_auc is {metrics['roc_auc']} (the threshold was {metrics['threshold']}), its "
        f"accuracy {metrics['accuracy']} on {metrics['held_out_records']} records held out."
    )
    return tell(run.dag_id, run.run_id, RECIPIENTS, "A model was published", text)


with DAG(
    named("ml_training_pipeline"),
    description="Train a model on a version of the dataset, validate it, publish it with DVC",
    schedule=clock("0 2 * * 0"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULTS,
    params=PARAMS,
    tags=["ml", "dvc"],
    doc_md=__doc__,
):
    (
        pull("dataset", commit="{{ params.data_commit }}")
        >> step("prepare_features", "model-steps", "prepare", **MODEL)
        >> step("train_model", "model-steps", "train", **TRAINING)
        >> step("validate_model", "model-steps", "validate", **MODEL)
        >> publish(
            "model",
            files=[SCHEMA],
            metrics=[METRICS],
            result=RESULT,
            message="train",
            task_id="version_model",
        )
        >> notify()
    )
