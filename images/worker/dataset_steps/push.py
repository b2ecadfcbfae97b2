"""`push`: store the new version in S3 and publish exactly one commit of the run that names it."""

from __future__ import annotations

from collections.abc import Callable

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dataset_steps import pointer, repository
from dataset_steps.errors import StepError, TemporaryError
from dataset_steps.files import md5_of_prefix_and_all
from dataset_steps.modify import modify
from dataset_steps.pointer import Pointer
from dataset_steps.pull import fetch_dataset, pull
from dataset_steps.remote import Remote
from dataset_steps.repository import PushRejected
from dataset_steps.settings import Settings
from dataset_steps.workspace import Base, Change, Workspace, publish_lock

RACE_SECONDS = 900  # how long a run keeps retrying while other pushes come first


def push(settings: Settings, workspace: Workspace) -> None:
    """Store the run's object in the remote and publish one commit with its Run-Id.

    Raise TemporaryError when other pushes came first for RACE_SECONDS.
    """
    if workspace.read_base() is None:  # an earlier attempt published and was killed during cleanup
        pull(settings, workspace)
    commit = publish_in_turn(workspace, lambda: publish(settings, workspace))
    print(describe_outcome(workspace, commit))
    workspace.remove()


def describe_outcome(workspace: Workspace, commit: str) -> str:
    """Return what to tell of the run's commit: whether it was made now, or found."""
    if workspace.has_made(commit):
        return f"published commit {commit}"
    return (
        f"commit {commit} of this run was published before, by an earlier attempt or by a deleted "
        "run of the same id: nothing to do"
    )


def publish_in_turn(workspace: Workspace, publish: Callable[[], str]) -> str:
    """Call `publish` when no other run of this folder does, and return the commit that it made.

    It is called again whenever another push came first. Raise TemporaryError when that goes on
    for RACE_SECONDS.
    """
    racing = Retrying(
        retry=retry_if_exception_type(PushRejected),
        stop=stop_after_delay(RACE_SECONDS),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        reraise=True,
    )
    repository.remove_stale_locks(workspace.repository)
    try:
        with publish_lock(workspace):
            return racing(publish)
    except PushRejected as error:
        raise TemporaryError(f"the branch kept moving for {RACE_SECONDS} s: {error}") from error


def publish(settings: Settings, workspace: Workspace) -> str:
    """Publish the run's commit and return it. Raise PushRejected when another push came first."""
    clone = workspace.repository
    repository.fetch(clone)
    if done := repository.find_commit(clone, run_trailers(settings)):
        return done
    base = rebase_workspace(settings, workspace)
    remote, version = Remote(clone), verify_version(workspace, base)
    remote.store(version, workspace.dataset)
    pointer.write(workspace.pointer, version)
    remote.require_pullable(workspace.dataset_path)
    repository.commit(clone, [workspace.pointer], commit_message(settings, base, version))
    return push_commit(workspace)


def push_commit(workspace: Workspace) -> str:
    """Push the commit that is checked out, and return it. Raise PushRejected if outrun."""
    commit = repository.head(workspace.repository)
    workspace.record_made(commit)
    repository.push(workspace.repository)
    return commit


def rebase_workspace(settings: Settings, workspace: Workspace) -> Base:
    """Reset the workspace to the server's newest commit, with the run's record appended.

    If only other files changed there, the run's dataset stays as it is; if the dataset changed,
    the newest version is pulled and the run's record is appended to that one.
    """
    repository.reset(workspace.repository)
    base = workspace.read_base()
    if base is None or not base.is_of(pointer.read(workspace.pointer)):
        base = fetch_dataset(workspace)
    change = workspace.read_change()
    if change is None or change.parent != base.md5:
        modify(settings, workspace)
    return base


def verify_version(workspace: Workspace, base: Base) -> Pointer:
    """Return the new version, in the remote that the old one's pointer names.

    Raise StepError unless the file is the base plus the run's record.
    """
    first, md5 = md5_of_prefix_and_all(workspace.dataset, base.size)
    change = Change(base.md5, workspace.dataset.stat().st_size)
    if first != (base.bytes_md5 or base.md5) or change != workspace.read_change():
        raise StepError(f"the workspace's copy of version {base.md5} was changed by somebody else")
    return Pointer(md5, change.size, remote=pointer.read(workspace.pointer).remote)


def run_trailers(settings: Settings) -> dict[str, str]:
    """Return the trailers that identify a run's commit."""
    return {"Run-Id": settings.run_id, "Dag-Id": settings.dag_id}


def commit_message(settings: Settings, base: Base, version: Pointer) -> str:
    """Return the commit message: which run made which version from which."""
    trailers = {
        **run_trailers(settings),
        "Dag-Version": settings.dag_version,
        **pointer.trailers(settings.dataset_path, version),
        "Data-Parent": base.md5,
    }
    return repository.format_message(f"data: append a record to {settings.dataset_path}", trailers)
