"""Running a command: its exit code, its errors as plain lines, its interruption."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path

import typer
from typer.exceptions import TyperException

from lab.config import Config, is_debug
from lab.data_sets import DATASET
from lab.errors import DiskError, LabError
from lab.files import write_private_file
from lab.foreign import leave_foreign_settings
from lab.model import DataProof, Proof
from lab.progress import mark
from lab.shell import tail

INTERRUPTED = 130
LOOPBACK = "127.0.0.1,localhost"  # the lab's servers listen here: no proxy reaches them
USAGE = 2
# The commands of the command line; a test compares them with lab/__main__.py.
COMMANDS = (
    *("init", "fetch", "up", "run", "unpause", "verify", "status", "logs", "env", "bundle", "open"),
    *("doctor", "down"),
)

# What made a version that no run has made, by `Proof.made_by`.
OTHER_MAKERS = {"import": "the first import", "hand": "a commit made by hand"}


def run_command(app: typer.Typer, name: str, interrupted: str, *, uses_aws: bool = False) -> None:
    """Run one command and exit; turn each known failure into its message and its exit code.

    The person's AWS set-up is for a command that uses AWS; no other one sees it.
    """
    if not uses_aws:
        leave_foreign_settings()
    sys.stdout.reconfigure(errors="replace", line_buffering=True)  # type: ignore[union-attr]
    os.umask(0o077)  # only the lab's owner may read what a command creates
    os.environ["no_proxy"] = ",".join(filter(None, (os.environ.get("no_proxy"), LOOPBACK)))
    try:
        code = app(prog_name=name, standalone_mode=False) or 0
        if code == INTERRUPTED:  # what Typer returns on Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        print(f"\n{interrupted}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except TyperException as error:
        usage = rewrite_for_nox(f"{name} --help")
        print(f"error: {error.format_message()}\n  try: {usage}", file=sys.stderr)
        sys.exit(USAGE)
    except LabError as error:
        sys.exit(print_error(error))
    except OSError as error:
        sys.exit(print_error(from_os_error(error)))


def print_error(error: LabError) -> int:
    """Print what happened, what to do and where the log is to stderr; return the exit code."""
    if is_debug():
        traceback.print_exc()
    keep_output(error)
    print(f"error: {error.what}\n  try: {rewrite_for_nox(error.fix)}", file=sys.stderr)
    if error.log:
        below = "" if error.output else " (its last lines below)"
        print(f"  log: {error.log}{below}", file=sys.stderr)
        if below and error.log.exists():
            print(tail(error.log.read_text("utf-8", "replace")), file=sys.stderr)
    return error.exit_code


def keep_output(error: LabError, folder: Path | None = None) -> None:
    """Write all that a failed program printed to a log, and name that in the error.

    The log is in `folder`, else among the lab's, and a temporary file where there is no lab. An
    error that names a log already keeps it; the program's failure may be what led to the error.
    """
    failure = find_failure(error)
    if error.log or not failure:
        return
    with contextlib.suppress(OSError, LabError):  # what was wrong is said all the same
        place = folder or Config.from_environment().logs
        if not place.is_dir():
            place = Path(tempfile.mkdtemp(prefix="mlops-lab-"))
        log = place / f"{failure.program}.log"
        write_private_file(log, f"{failure.output}\n")
        error.log, error.output = log, failure.output


def find_failure(error: LabError) -> LabError | None:
    """Return the error of the program whose failure led to this one, if a program's did."""
    cause: BaseException | None = error
    while cause:
        if isinstance(cause, LabError) and cause.output:
            return cause
        cause = cause.__cause__
    return None


def rewrite_for_nox(text: str) -> str:
    """Return the text, in a nox session with `nox -s lab -- COMMAND` instead of `lab COMMAND`.

    Who called nox may have no `lab` on the PATH.
    """
    if "NOX_CURRENT_SESSION" not in os.environ:
        return text
    return re.sub(rf"\blab (?=(?:{'|'.join(COMMANDS)}|--help)\b)", "nox -s lab -- ", text)


def from_os_error(error: OSError) -> LabError:
    """Return the operating system's error as a LabError: a DiskError when the disk is full."""
    where = f" ({error.filename})" if error.filename else ""
    text = f"{error.strerror or error}{where}"
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return DiskError(f"the disk is full: {text}", "make room, then: lab up")
    return LabError(text, "LAB_DEBUG=1 shows where it happened")


def show_proof(proof: Proof) -> None:
    """Print what was proved: the facts of the dataset, and a line for each of several data sets."""
    print(f"""{mark(True)} Proved: this commit brings its {name_data(proof)} back, byte for byte
  commit       {proof.commit}
  md5          {proof.md5}
  size         {proof.size} bytes
  object       {proof.object}
  run          {proof.run_id or f"none ({OTHER_MAKERS[proof.made_by]})"}
  DAG version  {proof.dag_version or "none"}
  lineage      {proof.parents_checked} earlier versions checked""")
    if len(proof.data) > 1:
        print("data sets:", *map(describe_proof, proof.data), sep="\n  ")


def name_data(proof: Proof) -> str:
    """Return what a proof is of: the dataset, another data set, or several."""
    if len(proof.data) > 1:
        return f"{len(proof.data)} data sets"
    return next(
        (f"{each.name} ({each.path})" for each in proof.data if each.name != DATASET), DATASET
    )


def describe_proof(proof: DataProof) -> str:
    """Return in one line what was proved of a data set."""
    path = "" if proof.name == proof.path else f"{proof.path}, "
    files = "" if proof.files is None else f"{proof.files} files, "
    maker = proof.run_id or OTHER_MAKERS[proof.made_by]
    earlier = f"{proof.parents_checked} earlier versions"
    return f"{proof.name:<20} {path}{files}{proof.size} bytes, {earlier}, by {maker}"
