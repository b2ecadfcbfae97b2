"""`import`: publish the first version of the dataset."""

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
    """Make the server's repository a DVC one and publish a pointer to the bytes of `source`.

    A repository that already has a pointer at the dataset's path is left as it is.
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
    """Publish `source` unless the repository has a version. Raise PushRejected if outrun."""
    clone = workspace.repository
    repository.fetch(clone)
    if repository.tip(clone):
        repository.reset(clone)
    if workspace.pointer.exists():
        print(f"{settings.dataset_path} is already versioned")
        return
    paths = [*configure_dvc(clone, settings.bucket), repository.ignore_file(workspace.dataset)]
    remote = Remote(clone)
    remote.store(version, source)
    pointer.write(workspace.pointer, version)
    remote.require_pullable(settings.dataset_path)
    trailers = pointer.trailers(settings.dataset_path, version)
    message = repository.format_message(f"data: import {settings.dataset_path}", trailers)
    repository.commit(clone, [*paths, workspace.pointer], message)
    repository.push(clone)
    print(f"imported {version.size} bytes as version {version.md5}")


def configure_dvc(clone: Path, bucket: str) -> list[Path]:
    """Write DVC's configuration unless the clone has one. Return the new paths.

    The endpoint is not part of it: `AWS_ENDPOINT_URL_S3` names one where the remote is not AWS,
    so the same commit works on every backend.
    """
    if (clone / ".dvc" / "config").exists():
        return []
    repo = Repo.init(str(clone), force=True)
    with repo.config.edit("repo") as config:
        config["core"] |= {"remote": REMOTE, "analytics": False, "check_update": False}
        config["remote"][REMOTE] = {"url": f"s3://{bucket}/{PREFIX}"}
    return [clone / name for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore")]
