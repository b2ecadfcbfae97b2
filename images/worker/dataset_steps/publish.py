"""`publish`: store what a run has changed, and make exactly one commit of the run for all of it."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from dataset_steps import again, pointer, publication, repository, result, turn
from dataset_steps.again import Step
from dataset_steps.content import Content
from dataset_steps.contract import AGAIN, require_inside
from dataset_steps.errors import Overtaken, StepError, TemporaryError
from dataset_steps.pointer import Pointer
from dataset_steps.publication import Change, Files
from dataset_steps.pull import require_began
from dataset_steps.remote import Remote
from dataset_steps.repository import BRANCH, PushRejected
from dataset_steps.settings import Settings, require_one_line
from dataset_steps.workspace import Asked, Pulled, Workspace

RACE_SECONDS = 900  # how long a run keeps retrying while other pushes come first
NO_FILES = Files()
NEWEST = f"origin/{BRANCH}"
MOST_STRAYS = 5  # named in the log
UNCHANGED = "unchanged"  # the record of a run that had nothing to publish


@dataclass(frozen=True)
class Request:
    """What one `publish` of a DAG asks for."""

    names: tuple[str, ...]
    files: Files = NO_FILES
    result: str | None = None  # the name of the object in the bucket that tells of the commit
    message: str = "publish"
    rerun: bool = True  # whether steps run again when somebody published first
    steps: list[Step] | None = None  # those that this process may run again


@dataclass(frozen=True)
class Unchanged:
    """A run that made the very bytes that `main` has, and so no commit."""

    commit: str


def parse_request(arguments: Namespace, env: Mapping[str, str]) -> Request:
    """Return the request of the command line. Raise StepError for a path outside of the clone."""
    plain, metrics = (
        tuple(require_inside(path, "a file to be published") for path in paths)
        for paths in (arguments.file, arguments.metrics)
    )
    return Request(
        tuple(dict.fromkeys(arguments.names)),
        Files(plain, metrics),
        arguments.result,
        require_one_line("the message", arguments.message),
        arguments.on_conflict == "rerun",
        again.parse_steps(env.get(AGAIN)),
    )


def publish(
    settings: Settings, workspace: Workspace, request: Request, env: Mapping[str, str]
) -> None:
    """Store the data sets in the remote and publish one commit with this Run-Id.

    Raise Overtaken when somebody else has to run the steps again, and TemporaryError when other
    pushes came first for RACE_SECONDS.
    """
    for name in request.names:
        settings.require_path(name)
    if not workspace.is_begun():
        commit = find_outcome(settings, workspace)
    else:
        try:
            with turn.taking_turn(workspace):
                commit = publish_in_turn(settings, workspace, request, env)
        except Overtaken:
            raise
        except StepError:
            turn.give_turn_back(workspace)
            raise
        turn.give_turn_back(workspace)
    if commit and request.result:
        result.write(settings, workspace, commit, request.result, request.files.metrics)
    finish(workspace, commit)


def find_outcome(settings: Settings, workspace: Workspace) -> str | None:
    """Return the commit that an earlier attempt made, or None when it had nothing to publish.

    Raise StepError when nothing tells of an earlier attempt.
    """
    if workspace.read_record(UNCHANGED, Unchanged):
        return None
    workspace.clear()
    repository.clone(settings.git_url, workspace.repository)
    if done := repository.find_commit(workspace.repository, publication.run_trailers(settings)):
        return done
    raise StepError("nothing was pulled into this run's workspace: run the pull step first")


def finish(workspace: Workspace, commit: str | None) -> None:
    """Say what has become of the run, and remove its workspace.

    A record of a run that had nothing to publish stays until the workspace is swept: an attempt
    that is killed from here on is repeated.
    """
    if commit is None:
        print("every data set is byte for byte what main has: no commit was made")
        workspace.clear(but=(UNCHANGED,))
    elif workspace.has_made(commit):
        print(f"published commit {commit}")
        workspace.remove()
    else:
        print(
            f"commit {commit} of this run was published before, by an earlier attempt or by a "
            "deleted run of the same id: nothing to do"
        )
        workspace.remove()


def publish_in_turn(
    settings: Settings, workspace: Workspace, request: Request, env: Mapping[str, str]
) -> str | None:
    """Publish, again and again while other pushes come first. Return the commit, if any.

    Raise TemporaryError when that goes on for RACE_SECONDS.
    """
    again.settle_note(workspace, env)
    repository.remove_stale_locks(workspace.repository)
    racing = Retrying(
        retry=retry_if_exception_type(PushRejected),
        stop=stop_after_delay(RACE_SECONDS),
        wait=wait_random_exponential(multiplier=0.05, max=2),
        reraise=True,
    )
    try:
        return racing(publish_once, settings, workspace, request)
    except PushRejected as error:
        raise TemporaryError(f"the branch kept moving for {RACE_SECONDS} s: {error}") from error


def publish_once(settings: Settings, workspace: Workspace, request: Request) -> str | None:
    """Publish the run's commit and return it, or None when there is nothing to publish.

    Raise PushRejected when another push came first.
    """
    if cut_off := again.is_due(workspace):
        start_over(settings, workspace, request, cut_off)
    else:
        repository.fetch(workspace.repository)
    if done := repository.find_commit(workspace.repository, publication.run_trailers(settings)):
        return done
    if moved := find_move(workspace, request):
        start_over(settings, workspace, request, moved)
    tell_strays(workspace, request)
    repository.open_publishing_tree(workspace.repository, workspace.publishing)
    remote = Remote(workspace.publishing)
    changes = list(filter(None, (find_change(workspace, remote, name) for name in request.names)))
    written = publication.write_files(workspace, request.files)
    if not changes and not written:
        newest = repository.head(workspace.publishing)
        workspace.record(UNCHANGED, Unchanged(newest))
        return None
    return make_commit(settings, workspace, request, remote, changes, written)


def start_over(settings: Settings, workspace: Workspace, request: Request, why: str) -> None:
    """Pull the newest versions and run the steps again. Raise StepError unless that is allowed."""
    if not request.rerun:
        raise StepError(f'{why}, and `on_conflict` is "fail": start another run')
    again.start_over(settings, workspace, why, request.steps)


def find_move(workspace: Workspace, request: Request) -> str | None:
    """Return what somebody else has published since the run pulled, in words, or None."""
    began = require_began(workspace).commit
    for name in request.names:
        path = f"{workspace.data_sets[name]}.dvc"
        named = read_pointer(workspace, NEWEST, path)
        if not find_base(workspace, name, began, path).is_of(named):
            commit = repository.find_last_change(workspace.repository, NEWEST, path)
            return f"{name} was published by somebody else meanwhile, as commit {commit}"
    for path in request.files.paths:
        seen, newest = (
            repository.find_blob(workspace.repository, c, path) for c in (began, NEWEST)
        )
        if seen != newest:
            return f"{path} was changed by somebody else meanwhile"
    return None


def find_base(workspace: Workspace, name: str, began: str, path: str) -> Pulled:
    """Return the version that the run replaces: the one it pulled of `main`, or saw there."""
    asked, pulled = workspace.read_record(f"asked.{name}", Asked), workspace.read_pulled(name)
    if asked and asked.is_newest and pulled:
        return pulled
    seen = read_pointer(workspace, began, path)
    return Pulled(name, path, began, seen.md5 if seen else "", seen.size if seen else 0)


def read_pointer(workspace: Workspace, commit: str, path: str) -> Pointer | None:
    """Return what a pointer says at a commit, or None where there is none."""
    if not repository.find_blob(workspace.repository, commit, path):
        return None
    return pointer.parse(repository.read_file(workspace.repository, commit, path), path)


def tell_strays(workspace: Workspace, request: Request) -> None:
    """Print which files the steps have written to the clone that nobody publishes."""
    known = [*workspace.data_sets.values(), *request.files.paths]
    strays = [
        path
        for path in repository.list_strays(workspace.repository)
        if not any(
            f"{path}/".startswith(f"{each}/") or f"{each}/".startswith(path) for each in known
        )
    ]
    if strays:
        more = f" and {len(strays) - MOST_STRAYS} more" if len(strays) > MOST_STRAYS else ""
        print(f"not published: {', '.join(strays[:MOST_STRAYS])}{more}")


def find_change(workspace: Workspace, remote: Remote, name: str) -> Change | None:
    """Return what the run has made of a data set, or None when it is what `main` has.

    Raise StepError when there is nothing at its place, when it can't be kept, or when it was
    changed since a step sealed it.
    """
    path, place = workspace.data_sets[name], workspace.place(name)
    newest = workspace.publishing / f"{path}.dvc"
    before = pointer.read(newest) if newest.exists() else None
    content = remote.measure(path, place)
    refuse_other_content(workspace, name, content)
    pulled = workspace.read_pulled(name)
    if before and is_same(content.pointer, before, pulled):
        return None
    if before is None and repository.is_tracked(workspace.publishing, path):
        raise StepError(
            f"git keeps {path} itself: `git rm -r --cached {path}`, commit that, and run again"
        )
    return Change(name, path, place, content, before, pulled=bool(pulled and pulled.is_of(before)))


def refuse_other_content(workspace: Workspace, name: str, content: Content) -> None:
    """Raise StepError when a data set is not what a step has sealed."""
    seal, found = workspace.read_seal(name), content.pointer
    if seal and (seal.md5, seal.size) != (found.md5, found.size):
        raise StepError(
            f"{name} was changed by somebody else: it has {found.size} bytes with MD5 {found.md5}, "
            f"and its step made {seal.size} with {seal.md5}; clear that step to make it anew"
        )


def is_same(made: Pointer, before: Pointer, pulled: Pulled | None) -> bool:
    """Return whether `main` has these very bytes, with the same mode."""
    md5 = pulled.bytes_md5 if pulled and pulled.is_of(before) and pulled.bytes_md5 else before.md5
    return (made.md5, made.size, made.executable) == (md5, before.size, before.executable)


def make_commit(
    settings: Settings,
    workspace: Workspace,
    request: Request,
    remote: Remote,
    changes: Sequence[Change],
    written: Sequence[Path],
) -> str:
    """Store what has changed, commit and push it. Raise PushRejected if outrun."""
    tree = workspace.publishing
    for change in changes:
        remote.store(
            change.content,
            change.place,
            base=change.before,
            pulled=change.pulled,
            journal=workspace.root / "stored",
        )
    paths = [
        *written,
        *(path for change in changes for path in publication.write_pointer(tree, change)),
    ]
    for change in changes:
        remote.require_pullable(change.path)
    sources = [each for each in workspace.list_pulled() if each.name not in request.names]
    message = publication.format_message(settings, request.message, changes, sources)
    repository.commit(tree, paths, message)
    return push_commit(workspace)


def push_commit(workspace: Workspace) -> str:
    """Push the commit that was made, and return it. Raise PushRejected if outrun."""
    commit = repository.head(workspace.publishing)
    workspace.record_made(commit)
    repository.push(workspace.publishing)
    return commit
