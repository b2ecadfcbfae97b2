"""The commands of this checkout: `nox -s lab`, `nox -s tests`, and the rest (`nox -l`)."""

import configparser
import hashlib
import importlib.util
import os
import re
import shutil
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import nox

TREE = Path(__file__).resolve().parent
LOCKS = TREE / "requirements"
STEPS = (TREE / "images" / "worker", TREE / "images" / "trainer")
HOME = Path(os.environ.get("LAB_HOME") or TREE / ".lab")
PYTHONS = ((3, 11), (3, 14))
# One worker more than cores: the one that runs a lab mostly waits. See tests/support/workers.py.
PARALLEL = ("--numprocesses", str((os.cpu_count() or 1) + 1))
# Of pip's, uv's, virtualenv's and Python's own variables these are left as they are: they say how
# to reach an index, where a cache is, and how a terminal is written to.
KEPT = re.compile(
    r"UV_((DEFAULT_|EXTRA_)?INDEX(_.+)?|FIND_LINKS|KEYRING_PROVIDER|SYSTEM_CERTS|NATIVE_TLS"
    r"|CREDENTIALS_DIR|INSECURE_HOST|HTTP_.+|REQUEST_TIMEOUT|OFFLINE|CACHE_DIR)"
    r"|VIRTUALENV_OVERRIDE_APP_DATA"
    r"|PYTHON(UTF8|IOENCODING|COERCECLOCALE|UNBUFFERED|DONTWRITEBYTECODE|PYCACHEPREFIX)"
)
# Of pip's settings these, with uv's variable for the same; `uv_variables` has the odd ones.
INDEX_SETTINGS = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "no-index": None,
    "trusted-host": "UV_INSECURE_HOST",
    "proxy": None,
    "cert": None,
    "client-cert": "SSL_CLIENT_CERT",
    "keyring-provider": "UV_KEYRING_PROVIDER",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
    "retries": "UV_HTTP_RETRIES",
    "cache-dir": None,
    "no-input": None,
}
# What uv called some of them before.
OLD_NAMES = {
    "UV_DEFAULT_INDEX": "UV_INDEX_URL",
    "UV_INDEX": "UV_EXTRA_INDEX_URL",
    "UV_HTTP_TIMEOUT": "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS": "UV_NATIVE_TLS",
}
YES = ("1", "true", "yes", "on", "y", "t")  # what pip takes for true
PIP_FILE = re.compile(r"^(env|global|user|site):$|^  (.+), exists: True$", re.MULTILINE)
PIP_ORDER = ("global", "user", "site", "env")  # of its files, the strongest last
# Written by the environment's own Python, as a part of the installation.
STAMP = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"

nox.needs_version = ">=2024.4.15"
nox.options.sessions = ["lab"]
nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
if not os.access(TREE, os.W_OK):  # a read-only checkout: environments go below LAB_HOME
    nox.options.envdir = str(HOME / "nox")
for variable in [name for name in os.environ if name.startswith("VIRTUALENV_")]:
    if not KEPT.fullmatch(variable):  # now: nox makes a session's environment before its function
        del os.environ[variable]
os.environ["VIRTUALENV_CONFIG_FILE"] = os.devnull


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
    leave_foreign_modules(session)
    env = installer_environment(session)
    install_uv(session, env)
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
            *(*base, *also, *sources, "--output-file", f"requirements/{name}.txt"),
            *session.posargs,
            env=env,
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
            session.run(*image, *constraints, *sources, "-o", f"{folder}/{lock}.txt", env=env)


# --- Installing -----------------------------------------------------------------------------------


