"""`train`: train a model on the training records, at its place in the run's clone."""

from __future__ import annotations

from typing import Any

from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder
from threadpoolctl import threadpool_limits

from dataset_steps.workspace import Workspace
from model_steps import model, records
from model_steps.model import Trained
from model_steps.request import Request
from model_steps.schema import TRAINING, Schema

MOST_CATEGORIES = 200  # of one column, rare ones taken together; the trees accept up to 255


def train(workspace: Workspace, request: Request) -> None:
    """Train the model, write its file atomically, and record its hash.

    The same records and the same seed make the same bytes. A model that was trained already is not
    trained again, unless its file was changed or lost.
    """
    path, known = model.model_file(workspace), model.read_schema(workspace)
    if model.is_intact(path, workspace.read_record("trained", Trained)):
        print("already trained")
        return
    model.forget_metrics(workspace)
    learnt = fit_pipeline(
        known, records.read_part(model.part_file(workspace, TRAINING), known), request.seed
    )
    made = model.dump(learnt, path)
    workspace.record("trained", made)
    print(f"trained {learnt[-1].n_iter_} trees: {made.size} bytes with MD5 {made.md5}")


def fit_pipeline(known: Schema, part: records.Part, seed: int) -> Any:
    """Return the trained pipeline. One thread: sums must not depend on the number of threads."""
    with threadpool_limits(limits=1):
        return build_pipeline(known, seed).fit(part.features, part.answers)


def build_pipeline(known: Schema, seed: int) -> Pipeline:
    """Build the untrained pipeline: from raw features, in the schema's order, to an answer.

    It has only parts of scikit-learn: whoever loads the model does not need this package.
    """
    categories = known.categories
    numbers = [i for i in range(len(known.features)) if i not in categories]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=float("nan"),  # a missing value to the trees
        max_categories=MOST_CATEGORIES,
    )
    columns = [("categories", encoder, categories), ("numbers", "passthrough", numbers)]
    trees = HistGradientBoostingClassifier(
        learning_rate=0.15,
        max_iter=400,
        max_leaf_nodes=8,
        early_stopping=True,
        categorical_features=list(range(len(categories))),
        random_state=seed,
    )
    return Pipeline([("columns", ColumnTransformer(columns)), ("trees", trees)])
