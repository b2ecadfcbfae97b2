"""What the control plane logs to CloudWatch: kept for some days, deleted with the cluster."""

from __future__ import annotations

from eks import aws
from eks.aws import (
    call_or_none,
    describe_cluster,
    wait_until_settled,
)
from eks.eksctl import read_cluster_config
from eks.site import Site
from lab.wait import NotYet

LOGS = "/aws/eks/{cluster}/cluster"  # the control plane's, which outlive it
LOG_SECONDS = 300  # until a control plane has logged something


def set_log_retention(site: Site) -> None:
    """Limit the control plane's logs to the days of the file; without a limit they stay for ever.

    eksctl sets the limit after its stack, which switches the logs on: an eksctl that was killed has
    not. Raises CloudBusy while the cluster logs and has no log group yet.
    """
    days, group = log_retention_days(site), LOGS.format(cluster=site.environment.cluster)
    put = site.aws.client("logs").put_retention_policy

    def check() -> None:
        doing = f"keep log group {group} for {days} days"
        if call_or_none(
            doing, put, logGroupName=group, retentionInDays=days
        ) is None and has_logging(site):
            raise NotYet("EKS has not made it, and what goes there later would be kept for ever")

    if days:
        wait_until_settled(
            check, what=f"log group {group}", timeout=LOG_SECONDS, interval=aws.CLUSTER_INTERVAL
        )


def log_retention_days(site: Site) -> int:
    """Return for how many days the file wants the logs; 0 for ever, as with eksctl."""
    chosen = (
        read_cluster_config(site.environment, site.kit)
        .get("cloudWatch", {})
        .get("clusterLogging", {})
    )
    return int(chosen.get("logRetentionInDays", 0))


def has_logging(site: Site) -> bool:
    """Return whether the cluster logs anything: somebody may have switched that off."""
    said = (describe_cluster(site.aws, site.environment.cluster) or {}).get("logging", {})
    return any(kind["enabled"] and kind["types"] for kind in said.get("clusterLogging", []))


def delete_logs(site: Site) -> None:
    """Delete the control plane's logs, unless another cluster has its name by now."""
    if describe_cluster(site.aws, site.environment.cluster):
        return
    group = LOGS.format(cluster=site.environment.cluster)
    delete = site.aws.client("logs").delete_log_group
    call_or_none(f"delete log group {group}", delete, logGroupName=group)
