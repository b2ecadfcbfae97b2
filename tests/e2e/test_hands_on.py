"""docs/hands-on.md: what a reader is told to type works, in that order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lab.config import Config
from lab.lab import Lab

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hands-on.md"
SNIPPET = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS = 900


@pytest.mark.variation
def test_the_snippets_run_in_order(lab: Lab, lab_config: Config, tmp_path: Path) -> None:
    snippets = SNIPPET.findall(PAGE.read_text("utf-8"))
    assert len(snippets) >= 8
    before = len(lab.history())
    done = subprocess.run(
        ["bash", "-e", "-u", "-o", "pipefail", "-c", "\n".join(snippets)],
        cwd=tmp_path,
        env=shell_environment(lab_config),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "exit code 23" in done.stdout
    assert len(re.findall(r"Proved: this commit brings its .+ back", done.stdout)) == 2
    assert f"Run-Id: {lab.dataset().trailers['Run-Id']}" in done.stdout
    assert len(lab.history()) == before + 1
    lab.verify()


def shell_environment(config: Config) -> dict[str, str]:
    """Return the environment of a shell in which `.nox/lab/bin/activate` was sourced."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AWS_", "LAB_", "GIT_"))}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**kept, "PATH": path, "LAB_HOME": str(config.home)}
