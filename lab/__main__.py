"""The command line: `lab COMMAND`, `python -m lab COMMAND`, `nox -s lab -- COMMAND`."""

from __future__ import annotations

from lab import isolated  # noqa: F401  # isort: skip  before a module of PYTHONPATH is imported

import os
import subprocess
import sys
import time
import webbrowser
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lab.answer import answering
from lab.backends import Backend, choose_backend, find_backend, load_backends
from lab.changes import check_kit_version
from lab.client import runs
from lab.client.data import FOLDER
from lab.completion import complete_backend, complete_dag, complete_database, complete_service
from lab.config import DISTRIBUTION, TABLE_DAG, Config, parse_database
from lab.console import rewrite_for_nox, run_command, show_proof
from lab.dataset.inspection import is_table_name
from lab.delivery import bundle
from lab.errors import LabError, NotRunningError, ProjectError
from lab.home import state
from lab.lab import Lab
from lab.model import Dag, DataSet, Outcome, Run, Service
from lab.progress import mark, phase
from lab.wait import run_in_parallel

if TYPE_CHECKING:
    from lab.backends.doctor import Finding

app = typer.Typer(
    help="A local lab for data-versioning pipelines: Airflow, DVC, S3 and git.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)
SHOWN_RUNS = 5
# The person's own environment, for the one thing that uses it: a repository that is taken in.
PERSON: dict[str, str] = {}

BackendName = Annotated[
    str | None,
    typer.Option("--backend", help="auto, embedded or kind", autocompletion=complete_backend),
]
DatabaseName = Annotated[
    str | None,
    typer.Option("--database", help="sqlite or postgresql", autocompletion=complete_database),
]
DatasetPath = Annotated[
    Path | None,
    typer.Option("--dataset", help="a file or a directory to version instead of the generated one"),
]
DagId = Annotated[str, typer.Argument(help="the DAG's id", autocompletion=complete_dag)]
AsJson = Annotated[bool, typer.Option("--json", help="one JSON object")]


def main() -> None:
    """Run one command of the lab."""
    PERSON.update(os.environ)
    interrupted = "interrupted: lab status shows what runs, lab up completes it, lab down ends it"
    run_command(app, "lab", rewrite_for_nox(interrupted))


def print_version(asked: bool) -> None:
    """Print the package's version and end, if that was asked for."""
    if asked:
        print(f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


def config_from_options(
    backend: str | None = None, database_name: str | None = None, dataset: Path | None = None
) -> Config:
    """Return the environment's choices, overridden by the command line's."""
    found = Config.from_environment()
    return replace(
        found,
        backend=backend or found.backend,
        database=parse_database(database_name) or found.database,
        dataset=locate_dataset(dataset) if dataset else found.dataset,
    )


def locate_dataset(path: Path) -> Path:
    """Return the whole path of the user's data; its last part is a name, unless it is `/`."""
    whole = path.absolute()
    return whole.resolve() if whole.name == ".." else whole


@app.callback(invoke_without_command=True)
def default(
    context: typer.Context,
    backend: BackendName = None,
    database: DatabaseName = None,
    dataset: DatasetPath = None,
    version: Annotated[  # noqa: ARG001  its callback prints it
        bool,
        typer.Option("--version", help="print the version", callback=print_version, is_eager=True),
    ] = False,
) -> None:
    """Bring a lab up, run the project's DAG once, and prove what it made (without a command).

    With `--dataset` and what is no table, `dataset_pipeline` is not run: the first version is
    proved.
    """
    if command := context.invoked_subcommand:
        if backend or database or dataset:
            right = rewrite_for_nox(f"lab {command} --backend …")
            raise typer.BadParameter(f"options come after the command: {right}")
        return
    config = config_from_options(backend, database, dataset)
    place, dag = announce_backend(config), config.project.dag
    lab = place.start(config, phase)
    if dag != TABLE_DAG or has_table(lab):
        run_and_follow(lab, dag)
    else:
        print(f"not run: {dag} appends a record to a table, which {lab.dataset_path} is not")
    show_proof(lab.verify())
    place.complete(config, phase)
    print(next_steps(lab, dag))


def has_table(lab: Lab) -> bool:
    """Return whether the newest main data set is a table, to which a run can append."""
    return is_table_name(lab.dataset_path) and not lab.dataset().md5.endswith(FOLDER)


@app.command()
def init(
    name: Annotated[Path | None, typer.Argument(help="the new project's folder")] = None,
    origin: Annotated[
        str | None, typer.Option("--from", help="a DVC repository to take in")
    ] = None,
    wheel: Annotated[Path | None, typer.Option("--wheel", help="the kit's wheel")] = None,
    upgrade: Annotated[
        bool, typer.Option("--upgrade", help="bring this kit into the project here")
    ] = False,
) -> None:
    """Make a project of your own, which uses the kit."""
    from lab.init.creation import create_project
    from lab.init.upgrading import upgrade_project

    if upgrade == (name is not None) or (upgrade and origin):
        raise typer.BadParameter("give a NAME, or --upgrade alone or with --wheel")
    if name is None:
        print(upgrade_project(Config.from_environment().root, wheel))
    else:
        print(create_project(name, origin, wheel, PERSON))


@app.command()
def fetch() -> None:
    """Fetch the repository that the project was made from, in a fresh clone of the project."""
    from lab.origin.fetch import fetch_origin

    config = Config.from_environment()
    if not (url := config.project.origin):
        raise ProjectError("lab.toml names no [origin]", "lab init NAME --from URL makes a project")
    with phase("Fetch the repository and its objects"):
        found = fetch_origin(url, config.root, PERSON)
    print(*found.describe(), sep="\n")


@app.command()
def up(
    backend: BackendName = None, database: DatabaseName = None, dataset: DatasetPath = None
) -> None:
    """Bring a whole lab up; complete one that is there."""
    config = config_from_options(backend, database, dataset)
    print(next_steps(announce_backend(config).up(config, phase), config.project.dag))


def announce_backend(config: Config) -> Backend:
    """Print which backend the config leads to, and why; return it."""
    backend, why = choose_backend(config)
    print(f"backend: {backend.NAME} ({why})\nhome:    {config.home}")
    return backend


def next_steps(lab: Lab, dag: str) -> str:
    """Return what to open and to try, for somebody who sees a lab for the first time."""
    can_run = dag != TABLE_DAG or is_table_name(lab.dataset_path)
    run = f"lab run {dag}\n      " if can_run else ""
    return rewrite_for_nox(f"""
open  {lab.airflow_url}   Airflow   user {lab.airflow_user}
      {lab.git_page}   commits   user {lab.git_user}
      (lab open --show-password prints both passwords)
try   {run}lab verify
      lab status
      lab down""")


@app.command()
def run(
    dag: DagId,
    conf: Annotated[str | None, typer.Option("--conf", help="a JSON object for the run")] = None,
    timeout: Annotated[float, typer.Option("--timeout", help="seconds to follow the run")] = 600,
    unpause: Annotated[bool, typer.Option("--unpause", help="unpause the DAG, too")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a DAG and follow its tasks to the end."""
    with answering(as_json, aside=sys.stderr) as facts:
        facts["dag_id"] = dag
        parsed = runs.parse_conf(conf)
        lab = connect()
        with phase(f"Run {dag}"):
            began = time.monotonic()
            started = lab.trigger(dag, parsed, unpause=unpause)
            try:
                follow(lab, started, timeout)
                facts["ok"] = True
            finally:
                facts["seconds"] = round(time.monotonic() - began, 1)
                facts.update(describe_run(lab, started) if as_json else {})


def run_and_follow(lab: Lab, dag: str) -> None:
    with phase(f"Run {dag}"):
        follow(lab, lab.trigger(dag))


def follow(lab: Lab, run: Run, timeout: float = 600) -> None:
    """Print the run's id and each change of its tasks until it has succeeded. Raises RunError."""
    print(f"  {run.id}")
    runs.follow(lab, run, timeout, lambda line: print(f"  {rewrite_for_nox(line)}", flush=True))


def describe_run(lab: Lab, run: Run) -> dict[str, Any]:
    """Return the facts of a run and of its tasks, as far as Airflow tells them."""
    tasks = []
    with suppress(LabError):
        run = lab.find_run(run.dag_id, run.id) or run
        tasks = [describe_task(name, found) for name, found in lab.outcomes(run).items()]
    return {**asdict(run), "tasks": tasks}


def describe_task(name: str, found: Outcome) -> dict[str, Any]:
    """Return the facts of a task of a run; a time as ISO 8601 writes it."""
    began, ended = (at.isoformat() if at else None for at in (found.began, found.ended))
    return {"id": name, **asdict(found), "began": began, "ended": ended}


@app.command()
def unpause(dag: DagId) -> None:
    """Let a paused DAG run again: its schedule, its triggers, and the runs that wait."""
    runs.unpause(connect(), dag)
    print(f"{dag} is not paused now: what waits begins")


def connect() -> Lab:
    """Return the running lab of this LAB_HOME. Raises NotRunningError."""
    config = config_from_options()
    check_kit_version(config.project, metadata.version(DISTRIBUTION))
    return find_recorded_backend(config).connect(config)


def find_recorded_backend(config: Config) -> Backend:
    """Return the backend that the lab was made with. Raises NotRunningError without a lab."""
    return find_backend(state.require_state(config).backend)


@app.command()
def verify(
    commit: Annotated[str, typer.Argument(help="a commit of the datasets repository")] = "main",
    data: Annotated[
        str | None, typer.Option("--data", help="one data set only: its name, or its path")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Prove that a commit brings its data sets back, without trusting the pipeline."""
    with answering(as_json) as facts:
        facts["commit"] = commit
        proof = connect().verify(commit, data)
        facts.update(asdict(proof))
        show_proof(proof)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show each service and its address, the DAGs, the newest runs, the data sets."""
    with answering(as_json) as facts:
        config = config_from_options()
        backend = find_recorded_backend(config)
        facts.update({"backend": backend.NAME, "home": str(config.home)})
        print(f"backend: {backend.NAME}\nhome:    {config.home}")
        rows = backend.list_services(config)
        facts["services"] = [show_service(*row) for row in rows]
        if not all(running for _, running in rows):
            raise NotRunningError("some services do not run", "lab up starts them")
        show_pipelines(backend.connect(config), facts)
        facts["ok"] = True


def show_service(service: Service, running: bool) -> dict[str, Any]:
    """Print whether a service runs, and its address; return the same as facts."""
    url = f"http://127.0.0.1:{service.ports[0].number}" if service.ports else None
    state = "running" if running else "stopped"
    print(f"{mark(running)} {service.name:<24} {state:<9} {url or ''}")
    return {"name": service.name, "running": running, "url": url}


def show_pipelines(lab: Lab, facts: dict[str, Any]) -> None:
    """Print the DAGs by bundle, the files that can't be parsed, the newest runs, the data sets.

    All of it is added to the facts, too.
    """
    dags = runs.describe_dags(lab)
    facts["dags"] = [asdict(dag) for dag in dags]
    show_dags(dags)
    broken = runs.list_broken_files(lab)
    facts["broken_files"] = [asdict(file) for file in broken]
    for file in broken:
        print(f"{mark(False)} {file}")
    newest_runs = runs.list_runs(lab, runs.ANY)[:SHOWN_RUNS]
    facts["runs"] = [asdict(run) for run in newest_runs]
    print("runs:" if newest_runs else "runs:    none")
    for run in newest_runs:
        print(f"  {run.state:<12} {run.dag_id:<24} {run.id}")
    show_data_sets(lab, facts)


def show_data_sets(lab: Lab, facts: dict[str, Any]) -> None:
    """Print the newest version of each data set, or why main has none; add them to the facts."""
    found = lab.list_data_sets()
    facts["data"] = [describe_data_set(each) for each in found]
    dataset = next(each for each in facts["data"] if each["name"] == lab.dataset_name)
    facts["dataset"] = {key: dataset[key] for key in dataset if key not in {"name", "files"}}
    print("data sets:")
    for each in found:
        name = "" if each.name == each.path else f"{each.name:<20} "
        print(f"  {name}{each.path}{tell_version(each)}")


def describe_data_set(found: DataSet) -> dict[str, Any]:
    """Return the facts of a data set and of its newest version, or why there is none."""
    named, newest = {"name": found.name, "path": found.path}, found.version
    if not newest:
        return {**named, "error": found.error}
    size = {"size": newest.size, "files": newest.files}
    return {**named, "commit": newest.commit, "md5": newest.md5, **size}


def tell_version(found: DataSet) -> str:
    """Return what to print behind a data set's path: its newest version, or why it has none."""
    if not (newest := found.version):
        return f": {found.error}"
    files = "" if newest.files is None else f", {newest.files} files"
    size = "" if newest.size is None else f", {newest.size} bytes"
    return f"{files}{size}, commit {newest.commit[:12]}"


def show_dags(dags: list[Dag]) -> None:
    """Print the DAGs by bundle; those that are paused once more, with what ends that."""
    print("DAGs:" if dags else "DAGs:    none")
    for place in dict.fromkeys(dag.bundle for dag in dags):
        here = [dag for dag in dags if dag.bundle == place]
        names = ", ".join(f"{dag.id} (paused)" if dag.paused else dag.id for dag in here)
        print(f"  {place:<12} {names}")
    for dag in dags:
        if dag.paused:
            print(f"  {dag.id} is paused: {rewrite_for_nox(f'lab unpause {dag.id} ends that')}")


@app.command()
def logs(
    service: Annotated[
        str | None,
        typer.Argument(help="a service's name; all without one", autocompletion=complete_service),
    ] = None,
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
def env(as_json: AsJson = False) -> None:
    """Print everything that another program needs to use the lab: it holds passwords."""
    with answering(as_json) as facts:
        facts.update(connect().env())
        for name, value in facts.items():
            print(f"{name}={value}")


@app.command("bundle")
def write_bundle(
    folder: Annotated[Path, typer.Argument(help="CLONE/dags, or a new folder: it is replaced")],
) -> None:
    """Write the DAGs as they are delivered, with the library that they use, to a folder."""
    target = folder.resolve()
    bundle.write_elsewhere(config_from_options(), target)
    print(f"{target} has the DAGs, and the kit's library beside them")


@app.command("open")
def open_pages(
    show_password: Annotated[
        bool, typer.Option("--show-password", help="print each page's user and password, too")
    ] = False,
) -> None:
    """Open the lab's pages, or print them where there is no browser."""
    if show_password and not sys.stdout.isatty():
        raise LabError("passwords are shown on a terminal only", "lab env has them for programs")
    lab = connect()
    pages = {
        lab.airflow_url: ("Airflow", lab.airflow_user, lab.airflow_password),
        lab.git_page: ("commits", lab.git_user, lab.git_password),
    }
    seen = bool(os.environ.get("DISPLAY") or sys.platform == "darwin")
    for page, (name, user, password) in pages.items():
        print(f"{page}   {name}   user {user}   password {password}" if show_password else page)
        if seen and sys.stdout.isatty():
            webbrowser.open(page)


@app.command("doctor")
def doctor(
    backend: BackendName = None, database: DatabaseName = None, as_json: AsJson = False
) -> None:
    """Say what this machine lacks, what is wrong with the lab, and how each port is protected."""
    with answering(as_json) as facts:
        config = config_from_options(backend, database)
        chosen, why = choose_backend(config)
        facts.update({"backend": chosen.NAME, "why": why})
        print(f"backend: {chosen.NAME} ({why})")
        findings = chosen.diagnose(config)
        facts["checks"] = [show_finding(finding) for finding in findings]
        errors = [finding.error for finding in findings if finding.error]
        if not errors and state.read_state(config):
            errors += check_lab(config, facts)
        if errors:
            raise errors[0]
        facts["ok"] = True


def show_finding(finding: Finding) -> dict[str, Any]:
    """Print what one check has found, and what to do; return the same as facts."""
    print(f"{mark(not finding.error)} {finding.name:<18} {finding.status}")
    fix = rewrite_for_nox(finding.error.fix) if finding.error else None
    if fix:
        print(f"    try: {fix}")
    return {"name": finding.name, "ok": not finding.error, "status": finding.status, "try": fix}


def check_lab(config: Config, facts: dict[str, Any]) -> list[LabError]:
    """Return what is wrong with the lab; print each port and what protects it.

    Both are added to the facts, too.
    """
    backend = find_recorded_backend(config)
    stopped = []
    facts["ports"] = []
    for service, running in backend.list_services(config):
        stopped += [] if running else [service.name]
        for port in service.ports:
            facts["ports"].append(asdict(port))
            print(f"{mark(True)} port {port.number:<7} {port.name:<24} {port.protection}")
    strange = backend.undeclared_ports(config)
    facts.update({"stopped": stopped, "undeclared_ports": strange})
    findings = [] if stopped else backend.examine(config)
    facts["access"] = [show_finding(finding) for finding in findings]
    errors: list[LabError] = []
    if stopped:
        errors.append(NotRunningError(f"not running: {', '.join(stopped)}", "lab up starts them"))
    if strange:
        errors.append(LabError(f"the lab listens on {strange} and should not", "report this"))
    for error in errors:
        print(f"{mark(False)} {error.what}\n    try: {rewrite_for_nox(error.fix)}")
    return errors + [finding.error for finding in findings if finding.error]


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
