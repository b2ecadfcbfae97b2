"""The plain way: the shell script that the lab is measured against, and its environment."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path

from lab.client import s3
from lab.client.git import environment as git_environment
from lab.lab import Lab

SCRIPT = """
set -eu
git clone --quiet "$GIT_URL" work
cd work
dvc pull --quiet "$DATASET.dvc"
tail -n 1 "$DATASET" >> "$DATASET"
dvc add --quiet "$DATASET"
dvc push --quiet "$DATASET.dvc"
git add "$DATASET.dvc"
git commit --quiet --message "plain"
git push --quiet origin HEAD:main
"""


def script_environment(lab: Lab, folder: Path) -> dict[str, str]:
    """Return the script's environment: credentials for git and S3; DVC's folders in `folder`."""
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    places = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    return {
        **git_environment(lab),
        **s3.environment(lab),
        **{name: str(folder / name) for name in places},
        "PATH": path,
        "HOME": str(folder),
        "GIT_URL": lab.git_url,
        "DATASET": lab.dataset_path,
    }


def run_script(lab: Lab, folder: Path) -> None:
    """Publish one more version by git and dvc alone."""
    command = ["sh", "-c", SCRIPT]
    subprocess.run(
        command, cwd=folder, env=script_environment(lab, folder), check=True, timeout=600
    )
