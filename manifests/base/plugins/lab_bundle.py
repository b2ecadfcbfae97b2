"""The bundle of the lab's DAGs: a branch that is polled cheaply and parsed as a whole.

Airflow's own bundle fetches each time. And after a push Airflow parses only the changed files at
once, and the others minutes later: but those may import changed files, and all carry the version.
"""

from __future__ import annotations

import os
import time
from typing import Any

from airflow.providers.git.bundles.git import GitDagBundle

# How far in the future mtimes are set: a file that is being parsed meanwhile is parsed again.
AGAIN = 2.0  # seconds
SOONER = 1.0  # seconds by which the files that a push has changed are newer than the others


class BranchBundle(GitDagBundle):
    """A GitDagBundle that fetches only when the branch has a new commit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._followed: str | None = None  # the commit whose files are to be parsed, or were

    def refresh(self) -> None:
        """Update the files to the branch's newest commit; if it is new, have all of them parsed."""
        if self._followed and self._followed == self._newest_commit():
            return
        super().refresh()
        now = str(self.get_current_version().version)
        if self._followed and self._followed != now:
            self._mark_changed(self._followed, now)
        self._followed = now

    def _newest_commit(self) -> str:
        """Return the server's commit of the branch, or an empty string if there is no branch."""
        with self.hook.configure_hook_env():
            command = self.hook.env.get("GIT_SSH_COMMAND", "")
            with self.bare_repo.git.custom_environment(GIT_SSH_COMMAND=command):
                said = self.bare_repo.git.ls_remote("origin", f"refs/heads/{self.tracking_ref}")
        return str(said).partition("\t")[0]

    def _mark_changed(self, old: str, new: str) -> None:
        """Have Airflow parse every file, first those that have changed between these commits."""
        names = self.repo.git.diff("--name-only", "--no-renames", "-z", old, new).split("\0")
        changed = {self.repo_path / name for name in names if name}
        moment = time.time() + AGAIN
        for path in self.path.rglob("*.py"):
            newer = moment if path in changed else moment - SOONER
            os.utime(path, (newer, newer))
