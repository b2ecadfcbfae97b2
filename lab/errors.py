"""The failures that the kit knows, each kind with an exit code of its own.

`lab` prints such an error without a traceback: what happened, what to do, where the log is.
The codes are part of the command line's contract; docs/reference.md lists them. A code whose kind
is gone is never used again: 34 to 36 and 39 were of CSV files that are taken today.
"""

from __future__ import annotations

from pathlib import Path


class LabError(Exception):
    """A failure that the kit has no narrower class for."""

    exit_code = 1
    program = ""  # the name of one that the kit ran, if that has failed
    output = ""  # all that it printed

    def __init__(self, what: str, fix: str, log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.fix = fix
        self.log = log


class MachineError(LabError):
    """The machine lacks something that the lab needs (git, memory, a Python it supports)."""

    exit_code = 10


class PortError(LabError):
    """A port that the lab must have is held by another process."""

    exit_code = 11


class DiskError(LabError):
    """The disk is full, or has too little room for what was asked."""

    exit_code = 12


class HomeError(LabError):
    """`.lab/` can't be written, or has a layout that this version does not know."""

    exit_code = 13


class BusyError(LabError):
    """Another `lab` command is changing this lab."""

    exit_code = 14


class BackendError(LabError):
    """The backend asked for does not exist or can't run here."""

    exit_code = 15


class NotRunningError(LabError):
    """The command needs a running lab, and there is none."""

    exit_code = 16


class ServiceError(LabError):
    """A service did not start, died, or stopped answering."""

    exit_code = 17


class ProjectError(LabError):
    """There is no project here, its lab.toml can't be right, or it needs another kit."""

    exit_code = 18


class AssociationError(LabError):
    """A service account's role can't be right: see manifests/base/associations.yaml."""

    exit_code = 19


class DagError(LabError):
    """There is no such DAG, or it can't be parsed."""

    exit_code = 20


class ConfError(LabError):
    """The conf given to a run is not a JSON object, or the DAG refuses it."""

    exit_code = 21


class RunError(LabError):
    """A run ended in another state than success, or did not end in time."""

    exit_code = 22


class ProofError(LabError):
    """A commit does not reproduce the dataset that it names."""

    exit_code = 23


class CommitError(LabError):
    """There is no such data commit."""

    exit_code = 24


class AccessError(LabError):
    """A server refused the lab's credentials."""

    exit_code = 25


class DatasetError(LabError):
    """The data given can't be versioned, or is no table. The subclasses say why."""

    exit_code = 30


class DatasetMissing(DatasetError):
    """There is no such file or directory, or it can't be read."""

    exit_code = 31


class DatasetEmpty(DatasetError):
    """The table has no record, or the directory no file."""

    exit_code = 32


class DatasetWithoutHeader(DatasetError):
    """The first line does not name the columns."""

    exit_code = 33


class DatasetRagged(DatasetError):
    """A record has another number of fields than the header, or never ends."""

    exit_code = 37


class DatasetNotUtf8(DatasetError):
    """The bytes are not UTF-8."""

    exit_code = 38


class PromotionError(LabError):
    """What is to be promoted is not attested, or differs too much. The subclasses say what else."""

    exit_code = 40


class EnvironmentFileError(PromotionError):
    """An environment's file is invalid, or lacks what one of its options needs."""

    exit_code = 41


class AccountError(PromotionError):
    """The AWS credentials are missing or invalid, or belong to another account."""

    exit_code = 42


class MissingPermission(PromotionError):
    """AWS refuses one action to these credentials. The message names it."""

    exit_code = 43


class NameTaken(PromotionError):
    """A resource of this name exists, and this environment did not create it."""

    exit_code = 44


class QuotaReached(PromotionError):
    """The account has reached an AWS quota."""

    exit_code = 45


class RegionLacks(PromotionError):
    """The region does not exist, is not enabled, or lacks an instance type or a version."""

    exit_code = 46


class CloudBusy(PromotionError):
    """AWS throttled, failed or could not be reached, and still so after several attempts."""

    exit_code = 47


class StaticKey(PromotionError):
    """A pod can read an access key: it should have nothing but its identity."""

    exit_code = 48
