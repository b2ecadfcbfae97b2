"""A LocalExecutor that starts tasks faster and survives the loss of a worker."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow.executors.local_executor import LocalExecutor

if TYPE_CHECKING:
    from airflow.executors.workloads import ExecutorWorkload

# What every task of the lab imports before its own code runs. The workers are forks of the
# scheduler: no task has to import again what the scheduler has imported.
PRELOADED = (
    "airflow.dag_processing.dagbag",
    "airflow.providers.git.bundles.git",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "dataset_steps.preload",
    "jinja2.ext",
)


class RepairingLocalExecutor(LocalExecutor):
    """A LocalExecutor that replaces its queues and workers when a signal killed a worker.

    The workers share queues guarded by locks in shared memory. An idle worker waits while it holds
    such a lock, so killing it leaves the lock taken forever: every task would stay queued.
    """

    def start(self) -> None:
        for name in PRELOADED:
            importlib.import_module(name)
        super().start()

    def _process_workloads(self, workload_list: Sequence[ExecutorWorkload]) -> None:
        # LocalExecutor itself does not record what it has handed to its workers.
        self.running.update(workload.key for workload in workload_list)
        super()._process_workloads(workload_list)

    def _check_workers(self) -> None:
        if any((worker.exitcode or 0) < 0 for worker in self.workers.values()):
            self.restart_workers()
        super()._check_workers()

    def restart_workers(self) -> None:
        """Replace queues and workers, and report the tasks of the old ones as failed."""
        self.log.warning("a worker was killed: all workers start over, their tasks are tried again")
        for worker in self.workers.values():
            worker.kill()
            worker.join()
        self.workers.clear()
        lost = list(self.running)
        self.start()
        for key in lost:
            self.fail(key)
