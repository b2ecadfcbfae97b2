"""What judges from outside say of the images, the workflows and the renderings.

`nox -s judges` installs them. Each of their objections has its reason in `accepted.toml`, and each
reason an objection.
"""

from __future__ import annotations

import json
import os
import subprocess
import tomllib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from eks.rendering import PUSHED, AwsOutputs, render_eks, render_kind
from lab.config import KIT
from tests.support.needs import need_renderers, skip_or_fail
from tests.support.promotion import ALL
from tests.support.renderings import Object, staging, temporary_home

FOLDER = "LAB_JUDGES"  # the variable with the folder of their programs
SECONDS = 120
DOCKERFILES = sorted(
    path.relative_to(KIT).as_posix()
    for place in ("images", "lab/init/template")
    for path in (KIT / place).rglob("Dockerfile")
)
WORKFLOWS = (".github", "lab/init/template/.github")


@dataclass(frozen=True)
class Objection:
    """What a judge objects to: a rule of its own, and the file or the object."""

    judge: str
    rule: str
    what: str
    said: str = ""


@dataclass(frozen=True)
class Accepted:
    """Objections that are taken as they are, and why."""

    judge: str
    rule: str
    what: str  # a pattern
    reason: str

    def covers(self, one: Objection) -> bool:
        known = (self.judge, self.rule) == (one.judge, one.rule)
        return known and fnmatchcase(one.what, self.what)


def read_accepted(judge: str) -> list[Accepted]:
    told = tomllib.loads(Path(__file__).with_name("accepted.toml").read_text("utf-8"))
    found = [Accepted(**entry) for entry in told["accepted"]]
    assert all(one.reason for one in found)
    return [one for one in found if one.judge == judge]


def check_objections(judge: str, found: Collection[Objection]) -> None:
    """Fail for an objection without a reason, and for a reason without an objection."""
    accepted = read_accepted(judge)
    unexplained = [one for one in found if not any(entry.covers(one) for entry in accepted)]
    assert not unexplained
    idle = [entry for entry in accepted if not any(entry.covers(one) for one in found)]
    assert not idle, "nothing is objected to any more: remove them"


def ask(judge: str, *words: str | Path) -> str:
    """Return what a judge prints. Skips where the judges are not installed."""
    if FOLDER not in os.environ:
        skip_or_fail("the judges are not installed: nox -s judges")
    program = Path(os.environ[FOLDER], judge)
    quiet = {**os.environ, "LOG_LEVEL": "ERROR", "CKV_SKIP_PACKAGE_UPDATE_CHECK": "true"}
    done = subprocess.run(
        [program, *words], capture_output=True, text=True, timeout=SECONDS, check=False, env=quiet
    )
    assert done.stdout, done.stderr
    return done.stdout


# --- Images and workflows -------------------------------------------------------------------------


def judge_dockerfiles(*files: str | Path) -> list[Objection]:
    told = json.loads(ask("hadolint", "--no-fail", "--format", "json", *files))
    return [
        Objection("hadolint", one["code"], relative(one["file"]), one["message"]) for one in told
    ]


def relative(path: str) -> str:
    return os.path.relpath(path, KIT)


def test_hadolint_of_the_dockerfiles() -> None:
    check_objections("hadolint", judge_dockerfiles(*(KIT / name for name in DOCKERFILES)))


def test_hadolint_objects_to_what_is_wrong(tmp_path: Path) -> None:
    """Else its silence would say nothing."""
    file = tmp_path / "Dockerfile"
    file.write_text("FROM debian:latest\nRUN cd /tmp && apt-get install git\n")
    assert {one.rule for one in judge_dockerfiles(file)} >= {"DL3007", "DL3003", "DL3015"}


def judge_workflows(*places: str | Path) -> list[Objection]:
    told = json.loads(ask("zizmor", "--offline", "--format", "json", "--no-exit-codes", *places))
    return [
        Objection(
            "zizmor",
            one["ident"],
            relative(str(one["locations"][0]["symbolic"]["key"])),
            one["desc"],
        )
        for one in told
    ]


def test_zizmor_of_the_workflows() -> None:
    check_objections("zizmor", judge_workflows(*(KIT / place for place in WORKFLOWS)))


def test_zizmor_objects_to_what_is_wrong(tmp_path: Path) -> None:
    place = tmp_path / ".github" / "workflows"
    place.mkdir(parents=True)
    (place / "ci.yml").write_text(
        "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n"
        "      - uses: actions/checkout@v5\n"
    )
    assert {one.rule for one in judge_workflows(tmp_path)} >= {"unpinned-uses", "artipacked"}


# --- Renderings -----------------------------------------------------------------------------------


def with_namespace(entry: Object) -> Object:
    """Return the object as Helm brings it: into Airflow's namespace, where it names none."""
    return {**entry, "metadata": {"namespace": "airflow", **entry["metadata"]}}


def judge_objects(found: Iterable[Object], target: str, folder: Path) -> list[Objection]:
    """Return what checkov objects to in these objects, each as TARGET/KIND/NAMESPACE/NAME."""
    file = folder / f"{target}.yaml"
    file.write_text(yaml.safe_dump_all(map(with_namespace, found)))
    shown = ("--compact", "--quiet", "--skip-download", "--soft-fail", "--output", "json")
    told = json.loads(ask("checkov", "--file", file, "--framework", "kubernetes", *shown))
    return [objection_from(one, target) for one in told["results"]["failed_checks"]]


def objection_from(told: dict[str, Any], target: str) -> Objection:
    what = f"{target}/{told['resource'].replace('.', '/', 2)}"
    return Objection("checkov", told["check_id"], what, told["check_name"])


@cache
def render_targets() -> dict[str, tuple[Object, ...]]:
    # With the database in the cluster, all there is to judge is there.
    every = tuple(option for option in ALL if option != "rds")
    with temporary_home() as config:
        kind = tuple(render_kind(config, config.run / "kind").objects())
    return {
        "kind": kind,
        "eks": render_pushed(),
        "eks-options": render_pushed(*every),
    }


def render_pushed(*options: str) -> tuple[Object, ...]:
    """Render what EKS gets when the registry has the images."""
    pushed = {key: f"registry.invalid/{key}@sha256:{'a' * 64}" for key in PUSHED}
    with temporary_home() as config:
        known = AwsOutputs(pushed=pushed)
        return tuple(render_eks(staging(*options), config, config.run, known).objects())


@pytest.mark.kind
def test_checkov_of_what_is_rendered(tmp_path: Path) -> None:
    need_renderers()
    found = [
        one
        for target, rendered in render_targets().items()
        for one in judge_objects(rendered, target, tmp_path)
    ]
    check_objections("checkov", found)


@pytest.mark.kind
def test_checkov_objects_to_what_is_wrong(tmp_path: Path) -> None:
    container = {"name": "x", "image": "x", "securityContext": {"privileged": True}}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}}
    spec = {"hostNetwork": True, "containers": [container]}
    rules = {one.rule for one in judge_objects([{**pod, "spec": spec}], "x", tmp_path)}
    assert rules >= {"CKV_K8S_16", "CKV_K8S_19", "CKV_K8S_14"}
