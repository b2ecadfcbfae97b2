"""The plain way: the shell script that the lab is measured against, and its environment."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from lab.backends.embedded import site as embedded
from lab.backends.kind import site as kind
from lab.backends.phases import Site
from lab.client import s3
from lab.client.git import environment as git_environment
from lab.config import Config
from lab.lab import Lab

# The last record again, with the next number: the dataset's key stays one.
NEXT_RECORD = "NR > 1 && $1 + 0 > most { most = $1 + 0 } END { $1 = most + 1; print }"
APPEND = f"awk -F, -v OFS=, '{NEXT_RECORD}'"
SCRIPT = f"""
set -eu
git clone --quiet "$GIT_URL" work
cd work
dvc pull --quiet "$DATASET.dvc"
{APPEND} "$DATASET" > record
cat record >> "$DATASET"
dvc add --quiet "$DATASET"
dvc push --quiet "$DATASET.dvc"
git add "$DATASET.dvc"
git commit --quiet --message "plain"
git push --quiet origin HEAD:main
"""
SITES: dict[str, Callable[[Config], Site]] = {
    embedded.NAME: embedded.find_site,
    kind.NAME: kind.find_site,
}


def contract(config: Config) -> dict[str, str]:
    """Return what a step of the lab sees, with the credentials of the steps' account.

    No push of that account starts a run. A person's push starts dataset_pipeline, which would then
    be measured, too, and push in the midst of the script.
    """
    return dict(SITES[config.backend](config).import_environment())


def script_environment(lab: Lab, config: Config, folder: Path) -> dict[str, str]:
    """Return the script's environment: the steps' credentials; DVC's folders in `folder`."""
    steps = contract(config)
    account = replace(
        lab,
        git_user=steps["GIT_SYNC_USERNAME"],
        git_password=steps["GIT_SYNC_PASSWORD"],
        s3_access_key=steps["AWS_ACCESS_KEY_ID"],
        s3_secret_key=steps["AWS_SECRET_ACCESS_KEY"],
    )
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    places = ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR")
    return {
        **git_environment(account),
        **s3.environment(account),
        **{name: str(folder / name) for name in places},
        "PATH": path,
        "HOME": str(folder),
        "GIT_URL": lab.git_url,
        "DATASET": lab.dataset_path,
    }


def time_script(lab: Lab, config: Config) -> float:
    """Publish one more version by git and dvc alone; return the seconds that it took."""
    with tempfile.TemporaryDirectory() as name:
        env = script_environment(lab, config, Path(name))
        began = time.monotonic()
        subprocess.run(["sh", "-c", SCRIPT], cwd=name, env=env, check=True, timeout=600)
        return time.monotonic() - began
