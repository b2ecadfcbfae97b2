"""Runs of the training pipeline as processes, and the models that they publish."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from dataset_steps.contract import run_key
from tests.support.stores import STOPPER, Done, Run, md5_of

if TYPE_CHECKING:
    from tests.support.stores import Project

DAG = "ml_training_pipeline"
MODEL, METRICS, SCHEMA = (
    f"models/attrition.{end}" for end in ("joblib", "metrics.json", "schema.json")
)
CONF = {"THRESHOLD": "0.6", "SEED": "7", "ACCEPT_SCHEMA_CHANGE": "false"}
RECORDS = 3000
# The command of each step, as the DAG has it.
STEPS = {
    "pull": ("dataset-steps", "pull", "dataset"),
    "prepare": ("model-steps", "prepare"),
    "train": ("model-steps", "train"),
    "validate": ("model-steps", "validate"),
    "publish": (
        *("dataset-steps", "publish", "model", f"--file={SCHEMA}", f"--metrics={METRICS}"),
        *("--result=model.json", "--message=train"),
    ),
}
OWN = ("prepare", "train", "validate")  # those that publish may run again
MODEL_STOPPER = STOPPER.replace('import_module("dataset_steps." + module)', "import_module(module)")


def first_records(content: bytes, count: int) -> bytes:
    return b"".join(content.splitlines(keepends=True)[: count + 1])


@dataclass(frozen=True)
class Training:
    """One run of the training pipeline. Fails where a step's output holds a secret."""

    project: Project
    id: str
    conf: Mapping[str, str] = field(default_factory=dict)
    fresh: bool = False  # see Run

    @property
    def run(self) -> Run:
        return Run(self.project, self.id, fresh=self.fresh)

    @property
    def folder(self) -> Path:
        """The run's workspace."""
        return self.project.shared / "runs" / run_key(DAG, self.id)

    @property
    def env(self) -> dict[str, str]:
        """What the DAG's tasks have beside the contract."""
        own = {**CONF, "DAG_ID": DAG, "DATA_SETS": json.dumps({"model": MODEL}), **self.conf}
        again = [{"argv": STEPS[name], "variables": {}} for name in OWN]
        return {**own, "AGAIN": json.dumps(again)}

    def run_step(self, name: str) -> Done:
        return self.run.finish(self.run.start(*STEPS[name], **self.env))

    def run_steps(self, *steps: str) -> str:
        """Run the steps, all of which must succeed, and return what they printed."""
        done = [self.run_step(step) for step in steps]
        assert [d.code for d in done] == [0] * len(steps), done
        return "".join(d.output for d in done)

    def expect_refusal(self, step: str) -> str:
        """Run a step that must end with the code for "no retry helps"; return its last line."""
        done = self.run_step(step)
        assert done.code == 65, done
        *_, last = done.output.splitlines()
        assert last.startswith("error: "), "a traceback instead of an error"
        return last

    def kill_step(self, step: str, when: str, place: str) -> None:
        """Run a step that kills itself `before` or `after` a function, as `remote:Remote.store`."""
        done = self.run.finish(self.run.start(*stopping(step, when, place), **self.env))
        assert done.code == -signal.SIGKILL, done

    @contextmanager
    def holding_step(self, step: str, place: str) -> Iterator[None]:
        """Hold the step before that function while the block runs; then it must succeed."""
        process = self.run.start(*stopping(step, "hold", place), **self.env)
        try:
            assert process.stdout
            for line in process.stdout:
                if line == "held\n":
                    break
            yield
            done = self.run.finish(process)
            assert done.code == 0, done
        finally:
            process.kill()
            process.wait()


def stopping(step: str, what: str, place: str) -> tuple[str, ...]:
    """Return the command line of a step that is stopped at a function."""
    command, *arguments = STEPS[step]
    code = MODEL_STOPPER.replace("dataset_steps.__main__", f"{command.replace('-', '_')}.__main__")
    return (sys.executable, "-c", code, place, what, *arguments)


def new_training(project: Project, **conf: str) -> Training:
    return Training(project, f"manual__{project.name}/{next(project.stores.serial)}", conf)


@dataclass(frozen=True)
class Published:
    """A commit that names a model, read by git and the pointer alone."""

    commit: str
    trailers: Mapping[str, str]
    content: bytes
    metrics: Mapping[str, float]
    schema: Mapping[str, Any]


def read_published(project: Project, name: str = "main") -> Published:
    """Read the model at a commit; its object must be there and be what the pointer says."""
    row = project.git("log", "-1", "--format=%H%n%(trailers:only,unfold)", name).splitlines()
    trailers = dict(line.split(": ", 1) for line in row[1:] if line)
    (out,) = yaml.safe_load(project.git("show", f"{name}:{MODEL}.dvc"))["outs"]
    content = project.stores.read_object(out["md5"])
    assert (md5_of(content), len(content)) == (out["md5"], out["size"])
    metrics, columns = (
        json.loads(project.git("show", f"{name}:{path}")) for path in (METRICS, SCHEMA)
    )
    return Published(row[0], trailers, content, metrics, columns)


def list_training_runs(project: Project) -> list[str]:
    """List the training runs that made a commit, oldest first; none may have made two."""
    found = [
        commit.trailers["Run-Id"]
        for commit in project.list_commits()
        if commit.trailers.get("Dag-Id") == DAG
    ]
    assert len(found) == len(set(found)), "a run made more than one commit"
    return found
