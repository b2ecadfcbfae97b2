"""How the environment of a session is installed: exactly what the kit's locks name, and the kit.

nox imports this before anything is installed, from a checkout or out of a wheel, which is a zip. So
it uses the standard library only; and a Python that is too old gets as far as saying so.
"""

from __future__ import annotations

import configparser
import hashlib
import importlib.util
import logging
import os
import re
import shutil
import ssl
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lab.progress import counting_phase

if TYPE_CHECKING:
    import nox

KIT = Path(__file__).resolve().parents[1]  # a checkout, or a wheel
PACKAGE = "mlops-lab"
PYTHONS = ((3, 11), (3, 14))
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


# --- Where the kit comes from ---------------------------------------------------------------------


@dataclass(frozen=True)
class Checkout:
    """The kit's own checkout: its locks are files, and what is installed are its folders."""

    place: Path
    tests_need = "check"  # the lock of what the end-to-end tests import beside the lab

    def refuse_other_kits(self, session: nox.Session) -> None:
        """Accept the checkout as it is."""

    def provide_locks(self, _folder: Path) -> Path:
        """Return the folder of the locks."""
        return self.place / "requirements"

    def list_files(self) -> list[Path]:
        """List the files that decide how the kit is installed."""
        return [self.place / "pyproject.toml", self.place / "hatch_build.py"]

    def name_kit(self, _folder: Path) -> tuple[str, ...]:
        """Return the words by which uv installs the kit."""
        return ("--editable", str(self.place))


@dataclass(frozen=True)
class Wheel:
    """A wheel of the kit in somebody's project, whose lab.toml says which one it has to be."""

    place: Path
    project: Path
    tests_need = "e2e"

    def refuse_other_kits(self, session: nox.Session) -> None:
        """End the session unless the wheel is the one that lab.toml names by its sha256."""
        named, found = read_wheel_sha256(session, self.project / "lab.toml"), sha256(self.place)
        if named != found:
            session.error(
                f"{self.place.name} has the sha256 {found}, and lab.toml names {named}: it is not "
                "the wheel that this project was made with. Try: git checkout -- kit lab.toml"
            )

    def provide_locks(self, folder: Path) -> Path:
        """Unpack the locks into the session's environment, and return where they are."""
        locks = folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(self.place) as packed:
            for name in packed.namelist():
                if name.startswith("lab/kit/requirements/"):
                    (locks / Path(name).name).write_bytes(packed.read(name))
        return locks

    def list_files(self) -> list[Path]:
        """List the files that decide how the kit is installed."""
        return [self.place]

    def name_kit(self, folder: Path) -> tuple[str, ...]:
        """Return the words by which uv installs the wheel; it compares the hash, too."""
        line = f"{PACKAGE} @ {self.place.as_uri()} --hash=sha256:{sha256(self.place)}\n"
        (folder / "kit.txt").write_text(line, "utf-8")
        words = ("--compile-bytecode", "--require-hashes", "--requirement")
        return (*words, str(folder / "kit.txt"))


def find_source() -> Checkout | Wheel:
    """Return where this module comes from. The project is the noxfile's folder: nox goes there."""
    return Wheel(KIT, Path.cwd()) if KIT.is_file() else Checkout(KIT)


