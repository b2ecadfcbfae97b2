"""`dataset-steps pull | modify | push | import FILE`: one step, for one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace, exclusive


def main(argv: list[str] | None = None) -> None:
    """Runs one step. Exits 0 when it is done, 65 when no retry can help, 75 when one may."""
    arguments = parser().parse_args(argv)
    try:
        settings = Settings.from_environment(os.environ)
        isolate(settings)
        workspace = Workspace.of(settings)
        with exclusive(workspace):
            run(arguments, settings, workspace)
    except StepError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:  # of this machine: a full disk, say
        print(f"error: {error}", file=sys.stderr)
        sys.exit(TemporaryError.exit_code)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dataset-steps", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser(
        "pull", help="clone the repository and pull the dataset into the run's workspace"
    )
    steps.add_parser("modify", help="append one record to the workspace's dataset")
    steps.add_parser("push", help="store the new version, commit its pointer, push the commit")
    first = steps.add_parser("import", help="store FILE as the first version of the dataset")
    first.add_argument("file", type=Path, metavar="FILE")
    return parser


def run(arguments: argparse.Namespace, settings: Settings, workspace: Workspace) -> None:
    """Imports a step only when it is run: most of a short step's time goes into imports."""
    match arguments.step:
        case "pull":
            from dataset_steps.pull import pull

            pull(settings, workspace)
        case "modify":
            from dataset_steps.modify import modify

            modify(workspace)
        case "push":
            from dataset_steps.push import push

            push(settings, workspace)
        case "import":
            from dataset_steps.import_dataset import import_dataset

            import_dataset(settings, workspace, arguments.file)


def isolate(settings: Settings) -> None:
    """DVC reads and writes nothing outside the lab: no configuration or cache of the machine."""
    own = settings.shared / "dvc"
    os.environ["DVC_NO_ANALYTICS"] = "1"
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        os.environ[name] = str(own / name.lower())


if __name__ == "__main__":
    main()
