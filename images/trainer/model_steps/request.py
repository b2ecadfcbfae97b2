"""The request of one run: the DAG's params, which reach a step through its environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from dataset_steps.errors import StepError
from dataset_steps.settings import require_one_line

SEEDS = range(2**32)  # the seeds that scikit-learn accepts
ANSWERS = {"true": True, "false": False}


@dataclass(frozen=True)
class Request:
    """One run's params. Airflow checks them; they are checked again for steps run by hand."""

    threshold: float
    seed: int
    accept_schema_change: bool

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Request:
        """Return the request in `env`. Raise StepError."""
        return cls(
            threshold=parse_threshold(require_variable(env, "THRESHOLD")),
            seed=parse_seed(require_variable(env, "SEED")),
            accept_schema_change=parse_boolean(require_variable(env, "ACCEPT_SCHEMA_CHANGE")),
        )


def require_variable(env: Mapping[str, str], name: str) -> str:
    if not env.get(name):
        raise StepError(f"the step's environment lacks {name}")
    return require_one_line(name, env[name])


def parse_threshold(text: str) -> float:
    try:
        if 0 <= (value := float(text)) <= 1:
            return value
    except ValueError:
        pass
    raise StepError(f"THRESHOLD {text!r} is not a number from 0 to 1")


def parse_seed(text: str) -> int:
    if not text.isdecimal() or int(text) not in SEEDS:
        raise StepError(f"SEED {text!r} is not a whole number from 0 to {SEEDS[-1]}")
    return int(text)


def parse_boolean(text: str) -> bool:
    if text not in ANSWERS:
        raise StepError(f"ACCEPT_SCHEMA_CHANGE {text!r} is neither true nor false")
    return ANSWERS[text]
