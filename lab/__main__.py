"""The command line: `lab COMMAND`, `python -m lab COMMAND`, `nox -s lab -- COMMAND`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import webbrowser
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.backends import Backend, choose_backend, find_backend, load_backends
from lab.client import runs
from lab.config import FIRST_DAG, Config, parse_database
from lab.console import rewrite_for_nox, run_command, show_proof
from lab.errors import LabError, NotRunningError
from lab.home import state
from lab.lab import Lab
from lab.progress import mark, phase
from lab.wait import run_in_parallel

app = typer.Typer(
    help="A local lab for data-versioning pipelines: Airflow, DVC, S3 and git.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
SHOWN_RUNS = 5

BackendName = Annotated[str | None, typer.Option("--backend", help="auto, embedded or kind")]
DatabaseName = Annotated[str | None, typer.Option("--database", help="sqlite or postgresql")]
DatasetFile = Annotated[
    Path | None, typer.Option("--dataset", help="a CSV to version instead of the generated one")
]


def main() -> None:
    """Run one command of the lab."""
    run_command(
        app,
        "lab",
        "interrupted: lab status shows what runs, lab up completes it, lab down ends it",
    )


def config_from_options(
    backend: str | None = None, database_name: str | None = None, csv: Path | None = None
) -> Config:
    """Return the environment's choices, overridden by the command line's."""
    found = Config.from_environment()
    return replace(
        found,
        backend=backend or found.backend,
        database=parse_database(database_name) or found.database,
        dataset=csv.absolute() if csv else found.dataset,
    )


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    backend: BackendName = None,
    database: DatabaseName = None,
    dataset: DatasetFile = None,
) -> None:
    """Bring a lab up, run dataset_pipeline once, and prove what it made (without a command)."""
    if command := context.invoked_subcommand:
        if backend or database or dataset:
            raise typer.BadParameter(f"options come after the command: lab {command} --backend …")
        return
    lab = bring_up(config_from_options(backend, database, dataset))
    run_and_follow(lab, FIRST_DAG, {})
    show_proof(lab.verify())
    print(next_steps(lab))


@app.command()
def up(
    backend: BackendName = None, database: DatabaseName = None, dataset: DatasetFile = None
) -> None:
    """Bring a whole lab up; complete one that is there."""
    lab = bring_up(config_from_options(backend, database, dataset))
    print(next_steps(lab))


def bring_up(config: Config) -> Lab:
    """Bring up the lab that the config asks for, and return it."""
    backend, why = choose_backend(config)
    print(f"backend: {backend.NAME} ({why})\nhome:    {config.home}")
    return backend.up(config, phase)


def next_steps(lab: Lab) -> str:
    """Return what to open and to try, for somebody who sees a lab for the first time."""
    return f"""
open  {lab.airflow_url}   Airflow   user {lab.airflow_user}
      {lab.git_page}   commits   user {lab.git_user}
      (lab env shows the passwords)
try   nox -s lab -- run {FIRST_DAG}
      nox -s lab -- verify
      nox -s lab -- status
      nox -s lab -- down"""


@app.command()
def run(
    dag: Annotated[str, typer.Argument(help="the DAG's id")],
    conf: Annotated[str | None, typer.Option("--conf", help="a JSON object for the run")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="seconds to follow the run")] = 600,
) -> None:
    """Run a DAG and follow its tasks to the end."""
    parsed = runs.parse_conf(conf)
    run_and_follow(connect(), dag, parsed, timeout)


def run_and_follow(lab: Lab, dag: str, conf: dict[str, Any], timeout: float = 600) -> None:
    with phase(f"Run {dag}"):
        started = lab.trigger(dag, conf)
        print(f"  {started.id}")
        runs.follow(lab, started, timeout, lambda line: print(f"  {line}", flush=True))


def connect() -> Lab:
    """Return the running lab of this LAB_HOME. Raises NotRunningError."""
    config = config_from_options()
    return find_recorded_backend(config).connect(config)


def find_recorded_backend(config: Config) -> Backend:
    """Return the backend that the lab was made with. Raises NotRunningError without a lab."""
    return find_backend(state.require_state(config).backend)


@app.command()
def verify(
    commit: Annotated[str, typer.Argument(help="a commit of the datasets repository")] = "main",
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Prove that a commit brings its dataset back, without trusting the pipeline."""
    lab = connect()
    if not as_json:
        return show_proof(lab.verify(commit))
    try:
        print(json.dumps(asdict(lab.verify(commit))))
    except LabError as error:
        print(json.dumps({"ok": False, "commit": commit, "error": error.what}))
        raise


@app.command()
def status() -> None:
    """Show each service and its address, the DAGs, the newest runs, the newest version."""
    config = config_from_options()
    backend = find_recorded_backend(config)
    print(f"backend: {backend.NAME}\nhome:    {config.home}")
    rows = backend.list_services(config)
    for service, running in rows:
        first = f"http://127.0.0.1:{service.ports[0].number}" if service.ports else ""
        print(
            f"{mark(running)} {service.name:<24} {'running' if running else 'stopped':<9} {first}"
        )
    if not all(running for _, running in rows):
        raise NotRunningError("some services do not run", "lab up starts them")
    show_pipelines(backend.connect(config))


