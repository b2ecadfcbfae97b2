"""`import`: the repository has a first version of the dataset."""

from __future__ import annotations

from pathlib import Path

from dvc.repo import Repo
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from dataset_steps import pointer, repository
from dataset_steps.files import md5_of
from dataset_steps.pointer import Pointer
from dataset_steps.remote import Remote
from dataset_steps.repository import PushRejected
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace

REMOTE = "s3"
PREFIX = "store"  # the folder in the bucket, as in the guide this lab comes from


def import_dataset(settings: Settings, workspace: Workspace, source: Path) -> None:
    """The server's repository is a DVC one and holds a pointer to the bytes of `source`.

    A repository that has a pointer at the dataset's path already is left as it is.
    """
    version = Pointer(md5_of(source), source.stat().st_size)
    workspace.clear()
    repository.clone(settings.git_url, workspace.repository)
    publish(settings, workspace, source, version)
    workspace.remove()


@retry(
    retry=retry_if_exception_type(PushRejected),
    stop=stop_after_attempt(5),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    reraise=True,
)
def publish(settings: Settings, workspace: Workspace, source: Path, version: Pointer) -> None:
    clone = workspace.repository
    repository.fetch(clone)
    if repository.tip(clone):
        repository.reset(clone)
    if workspace.pointer.exists():
        print(f"{settings.dataset_path} is already versioned")
        return
    paths = [*configure(clone, settings.bucket), repository.ignore(workspace.dataset)]
    Remote(clone).store(version, source)
    pointer.write(workspace.pointer, version)
    trailers = pointer.trailers(settings.dataset_path, version)
    message = repository.message(f"data: import {settings.dataset_path}", trailers)
    repository.commit(clone, [*paths, workspace.pointer], message)
    repository.push(clone)
    print(f"imported {version.size} bytes as version {version.md5}")


def configure(clone: Path, bucket: str) -> list[Path]:
    """The clone has DVC's configuration; the paths that are new in it.

    The endpoint is not part of it: `AWS_ENDPOINT_URL_S3` names one where the remote is not AWS,
    so the same commit is right on every backend.
    """
    if (clone / ".dvc" / "config").exists():
        return []
    repo = Repo.init(str(clone), force=True)
    with repo.config.edit("repo") as config:
        config["core"] |= {"remote": REMOTE, "analytics": False, "check_update": False}
        config["remote"][REMOTE] = {"url": f"s3://{bucket}/{PREFIX}"}
    return [clone / name for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore")]