def read_wheel_sha256(session: nox.Session, file: Path) -> str:
    """Return the sha256 that lab.toml names. End the session if it names none."""
    import tomllib

    try:
        return str(tomllib.loads(file.read_text("utf-8"))["kit"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = f"lacks {error}" if isinstance(error, KeyError) else f"can't be read: {error}"
        session.error(
            f"{file.name} does not say which wheel is the kit's ({why}). "
            'Try: sha256 = "…" below [kit], as `nox -s build` of the kit printed it'
        )


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- Installing -----------------------------------------------------------------------------------


def install(session: nox.Session, *locks: str) -> None:
    """Install exactly what the locks name, and the kit, unless that is done."""
    source = prepare(session)
    folder = Path(session.virtualenv.location)
    names = ("uv", "build", *locks)
    files = [source.provide_locks(folder) / f"{name}.txt" for name in names]
    stamp, wanted = folder / "complete", fingerprint(source, files)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)
    with counting_phase("Install what the locks name, once"):
        env = installer_environment(session)
        install_uv(session, env)
        words = [word for file in files[1:] for word in ("--requirement", str(file))]
        uv_pip_install(session, env, "--compile-bytecode", "--require-hashes", *words)
        # By its name, too: another wheel may have the same version.
        kit = ("--no-deps", "--reinstall-package", PACKAGE, *source.name_kit(folder))
        uv_pip_install(session, env, *kit)
        # By nox's own call for installations: where it skips them (--no-install), it skips this.
        session.run_install("python", "-c", STAMP, str(stamp), wanted, silent=True, log=False)


def prepare(session: nox.Session) -> Checkout | Wheel:
    """Make the session's environment fit for installing. End the session if nothing may be."""
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        session.error(
            f"this is Python {sys.version.split()[0]}; the lab needs 3.11 to 3.14. "
            f"Try: python3.13 -m pip install nox && python3.13 -m nox -s {session.name}"
        )
    source = find_source()
    source.refuse_other_kits(session)
    leave_foreign_modules(session)
    renew_unfit_environment(session)
    return source


def fingerprint(source: Checkout | Wheel, locks: Iterable[Path]) -> str:
    """Return a hash that changes when an environment must be installed again."""
    digest = hashlib.sha256(repr((str(source.place), sys.version)).encode())
    for file in (*locks, *source.list_files()):
        digest.update(file.read_bytes())
    return digest.hexdigest()


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


def install_uv(session: nox.Session, env: dict[str, str | None]) -> Path:
    """Install uv by pip, which is in the environment; return the folder of the locks."""
    locks = find_source().provide_locks(Path(session.virtualenv.location))
    words = ("--quiet", "--require-hashes", "--requirement", str(locks / "uv.txt"))
    session.install(*words, env=env, silent=True, log=is_verbose())
    return locks


def uv_pip_install(
    session: nox.Session, env: dict[str, str | None], *arguments: str, python: str = ""
) -> None:
    """Install into the session's environment, or another Python's, by uv.

    Builds use the packages of the lock `build`.
    """
    which = ("--python", python or session_python(session))
    quiet = ("--quiet", "--no-build-isolation", "--no-config", *which)
    # The hashes say which file is the right one: any index that has it will do, as with pip.
    own = {"UV_LINK_MODE": "hardlink", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    command = ("uv", "pip", "install", *quiet, *index_words(env), *arguments)
    session.run_install(*command, env={**env, **own}, silent=True, log=is_verbose())


def compile_lock(session: nox.Session, env: dict[str, str | None], *arguments: str) -> None:
    """Resolve requirements by uv into a lock with hashes, which names no index."""
    plain = ("--quiet", "--no-config", "--no-emit-index-url", "--no-annotate")
    says = ("--generate-hashes", "--custom-compile-command", "nox -s lock")
    session.run("uv", "pip", "compile", *plain, *says, *index_words(env), *arguments, env=env)


def index_words(env: dict[str, str | None]) -> tuple[str, ...]:
    """Return what uv has an option for, and no variable."""
    return ("--no-index",) if (env.get("PIP_NO_INDEX") or "").lower() in YES else ()


def session_python(session: nox.Session) -> str:
    return str(Path(session.virtualenv.location, "bin", "python"))


# --- What nox prints ------------------------------------------------------------------------------


def is_verbose() -> bool:
    """Return whether nox was told to show everything (`nox -v`)."""
    return logging.getLogger().level < logging.DEBUG


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return whether nox shows a record: an installer that it has not found is not needed."""
    return is_verbose() or "binary not found" not in record.getMessage()


# --- How to reach an index ------------------------------------------------------------------------


def installer_environment(session: nox.Session) -> dict[str, str | None]:
    """Return what changes in the environment of pip and uv; None removes a variable.

    Of the person's settings they see how to reach an index: its address, proxy and certificates.
    uv reads none of pip's, so it is given them. An address may hold a password: it is in no
    argument.
    """
    own = [name for name in os.environ if name.startswith(("PIP_", "UV_"))]
    env: dict[str, str | None] = dict.fromkeys(n for n in own if not KEPT.fullmatch(n))
    found = read_pip_settings(session)
    names = {f"PIP_{name.upper().replace('-', '_')}": found[name] for name in found}
    settings = {**names, **uv_variables(found), **certificate_variables(found, session)}
    return {**env, **settings, "PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def read_pip_settings(session: nox.Session) -> dict[str, str]:
    """Return how pip is told to reach an index, by the long names of its options.

    The variables win over the files, and a file's section of `pip install` over its global one.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for file in list_pip_files(session):
        parser = configparser.RawConfigParser()
        parser.read(file)
        for section in filter(parser.has_section, sections):
            sections[section].update(long_names(parser.items(section)))
    variables = [(n[4:].lower(), value) for n, value in os.environ.items() if n.startswith("PIP_")]
    merged = {**sections["global"], **sections["install"], **long_names(variables)}
    return {name: merged[name] for name in INDEX_SETTINGS if name in merged}


def long_names(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return settings by their long names; to pip an empty one is none."""
    return {name.replace("_", "-"): value for name, value in settings if value}


def list_pip_files(session: nox.Session) -> list[str]:
    """List the files that pip reads its settings from, the strongest last.

    The pip that installed nox is asked, if it is there: its environment may have a file of its own.
    """
    here = importlib.util.find_spec("pip") is not None
    command = [sys.executable if here else session_python(session), "-m", "pip", "config", "debug"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    if asked.returncode and "No module named pip" not in asked.stderr:
        session.error("pip can't read its configuration. Try: python -m pip config debug")
    files: dict[str, list[str]] = {kind: [] for kind in PIP_ORDER}
    kind = ""
    for heading, file in PIP_FILE.findall(asked.stdout):
        kind = heading or kind
        if file:
            files[kind].append(file)
    return [file for kind in PIP_ORDER for file in files[kind]]


def uv_variables(found: dict[str, str]) -> dict[str, str]:
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


ODD_FORMS: dict[str, Callable[[str], str]] = {
    "UV_FIND_LINKS": find_links,
    "UV_KEYRING_PROVIDER": lambda word: "" if word in ("auto", "disabled") else "subprocess",
    "UV_HTTP_TIMEOUT": lambda seconds: str(round(float(seconds))),
    "SSL_CLIENT_CERT": lambda path: str(Path(path).expanduser()),
}


def certificate_variables(found: dict[str, str], session: nox.Session) -> dict[str, str]:
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


def trusting(given: Path, folder: Path) -> dict[str, str]:
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
