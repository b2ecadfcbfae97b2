"""The bundle of the lab's DAGs: a branch that is looked at often, cheaply, and followed whole.

Airflow's own one fetches each time. It also parses again only the files that a push has changed,
and the others minutes later: but those may import what was changed, and all carry the version.
"""

from __future__ import annotations

import os
import time
from typing import Any

from airflow.providers.git.bundles.git import GitDagBundle

# A file that is being parsed while it changes is parsed again: it counts as changed for so long.
AGAIN = 2.0  # seconds
SOONER = 1.0  # seconds by which what a push has changed is newer than the rest


class BranchBundle(GitDagBundle):
    """A GitDagBundle that knows cheaply whether there is something new."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._followed: str | None = None  # the commit whose files are to be parsed, or were

    def refresh(self) -> None:
        """The files are those of the branch's newest commit; all are parsed again if it is new."""
        if self._followed and self._followed == self._newest():
            return
        super().refresh()
        now = str(self.get_current_version().version)
        if self._followed and self._followed != now:
            self._have_parsed(self._followed, now)
        self._followed = now

    def _newest(self) -> str:
        """The commit that the branch is at on the server; nothing where it is no branch."""
        with self.hook.configure_hook_env():
            command = self.hook.env.get("GIT_SSH_COMMAND", "")
            with self.bare_repo.git.custom_environment(GIT_SSH_COMMAND=command):
                said = self.bare_repo.git.ls_remote("origin", f"refs/heads/{self.tracking_ref}")
        return str(said).partition("\t")[0]

    def _have_parsed(self, old: str, new: str) -> None:
        """Airflow takes every file for changed, first what has changed between these commits."""
        names = self.repo.git.diff("--name-only", "--no-renames", "-z", old, new).split("\0")
        changed = {self.repo_path / name for name in names if name}
        moment = time.time() + AGAIN
        for path in self.path.rglob("*.py"):
            newer = moment if path in changed else moment - SOONER
            os.utime(path, (newer, newer))
