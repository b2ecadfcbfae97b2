"""The landing zone of sales, as those see it who put files there, and what becomes of them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from lab.client import runs, s3
from lab.lab import Lab
from lab.model import Run
from lab.wait import NotYet, until
from tests.support.idle import active

PREFIX, ASSET, DAG = "landing/sales/", "landed_sales", "sales_pipeline"
WAREHOUSE, LINEAGE = f"results/{DAG}/warehouse.csv", f"results/{DAG}/lineage.json"
PATIENCE = 180  # seconds until what must happen by itself has happened


@dataclass(frozen=True)
class Landing:
    """Its own files are named after it, so that no two tests put the same one."""

    lab: Lab
    mark: str = field(default_factory=lambda: uuid4().hex[:8])

    @property
    def client(self) -> Any:
        return s3.client(self.lab)

    def key(self, name: str) -> str:
        return f"{PREFIX}{self.mark}-{name}.csv"

    def put(self, name: str, *amounts: object) -> str:
        """The key of a file with these amounts."""
        rows = (f"{self.mark}-{name}-{n},{amount},Rome\n" for n, amount in enumerate(amounts))
        body = ("id,amount,city\n" + "".join(rows)).encode()
        self.client.put_object(Bucket=self.lab.s3_bucket, Key=self.key(name), Body=body)
        return self.key(name)

    def clear(self) -> None:
        """Nothing has landed, and no run of the pipeline is under way."""
        for entry in self.listed(PREFIX):
            self.client.delete_object(Bucket=self.lab.s3_bucket, Key=entry["Key"])
        self.await_quiet()

    def await_quiet(self) -> None:
        """No run of the pipeline is under way."""

        def quiet() -> None:
            waiting = self.told_lately()  # asked first: then it is a run, or still to be one
            under_way = active(self.lab, DAG)
            if under_way or waiting:
                raise NotYet(f"{under_way or 'one more run'} is to come")

        until(quiet, what=f"the end of the runs of {DAG}", timeout=PATIENCE, interval=0.5)

    def told_lately(self) -> bool:
        """Whether an event waits for its run."""
        from airflow_client.client import AssetApi
        from airflow_client.client.exceptions import NotFoundException

        with runs.calling(self.lab) as client:
            try:
                return bool(AssetApi(client).get_dag_asset_queued_events(DAG).total_entries)
            except NotFoundException:
                return False

    def listed(self, prefix: str) -> list[dict[str, Any]]:
        place = {"Bucket": self.lab.s3_bucket, "Prefix": prefix}
        pages = self.client.get_paginator("list_objects_v2").paginate(**place)
        return [entry for page in pages for entry in page.get("Contents", [])]

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.lab.s3_bucket, Key=key)["Body"].read()
        return content

    def lineage(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.read(LINEAGE))
        return found

    def told(self, key: str) -> list[dict[str, Any]]:
        """The events of a key, the oldest first."""
        payloads = [extra.get("payload") or {} for extra in self.lab.events(ASSET)]
        return [payload for payload in payloads if payload.get("key") == key]

    def await_told(self, *keys: str) -> None:
        """Each key has an event."""

        def told() -> None:
            if missing := [key for key in keys if not self.told(key)]:
                raise NotYet(f"nothing was told of {missing}")

        until(told, what="the events", timeout=PATIENCE, interval=0.3)

    def await_loaded(self, *keys: str) -> dict[str, Any]:
        """The lineage of a warehouse that has the newest content of these keys."""
        wanted = {e["Key"]: e["ETag"].strip('"') for e in self.listed(PREFIX) if e["Key"] in keys}

        def loaded() -> dict[str, Any]:
            if not self.listed(LINEAGE):
                raise NotYet("no run has loaded anything")
            found = self.lineage()
            sources = {source["key"]: source["etag"] for source in found["sources"]}
            if not wanted.items() <= sources.items():
                raise NotYet(f"the warehouse was made of {sources}, not of {wanted}")
            return found

        return until(loaded, what="the warehouse", timeout=PATIENCE, interval=0.5)

    def await_run_of(self, key: str) -> Run:
        """The run that the event of this key has started."""

        def started() -> Run:
            for event in runs.all_events(self.lab, ASSET):
                if (event.extra.get("payload") or {}).get("key") == key and event.created_dagruns:
                    run = runs.find(self.lab, DAG, event.created_dagruns[0].run_id)
                    assert run
                    return run
            raise NotYet(f"no run was started by {key}")

        return until(started, what=f"a run of {DAG}", timeout=PATIENCE, interval=0.5)
