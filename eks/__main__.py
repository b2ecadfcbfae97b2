"""The command line: `nox -s eks -- plan | apply | verify | destroy`, `python -m eks COMMAND`."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from eks import apply as promotion
from eks import destroy as removal
from eks import environment, plan, site
from eks import verify as proof
from lab.__main__ import run_command, show_proof
from lab.config import TREE
from lab.errors import PromotionError

app = typer.Typer(
    help="Promote what kind proved to a cluster on AWS.",
    no_args_is_help=False,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Name = Annotated[
    str, typer.Option("--environment", "-e", help="a file of eks/environments, without .toml")
]
Yes = Annotated[bool, typer.Option("--yes", help="ask nothing")]
STAGING = "staging"


def main() -> None:
    """Runs one command of the promotion's."""
    run_command(
        app, "nox -s eks --", "interrupted: the same command again goes on where it stopped"
    )


def chosen(name: str) -> site.Site:
    """The site of an environment, in this checkout."""
    return site.at(environment.load(name), TREE / site.HOME)


@app.callback(invoke_without_command=True)
def default(context: typer.Context, name: Name = STAGING) -> None:
    """Without a command: plan."""
    if context.invoked_subcommand is None:
        show(name)


@app.command("plan")
def show(name: Name = STAGING) -> None:
    """Show what an apply would bring and make, and what it costs by the month. Changes nothing."""
    found = chosen(name)
    plan.show(found.environment, found.config, found.folder / "plan")


@app.command()
def apply(name: Name = STAGING, yes: Yes = False) -> None:
    """Make or complete the environment: AWS, the cluster, Airflow. Asks first."""
    found = chosen(name)
    promotion.apply(found, lambda: agree(f"make {name} what this checkout says", yes))
    print(f"""
open    kubectl --kubeconfig {found.folder / "kubeconfig"} -n airflow \\
          port-forward svc/airflow-api-server 8080:8080
        user lab; the password is in the Secret airflow-login
next    nox -s eks -- verify -e {name}""")


@app.command()
def verify(
    name: Name = STAGING,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object")] = False,
) -> None:
    """Run the pipeline on the cluster and prove what it made; look for static keys."""
    found = proof.prove(chosen(name))
    if as_json:
        print(json.dumps(asdict(found)))
    else:
        show_proof(found)


@app.command()
def destroy(
    name: Name = STAGING,
    yes: Yes = False,
    erase: Annotated[
        str | None, typer.Option("--erase-bucket", help="the bucket's name: all its versions go")
    ] = None,
) -> None:
    """Remove what was made in AWS. The bucket stays unless it is named."""
    found = chosen(name)
    if not yes and erase is None:
        erase = ask_for_bucket(found.environment.bucket)
    removal.destroy(found, erase, lambda: agree(f"remove {name} from AWS", yes))
    left = found.ledger.entries()
    print("".join(f"left: {entry.kind} {entry.name}\n" for entry in left) or "nothing is left")


def ask_for_bucket(name: str) -> str | None:
    """The bucket's name when a person typed it: then all its versions may go."""
    said = typer.prompt(
        f"Every version of every dataset is in {name}. To erase it, type its name; Enter keeps it",
        default="",
        show_default=False,
    )
    if said not in ("", name):
        raise PromotionError(f"{said!r} is not the bucket's name", "type it exactly, or only Enter")
    return said or None


def agree(what: str, yes: bool) -> None:
    """Returns when a person wants that, and leaves otherwise."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise PromotionError(f"nobody is here to say whether to {what}", "say so: --yes")
    if not typer.confirm(f"Shall I {what}?"):
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
