"""From the trigger to the pushed commit: steps with an identity, and steps with static keys."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lab.backends.kind.site import find_site
from lab.cluster.api import Cluster
from lab.cluster.workloads import AIRFLOW
from lab.config import Config
from lab.lab import Lab
from tests.bench.commit import DAG, time_run
from tests.bench.row import Row
from tests.bench.turns import take_turns

KEYS = "s3-credentials-of-a-bench"
NAMES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PLACE = ("--namespace", AIRFLOW)


def measure_identity(lab: Lab, config: Config, arguments: argparse.Namespace) -> Iterator[Row]:
    """Yield the medians of both, which take turns; nothing where there is no cluster."""
    if lab.backend != "kind":
        return
    site = find_site(config)
    with holding_keys(site.cluster, lab) as template:
        ways = (
            partial(time_run_with_keys, lab, site.cluster, template),
            partial(time_run, lab, DAG),
        )
        keys, identity = take_turns(arguments.rounds, *ways)
    yield Row("trigger to pushed commit: identity / static keys", identity, keys, "ratio 1.05")


@contextmanager
def holding_keys(cluster: Cluster, lab: Lab) -> Iterator[dict[str, Any]]:
    """Keep a Secret with keys while the block runs; yield the PodTemplate of a step."""
    shown = cluster.kubectl("get", "podtemplate", "step", *PLACE, "--output", "json")
    cluster.write_secret(
        AIRFLOW, KEYS, dict(zip(NAMES, (lab.s3_access_key, lab.s3_secret_key), strict=True))
    )
    try:
        yield json.loads(shown)
    finally:
        cluster.kubectl("delete", "secret", KEYS, *PLACE)


def time_run_with_keys(lab: Lab, cluster: Cluster, template: dict[str, Any]) -> float:
    """Return the seconds of a run whose steps have keys, which SDKs take before anything else."""
    with_keys = json.loads(json.dumps(template))
    (container,) = with_keys["template"]["spec"]["containers"]
    container["env"] += [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": KEYS, "key": name}}} for name in NAMES
    ]
    replace_template(cluster, with_keys)
    try:
        return time_run(lab, DAG)
    finally:
        replace_template(cluster, template)


def replace_template(cluster: Cluster, template: dict[str, Any]) -> None:
    metadata = {"name": "step", "namespace": AIRFLOW, "labels": template["metadata"]["labels"]}
    content = json.dumps({**template, "metadata": metadata})
    cluster.kubectl("replace", "--filename", "-", stdin=content)