def install(session: nox.Session, *locks: str) -> None:
    """Install exactly what the locks name, and this checkout's packages, unless that is done."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        session.error(
            f"this is Python {sys.version.split()[0]}; the lab needs 3.11 to 3.14. "
            "Try: python3.13 -m pip install nox && python3.13 -m nox -s lab"
        )
    leave_foreign_modules(session)
    renew_unfit_environment(session)
    stamp = Path(session.virtualenv.location, "complete")
    wanted = fingerprint(locks)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    env = installer_environment(session)
    install_uv(session, env)
    for lock in ("build", *locks):
        words = ("--require-hashes", "--requirement", str(LOCKS / f"{lock}.txt"))
        uv_pip_install(session, env, "--compile-bytecode", *words)
    here = [word for folder in (*STEPS, TREE) for word in ("--editable", str(folder))]
    uv_pip_install(session, env, "--no-deps", *here)
    # By nox's own call for installations: where it skips them (--no-install), it skips this, too.
    session.run_install("python", "-c", STAMP, str(stamp), wanted, silent=True, log=False)


def leave_foreign_modules(session: nox.Session) -> None:
    """Keep Python's variables from the session: a module on PYTHONPATH would replace the lab's."""
    for name in os.environ:
        if name.startswith("PYTHON") and not KEPT.fullmatch(name):
            session.env[name] = None  # type: ignore[assignment,unused-ignore]


def renew_unfit_environment(session: nox.Session) -> None:
    """Make the environment anew if its Python is gone, or is one that the lab does not support.

    Such a one is left when `install` has refused nox's Python: nox would use it again.
    """
    folder = Path(session.virtualenv.location)
    config = folder / "pyvenv.cfg"
    said = config.read_text("utf-8") if config.exists() else ""
    found = re.search(r"^version(?:_info)? = (\d+)\.(\d+)", said, re.MULTILINE)
    unfit = found and not PYTHONS[0] <= (int(found[1]), int(found[2])) <= PYTHONS[1]
    if unfit or not Path(session_python(session)).exists():
        shutil.rmtree(folder, ignore_errors=True)
        session.virtualenv.create()


def install_uv(session: nox.Session, env: "dict[str, str | None]") -> None:
    """Install uv by pip, which is in the environment."""
    words = ("--quiet", "--require-hashes", "--requirement", str(LOCKS / "uv.txt"))
    session.install(*words, env=env)


def uv_pip_install(session: nox.Session, env: "dict[str, str | None]", *arguments: str) -> None:
    """Install into the session's environment by uv; builds use the packages of the lock `build`."""
    which = ("--python", session_python(session))
    quiet = ("--quiet", "--no-build-isolation", "--no-config", *which)
    # The hashes say which file is the right one: any index that has it will do, as with pip.
    own = {"UV_LINK_MODE": "hardlink", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    # uv has no variable for this one.
    alone = ("--no-index",) if (env.get("PIP_NO_INDEX") or "").lower() in YES else ()
    session.run_install("uv", "pip", "install", *quiet, *alone, *arguments, env={**env, **own})


def session_python(session: nox.Session) -> str:
    return str(Path(session.virtualenv.location, "bin", "python"))


# --- How to reach an index ------------------------------------------------------------------------


def installer_environment(session: nox.Session) -> "dict[str, str | None]":
    """Return what changes in the environment of pip and uv; None removes a variable.

    Of the person's settings they see how to reach an index: its address, proxy and certificates.
    uv reads none of pip's, so it is given them. An address may hold a password: it is in no
    argument.
    """
    own = [name for name in os.environ if name.startswith(("PIP_", "UV_"))]
    env: "dict[str, str | None]" = dict.fromkeys(n for n in own if not KEPT.fullmatch(n))
    found = read_pip_settings(session)
    names = {f"PIP_{name.upper().replace('-', '_')}": found[name] for name in found}
    settings = {**names, **uv_variables(found), **certificate_variables(found, session)}
    return {**env, **settings, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def read_pip_settings(session: nox.Session) -> "dict[str, str]":
    """Return how pip is told to reach an index, by the long names of its options.

    The variables win over the files, and a file's section of `pip install` over its global one.
    """
    sections: "dict[str, dict[str, str]]" = {"global": {}, "install": {}}
    for file in list_pip_files(session):
        parser = configparser.RawConfigParser()
        parser.read(file)
        for section in filter(parser.has_section, sections):
            sections[section].update(long_names(parser.items(section)))
    variables = [(n[4:].lower(), value) for n, value in os.environ.items() if n.startswith("PIP_")]
    merged = {**sections["global"], **sections["install"], **long_names(variables)}
    return {name: merged[name] for name in INDEX_SETTINGS if name in merged}


def long_names(settings: "Iterable[tuple[str, str]]") -> "dict[str, str]":
    """Return settings by their long names; to pip an empty one is none."""
    return {name.replace("_", "-"): value for name, value in settings if value}


def list_pip_files(session: nox.Session) -> "list[str]":
    """List the files that pip reads its settings from, the strongest last.

    The pip that installed nox is asked, if it is there: its environment may have a file of its own.
    """
    here = importlib.util.find_spec("pip") is not None
    command = [sys.executable if here else session_python(session), "-m", "pip", "config", "debug"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode and "No module named pip" not in asked.stderr:
        session.error("pip can't read its configuration. Try: python -m pip config debug")
    files: "dict[str, list[str]]" = {kind: [] for kind in PIP_ORDER}
    kind = ""
    for heading, file in PIP_FILE.findall(asked.stdout):
        kind = heading or kind
        if file:
            files[kind].append(file)
    return [file for kind in PIP_ORDER for file in files[kind]]


def uv_variables(found: "dict[str, str]") -> "dict[str, str]":
    """Return pip's settings as uv's variables; those of uv that the person has set win."""
    pairs = [(INDEX_SETTINGS[name], " ".join(found[name].split())) for name in found]
    env = {name: value for name, value in pairs if name and not is_set(name)}
    for name, odd in ODD_FORMS.items():
        if name in env:
            env[name] = odd(env[name])
    if "proxy" in found:
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        env.update(dict.fromkeys(names, found["proxy"]))
    return {name: value for name, value in env.items() if value}


def find_links(words: str) -> str:
    """Return the places of files as uv wants them, without folders that are not there."""
    places = [word if "://" in word else str(Path(word).expanduser()) for word in words.split()]
    return ",".join(place for place in places if "://" in place or Path(place).exists())


ODD_FORMS: "dict[str, Callable[[str], str]]" = {
    "UV_FIND_LINKS": find_links,
    "UV_KEYRING_PROVIDER": lambda word: "" if word in ("auto", "disabled") else "subprocess",
    "UV_HTTP_TIMEOUT": lambda seconds: str(round(float(seconds))),
    "SSL_CLIENT_CERT": lambda path: str(Path(path).expanduser()),
}


def certificate_variables(found: "dict[str, str]", session: nox.Session) -> "dict[str, str]":
    """Return where uv finds what pip trusts: the system's certificates and those of a setting.

    Left alone, uv trusts the ones that it brings along, to which a company's does not belong.
    """
    asked = (found.get("cert"), *map(os.environ.get, ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")))
    given = next(filter(None, asked), "")
    if is_set("UV_SYSTEM_CERTS"):
        return {}
    if given:
        return trusting(Path(given).expanduser(), Path(session.virtualenv.location))
    if is_set("SSL_CERT_FILE") or is_set("SSL_CERT_DIR"):
        return {}  # uv reads them itself
    return {"UV_SYSTEM_CERTS": "true"} if has_system_certificates() else {}


def trusting(given: Path, folder: Path) -> "dict[str, str]":
    """Return the variables by which uv trusts this file or folder, and the system's certificates.

    Two files become one in `folder`: a variable holds one file.
    """
    system = ssl.get_default_verify_paths()  # what SSL_CERT_FILE and SSL_CERT_DIR say, if set
    places = [Path(place) for place in (system.cafile, system.capath, given) if place]
    files = list(dict.fromkeys(place.resolve() for place in places if place.is_file()))
    folders = [str(place) for place in places if place.is_dir()]
    if len(files) > 1:
        bundle = folder / "certificates.pem"
        bundle.write_bytes(b"\n".join(file.read_bytes() for file in files))
        files = [bundle]
    env = {"SSL_CERT_DIR": os.pathsep.join(folders), "SSL_CERT_FILE": "".join(map(str, files))}
    return {name: value for name, value in env.items() if value}


def has_system_certificates() -> bool:
    """Return whether the system has a store of certificates; a small container may have none."""
    system = ssl.get_default_verify_paths()
    filled = system.capath and any(Path(system.capath).iterdir())
    return sys.platform == "darwin" or bool(system.cafile or filled)


def is_set(name: str) -> bool:
    """Return whether the person has set this variable, or the one that had its meaning before."""
    return bool(os.environ.get(name) or os.environ.get(OLD_NAMES.get(name, name)))


def fingerprint(locks: "tuple[str, ...]") -> str:
    """Return a hash that changes when an environment must be installed again."""
    files = [LOCKS / f"{name}.txt" for name in ("uv", "build", *locks)]
    files += [folder / "pyproject.toml" for folder in (TREE, *STEPS)]
    digest = hashlib.sha256(repr((str(TREE), sys.version)).encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()
