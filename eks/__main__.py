"""The command line: `nox -s eks -- plan | apply | verify | destroy`, `python -m eks COMMAND`."""

from __future__ import annotations

from lab import isolated  # noqa: F401  # isort: skip  before a module of PYTHONPATH is imported

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from typing import Annotated

import typer

from eks import apply as promotion
from eks import bucket, deployer, environment, plan, site
from eks import destroy as removal
from eks import verify as proof
from eks.errors import translating_errors
from eks.ledger import Entry
from lab.config import Config
from lab.console import run_command, show_proof
from lab.errors import EnvironmentFileError, PromotionError

app = typer.Typer(
    help="Promote what kind proved to a cluster on AWS.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Name = Annotated[
    str | None, typer.Option("--environment", "-e", help="a file of eks/environments [staging]")
]
Yes = Annotated[bool, typer.Option("--yes", help="ask nothing")]
STAGING = "staging"


def main() -> None:
    """Run one command of the promotion."""
    interrupted = "interrupted: the same command goes on where it stopped"
    run_command(app, "nox -s eks --", interrupted, uses_aws=True)


def load_site(context: typer.Context, name: str | None) -> site.Site:
    """Return the site of the environment named before or after the command; by default staging.

    Raise EnvironmentFileError when both name one and they differ.
    """
    named = {given for given in (context.obj, name) if given} or {STAGING}
    if len(named) > 1:
        raise EnvironmentFileError(
            f"two environments are named: {', '.join(sorted(named))}", "name the one that is meant"
        )
    root = Config.from_environment().root
    return site.create_site(environment.load(named.pop(), root), root / site.HOME, root)


@contextmanager
def open_site(context: typer.Context, name: str | None) -> Iterator[site.Site]:
    """Yield the chosen site; report the kit's errors in terms of this environment.

    Raise EnvironmentFileError when its file names another place than the one in its ledger.
    """
    found = load_site(context, name)
    found.ledger.entries()
    with translating_errors(found):
        yield found


@app.callback(invoke_without_command=True)
def default(context: typer.Context, name: Name = None) -> None:
    """Promote what kind proved to a cluster on AWS. Without a command: plan."""
    context.obj = name
    if context.invoked_subcommand is None:
        show_plan(context)


@app.command("plan")
def show_plan(context: typer.Context, name: Name = None) -> None:
    """Show what an apply would bring and make, and what it costs by the month. Changes nothing."""
    found = load_site(context, name)
    plan.show(found.environment, found.config, found.folder / "plan")


@app.command()
def apply(context: typer.Context, name: Name = None, yes: Yes = False) -> None:
    """Make or complete the environment: AWS, the cluster, Airflow. Asks first."""
    with open_site(context, name) as found:
        called = found.environment.name
        promotion.apply(found, lambda: confirm(f"make {called} what this checkout says", yes))
    print(f"""
open    kubectl --kubeconfig {found.folder / "kubeconfig"} -n airflow \\
          port-forward svc/airflow-api-server 8080:8080
        user lab; the password is in the Secret airflow-login
next    nox -s eks -- verify -e {called}""")


@app.command()
def verify(
    context: typer.Context,
    name: Name = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Run the pipeline on the cluster and prove what it made; look for static keys."""
    with redirect_stdout(sys.stderr if as_json else sys.stdout), open_site(context, name) as found:
        proved = proof.prove(found)
    if as_json:
        print(json.dumps(asdict(proved)))
    else:
        show_proof(proved)


@app.command("policy")
def show_policy(context: typer.Context, name: Name = None) -> None:
    """Print the policy that whoever applies needs, for IAM. Asks nothing of AWS."""
    print(json.dumps(deployer.render_policy(load_site(context, name)), indent=2))


@app.command()
def destroy(
    context: typer.Context,
    name: Name = None,
    yes: Yes = False,
    erase: Annotated[
        str | None, typer.Option("--erase-bucket", help="the bucket's name: all its versions go")
    ] = None,
) -> None:
    """Remove what was made in AWS. The bucket stays unless it is named."""
    with open_site(context, name) as found:
        chosen_bucket = found.environment.bucket
        refuse_other_bucket(chosen_bucket, erase)

        def decide() -> str | None:
            confirm(f"remove {found.environment.name} from AWS", yes)
            return erase if yes or erase else ask_for_bucket(chosen_bucket)

        removal.destroy(found, decide)
        print(
            "\n".join(describe_remaining(entry) for entry in found.ledger.entries())
            or "nothing is left"
        )


def describe_remaining(entry: Entry) -> str:
    """Describe what a destroy left, as a line for the user."""
    if entry.kind != bucket.KIND:
        return f"left: {entry.kind} {entry.name}"
    erase = f"destroy --erase-bucket {entry.name} removes it"
    return f"kept: bucket {entry.name} (every version of every dataset; {erase})"


def ask_for_bucket(name: str) -> str | None:
    """Return the bucket's name if the user types it, which allows its erasure; else None."""
    said: str = typer.prompt(
        f"Every version of every dataset is in {name}. To erase it, type its name; Enter keeps it",
        default="",
        show_default=False,
    )
    refuse_other_bucket(name, said or None)
    return said or None


def refuse_other_bucket(name: str, said: str | None) -> None:
    """Raise PromotionError when `said` is given and is not the bucket's name."""
    if said not in (None, name):
        raise PromotionError(
            f"{said!r} is not the environment's bucket", f"name it exactly: {name}; or keep it"
        )


def confirm(what: str, yes: bool) -> None:
    """Ask the user unless `yes`; exit with 1 on "no".

    Raise PromotionError when there is no terminal to ask on.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise PromotionError(f"nobody is here to say whether to {what}", "say so: --yes")
    if not typer.confirm(f"Shall I {what}?"):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
