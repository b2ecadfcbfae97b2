"""`pull`: the run's workspace holds the newest version of the dataset."""

from __future__ import annotations

from dataset_steps import pointer, repository
from dataset_steps.patience import patiently
from dataset_steps.remote import Remote
from dataset_steps.settings import Settings
from dataset_steps.workspace import Base, Workspace, sweep


def pull(settings: Settings, workspace: Workspace) -> None:
    """The workspace holds a clone and the dataset that its pointer names, byte for byte.

    A pull that was finished is not done again, one that was cut off starts afresh.
    """
    if workspace.base():
        print("already pulled")
        return
    sweep(workspace.root.parent)
    workspace.clear()
    repository.clone(settings.git_url, workspace.repository)
    fetch_dataset(workspace)


@patiently  # the file is replaced whole, by the same bytes each time
def fetch_dataset(workspace: Workspace) -> Base:
    """The dataset is the one that the checked-out pointer names; the base says so afterwards."""
    names = pointer.read(workspace.pointer)
    remote = Remote(workspace.repository)
    remote.download(names, workspace.dataset_path, workspace.dataset)
    base = Base(repository.head(workspace.repository), names.md5, names.size)
    workspace.record_base(base)
    print(f"pulled {names.size} bytes of version {names.md5} at commit {base.commit}")
    return base
