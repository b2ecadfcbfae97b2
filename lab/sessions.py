"""The sessions of nox that every project has: lab, e2e, eks, lock. This checkout is one of them.

A noxfile gets them by `from lab.sessions import e2e, eks, lab, lock`. What it does not import is no
session of it: it may have one of its own by that name.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nox

from lab.installing import (
    KEPT,
    compile_lock,
    find_source,
    install,
    install_uv,
    installer_environment,
    is_verbose,
    is_worth_a_line,
    prepare,
)

# The kit's own packages. No index is asked for them: a stranger could have registered the name.
OURS = re.compile(r"\s*(mlops.lab|(dataset|model|reading).steps)(?![\w.-])", re.IGNORECASE)

nox.options.sessions = ["lab"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
logging.getLogger("nox").addFilter(is_worth_a_line)
if not os.access(Path.cwd(), os.W_OK):  # a read-only checkout: environments go below LAB_HOME
    nox.options.envdir = str(Path(os.environ.get("LAB_HOME") or Path(".lab").absolute(), "nox"))
for variable in [name for name in os.environ if name.startswith("VIRTUALENV_")]:
    if not KEPT.fullmatch(variable):  # now: nox makes a session's environment before its function
        del os.environ[variable]
os.environ["VIRTUALENV_CONFIG_FILE"] = os.devnull


def run_lab(session: nox.Session) -> None:
    """Bring a lab up, run its DAG, prove the result; or `-- COMMAND` (see `-- --help`)."""
    install(session, *runtime_locks(session))
    run_here(session, "python", "-m", "lab", *session.posargs)


def runtime_locks(session: nox.Session) -> tuple[str, ...]:
    """Return the locks that the command needs: PostgreSQL's only if it is asked for."""
    asked = [*session.posargs, os.environ.get("LAB_DATABASE", "")]
    return ("lab", "postgresql") if any("postgresql" in word for word in asked) else ("lab",)


def run_e2e(session: nox.Session) -> None:
    """Test the pipelines in a fresh lab; `-- --backend kind --keep-lab`."""
    install(session, "lab", find_source().tests_need)
    run_here(session, "pytest", "tests/e2e", *session.posargs)


def run_eks(session: nox.Session) -> None:
    """Promote to AWS: plan (changes nothing, needs no account), `-- apply | verify | destroy`."""
    install(session, "lab", "eks")
    run_here(session, "python", "-m", "eks", *session.posargs)


def run_here(session: nox.Session, *command: str) -> None:
    """Run a command of the project in whose folder the noxfile is, whatever else is exported."""
    session.run(*command, env={"LAB_PROJECT": str(Path.cwd())}, log=is_verbose())


# --- Locks ----------------------------------------------------------------------------------------


def lock_images(session: nox.Session) -> None:
    """Lock what your images need, images/*/requirements.in; `-- --upgrade` takes newer versions."""
    files = [*Path("images").glob("*.in"), *Path("images").glob("*/requirements.in")]
    if not files:
        session.error("there is no images/*/requirements.in. Try: write into one what a step needs")
    for file in files:
        refuse_own_packages(session, file)
    prepare(session)
    env = installer_environment(session)
    # Images have 3.13; on the embedded backend it is the lab's own Python that runs the steps.
    every = ("--universal", "--python-version", "3.11")
    agreed = ("--constraint", str(install_uv(session, env) / "lab.txt"))
    for file in sorted(files):
        output = ("--output-file", str(file.with_suffix(".txt")))
        compile_lock(session, env, *every, *agreed, str(file), *output, *session.posargs)


def refuse_own_packages(session: nox.Session, file: Path) -> None:
    """End the session if the file asks for a package of the kit."""
    for line in file.read_text("utf-8").splitlines():
        if OURS.match(line):
            session.error(
                f"{file} names {line.strip()}: it is the kit's, which every image has already. "
                "Try: delete that line"
            )


# --- What a noxfile imports -----------------------------------------------------------------------


SESSIONS: dict[str, Callable[[nox.Session], None]] = {
    "lab": run_lab,
    "e2e": run_e2e,
    "eks": run_eks,
    "lock": lock_images,
}


def __getattr__(name: str) -> Any:
    """Make the session that a noxfile imports. Raise AttributeError for what is none."""
    if name not in SESSIONS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = nox.session(name=name)(SESSIONS[name])
    return globals()[name]
