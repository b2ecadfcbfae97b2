"""The commands of this checkout: `nox -s lab`, `nox -s tests`, and the rest (`nox -l`)."""

import hashlib
import os
import sys
from pathlib import Path

import nox

TREE = Path(__file__).resolve().parent
LOCKS = TREE / "requirements"
STEPS = (TREE / "images" / "worker", TREE / "images" / "trainer")
HOME = Path(os.environ.get("LAB_HOME") or TREE / ".lab")
PYTHONS = ((3, 11), (3, 14))
# One worker more than cores: the one that runs a lab mostly waits. See tests/support/workers.py.
PARALLEL = ("--numprocesses", str((os.cpu_count() or 1) + 1))

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lab"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
if not os.access(TREE, os.W_OK):  # a read-only checkout: environments go below LAB_HOME
    nox.options.envdir = str(HOME / "nox")


def install(session: nox.Session, *locks: str) -> None:
    """Install exactly what the locks name, and this checkout's packages, unless that is done."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        session.error(
            f"this is Python {sys.version.split()[0]}; the lab needs 3.11 to 3.14. "
            "Try: python3.13 -m pip install nox && python3.13 -m nox -s lab"
        )
    stamp = Path(session.virtualenv.location, "installed")
    wanted = fingerprint(locks)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    session.install("--quiet", "--require-hashes", "--requirement", str(LOCKS / "uv.txt"))
    for lock in ("build", *locks):
        uv_pip_install(
            session,
            "--compile-bytecode",
            "--require-hashes",
            "--requirement",
            str(LOCKS / f"{lock}.txt"),
        )
    here = [word for folder in (*STEPS, TREE) for word in ("--editable", str(folder))]
    uv_pip_install(session, "--no-deps", *here)
    stamp.write_text(wanted)


def uv_pip_install(session: nox.Session, *arguments: str) -> None:
    """Install into the session's environment by uv; builds use the packages of the lock `build`."""
    python = str(Path(session.virtualenv.location, "bin", "python"))
    quiet = ("--quiet", "--no-build-isolation", "--no-config", "--python", python)
    session.run("uv", "pip", "install", *quiet, *arguments, env={"UV_LINK_MODE": "hardlink"})


def fingerprint(locks: "tuple[str, ...]") -> str:
    """Return a hash that changes when an environment must be installed again."""
    files = [LOCKS / f"{name}.txt" for name in ("uv", "build", *locks)]
    files += [folder / "pyproject.toml" for folder in (TREE, *STEPS)]
    digest = hashlib.sha256(repr((str(TREE), sys.version)).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def runtime_locks(session: nox.Session) -> "tuple[str, ...]":
    """Return the locks that the command needs: PostgreSQL's only if it is asked for."""
    asked = [*session.posargs, os.environ.get("LAB_DATABASE", "")]
    return ("lab", "postgresql") if any("postgresql" in word for word in asked) else ("lab",)


@nox.session
def lab(session: nox.Session) -> None:
    """Bring a lab up, run dataset_pipeline, prove the result; or `-- COMMAND` (see `-- --help`)."""
    install(session, *runtime_locks(session))
    session.run("python", "-m", "lab", *session.posargs)


@nox.session
def eks(session: nox.Session) -> None:
    """Promote to AWS: plan (changes nothing, needs no account), `-- apply | verify | destroy`."""
    install(session, "lab", "eks")
    session.run("python", "-m", "eks", *session.posargs)


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
    session.run("pytest", *PARALLEL, *(session.posargs or ["tests"]))


@nox.session
def e2e(session: nox.Session) -> None:
    """Test the pipelines in a fresh lab per backend; `-- -k kind --keep-cluster`."""
    install(session, "lab", "check")
    session.run("pytest", "tests/e2e", *session.posargs)


@nox.session
def kind(session: nox.Session) -> None:
    """Run CI's tests that need Docker: all of kind, and each part that needs a cluster's tools."""
    install(session, "lab", "check")
    required = {"LAB_REQUIRE": "kind"}
    session.run("pytest", *PARALLEL, "tests", "-m", "kind", *session.posargs, env=required)


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
def lock(session: nox.Session) -> None:
    """Resolve all requirements anew and write the locks; `-- --upgrade` takes newer versions."""
    session.install("--require-hashes", "--requirement", str(LOCKS / "uv.txt"))
    steps = ("images/worker/pyproject.toml", "images/trainer/pyproject.toml")
    lab = ("pyproject.toml", *steps, "--group", "build")
    compiled = {
        "uv": ("--group", "bootstrap"),
        "build": ("--group", "build"),
        "lab": lab,
        "check": (*lab, "--group", "check", "--group", "eks"),
        "eks": (*lab, "--group", "eks"),
        "postgresql": (*lab, "--extra", "postgresql"),
    }
    base = (
        "uv", "pip", "compile", "--quiet", "--universal", "--python-version", "3.11", "--no-config",
        "--generate-hashes", "--no-emit-index-url", "--no-annotate",
        "--no-emit-package", "dataset-steps", "--no-emit-package", "model-steps",
        "--custom-compile-command", "nox -s lock",
    )  # fmt: skip
    for name, sources in compiled.items():
        also = () if name in ("uv", "build", "lab") else ("--constraint", "requirements/lab.txt")
        session.run(
            *base, *also, *sources, "--output-file", f"requirements/{name}.txt", *session.posargs
        )
    # The images have one Python on Linux, and the same versions as the lab.
    image = (
        "uv", "pip", "compile", "--quiet", "--python-version", "3.13", "--python-platform", "linux",
        "--no-config", "--generate-hashes", "--no-emit-index-url", "--no-annotate",
        "--no-emit-package", "dataset-steps",
        "--custom-compile-command", "nox -s lock",
    )  # fmt: skip
    for project in steps:
        folder = Path(project).parent
        for lock, constraint, sources in (
            ("requirements", "lab", (project,)),
            ("build-requirements", "build", ("--group", f"{project}:build")),
        ):
            constraints = ("--constraint", f"requirements/{constraint}.txt")
            session.run(*image, *constraints, *sources, "-o", f"{folder}/{lock}.txt")
