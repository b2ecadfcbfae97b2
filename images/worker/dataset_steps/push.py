"""`push`: the new version is in S3, and exactly one commit of the run names it."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dataset_steps import pointer, repository
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import md5_of_both
from dataset_steps.modify import modify
from dataset_steps.pointer import Pointer
from dataset_steps.pull import fetch_dataset, pull
from dataset_steps.remote import Remote
from dataset_steps.repository import PushRejected
from dataset_steps.settings import Settings
from dataset_steps.workspace import Base, Change, Workspace, turn

RACE_SECONDS = 900  # how long a run goes on trying while others push before it


def push(settings: Settings, workspace: Workspace) -> None:
    """One commit with this Run-Id is on the server's branch, and its object is in the remote.

    Raises TemporaryError when others kept pushing first for RACE_SECONDS.
    """
    if workspace.base() is None:  # an earlier attempt published and was killed while it tidied up
        pull(settings, workspace)
    commit = in_turn(workspace, lambda: publish(settings, workspace))
    print(f"published commit {commit}")
    workspace.remove()


def in_turn(workspace: Workspace, publish: Callable[[], str]) -> str:
    """The commit that `publish` made, when other runs here had their turn.

    It is called again whenever another push came first. Raises TemporaryError when others kept
    pushing first for RACE_SECONDS.
    """
    racing = Retrying(
        retry=retry_if_exception_type(PushRejected),
        stop=stop_after_delay(RACE_SECONDS),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        reraise=True,
    )
    repository.unlock(workspace.repository)
    try:
        with turn(workspace):
            return racing(publish)
    except PushRejected as error:
        raise TemporaryError(f"the branch kept moving for {RACE_SECONDS} s: {error}") from error


def publish(settings: Settings, workspace: Workspace) -> str:
    """The run's commit on the server. Raises PushRejected when another push came first."""
    clone = workspace.repository
    repository.fetch(clone)
    if done := repository.commit_with(clone, run_trailers(settings)):
        return done
    base = follow(workspace)
    version = changed(workspace, base)
    Remote(clone).store(version, workspace.dataset)
    pointer.write(workspace.pointer, version)
    repository.commit(clone, [workspace.pointer], message(settings, base, version))
    repository.push(clone)
    return repository.head(clone)


def follow(workspace: Workspace) -> Base:
    """The workspace stands on the server's newest commit, the run's record appended.

    Where only other files moved, the run's dataset stays as it is; where the dataset moved, the
    newest version is pulled and the run's record is appended to that one.
    """
    repository.reset(workspace.repository)
    base = workspace.base()
    if base is None or pointer.read(workspace.pointer) != Pointer(base.md5, base.size):
        base = fetch_dataset(workspace)
    change = workspace.change()
    if change is None or change.parent != base.md5:
        modify(workspace)
    return base


def changed(workspace: Workspace, base: Base) -> Pointer:
    """The new version. Raises StepError when the file is not the base with the run's record."""
    first, md5 = md5_of_both(workspace.dataset, base.size)
    change = Change(base.md5, workspace.dataset.stat().st_size)
    if first != base.md5 or change != workspace.change():
        raise StepError(f"the workspace's copy of version {base.md5} was changed by somebody else")
    return Pointer(md5, change.size)


def run_trailers(settings: Settings) -> dict[str, str]:
    """What tells a run's commit from every other."""
    return {"Run-Id": settings.run_id, "Dag-Id": settings.dag_id}


def message(settings: Settings, base: Base, version: Pointer) -> str:
    """The commit message: which run made which version from which."""
    trailers = {
        **run_trailers(settings),
        "Dag-Version": settings.dag_version,
        **pointer.trailers(settings.dataset_path, version),
        "Data-Parent": base.md5,
    }
    return repository.message(f"data: append a record to {settings.dataset_path}", trailers)
