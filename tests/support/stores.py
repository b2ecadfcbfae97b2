"""The embedded lab's S3 server and git server, and a run's steps as processes.

Stores    both servers, without Airflow
Project   a datasets repository for one test
Run       one run of the pipeline: its steps, each a process with a run's environment
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import yaml

from dataset_steps.contract import run_key
from lab import layout
from lab.backends.embedded import backend as embedded
from lab.backends.embedded.gitserver.accounts import Account, write_accounts
from lab.backends.embedded.services import gitserver, seaweedfs
from lab.backends.embedded.site import Site
from lab.client import git as owner_git
from lab.client import s3
from lab.config import Config
from lab.home import processes
from lab.lab import Lab
from tests.support import forks

Process = subprocess.Popen[str] | forks.Fork
DAG_ID = "dataset_pipeline"
DAG_VERSION = "0123456789abcdef0123456789abcdef01234567"
PATH = "datasets/employees.csv"
FOLDER = "store"  # of the DVC remote
PREFIX = f"{FOLDER}/files/md5"
# The steps of `dataset_pipeline` that any pipeline has, as that DAG has them.
ARGUMENTS: dict[str, tuple[str, ...]] = {
    "pull": ("pull", "dataset"),
    "publish": ("publish", "dataset", "--message", "append a record to"),
}
DEADLINE = 120  # seconds for one step
USERS = (layout.STEPS, layout.OWNER)
CREDENTIALS = ("GIT_SYNC_PASSWORD", "AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID")
LOG_FORMAT = "%H%x1f%P%x1f%B%x1f%(trailers:only,unfold,separator=%x1e)"

# Runs a step that stops at the first call of one function of the steps' package: it kills itself
# before or after the call, or prints "held" and waits for a line before it goes on.
STOPPER = """
import os, signal, sys
from functools import reduce
from importlib import import_module
place, what, *argv = sys.argv[1:]
module, _, names = place.partition(":")
*owners, name = names.split(".")
owner = reduce(getattr, owners, import_module("dataset_steps." + module))
function = getattr(owner, name)
def stopper(*arguments, **named):
    setattr(owner, name, function)
    if what == "hold":
        print("held", flush=True)
        sys.stdin.readline()
    if what != "before":
        result = function(*arguments, **named)
    if what != "hold":
        os.kill(os.getpid(), signal.SIGKILL)
    return result
setattr(owner, name, stopper)
from dataset_steps.__main__ import main
main(argv)
"""


def md5_of(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def dvc_2_md5_of(content: bytes) -> str:
    """Return the MD5 by which DVC 2 names a text of less than a block: of LF for CRLF."""
    return md5_of(content.replace(b"\r\n", b"\n"))


def employees(count: int, mark: str = "first") -> bytes:
    """Return a dataset with quoted commas, non-ASCII letters and an integer key."""
    rows = (f'{n},"Müller, {mark} {n}",{n % 7},note {n % 13}\n' for n in range(1, count + 1))
    return ("Employee ID,Name,Grade,Note\n" + "".join(rows)).encode()


@dataclass(frozen=True)
class Stores:
    """Both servers, with their owner's access."""

    site: Site
    names: list[str] = field(default_factory=list)
    serial: Iterator[int] = field(default_factory=itertools.count)

    @property
    def config(self) -> Config:
        return self.site.config

    @property
    def lab(self) -> Lab:
        return self.site.lab

    @property
    def client(self) -> Any:
        return s3.create_client(self.lab)

    def start(self) -> None:
        """Start whichever server does not run, and wait until both answer."""
        embedded.start_servers(self.site)

    def kill(self, service: str) -> None:
        """Kill the service and every process that it started, as in a crash."""
        found = processes.list_processes(self.config, service)
        processes.send_signal(found, signal.SIGKILL)
        psutil.wait_procs(found, timeout=10)

    def find_process(self, service: str) -> psutil.Process:
        """Return the service's process; fail at once, and not by a timeout, if it has died."""
        process = processes.find_process(self.config, service)
        assert process, f"{service} has died: see {self.config.logs}"
        return process

    def grant(self, name: str) -> None:
        """Allow the steps and the owner to read and write this repository as well."""
        self.names.append(name)
        accounts = {user: self.account(user) for user in USERS}
        write_accounts(gitserver.accounts_file(self.config), accounts)

    def account(self, user: str) -> Account:
        password = gitserver.password(self.site.secrets, user)
        return Account.with_token(password, read=self.names, write=self.names)

    def folder(self, repository: str) -> Path:
        """Return the folder in which the git server keeps the repository."""
        return self.config.data / gitserver.NAME / f"{repository}.git"

    def put_object(self, content: bytes, *, prefix: str = PREFIX, name: str = "") -> str:
        """Store an object in the DVC remote, as somebody else than a step; return its key."""
        name = name or md5_of(content)
        key = f"{prefix}/{name[:2]}/{name[2:]}"
        self.client.put_object(Bucket=layout.BUCKET, Key=key, Body=content)
        return key

    def read_object(self, name: str, *, prefix: str = PREFIX) -> bytes:
        """Return the bytes of the object that the DVC remote keeps under this MD5."""
        key = f"{prefix}/{name[:2]}/{name[2:]}"
        body = self.client.get_object(Bucket=layout.BUCKET, Key=key)["Body"]
        content: bytes = body.read()
        return content

    def find_leaks(self, text: str, *more: str) -> list[str]:
        """List the secrets that `text` holds, as they are or as HTTP's basic auth encodes them."""
        secrets = [*self.site.secrets.values.values(), *more]
        pairs = [f"{user}:{secret}".encode() for user in USERS for secret in secrets]
        sent = [base64.b64encode(pair).decode() for pair in pairs]
        return [secret for secret in (*secrets, *sent) if secret in text]


