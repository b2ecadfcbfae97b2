"""`pull`: download the newest version of the dataset into the run's workspace."""

from __future__ import annotations

from dataset_steps import pointer, repository
from dataset_steps.errors import StepError
from dataset_steps.patience import with_retries
from dataset_steps.remote import Remote
from dataset_steps.settings import Settings
from dataset_steps.workspace import Base, Workspace, sweep


def pull(settings: Settings, workspace: Workspace) -> None:
    """Clone the repository and download the dataset that its pointer names, byte for byte.

    A finished pull is not repeated; one that was cut off starts afresh. Raise StepError when git
    keeps the dataset, too.
    """
    if workspace.read_base():
        print("already pulled")
        return
    sweep(workspace.root.parent)
    workspace.clear()
    repository.clone(settings.git_url, workspace.repository)
    if workspace.dataset.exists():  # each checkout would bring it back in place of the pulled one
        raise StepError(
            f"git keeps {settings.dataset_path} itself, beside its pointer: "
            f"`git rm -r --cached {settings.dataset_path}`, and commit that"
        )
    fetch_dataset(workspace)


@with_retries  # each attempt replaces the file by the same bytes
def fetch_dataset(workspace: Workspace) -> Base:
    """Download the dataset that the checked-out pointer names, and record it as the base."""
    names = pointer.read(workspace.pointer)
    remote = Remote(workspace.repository)
    md5 = remote.download(names, workspace.dataset_path, workspace.dataset)
    base = Base(repository.head(workspace.repository), names.md5, names.size, md5)
    workspace.record_base(base)
    print(f"pulled {names.size} bytes of version {names.md5} at commit {base.commit}")
    return base
