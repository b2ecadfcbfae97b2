"""`model-steps prepare | train | validate`: one step, for one run."""

from __future__ import annotations

import argparse
import os
from functools import partial

from dataset_steps.process import run_step
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace
from model_steps.request import Request


def main(argv: list[str] | None = None) -> None:
    """Run one step. Exit with 0 when it is done, 65 when no retry can help, 75 when one may."""
    arguments = make_parser().parse_args(argv)
    run_step(partial(run, arguments.step))


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("model-steps", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("prepare", help="check and split the dataset that was pulled")
    steps.add_parser("train", help="train the model on the records to train with")
    steps.add_parser("validate", help="hold the model against the records held out")
    return parser


def run(step: str, _: Settings, workspace: Workspace) -> None:
    """Run the step, importing it only now: scikit-learn alone takes a second."""
    request = Request.from_environment(os.environ)
    match step:
        case "prepare":
            from model_steps.prepare import prepare

            prepare(workspace, request)
        case "train":
            from model_steps.train import train

            train(workspace, request)
        case "validate":
            from model_steps.validate import validate

            validate(workspace, request)


if __name__ == "__main__":
    main()