@dataclass(frozen=True)
class Commit:
    """A commit of the datasets repository and the version that its pointer names."""

    hash: str
    parents: tuple[str, ...]
    message: str
    trailers: dict[str, str]
    md5: str
    size: int  # bytes
    legacy: bool = False  # as DVC 2 wrote it: another hash, another layout of the remote


@dataclass(frozen=True)
class Done:
    """A step that has ended."""

    code: int
    output: str


@dataclass(frozen=True)
class Project:
    """One datasets repository on the server, and the folder that its runs share."""

    stores: Stores
    name: str
    shared: Path

    @property
    def bare(self) -> Path:
        return self.stores.folder(self.name)

    @property
    def lab(self) -> Lab:
        url = gitserver.repository_url(self.stores.site.ports, self.name)
        return replace(self.stores.lab, git_url=url, dataset_path=PATH)

    def git(self, *arguments: str | Path, cwd: Path | None = None) -> str:
        """Run git as the lab's owner, by default in the server's bare repository."""
        return owner_git.run_git(self.lab, *arguments, cwd=cwd or self.bare)

    def tip(self) -> str:
        return self.git("rev-parse", "main").strip()

    def list_commits(self) -> list[Commit]:
        """List the commits of the branch, oldest first."""
        log = self.git("log", "--reverse", "--first-parent", "-z", f"--format={LOG_FORMAT}", "main")
        return [self.parse_commit(row) for row in log.rstrip("\0").split("\0")]

    def parse_commit(self, row: str) -> Commit:
        name, parents, message, trailers = row.split("\x1f")
        (out,) = yaml.safe_load(self.git("show", f"{name}:{PATH}.dvc"))["outs"]
        pairs = (line.partition(": ") for line in trailers.strip().split("\x1e") if line)
        said = {key: value for key, _, value in pairs}
        version = (out["md5"], out["size"], "hash" not in out)
        return Commit(name, tuple(parents.split()), message, said, *version)

    def read_version(self, commit: Commit) -> bytes:
        """Return the commit's dataset, which is the one that its pointer names."""
        prefix, hashed = (FOLDER, dvc_2_md5_of) if commit.legacy else (PREFIX, md5_of)
        content = self.stores.read_object(commit.md5, prefix=prefix)
        assert (hashed(content), len(content)) == (commit.md5, commit.size)
        return content

    def list_run_ids(self) -> list[str]:
        """List the run id of each commit that a run made, oldest first."""
        return [c.trailers["Run-Id"] for c in self.list_commits() if "Run-Id" in c.trailers]

    def prove_commits(self) -> list[Commit]:
        """Return all commits, of which each has its object, and each run's adds one record.

        Raises AssertionError otherwise, or where a run made more than one.
        """
        commits = self.list_commits()
        contents = [self.read_version(commit) for commit in commits]
        for (before, old), (after, new) in itertools.pairwise(zip(commits, contents, strict=True)):
            assert after.parents == (before.hash,)
            if "Run-Id" in after.trailers:
                assert after.trailers["Data-Parent"] == before.md5
                self.prove_one_record(old, new)
        runs = self.list_run_ids()
        assert len(runs) == len(set(runs)), "a run made more than one commit"
        return commits

    @staticmethod
    def prove_one_record(old: bytes, new: bytes) -> None:
        assert new.startswith(old)
        added = new[len(old) :]
        assert added.endswith(b"\n")
        assert added.count(b"\n") == 1
        keys = [int(line.split(b",")[0]) for line in old.splitlines()[1:]]
        assert int(added.split(b",")[0]) == max(keys) + 1

    def push_change(self, change: Callable[[Path], None]) -> str:
        """Commit what `change` does in a clone and push it, as the owner; return the commit."""
        clone = self.shared.parent / f"clone-{next(self.stores.serial)}"
        self.git("clone", "--quiet", self.lab.git_url, clone, cwd=self.shared)
        change(clone)
        self.git("add", "--all", cwd=clone)
        self.git("commit", "--quiet", "--message", "By somebody else", cwd=clone)
        self.git("push", "--quiet", "origin", "HEAD:main", cwd=clone)
        return self.git("rev-parse", "HEAD", cwd=clone).strip()

    def replace_pointer(self, text: str) -> str:
        """Push another text of the pointer, as somebody else than a step; return the commit."""
        return self.push_change(lambda clone: write_text(clone / f"{PATH}.dvc", text))

    def replace_dataset(self, content: bytes) -> str:
        """Push a version of the dataset, as somebody else than a step; return its object's key."""
        out = {"md5": md5_of(content), "size": len(content), "hash": "md5", "path": Path(PATH).name}
        key = self.stores.put_object(content)
        self.replace_pointer(yaml.safe_dump({"outs": [out]}))
        return key

    def adopt_dvc_2(self, content: bytes, notes: str = "") -> str:
        """Push a version as DVC 2 did, as somebody else than a step; return its object's key."""
        name = dvc_2_md5_of(content)
        out = {"md5": name, "size": len(content), "path": Path(PATH).name}
        key = self.stores.put_object(content, prefix=FOLDER, name=name)
        self.replace_pointer(notes + yaml.safe_dump({"outs": [out]}, sort_keys=False))
        return key

    def run(self, name: str = "") -> Run:
        return Run(self, name or f"manual__{self.name}/{next(self.stores.serial)}+00:00")

    def with_own_folder(self) -> Project:
        """Return the same repository with a new folder that its runs share with no others."""
        shared = self.shared.with_name(f"shared-{next(self.stores.serial)}")
        shared.mkdir()
        return replace(self, shared=shared)

    def list_leftovers(self) -> list[str]:
        """List what ended runs have left in their folder, sorted, without the publish lock."""
        found = (p.name for p in (self.shared / "runs").iterdir())
        return sorted(name for name in found if not name.startswith("publish."))

    @property
    def temporary(self) -> Path:
        """The folder for temporary files, in which a killed step leaves some."""
        path = self.shared.with_name("tmp")
        path.mkdir(exist_ok=True)
        return path

    def environment(self, run_id: str) -> dict[str, str]:
        """Return the whole environment of a step of this run, as the embedded backend sets it."""
        path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
        return {
            **self.stores.site.step_environment,
            "GIT_URL": self.lab.git_url,
            "DATASET_PATH": PATH,
            "PATH": path,
            "HOME": str(self.shared),
            "SHARED_DIR": str(self.shared),
            "TMPDIR": str(self.temporary),
            "DAG_ID": DAG_ID,
            "RUN_ID": run_id,
            "DAG_VERSION": DAG_VERSION,
            "AGAIN": json.dumps([{"argv": ["dataset-steps", "modify"], "variables": {}}]),
        }


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class Run:
    """One run of the pipeline. Fails where a step's output holds a secret.

    Each step is a fork of a process that has imported what steps need, or a `fresh` Python.
    """

    project: Project
    id: str
    fresh: bool = field(default=False, kw_only=True)

    @property
    def folder(self) -> Path:
        """The run's workspace."""
        return self.project.shared / "runs" / run_key(DAG_ID, self.id)

    @property
    def dataset(self) -> Path:
        return self.folder / "repository" / PATH

    def start(self, *argv: str | Path, **env: str | None) -> Process:
        """Start a process in a session of its own; a variable that is None is left out."""
        both = {**self.project.environment(self.id), **env}
        words = [str(word) for word in argv]
        given = {name: value for name, value in both.items() if value is not None}
        if forks.POSSIBLE and not self.fresh:
            return forks.Fork(words, given, self.project.shared)
        return subprocess.Popen(
            words,
            env=given,
            cwd=self.project.shared,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def finish(self, process: Process, *secrets: str | None) -> Done:
        """Let a process go on and wait until it ends; its output must hold none of the secrets."""
        output, _ = process.communicate("go on\n", timeout=DEADLINE)
        assert not self.project.stores.find_leaks(output, *(s for s in secrets if s))
        assert process.returncode in {0, 65, 75, -signal.SIGKILL}, output
        return Done(process.returncode, output)

    def run_step(self, *argv: str | Path, **env: str | None) -> Done:
        """Run one step; a step of `dataset_pipeline` has its arguments there."""
        process = self.start("dataset-steps", *complete(*argv), **env)
        return self.finish(process, *(env.get(name) for name in CREDENTIALS))

    def run_steps(self, *steps: str) -> str:
        """Run the steps, all of which must succeed, and return what they printed."""
        done = [self.run_step(step) for step in steps]
        assert [d.code for d in done] == [0] * len(steps), done
        return "".join(d.output for d in done)

    def expect_refusal(self, step: str, **env: str | None) -> str:
        """Run a step that must end with the code for "no retry helps"; return what it printed."""
        done = self.run_step(step, **env)
        assert done.code == 65, done
        assert done.output.startswith("error: "), "a traceback instead of an error"
        return done.output

    def kill_step(self, step: str, when: str, place: str) -> None:
        """Run a step that kills itself `before` or `after` a function, as `remote:Remote.store`."""
        words = (sys.executable, "-c", STOPPER, place, when, *complete(step))
        done = self.finish(self.start(*words))
        assert done.code == -signal.SIGKILL, done

    @contextmanager
    def holding_step(self, step: str, place: str) -> Iterator[None]:
        """Hold the step before that function while the block runs; then it must succeed."""
        words = (sys.executable, "-c", STOPPER, place, "hold", *complete(step))
        process = self.start(*words)
        try:
            assert process.stdout
            assert process.stdout.readline() == "held\n"
            yield
            done = self.finish(process)
            assert done.code == 0, done
        finally:
            process.kill()
            process.wait()


def complete(*argv: str | Path) -> tuple[str | Path, ...]:
    """Return a step's command line: `pull` or `publish` alone has the arguments of the DAG."""
    return ARGUMENTS.get(str(argv[0]), argv) if len(argv) == 1 else argv


def new_project(stores: Stores, folder: Path) -> Project:
    """Return a project with an empty repository and a shared folder; both servers must run."""
    for service in (gitserver.NAME, seaweedfs.NAME):
        stores.find_process(service)
    project = Project(stores, f"lab/test-{next(stores.serial)}", folder / "shared")
    project.shared.mkdir()
    stores.grant(project.name)
    return project


def copy_project(project: Project, folder: Path) -> Project:
    """Return a project with a copy of another one's repository, and with a folder of its own."""
    copy = new_project(project.stores, folder)
    shutil.copytree(project.bare, copy.bare)
    return copy
