"""What one run is asked to do: the DAG's params, which reach a step by its environment alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from dataset_steps.errors import StepError
from dataset_steps.settings import one_line

COMMIT = re.compile("main|[0-9a-f]{7,40}")
SEEDS = range(2**32)  # what scikit-learn takes
ANSWERS = {"true": True, "false": False}


@dataclass(frozen=True)
class Request:
    """One run's params. Airflow has checked them; a step that is called by hand checks them too."""

    data_commit: str
    threshold: float
    seed: int
    accept_schema_change: bool

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Request:
        """The request that `env` holds. Raises StepError."""
        return cls(
            data_commit=commit(given(env, "DATA_COMMIT")),
            threshold=threshold(given(env, "THRESHOLD")),
            seed=seed(given(env, "SEED")),
            accept_schema_change=answer(given(env, "ACCEPT_SCHEMA_CHANGE")),
        )


def given(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise StepError(f"the step's environment lacks {name}")
    return one_line(name, env[name])


def commit(text: str) -> str:
    if not COMMIT.fullmatch(text):
        raise StepError(f"DATA_COMMIT {text!r} is neither main nor 7 to 40 digits of a hash")
    return text


def threshold(text: str) -> float:
    try:
        if 0 <= (value := float(text)) <= 1:
            return value
    except ValueError:
        pass
    raise StepError(f"THRESHOLD {text!r} is not a number from 0 to 1")


def seed(text: str) -> int:
    if not text.isdecimal() or int(text) not in SEEDS:
        raise StepError(f"SEED {text!r} is not a whole number from 0 to {SEEDS[-1]}")
    return int(text)


def answer(text: str) -> bool:
    if text not in ANSWERS:
        raise StepError(f"ACCEPT_SCHEMA_CHANGE {text!r} is neither true nor false")
    return ANSWERS[text]
