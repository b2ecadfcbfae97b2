"""eksctl: which one, its file, and one call of it at a time.

An eksctl whose command was killed goes on, and keeps the lock that it was given.
"""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from eks.aws import (
    LATER,
    error_from_text,
)
from eks.cluster_choices import write_choices
from eks.environment import Environment
from eks.site import Site
from eks.stacks import list_stack_failures
from lab.errors import BusyError, LabError, MachineError
from lab.files import write_private_file
from lab.reasons import find_reason
from lab.shell import run, tail

FILE = Path("eks", "cluster.yaml")
ACCEPTS = SpecifierSet(">=0.217,<1")  # that know `upgradePolicy`, and ask EKS for its versions
INSTALL = f"install eksctl {ACCEPTS}: https://eksctl.io/installation/"
EKSCTL_SECONDS = 5400
LAST_LINES = 5  # of its output, which tell what kind of failure it was


def read_cluster_config(environment: Environment, kit: Path) -> dict[str, Any]:
    """Read eks/cluster.yaml, with the environment's values and choices."""
    import yaml

    text = environment.fill((kit / FILE).read_text("utf-8"), FILE)
    return write_choices(yaml.safe_load(text), environment.choices, environment.options)


def list_tools(site: Site) -> list[str]:
    """Return the tools that `make` calls, with their versions. Raises MachineError."""
    if not site.environment.make_cluster:
        return []
    path, version = find_eksctl()
    return [f"eksctl {version} ({path})"]


def find_eksctl() -> tuple[Path, Version]:
    """Return the path and version of eksctl on PATH. Raise MachineError when none will do."""
    found = shutil.which("eksctl")
    if not found:
        raise MachineError("there is no eksctl, which makes and deletes the cluster", INSTALL)
    said = re.search(r"\d+\.\d+\.\d+", run([found, "version"], timeout=60, fix=INSTALL))
    version = Version(said[0]) if said else None
    if version is None or version not in ACCEPTS:
        raise MachineError(f"{found} is of version {version or 'unknown'}", INSTALL)
    return Path(found), version


def run_eksctl(site: Site, *arguments: str) -> None:
    """Run eksctl with the environment's file. Raises LabError's children; they name its log."""
    path, _ = find_eksctl()
    file, log = site.folder / "cluster.yaml", site.folder / "eksctl.log"
    command = [str(path), *arguments, "--config-file", str(file)]
    with hold_eksctl_lock(site) as lock, log.open("a", encoding="utf-8") as out:
        # Written out: eksctl is strict, and may take a key that replaces a merged one for doubled.
        write_private_file(
            file, json.dumps(read_cluster_config(site.environment, site.kit), indent=1)
        )
        print(f"+ {shlex.join(command)}", file=out, flush=True)
        began = out.tell()
        told: Any = {"stdout": out, "stderr": out, "pass_fds": [lock]}
        try:
            done = subprocess.run(command, timeout=EKSCTL_SECONDS, check=False, **told)
        except subprocess.TimeoutExpired:
            raise LabError(f"eksctl took over {EKSCTL_SECONDS} s", LATER, log) from None
    if done.returncode:
        with log.open(encoding="utf-8", errors="replace") as said:
            said.seek(began)
            raise eksctl_error(site, " ".join(arguments), said.read(), log)


@contextmanager
def hold_eksctl_lock(site: Site) -> Iterator[int]:
    """Hold the lock of eksctl; yield its descriptor. Raise BusyError while another one runs.

    A process that is given the descriptor keeps the lock, so that an eksctl whose command was
    killed still has it.
    """
    with (site.folder / "eksctl.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "an eksctl of an earlier command is still at work",
                "wait until it has ended, and run the same command again; its log says how far"
                " it is",
                site.folder / "eksctl.log",
            ) from None
        yield file.fileno()


def refuse_running_eksctl(site: Site) -> None:
    """Raise BusyError while an eksctl of an earlier command is at work."""
    with hold_eksctl_lock(site):
        pass


def eksctl_error(site: Site, what: str, said: str, log: Path) -> LabError:
    """Return why eksctl failed, with what CloudFormation says of the stacks that failed."""
    reasons = [*list_stack_failures(site), find_reason(said)]
    return error_from_text(
        f"eksctl {what} failed", "\n".join(reasons), log, context=tail(said, LAST_LINES)
    )
