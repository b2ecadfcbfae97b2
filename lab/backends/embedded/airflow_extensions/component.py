"""Run a command of Airflow: `python -m lab.backends.embedded.airflow_extensions.component`.

It starts with less work: see lab_newest_api among the plugins.
"""

from __future__ import annotations

import sys

from airflow.__main__ import main as run_airflow

import lab_newest_api


def main() -> None:
    """Run the command of Airflow that the arguments name."""
    lab_newest_api.keep_newest()
    sys.argv[0] = "airflow"
    run_airflow()


if __name__ == "__main__":
    main()
