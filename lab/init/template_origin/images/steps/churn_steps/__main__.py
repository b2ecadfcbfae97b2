"""`python -m churn_steps NAME FILE`: report on a data set, for one run."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from .report import report

HOPELESS = 65  # the exit code that no task retries


def main(argv: list[str] | None = None) -> None:
    """Write the report. Exit with 65 when the data are wrong: so they will be the next time."""
    parser = argparse.ArgumentParser("churn_steps", description=__doc__)
    parser.add_argument("name", help="of the data set")
    parser.add_argument("file", type=Path, help="where the report goes, in the workspace")
    asked = parser.parse_args(argv)
    try:
        report(Path(os.environ[f"DATA_{asked.name.upper()}"]), asked.file)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(HOPELESS)


if __name__ == "__main__":
    main()
