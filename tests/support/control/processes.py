"""Fault injection for an embedded lab: its services and steps are processes of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from lab.backends.embedded import backend as embedded
from lab.backends.embedded.services import gitserver, seaweedfs
from lab.backends.embedded.site import find_site
from lab.config import Config
from lab.home import processes
from lab.home.secrets import Secrets
from lab.model import Run

NOTE = "kept.json"  # of images/worker/dataset_steps/kept.py


@dataclass(frozen=True)
class Processes:
    """Fault injection for an embedded lab."""

    config: Config

    def list_services(self) -> list[str]:
        """Return the services that can be killed."""
        return [service.name for service in find_site(self.config).services]

    def list_stores(self) -> tuple[str, str]:
        """Return the git server and the S3 server."""
        return gitserver.NAME, seaweedfs.NAME

    def list_parts(self) -> list[str]:
        """Return the ids of the processes that a service has started: workers, tasks, steps."""
        services = {processes.find_process(self.config, name) for name in self.list_services()}
        return [str(p.pid) for p in processes.list_processes(self.config) if p not in services]

    def kill(self, name: str) -> None:
        """Kill the service with all that it started, or the one process, without a warning."""
        found = processes.list_processes(self.config, None if name.isdigit() else name)
        victims = [p for p in found if not name.isdigit() or p.pid == int(name)]
        processes.send_signal(victims, signal.SIGKILL)
        processes.wait_for_end(victims, processes.STOP_SECONDS)

    def cut_power(self) -> None:
        """End every process at once, as in a power cut."""
        found = processes.list_processes(self.config)
        processes.send_signal(found, signal.SIGKILL)
        processes.wait_for_end(found, processes.STOP_SECONDS)

    def restore(self) -> None:
        """Wait until every service answers again."""
        embedded.restore(self.config)

    def list_kept(self, run: Run) -> list[str]:
        """Return the run's workspace, if a step left one with a note of its run."""
        whose = {"dag_id": run.dag_id, "run_id": run.id}
        notes = self.config.shared.glob(f"runs/*/{NOTE}")
        return [str(n.parent) for n in notes if json.loads(n.read_text("utf-8")) == whose]

    def list_secrets(self) -> list[str]:
        """Return every random value and the private keys."""
        keys = [p.read_text("utf-8") for p in self.config.secrets.rglob("*.key")]
        return [*Secrets(self.config).values.values(), *keys]

    def read_traces(self) -> Iterator[tuple[str, bytes]]:
        """Yield logs, workspaces, Airflow's database and files, repositories and command lines."""
        places = (self.config.logs, self.config.shared, self.config.data, self.config.run)
        for folder, _, names in (found for place in places for found in os.walk(place)):
            for path in (Path(folder, name) for name in names):
                with contextlib.suppress(OSError):  # a workspace may be deleted while it is read
                    yield str(path), path.read_bytes()
        for process in processes.list_processes(self.config):
            with contextlib.suppress(psutil.Error):
                yield f"arguments of {process.pid}", " ".join(process.cmdline()).encode()
