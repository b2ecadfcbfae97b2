"""A project of one's own outside of this tree, by the kit's wheel alone: docs/your-own.md, walked.

Nothing of this checkout is imported there: the project installs the wheel that `lab init` has built
into environments of its own, by its own noxfile.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import needs

TREE = Path(__file__).resolve().parents[2]
PAGE = TREE / "docs" / "your-own.md"
SNIPPET = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 1100
# What this run of pytest and this session of nox say of themselves.
FOREIGN = ("AWS_", "GIT_", "LAB_", "NOX_", "PYTEST_", "VIRTUAL_ENV")
PERSON = {
    f"GIT_{role}_{key}": text
    for role in ("AUTHOR", "COMMITTER")
    for key, text in (("NAME", "Jane Doe"), ("EMAIL", "jane@example.com"))
}


def shell_environment(backend: str) -> dict[str, str]:
    """Return the environment of a shell in which `.nox/lab/bin/activate` was sourced."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(FOREIGN)}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, **PERSON, "PATH": path, "LAB_BACKEND": backend}


def run_shell(script: str, folder: Path, backend: str) -> str:
    """Run a script to its end and return what it printed; fail when a command of it does."""
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", script],
        cwd=folder,
        env=shell_environment(backend),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of somebody's projects; the lab of one that is there ends afterwards."""
    yield tmp_path
    if (tmp_path / "churn" / ".lab").exists():
        run_shell("nox -s lab -- down --purge", tmp_path / "churn", "auto")


@pytest.mark.embedded
def test_the_way_of_the_page(place: Path) -> None:
    """The snippets in order: a lab, own data, own steps, two data sets in one commit, own tests."""
    snippets = SNIPPET.findall(PAGE.read_text("utf-8"))
    assert len(snippets) >= 4
    said = run_shell("\n".join(snippets), place, "embedded")
    assert len(re.findall(r"Proved: this commit brings its .+ back", said)) == 3
    assert "2 passed" in said
    project = place / "churn"
    assert run_shell("git status --short", project, "auto") == ""
    where = "import importlib.util as i; print(i.find_spec('lab').origin, i.find_spec('tests'))"
    for session in ("lab", "e2e"):
        found = run_shell(f'.nox/{session}/bin/python -P -c "{where}"', project, "auto")
        assert found.startswith(str(project / ".nox" / session))
        assert found.split()[-1] == "None"


@pytest.mark.kind
def test_a_project_is_proved_on_kind_and_planned_for_aws(place: Path) -> None:
    needs.need_renderers()
    needs.ensure_image("trainer")
    said = run_shell(
        "lab init churn; cd churn; export LAB_REQUIRE=kind; nox -s e2e -- --backend kind",
        place,
        "auto",
    )
    assert "1 passed" in said
    project = place / "churn"
    attested = (project / "attestation.json").read_text("utf-8")
    for name in ("dags/churn_pipeline.py", "images/steps/Dockerfile"):
        assert name in attested
    plan = run_shell("nox -s eks -- plan", project, "auto")
    for part in ("churn/steps", "churn-staging-111122223333", "churn-staging"):
        assert part in plan