def show_pipelines(lab: Lab) -> None:
    """Print the DAGs by bundle, the files that can't be parsed, the newest runs, the dataset."""
    known = runs.dags_by_bundle(lab)
    print("DAGs:" if known else "DAGs:    none")
    for bundle, names in known.items():
        print(f"  {bundle:<12} {', '.join(names)}")
    for broken in runs.list_broken_files(lab):
        print(f"{mark(False)} {broken}")
    newest_runs = runs.list_runs(lab, runs.ANY)[:SHOWN_RUNS]
    print("runs:" if newest_runs else "runs:    none")
    for run in newest_runs:
        print(f"  {run.state:<12} {run.dag_id:<24} {run.id}")
    newest = lab.dataset()
    print(f"dataset: {lab.dataset_path}, {newest.size} bytes, commit {newest.commit[:12]}")


@app.command()
def logs(
    service: Annotated[str | None, typer.Argument(help="a service's name; all without one")] = None,
    following: Annotated[bool, typer.Option("-f", "--follow", help="go on as it grows")] = False,
) -> None:
    """Print the logs of one service, or of all."""
    config = config_from_options()
    backend = find_recorded_backend(config)
    names = [each.name for each, _ in backend.list_services(config)]
    if service and service not in names:
        raise LabError(f"there is no service {service!r}", f"choose one of {', '.join(names)}")
    chosen = [service] if service else names
    if following:
        run_in_parallel(
            *(
                partial(run_in_foreground, words)
                for words in backend.follow_commands(config, chosen)
            )
        )
        return
    for name, path in backend.log_files(config).items():
        if name in chosen and path.exists():
            print(f"==> {path}\n{path.read_text('utf-8', 'replace')}")


def run_in_foreground(command: list[str | Path]) -> None:
    """Run a command until it ends or is interrupted; its output goes to the terminal."""
    subprocess.run(command, check=False)


@app.command()
def env(as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False) -> None:
    """Print everything that another program needs to use the lab: it holds passwords."""
    values = connect().env()
    print(
        json.dumps(values, indent=1)
        if as_json
        else "\n".join(f"{k}={v}" for k, v in values.items())
    )


@app.command("open")
def open_pages() -> None:
    """Open the lab's pages, or print them where there is no browser."""
    lab = connect()
    pages = [lab.airflow_url, lab.git_page]
    seen = bool(os.environ.get("DISPLAY") or sys.platform == "darwin")
    for page in pages:
        print(page)
        if seen and sys.stdout.isatty():
            webbrowser.open(page)


@app.command("doctor")
def doctor(backend: BackendName = None, database: DatabaseName = None) -> None:
    """Say what this machine lacks, what is wrong with the lab, and how each port is protected."""
    config = config_from_options(backend, database)
    chosen, why = choose_backend(config)
    print(f"backend: {chosen.NAME} ({why})")
    errors = []
    for finding in chosen.diagnose(config):
        print(f"{mark(not finding.error)} {finding.name:<12} {finding.status}")
        if finding.error:
            errors.append(finding.error)
            print(f"    try: {rewrite_for_nox(finding.error.fix)}")
    if not errors and state.read_state(config):
        errors += check_lab(config)
    if errors:
        raise errors[0]


def check_lab(config: Config) -> list[LabError]:
    """Return what is wrong with the lab; print each port and what protects it."""
    backend = find_recorded_backend(config)
    stopped = []
    for service, running in backend.list_services(config):
        stopped += [] if running else [service.name]
        for port in service.ports:
            print(f"{mark(True)} port {port.number:<7} {port.name:<24} {port.protection}")
    errors: list[LabError] = []
    if stopped:
        errors.append(NotRunningError(f"not running: {', '.join(stopped)}", "lab up starts them"))
    if strange := backend.undeclared_ports(config):
        errors.append(LabError(f"the lab listens on {strange} and should not", "report this"))
    for error in errors:
        print(f"{mark(False)} {error.what}\n    try: {rewrite_for_nox(error.fix)}")
    return errors


@app.command()
def down(
    purge: Annotated[bool, typer.Option("--purge", help="remove the lab's data, too")] = False,
) -> None:
    """End the lab; its data stays unless --purge is given."""
    config = config_from_options()
    known = state.try_read_state(config) if purge else state.read_state(config)
    with phase("End the lab"):
        if purge and not known:
            for backend in load_backends().values():
                backend.remove_leftovers(config)
        ended = find_backend(known.backend if known else "embedded").down(config, purge=purge)
    gone = f"{config.home} is removed" if purge else f"its data is in {config.home}"
    print(f"{ended} processes ended; {gone}")


if __name__ == "__main__":
    main()
