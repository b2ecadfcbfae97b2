"""`dataset-steps pull NAME | publish NAME | modify | extract | transform | load`.

`import PATH` and `begin` are for a new lab. `inspect FILE` is no step: it needs no run or server.
"""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

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
    add_pull(steps)
    steps.add_parser("modify", help="append one record to the workspace's dataset")
    add_publish(steps)
    steps.add_parser("extract", help="take the columns of a summary out of the dataset")
    steps.add_parser("transform", help="summarise the extract by department")
    steps.add_parser("load", help="put the summary into the bucket")
    first = steps.add_parser("import", help="store PATH as the first version of a data set")
    first.add_argument("source", type=Path, metavar="PATH", help="a file or a directory")
    steps.add_parser("begin", help="give the repository DVC's configuration, and no data")
    inspect = steps.add_parser(
        "inspect", help="print as JSON what the table FILE holds, or its fault"
    )
    inspect.add_argument("file", type=Path, metavar="FILE")
    return parser


def add_pull(steps: Any) -> None:
    pull = steps.add_parser("pull", help="bring data sets into the run's workspace")
    pull.add_argument("names", nargs="+", metavar="NAME")
    pull.add_argument("--optional", action="store_true", help="there may be no version yet")
    pull.add_argument("--again", action="store_true", help="empty the workspace first")


def add_publish(steps: Any) -> None:
    publish = steps.add_parser("publish", help="store what has changed, in one commit")
    publish.add_argument("names", nargs="+", metavar="NAME")
    publish.add_argument("--file", action="append", default=[], help="a file that git keeps")
    publish.add_argument("--metrics", action="append", default=[], help="one that DVC shows, too")
    publish.add_argument("--result", help="the object in the bucket that tells of the commit")
    publish.add_argument("--message", default="publish", help="what the commit does to the paths")
    publish.add_argument("--on-conflict", choices=("rerun", "fail"), default="rerun")


def run(arguments: argparse.Namespace, settings: Settings, workspace: Workspace) -> None:
    """Run the step, importing it only now: imports are most of a short step's time."""
    match arguments.step:
        case "pull":
            from dataset_steps.pull import Request, pull

            asked = Request.from_environment(
                arguments.names, os.environ, optional=arguments.optional, again=arguments.again
            )
            pull(settings, workspace, asked, os.environ)
        case "modify":
            from dataset_steps.modify import modify

            modify(settings, workspace)
        case "publish":
            from dataset_steps.publish import parse_request, publish

            publish(settings, workspace, parse_request(arguments, os.environ), os.environ)
        case "extract":
            from dataset_steps.extract import extract

            extract(workspace)
        case "transform":
            from dataset_steps.transform import transform

            transform(workspace, os.environ)
        case "load":
            from dataset_steps.load import load

            load(settings, workspace, os.environ)
        case "import":
            from dataset_steps.import_dataset import import_dataset

            import_dataset(settings, workspace, arguments.source)
        case "begin":
            from dataset_steps.import_dataset import import_dataset

            import_dataset(settings, workspace, None)


if __name__ == "__main__":
    main()
