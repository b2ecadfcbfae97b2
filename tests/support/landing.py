"""The landing zone of sales: put files there, and wait for the runs that load them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, wait_until
from tests.support.dag_runs import list_active_runs

PREFIX, ASSET, DAG = "landing/sales/", "landed_sales", "sales_pipeline"
WAREHOUSE, LINEAGE = f"results/{DAG}/warehouse.csv", f"results/{DAG}/lineage.json"
PATIENCE = 180  # seconds to wait for what the lab does by itself


@dataclass(frozen=True)
class Landing:
    """The landing zone for one test; its files bear `mark`, so that no two tests put the same."""

    lab: Lab
    mark: str = field(default_factory=lambda: uuid4().hex[:8])

    def key(self, name: str) -> str:
        return f"{PREFIX}{self.mark}-{name}.csv"

    def put(self, name: str, *amounts: object) -> str:
        """Put a file with these amounts into the landing zone and return its key."""
        rows = (f"{self.mark}-{name}-{n},{amount},Rome\n" for n, amount in enumerate(amounts))
        body = ("id,amount,city\n" + "".join(rows)).encode()
        self.lab.put_object(self.key(name), body)
        return self.key(name)

    def clear(self) -> None:
        """Empty the landing zone and wait until no run of the pipeline is under way."""
        for entry in self.list_objects(PREFIX):
            self.lab.delete_object(entry["Key"])
        self.wait_until_quiet()

    def wait_until_quiet(self) -> None:
        """Wait until no run of the pipeline is under way and no event is queued for one."""

        def require_quiet() -> None:
            waiting = self.has_queued_event()  # asked first: an event leaves the queue as a run
            under_way = list_active_runs(self.lab, DAG)
            if under_way or waiting:
                raise NotYet(f"{under_way or 'one more run'} is to come")

        wait_until(
            require_quiet, what=f"the end of the runs of {DAG}", timeout=PATIENCE, interval=0.5
        )

    def has_queued_event(self) -> bool:
        """Return whether an event of the landing zone waits for its run."""
        from airflow_client.client import AssetApi
        from airflow_client.client.exceptions import NotFoundException

        with self.lab.airflow() as client:
            try:
                return bool(AssetApi(client).get_dag_asset_queued_events(DAG).total_entries)
            except NotFoundException:
                return False

    def list_objects(self, prefix: str) -> list[dict[str, Any]]:
        return self.lab.list_objects(prefix)

    def read(self, key: str) -> bytes:
        return self.lab.read_object(key)

    def read_lineage(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read(LINEAGE))
        return found

    def list_events(self, key: str) -> list[dict[str, Any]]:
        """List the payloads of a key's events, oldest first."""
        payloads = [extra.get("payload") or {} for extra in self.lab.events(ASSET)]
        return [payload for payload in payloads if payload.get("key") == key]

    def wait_for_events(self, *keys: str) -> None:
        """Wait until each key has an event."""

        def require_events() -> None:
            if missing := [key for key in keys if not self.list_events(key)]:
                raise NotYet(f"no event of {missing}")

        wait_until(require_events, what="the events", timeout=PATIENCE, interval=0.3)

    def wait_until_loaded(self, *keys: str) -> dict[str, Any]:
        """Wait until the warehouse has the newest content of these keys; return its lineage."""
        wanted = {
            e["Key"]: e["ETag"].strip('"') for e in self.list_objects(PREFIX) if e["Key"] in keys
        }

        def find_loaded() -> dict[str, Any]:
            if not self.list_objects(LINEAGE):
                raise NotYet("no run has loaded anything")
            found = self.read_lineage()
            sources = {source["key"]: source["etag"] for source in found["sources"]}
            if not wanted.items() <= sources.items():
                raise NotYet(f"the warehouse was made of {sources}, not of {wanted}")
            return found

        return wait_until(find_loaded, what="the warehouse", timeout=PATIENCE, interval=0.5)

    def wait_for_run_of(self, key: str) -> Run:
        """Wait until the event of this key has started a run, and return the run."""

        def find_started() -> Run:
            for event in self.lab.asset_events(ASSET):
                if (event.extra.get("payload") or {}).get("key") == key and event.created_dagruns:
                    run = self.lab.find_run(DAG, event.created_dagruns[0].run_id)
                    assert run
                    return run
            raise NotYet(f"no run was started by {key}")

        return wait_until(find_started, what=f"a run of {DAG}", timeout=PATIENCE, interval=0.5)
