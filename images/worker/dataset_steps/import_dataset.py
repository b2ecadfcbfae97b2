"""`import`: publish the first version of a data set."""

from __future__ import annotations

from pathlib import Path

from dvc.repo import Repo
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from dataset_steps import pointer, publication, repository
from dataset_steps.publication import Change
from dataset_steps.remote import Remote
from dataset_steps.repository import PushRejected
from dataset_steps.settings import Settings
from dataset_steps.workspace import Workspace

REMOTE = "s3"
PREFIX = "store"  # the folder in the bucket, as in the guide this lab comes from


def import_dataset(settings: Settings, workspace: Workspace, source: Path | None) -> None:
    """Make the server's repository a DVC one and publish a pointer to what is at `source`.

    It is a file or a directory; without it, the repository is made a DVC one only. A repository
    that already has a pointer at the data set's path is left as it is.
    """
    workspace.clear()
    repository.clone(settings.git_url, workspace.repository)
    publish(settings, workspace, source)
    workspace.remove()


@retry(
    retry=retry_if_exception_type(PushRejected),
    stop=stop_after_attempt(5),
    wait=wait_random_exponential(multiplier=0.1, max=2),
    reraise=True,
)
def publish(settings: Settings, workspace: Workspace, source: Path | None) -> None:
    """Publish `source` unless the repository has a version. Raise PushRejected if outrun."""
    clone, path = workspace.repository, settings.dataset_path
    repository.fetch(clone)
    if repository.tip(clone):
        repository.reset(clone)
    if source and (clone / f"{path}.dvc").exists():
        print(f"{path} is already versioned")
        return
    paths = configure_dvc(clone, settings.bucket)
    if source is None:
        publish_configuration(clone, paths)
        return
    remote = Remote(clone)
    content = remote.measure(path, source)
    change = Change(settings.dataset_name, path, source, content, None, pulled=False)
    remote.store(change.content, source, journal=workspace.root / "stored")
    paths += publication.write_pointer(clone, change)
    remote.require_pullable(path)
    version = change.content.pointer
    trailers = pointer.trailers(path, version).items()
    message = repository.format_message(f"data: import {path}", trailers)
    repository.commit(clone, paths, message)
    repository.push(clone)
    print(f"imported {version.size} bytes as version {version.md5}")


def publish_configuration(clone: Path, paths: list[Path]) -> None:
    """Publish DVC's configuration, if it is new."""
    if paths:
        repository.commit(clone, paths, "data: begin")
        repository.push(clone)
        print("the repository is one of DVC now")


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
