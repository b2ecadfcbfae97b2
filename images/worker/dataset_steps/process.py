"""One step as a process: its settings, its workspace and its exit code."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

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
        workspace = Workspace.from_settings(settings)
        with isolated_dvc(), exclusive_lock(workspace):
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


@contextmanager
def isolated_dvc() -> Iterator[None]:
    """Keep DVC from the machine's configuration, and its databases in a folder of this process.

    The folder is a temporary one (in a pod below /tmp), and removed after the block. DVC opens
    SQLite databases in WAL mode there, for which a network's file system will not do, and the
    volume that the steps share may be one (python-diskcache#164).
    """
    with tempfile.TemporaryDirectory(prefix="step-", ignore_cleanup_errors=True) as own:
        os.environ["DVC_NO_ANALYTICS"] = "1"
        for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
            os.environ[name] = str(Path(own, name.lower()))
        yield
