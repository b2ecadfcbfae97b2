"""One step as a process: its settings, its workspace and its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from dataset_steps.errors import Overtaken, StepError, TemporaryError
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, exclusive_lock


def run_step(step: Callable[[Settings, Workspace], None]) -> None:
    """Run the step, alone in its run's workspace.

    Exit with 65 when no retry can help, with 75 when one may, and with 80 when other steps have
    to run again first.
    """
    try:
        settings = Settings.from_environment(os.environ)
        isolate_dvc(settings)
        workspace = Workspace.from_settings(settings)
        with exclusive_lock(workspace):
            step(settings, workspace)
    except Overtaken as error:
        print(error)
        sys.exit(error.exit_code)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # of this machine, such as a full disk
        print(f"error: {error}", file=sys.stderr)
        sys.exit(TemporaryError.exit_code)


def isolate_dvc(settings: Settings) -> None:
    """Keep DVC inside the lab: no configuration or cache of the machine."""
    own = settings.shared / "dvc"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        os.environ[name] = str(own / name.lower())
