"""Steps as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_steps.remote import Remote
from tests.support.stores import PATH

if TYPE_CHECKING:
    import pytest

    from tests.support.stores import Project, Run

STEPS = ("pull", "modify", "publish")


def run_dvc(folder: Path, project: Project, *arguments: str) -> str:
    """Run the `dvc` command with the steps' key and nothing else; return what it printed."""
    names = ("GLOBAL_CONFIG", "SYSTEM_CONFIG", "SITE_CACHE")
    own = {f"DVC_{name}_DIR": str(folder.parent / name) for name in names}
    env = {k: v for k, v in project.environment("none").items() if k.startswith(("AWS_", "PATH"))}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder,
        env={**env, **own, "HOME": str(folder), "DVC_NO_ANALYTICS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def reproduce_dataset(project: Project, commit: str, folder: Path) -> bytes:
    """Return a commit's dataset, by a plain `git clone` and `dvc pull`."""
    project.git("clone", "--quiet", project.lab.git_url, folder, cwd=folder.parent)
    project.git("checkout", "--quiet", commit, cwd=folder)
    run_dvc(folder, project, "pull")
    return (folder / PATH).read_bytes()


def open_remote(run: Run, patch: pytest.MonkeyPatch) -> Remote:
    """Return the remote as a step of the run has it, in this process; its clone must exist."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        patch.delenv(name)
    for name, value in run.project.environment(run.id).items():
        if name.startswith("AWS_"):
            patch.setenv(name, value)
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        patch.setenv(name, str(run.project.shared / name))
    return Remote(run.folder / "repository")


# The step without retries: a test does not wait for them.
HASTY = """
import sys
from botocore.config import Config
from tenacity import stop_after_attempt
from dataset_steps import pull, remote, repository
remote.CLIENT = Config(retries={"total_max_attempts": 1})
for function in (pull.download, repository.fetch, repository.push):
    function.retry.stop = stop_after_attempt(1)
from dataset_steps.__main__ import main
main(sys.argv[1:])
"""
MEASURE = """
import json, os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=2)
_, status, usage = os.wait4(child.pid, 0)
unit = 1 if sys.platform == "darwin" else 1024
print(json.dumps([os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit]))
"""
