"""`validate`: check the trained model against the threshold on the held-out records."""

from __future__ import annotations

import json
from typing import Any

from sklearn.metrics import accuracy_score, log_loss, roc_auc_score
from threadpoolctl import threadpool_limits

from dataset_steps.errors import StepError
from dataset_steps.files import write_atomically
from dataset_steps.workspace import Workspace
from model_steps import model, records
from model_steps.request import Request
from model_steps.schema import HELD_OUT

DECIMALS = 6


def validate(workspace: Workspace, request: Request) -> None:
    """Write the model's metrics and schema beside it, and seal it: no other one is published.

    Raise StepError when it is below the threshold.
    """
    prepared, made = model.read_prepared(workspace), model.verify_model(workspace)
    model.forget_metrics(workspace)
    pipeline = model.load(workspace)
    part = records.read_part(model.part_file(workspace, HELD_OUT), model.read_schema(workspace))
    found = metrics(pipeline, part)
    print(", ".join(f"{name} {value}" for name, value in found.items()))
    if found["roc_auc"] < request.threshold:
        raise StepError(
            f"the model's roc_auc is {found['roc_auc']} on {prepared.held_out} records held out, "
            f"below the threshold of {request.threshold}: it is not published, and the newest "
            "model stays as it is"
        )
    counts = {"training_records": prepared.training, "held_out_records": prepared.held_out}
    all_of_them = {**found, **counts, "threshold": request.threshold}
    workspace.seal(model.NAME, made.md5, made.size)
    write_atomically(workspace.repository / model.SCHEMA, model.read_schema(workspace).text())
    write_atomically(model.metrics_file(workspace), json.dumps(all_of_them, indent=2) + "\n")


def metrics(pipeline: Any, part: records.Part) -> dict[str, float]:
    """Return the model's metrics on these records.

    `roc_auc`, which the threshold is for: of two records with different answers, how often the
    model can tell which is which.
    """
    with threadpool_limits(limits=1):
        chances = pipeline.predict_proba(part.features)
    first, second = pipeline.classes_
    found = {
        "roc_auc": roc_auc_score(part.answers == second, chances[:, 1]),
        "accuracy": accuracy_score(part.answers, pipeline.classes_[chances.argmax(axis=1)]),
        "log_loss": log_loss(part.answers, chances, labels=[first, second]),
    }
    return {name: round(float(value), DECIMALS) for name, value in found.items()}
