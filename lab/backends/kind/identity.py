"""What the pods of a lab on kind may do in S3, and whether they got credentials for it.

EKS Auth's stand-in and the node's agent log each decision as a line of JSON.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from lab.backends.doctor import Finding
from lab.backends.kind import s3_policies
from lab.backends.kind.site import Site
from lab.cluster import static_keys, workloads
from lab.cluster.api import Cluster
from lab.cluster.associations import Role
from lab.cluster.workloads import AIRFLOW, STORES
from lab.errors import LabError, StaticKey
from lab.layout import BUCKET

LINES = 5000  # of each log, at most
VERBS = {"s3:GetObject": "reads", "s3:PutObject": "writes", "s3:DeleteObject": "deletes"}
Decision = Mapping[str, str]


def examine(site: Site) -> list[Finding]:
    """Return what is found about static keys, and of each account that has a role."""
    decisions = read_decisions(site.cluster)
    accounts = [
        Finding(account, f"{describe_role(site, role)}; {describe_last(decisions, account)}")
        for role in site.roles.values()
        for account in role.accounts
    ]
    return [find_keys(site.cluster), *accounts]


def find_keys(cluster: Cluster) -> Finding:
    """Return whether a pod could read a static key, which would silently win over its role."""
    found = static_keys.find_static_keys(cluster, AIRFLOW, STORES)
    if not found:
        return Finding("static keys", "no pod could read one")
    what = f"within reach of {', '.join(map(str, found))}"
    fix = "remove them: a key wins over the role of a pod's service account"
    return Finding("static keys", what, StaticKey(f"static keys are {what}", fix))


def describe_role(site: Site, role: Role) -> str:
    """Return the role's name, and what it reads, writes and deletes."""
    policy = s3_policies.read_role_policy(site.config.kit, role, BUCKET)
    may = list_objects_by_verb(policy["Statement"])
    return f"role {role.name}: " + "; ".join(f"{verb} {', '.join(may[verb])}" for verb in may)


def list_objects_by_verb(statements: Iterable[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Return which objects the statements allow to read, write and delete; they have wildcards."""
    found: dict[str, list[str]] = {}
    for one in statements:
        for action in one["Action"]:
            if one["Effect"] == "Allow" and action in VERBS:
                names = [each.partition("/")[2] for each in one["Resource"]]
                found.setdefault(VERBS[action], []).extend(names)
    return {verb: sorted(set(names)) for verb, names in found.items()}


def describe_last(decisions: Iterable[Decision], account: str) -> str:
    """Return when the account last got credentials; if it was refused since, why."""
    own = [each for each in decisions if each.get("serviceAccount") == account]
    granted = [each for each in own if each["decision"] == "granted"]
    since = granted[-1]["time"] if granted else ""
    refused = [each for each in own if each["decision"] == "refused" and each["time"] > since]
    said = f"got credentials at {since[:19]}" if granted else "has got no credentials yet"
    if not refused:
        return said
    last = refused[-1]
    return f"{said}, was refused at {last['time'][:19]}: {last['error']}: {last['why']}"


def read_decisions(cluster: Cluster) -> list[Decision]:
    """Return the decisions that both servers have logged since they started, the oldest first."""
    found = [
        decision
        for workload in (workloads.EKS_AUTH, workloads.AGENT)
        for decision in parse_decisions(read_log(cluster, workload))
    ]
    return sorted(found, key=lambda each: each["time"])


def read_log(cluster: Cluster, workload: workloads.Workload) -> str:
    """Return the log of the workload's pods; an empty text where there is none."""
    place = ("--namespace", workload.namespace, "--selector", workload.selector)
    with contextlib.suppress(LabError):
        return cluster.kubectl("logs", *place, "--tail", str(LINES))
    return ""


def parse_decisions(text: str) -> Iterator[Decision]:
    """Yield the decisions of a log, which holds other lines, too."""
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            said = json.loads(line)
            if isinstance(said, dict) and "decision" in said:
                yield said
