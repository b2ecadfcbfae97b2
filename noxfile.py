"""The commands of this checkout: `nox -s lab`, `nox -s tests`, and the rest (`nox -l`)."""

import hashlib
import os
import shlex
import sys
from pathlib import Path

import nox

TREE = Path(__file__).resolve().parent
sys.path.insert(0, str(TREE))  # in a project of one's own it is the wheel in `kit/`

from lab.installing import (  # noqa: E402
    compile_lock,
    install,
    install_uv,
    installer_environment,
    is_verbose,
    prepare,
    session_python,
    uv_pip_install,
)
from lab.sessions import e2e, eks, lab  # noqa: E402, F401

# One worker more than cores: the one that runs a lab mostly waits. See tests/support/workers.py.
# A cluster works while that one waits.
CORES = os.cpu_count() or 1
PARALLEL = ("--numprocesses", str(CORES + 1))
BESIDE_A_CLUSTER = ("--numprocesses", str(max(2, CORES)))

nox.needs_version = ">=2024.4.15"


@nox.session
def quick(session: nox.Session) -> None:
    """Run before each commit: style, types, layers, unit tests."""
    install(session, "lab", "check")
    run_checks(session)
    session.run("pytest", *PARALLEL, *(session.posargs or ["tests/unit"]))


@nox.session
def tests(session: nox.Session) -> None:
    """Run every check that this machine can run: style, types, unit, integration, e2e, faults."""
    install(session, "lab", "check")
    run_checks(session)
    judged = install_judges(session)
    session.run("pytest", *PARALLEL, *(session.posargs or ["tests"]), env=judged)


@nox.session
def kind(session: nox.Session) -> None:
    """Run CI's tests that need Docker: all of kind, and each part that needs a cluster's tools."""
    install(session, "lab", "check")
    required = {"LAB_REQUIRE": "kind", **install_judges(session)}
    session.run("pytest", *BESIDE_A_CLUSTER, "tests", "-m", "kind", *session.posargs, env=required)


@nox.session
def faults(session: nox.Session) -> None:
    """Kill two hundred times while runs go on, and sweep over every call; `-- --seed S`."""
    install(session, "lab", "check")
    long = ("-m", "sweep or long", "--every", "--kills", "200")
    session.run("pytest", *PARALLEL, "tests", *long, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the lab beside plain commands, in one run; prints a table with ratios."""
    install(session, "lab", "check")
    session.run("python", "-m", "tests.bench", *session.posargs, env={"PYTHONPATH": str(TREE)})


@nox.session
def judges(session: nox.Session) -> None:
    """Ask hadolint, zizmor and checkov about what is built, run in CI and rendered."""
    install(session, "lab", "check")
    session.run("pytest", "tests/judges", *session.posargs, env=install_judges(session))


def install_judges(session: nox.Session) -> "dict[str, str | None]":
    """Install the judges into an environment of their own: checkov's pins break others.

    Return the variable that tells the tests where they are.
    """
    folder, lock = Path(session.virtualenv.location, "judges"), TREE / "requirements" / "judges.txt"
    stamp, wanted = folder / "complete", hashlib.sha256(lock.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        env = installer_environment(session)
        command = ("uv", "venv", "--clear", "--python", session_python(session), str(folder))
        session.run_install(*command, env=env, silent=True, log=is_verbose())
        hashed = ("--require-hashes", "--requirement", str(lock))
        uv_pip_install(session, env, *hashed, python=str(folder / "bin" / "python"))
        stamp.write_text(wanted)
    return {"LAB_JUDGES": str(folder / "bin")}


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, types and layers only."""
    install(session, "lab", "check")
    run_checks(session)


def run_checks(session: nox.Session) -> None:
    """Run ruff, mypy and import-linter."""
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def build(session: nox.Session) -> None:
    """Build the kit's wheel, which a project of one's own has in `kit/`: see docs/your-own.md."""
    prepare(session)
    env = installer_environment(session)
    lock = install_uv(session, env) / "build.txt"
    uv_pip_install(session, env, "--require-hashes", "--requirement", str(lock))
    command = ("hatchling", "build", "--target", "wheel", "--directory", "dist")
    wheel = TREE / str(session.run(*command, silent=True)).split()[-1]
    print(f"{wheel}\nsha256 {hashlib.sha256(wheel.read_bytes()).hexdigest()}")
    print("A new project gets it by `nox -s lab -- init NAME`; one that is there, by")
    print(f"lab init --upgrade --wheel {shlex.quote(str(wheel))}")


@nox.session
def lock(session: nox.Session) -> None:
    """Resolve all requirements anew and write the locks; `-- --upgrade` takes newer versions."""
    prepare(session)
    env = installer_environment(session)
    install_uv(session, env)
    kit = ("pyproject.toml", "--group", "build")
    # Each with what it may not contradict.
    compiled = {
        "uv": ("", "--group", "bootstrap"),
        "build": ("", "--group", "build"),
        "lab": ("uv", *kit),
        "check": ("lab", *kit, "--group", "check", "--group", "eks"),
        "e2e": ("check", "--group", "e2e"),
        "eks": ("lab", *kit, "--group", "eks"),
        "judges": ("", "--group", "judges"),
        "postgresql": ("lab", *kit, "--extra", "postgresql"),
    }
    for name, (known, *sources) in compiled.items():
        also = ("--constraint", f"requirements/{known}.txt") if known else ()
        output = ("--output-file", f"requirements/{name}.txt")
        every = ("--universal", "--python-version", "3.11")
        compile_lock(session, env, *every, *also, *sources, *output, *session.posargs)
    for folder in ("images/worker", "images/trainer"):
        lock_image(session, env, folder, "build")
        lock_image(session, env, folder, "lab")
    lock_image(session, env, "images/pod-identity", "lab")


def lock_image(session: nox.Session, env: "dict[str, str | None]", folder: str, known: str) -> None:
    """Lock the packages of an image, or what builds it: it has one Python on Linux.

    They agree with the lock `known` of the kit.
    """
    project = f"{folder}/pyproject.toml"
    image = ("--python-version", "3.13", "--python-platform", "linux")
    name, sources = {
        "lab": ("requirements", (project, "--no-emit-package", "dataset-steps")),
        "build": ("build-requirements", ("--group", f"{project}:build")),
    }[known]
    agreed = ("--constraint", f"requirements/{known}.txt")
    compile_lock(session, env, *image, *agreed, *sources, "-o", f"{folder}/{name}.txt")
