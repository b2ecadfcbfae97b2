"""`reading-steps collect | summarise`: one step, for one run."""

from __future__ import annotations

import argparse
import os
import sys
from datetime import date
from pathlib import Path


def main(argv: list[str] | None = None) -> None:
    """Run one step. Exit with 65, which no task retries, when the data or the day is wrong."""
    arguments = make_parser().parse_args(argv)
    readings = Path(os.environ["DATA_READINGS"])
    try:
        run(arguments.step, readings)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(65)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("reading-steps", description=__doc__)
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("collect", help="write the readings of DAY, or of the day after the newest")
    steps.add_parser("summarise", help="summarise the readings of all days by sensor")
    return parser


def run(step: str, readings: Path) -> None:
    """Run the step, importing it only now: polars takes a moment, and --help needs none."""
    match step:
        case "collect":
            from reading_steps.collect import collect

            day = os.environ.get("DAY")
            collect(readings, date.fromisoformat(day) if day else None, os.environ["RUN_ID"])
        case "summarise":
            from reading_steps.summarise import summarise

            summarise(readings, Path(os.environ["DATA_READINGS_SUMMARY"]))


if __name__ == "__main__":
    main()
