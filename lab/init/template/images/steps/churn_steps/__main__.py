"""`python -m churn_steps clean | summarise`: one step, for one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from polars.exceptions import PolarsError

from .clean import clean
from .summarise import summarise

HOPELESS = 65  # the exit code that no task retries


def main(argv: list[str] | None = None) -> None:
    """Run one step. Exit with 65 when the data are wrong: they will be so the next time, too."""
    arguments = make_parser().parse_args(argv)
    try:
        run(arguments.step, Path(os.environ["DATA_ORDERS"]))
    except (ValueError, PolarsError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(HOPELESS)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("churn_steps", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("clean", help="drop orders that are there twice or have no customer")
    steps.add_parser("summarise", help="count orders, customers and cents by month")
    return parser


def run(step: str, orders: Path) -> None:
    match step:
        case "clean":
            clean(orders)
        case "summarise":
            summarise(orders, Path(os.environ["DATA_SUMMARY"]))


if __name__ == "__main__":
    main()
