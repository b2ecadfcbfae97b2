"""A step's settings, from environment variables of the same names on every backend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataset_steps.contract import (
    DATASET,
    check_data_sets,
    find_path,
    parse_data_sets,
    require_inside,
)
from dataset_steps.errors import StepError

# One line without control characters: these values become trailers of a commit. Git trims those:
# a run whose name began or ended with a blank would never find its own commit again.
ONE_LINE = re.compile(r"(?! )[^\x00-\x1f\x7f]+(?<! )")


@dataclass(frozen=True)
class Settings:
    """The settings of one step. Credentials are not among them: git and boto3 read their own."""

    git_url: str
    bucket: str
    dataset_path: str
    shared: Path
    dag_id: str
    run_id: str
    dag_version: str
    key_column: str = ""  # the column that a new record counts on; empty: it is guessed
    declared: Mapping[str, str] = field(default_factory=dict)  # paths of data sets, by name
    dataset_name: str = DATASET  # of the data set at `dataset_path`

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> Settings:
        """Return the settings in `env`. Raise StepError naming every variable that is missing."""
        names = ("GIT_URL", "S3_BUCKET", "DATASET_PATH", "SHARED_DIR", "DAG_ID", "RUN_ID")
        needed = (*names, "GIT_SYNC_USERNAME", "GIT_SYNC_PASSWORD")
        if missing := [name for name in needed if not env.get(name)]:
            raise StepError(f"the step's environment lacks {', '.join(missing)}")
        git_url, bucket, dataset, shared, dag_id, run_id = (
            require_one_line(n, env[n]) for n in names
        )
        version = require_one_line("DAG_VERSION", env.get("DAG_VERSION") or "unversioned")
        path = require_inside(dataset, "DATASET_PATH")
        key = env.get("KEY_COLUMN", "")
        declared = parse_data_sets(env.get("DATA_SETS", ""))
        name = env.get("DATASET_NAME") or DATASET
        check_data_sets({**declared, name: path})
        shared_dir = Path(shared)
        return cls(git_url, bucket, path, shared_dir, dag_id, run_id, version, key, declared, name)

    @property
    def data_sets(self) -> Mapping[str, str]:
        """The path of each data set in the repository, by its name."""
        return {self.dataset_name: self.dataset_path, **self.declared}

    def require_path(self, name: str) -> str:
        """Return the path of a data set. Raise StepError when it is not declared."""
        return find_path(self.data_sets, name)


def require_one_line(name: str, value: str) -> str:
    """Return `value`, or raise StepError when it could forge a line of a commit message."""
    if not ONE_LINE.fullmatch(value):
        raise StepError(f"{name} holds a line break, a control character or a blank at an end")
    return value
