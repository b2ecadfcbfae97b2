"""`dataset-steps pull | modify | push | import FILE | extract | transform | load`: one step.

`dataset-steps inspect FILE` is no step: it needs no run and no server.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path

from dataset_steps.process import run_step
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace


def main(argv: list[str] | None = None) -> None:
    """Run one step. Exit with 0 when it is done, 65 when no retry can help, 75 when one may."""
    arguments = make_parser().parse_args(argv)
    match arguments.step:
        case "inspect":
            from dataset_steps.inspect import inspect

            sys.exit(inspect(arguments.file))
        case _:
            run_step(partial(run, arguments))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("dataset-steps", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser(
        "pull", help="clone the repository and pull the dataset into the run's workspace"
    )
    steps.add_parser("modify", help="append one record to the workspace's dataset")
    steps.add_parser("push", help="store the new version, commit its pointer, push the commit")
    steps.add_parser("extract", help="pull the dataset and take the columns of a summary out of it")
    steps.add_parser("transform", help="summarise the extract by department")
    steps.add_parser("load", help="put the summary into the bucket")
    first = steps.add_parser("import", help="store FILE as the first version of the dataset")
    first.add_argument("file", type=Path, metavar="FILE")
    inspect = steps.add_parser(
        "inspect", help="print as JSON what the table FILE holds, or its fault"
    )
    inspect.add_argument("file", type=Path, metavar="FILE")
    return parser


def run(arguments: argparse.Namespace, settings: Settings, workspace: Workspace) -> None:
    """Run the step, importing it only now: imports are most of a short step's time."""
    match arguments.step:
        case "pull":
            from dataset_steps.pull import pull

            pull(settings, workspace)
        case "modify":
            from dataset_steps.modify import modify

            modify(settings, workspace)
        case "push":
            from dataset_steps.push import push

            push(settings, workspace)
        case "extract":
            from dataset_steps.extract import extract

            extract(settings, workspace, os.environ)
        case "transform":
            from dataset_steps.transform import transform

            transform(workspace, os.environ)
        case "load":
            from dataset_steps.load import load

            load(settings, workspace, os.environ)
        case "import":
            from dataset_steps.import_dataset import import_dataset

            import_dataset(settings, workspace, arguments.file)


if __name__ == "__main__":
    main()
