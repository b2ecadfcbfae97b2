"""`train`: the run's workspace has a model, trained on the records to train with."""

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

MOST_CATEGORIES = 200  # of one column, the rare ones taken together; the trees take up to 255


def train(workspace: Workspace, request: Request) -> None:
    """The model's file is there, whole, and its hash is recorded.

    The same records and the same seed make the same bytes. A model that is there is not trained
    again; one whose file was changed or lost is.
    """
    path = model.file(workspace)
    known = model.known_schema(workspace)
    if model.is_there(path, workspace.recorded("trained", Trained)):
        print("already trained")
        return
    learnt = fitted(known, records.read(model.part(workspace, TRAINING), known), request.seed)
    made = model.dump(learnt, path)
    workspace.record("trained", made)
    print(f"trained {learnt[-1].n_iter_} trees: {made.size} bytes with MD5 {made.md5}")


def fitted(known: Schema, part: records.Part, seed: int) -> Any:
    """The trained pipeline. One thread: sums must not depend on how many share them."""
    with threadpool_limits(limits=1):
        return untrained(known, seed).fit(part.features, part.answers)


def untrained(known: Schema, seed: int) -> Pipeline:
    """From a record's features, as the dataset has them and in the schema's order, to an answer.

    Of scikit-learn's own parts alone: who loads the model needs nothing of this package.
    """
    categories = known.categories
    numbers = [i for i in range(len(known.features)) if i not in categories]
    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value",
        unknown_value=float("nan"),  # to the trees, a value that nobody knows
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
