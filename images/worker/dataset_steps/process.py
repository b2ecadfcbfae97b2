"""One step as a process: what it may know, the run it is for, and the exit code it ends with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, exclusive


def carry_out(step: Callable[[Settings, Workspace], None]) -> None:
    """The step was run, alone in its run's workspace.

    Exits with 65 when no retry can help, with 75 when one may.
    """
    try:
        settings = Settings.from_environment(os.environ)
        isolate(settings)
        workspace = Workspace.of(settings)
        with exclusive(workspace):
            step(settings, workspace)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # of this machine: a full disk, say
        print(f"error: {error}", file=sys.stderr)
        sys.exit(TemporaryError.exit_code)


def isolate(settings: Settings) -> None:
    """DVC reads and writes nothing outside the lab: no configuration or cache of the machine."""
    own = settings.shared / "dvc"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        os.environ[name] = str(own / name.lower())
