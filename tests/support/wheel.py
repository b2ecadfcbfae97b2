"""The kit's wheel: built of this checkout, and installed by the locks that it ships."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab.installing import index_words, installer_environment

TREE = Path(__file__).resolve().parents[2]
LOCKS = "lab/kit/requirements/"
BUILD_SECONDS, INSTALL_SECONDS = 120, 900
# What uv says where no index answers, or where it may not ask one.
NO_INDEX = re.compile(
    r"Failed to fetch|dns error|Could not connect|[Nn]etwork (was|is|connectivity is) "
    r"(disabled|unreachable)|error sending request"
)


def build_wheel(folder: Path, tree: Path = TREE) -> Path:
    """Build the wheel of a checkout into the folder, without a network; return its path."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*command, str(folder)], cwd=tree, check=True, timeout=BUILD_SECONDS)
    (wheel,) = folder.glob("*.whl")
    return wheel


def read_sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def install_wheel(wheel: Path, environment: Path, *locks: str) -> None:
    """Make an environment of the wheel and of these of its locks, hash by hash.

    Skip the test, with the reason, if no index answers.
    """
    with zipfile.ZipFile(wheel) as packed:
        names = [name for name in packed.namelist() if name.startswith(LOCKS)]
        packed.extractall(environment.parent / "unpacked", names)
    run_uv("venv", "--quiet", "--python", sys.executable, str(environment))
    folder = environment.parent / "unpacked" / LOCKS
    for lock in ("build", *locks):
        install(environment, folder / f"{lock}.txt")
    own = folder / "kit.txt"
    own.write_text(f"mlops-lab @ {wheel.as_uri()} --hash=sha256:{read_sha256(wheel)}\n")
    install(environment, own, "--no-deps", "--reinstall-package", "mlops-lab")


def install(environment: Path, lock: Path, *words: str) -> None:
    """Install by uv what a lock names, from the index that the person has set up for pip."""
    session: Any = SimpleNamespace(virtualenv=SimpleNamespace(location=environment))
    session.error = pytest.fail
    env = installer_environment(session)
    own = {"UV_LINK_MODE": "hardlink", "UV_INDEX_STRATEGY": "unsafe-best-match"}
    which = ("--python", str(environment / "bin" / "python"), *index_words(env), *words)
    plain = ("--quiet", "--no-config", "--no-build-isolation", "--require-hashes")
    run_uv("pip", "install", *plain, *which, "--requirement", str(lock), env={**env, **own})


def run_uv(*arguments: str, env: dict[str, str | None] | None = None) -> None:
    """Run uv. Skip the test if it finds no index, and fail it if anything else is wrong."""
    merged = {**os.environ, **(env or {})}
    done = subprocess.run(
        [Path(sysconfig.get_path("scripts"), "uv"), *arguments],
        env={name: value for name, value in merged.items() if value is not None},
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip(f"no package index answers: {done.stderr.strip().splitlines()[0]}")
    assert not done.returncode, done.stderr


def leave_checkout(environment: Path, home: Path) -> dict[str, str]:
    """Return the variables of a command that has the environment, and nothing of this process."""
    path = f"{environment / 'bin'}:/usr/local/bin:/usr/bin:/bin"
    return {"PATH": path, "HOME": str(home), "LANG": "C.UTF-8"}
