"""A Docker that can't be used: what its real command line says becomes one sentence and a fix."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab.config import KIT
from tests.support.needs import skip_or_fail

pytestmark = pytest.mark.kind

# Root may open every socket; without this capability it is like any other user.
POWERLESS = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
EMBEDDED = "use the lab without it: --backend embedded"


@pytest.fixture
def folder() -> Iterator[Path]:
    """Yield a folder whose path is short enough for a socket; skip where there is no docker."""
    if not shutil.which("docker"):
        skip_or_fail("there is no docker on this machine")
    with tempfile.TemporaryDirectory(prefix="lab-") as name:
        yield Path(name)


def ask_doctor(
    folder: Path, *arguments: str, before: Sequence[str] = (), **variables: str
) -> tuple[int, list[str], list[str]]:
    """Run `lab doctor`; return its exit code and the lines of both of its outputs."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "lab", "doctor", *arguments],
        cwd=KIT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LAB_HOME": str(folder / "lab"),
            **variables,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout.splitlines(), done.stderr.splitlines()


def test_a_socket_that_this_user_may_not_open(folder: Path) -> None:
    """The commonest first mistake: to be in no group that may."""
    host = f"unix://{folder}/docker.sock"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(f"{folder}/docker.sock")
        (folder / "docker.sock").chmod(0)
        code, out, err = ask_doctor(folder, before=POWERLESS, DOCKER_HOST=host)
        asked = ask_doctor(folder, "--backend", "kind", before=POWERLESS, DOCKER_HOST=host)
    why = "no kind: this user may not use Docker; for kind: sudo usermod -aG docker $USER, then"
    assert (code, err) == (0, [])
    assert out[0] == f"backend: embedded ({why} log in again)"
    error, fix, log = asked[2]
    assert error == "error: this user may not use Docker"
    assert fix == f"  try: sudo usermod -aG docker $USER, then log in again, or {EMBEDDED}"
    assert "permission denied" in Path(log.removeprefix("  log: ")).read_text()


def test_an_address_where_nothing_answers(folder: Path) -> None:
    host = f"unix://{folder}/nothing"
    code, out, err = ask_doctor(folder, DOCKER_HOST=host)
    why = f"no kind: no Docker answers at {host}; for kind: start it, or unset DOCKER_HOST, which"
    assert (code, err) == (0, [])
    assert out[0] == f"backend: embedded ({why} names it)"


def test_a_context_that_does_not_exist(folder: Path) -> None:
    code, out, err = ask_doctor(folder, DOCKER_CONTEXT="blue")
    why = "no kind: docker has no context 'blue'; for kind: unset DOCKER_CONTEXT"
    assert (code, err) == (0, [])
    assert out[0] == f"backend: embedded ({why})"
