"""The cluster: made by eksctl of `eks/cluster.yaml`, or one that is there already.

eksctl keeps what it makes in CloudFormation stacks, which go on when eksctl is killed. So `make`
looks what there is, waits until nothing is on its way any more, and has eksctl add what is missing.
"""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from eks.aws import LATER, ask, described, find, foreign, meant, pages, settled
from eks.environment import FOLDER, Environment
from eks.site import Row, Site, is_ours, tags_of
from lab.config import TREE
from lab.errors import BusyError, LabError, MachineError, NotRunningError, PromotionError
from lab.files import write_private
from lab.shell import run, tail
from lab.wait import NotYet

KIND, ADDON = "cluster", "add-on"  # the ledger's kinds
FILE = Path("eks", "cluster.yaml")
AGENT = "eks-pod-identity-agent"
DRIVER = "aws-efs-csi-driver"
DISK_DRIVER = "aws-ebs-csi-driver"
RDS = "rds"  # the option with which there is no database in the cluster, nor a disk for it
LOGS = "/aws/eks/{cluster}/cluster"  # the control plane's, which outlive it
ACCEPTS = SpecifierSet(">=0.217,<1")  # that know `upgradePolicy`, and ask EKS for its versions
INSTALL = f"install eksctl {ACCEPTS}: https://eksctl.io/installation/"
# eksctl's own tag of each of its stacks, and the end of the name of the one with the network.
OWNER = "alpha.eksctl.io/cluster-name"
NETWORK_STACK = "eksctl-{cluster}-cluster"
EKSCTL_SECONDS = 5400
WAIT_SECONDS = 2700
WAIT_INTERVAL = 15.0
LOG_SECONDS = 300  # until a control plane has logged something
IN_USE = ("ACTIVE", "UPDATING")
UNDERWAY = ("CREATING", "UPDATING", "PENDING", "DELETING")


# --- What is wanted -----------------------------------------------------------------------------


def plan(environment: Environment) -> list[Row]:
    """What `make` makes."""
    if not environment.make_cluster:
        return [Row("EKS cluster", environment.cluster, "it is there already, and stays")]
    groups = wanted(environment, TREE)["managedNodeGroups"]
    control = Row(
        "EKS cluster",
        environment.cluster,
        f"Kubernetes {environment.kubernetes}, private nodes",
        "1 control plane's hours; GB of its logs",
    )
    network = Row(
        "VPC",
        environment.cluster,
        "public and private subnets in each zone",
        "1 NAT gateway's hours, GB through it; GB between zones",
    )
    return [control, network, *(group_row(group) for group in groups)]


def group_row(group: Mapping[str, Any]) -> Row:
    low, first, high = group["minSize"], group["desiredCapacity"], group["maxSize"]
    kind = "spot" if group.get("spot") else "on demand"
    return Row(
        "Node group",
        group["name"],
        f"{kind}: {', '.join(group['instanceTypes'])}",
        f"{first} machines' hours at first ({low} to {high}), each with {group['volumeSize']} GB",
    )


def wanted(environment: Environment, tree: Path) -> dict[str, Any]:
    """The file for eksctl, filled in."""
    import yaml

    text = environment.fill((tree / FILE).read_text("utf-8"), FILE)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def instance_types(site: Site) -> list[str]:
    """The machines that the region must have, in the order of the file."""
    if not site.environment.make_cluster:
        return []
    groups = wanted(site.environment, site.tree)["managedNodeGroups"]
    return list(dict.fromkeys(kind for group in groups for kind in group["instanceTypes"]))


# --- eksctl -------------------------------------------------------------------------------------


def tools(site: Site) -> list[str]:
    """What `make` calls, with its version, as a person reads it. Raises MachineError."""
    if not site.environment.make_cluster:
        return []
    path, version = program()
    return [f"eksctl {version} ({path})"]


def program() -> tuple[Path, Version]:
    """eksctl, of a version that will do. Raises MachineError."""
    found = shutil.which("eksctl")
    if not found:
        raise MachineError("there is no eksctl, which makes and deletes the cluster", INSTALL)
    said = re.search(r"\d+\.\d+\.\d+", run([found, "version"], timeout=60, fix=INSTALL))
    version = Version(said[0]) if said else None
    if version is None or version not in ACCEPTS:
        raise MachineError(f"{found} is of version {version or 'unknown'}", INSTALL)
    return Path(found), version


def eksctl(site: Site, *arguments: str) -> None:
    """eksctl has done this with the environment's file. Raises LabError's children; see its log."""
    path, _ = program()
    file, log = site.folder / "cluster.yaml", site.folder / "eksctl.log"
    command = [str(path), *arguments, "--config-file", str(file)]
    with alone(site) as lock, log.open("a", encoding="utf-8") as out:
        # Written out: eksctl is strict, and may take a key that replaces a merged one for doubled.
        write_private(file, json.dumps(wanted(site.environment, site.tree), indent=1))
        print(f"+ {shlex.join(command)}", file=out, flush=True)
        began = out.tell()
        told: Any = {"stdout": out, "stderr": out, "pass_fds": [lock]}
        try:
            done = subprocess.run(command, timeout=EKSCTL_SECONDS, check=False, **told)
        except subprocess.TimeoutExpired:
            raise LabError(f"eksctl took over {EKSCTL_SECONDS} s", LATER, log) from None
    if done.returncode:
        with log.open(encoding="utf-8", errors="replace") as said:
            said.seek(began)
            raise failed(site, " ".join(arguments), said.read(), log)


@contextmanager
def alone(site: Site) -> Iterator[int]:
    """No other eksctl is at work here while the block runs. Raises BusyError when one is.

    Whoever is given the descriptor keeps the lock: an eksctl whose command was killed still has it.
    """
    with (site.folder / "eksctl.lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BusyError(
                "an eksctl of an earlier command is still at work",
                "wait until it has ended, and run the same command again; its log says how far"
                " it is",
                site.folder / "eksctl.log",
            ) from None
        yield file.fileno()


def refuse_another(site: Site) -> None:
    """Raises BusyError while an eksctl of an earlier command is at work."""
    with alone(site):
        pass


def failed(site: Site, what: str, said: str, log: Path) -> LabError:
    """Why eksctl failed: CloudFormation knows it better, when it was there that it failed."""
    reasons = [*stack_reasons(site), tail(said, 5)]
    return meant(f"eksctl {what} failed", "\n".join(reasons), log)


# --- Stacks -------------------------------------------------------------------------------------


def stacks(site: Site) -> list[dict[str, Any]]:
    """eksctl's stacks of this cluster, the one with the network last: the others are in it."""
    client = site.aws.client("cloudformation")
    found = pages("list the stacks", client, "describe_stacks", "Stacks")
    name = site.environment.cluster
    mine = [s for s in found if tags(s).get(OWNER) == name and is_ours(site.environment, tags(s))]
    return sorted(mine, key=lambda stack: stack["StackName"] == network_stack(site))


def tags(stack: Mapping[str, Any]) -> dict[str, str]:
    return tags_of(stack.get("Tags", []))


def network_stack(site: Site) -> str:
    return NETWORK_STACK.format(cluster=site.environment.cluster)


def stack_reasons(site: Site) -> list[str]:
    """What CloudFormation says was the first thing to fail, of each stack that has failed."""
    client = site.aws.client("cloudformation")
    reasons = []
    for stack in stacks(site):
        if "FAILED" not in stack["StackStatus"] and "ROLLBACK" not in stack["StackStatus"]:
            continue
        doing, name = "read why a stack failed", stack["StackName"]
        events = pages(doing, client, "describe_stack_events", "StackEvents", StackName=name)
        why = [e for e in events if e["ResourceStatus"].endswith("FAILED")]  # the newest first
        reasons += [f"{name}: {e.get('ResourceStatusReason', '')}" for e in why[-1:]]
    return reasons


def wait_for_stacks(site: Site) -> None:
    """CloudFormation does nothing with this cluster's stacks."""

    def check() -> None:
        for stack in stacks(site):
            if stack["StackStatus"].endswith("_IN_PROGRESS"):
                raise NotYet(f"{stack['StackName']} is {stack['StackStatus']}")

    waited(check, "what eksctl had begun")


def waited(check: Any, what: str) -> None:
    settled(check, what=what, timeout=WAIT_SECONDS, interval=WAIT_INTERVAL)


def clear(site: Site) -> None:
    """There are no stacks of a cluster that is not there (any more). Raises LabError's children."""
    delete = site.aws.client("cloudformation").delete_stack
    for network in (False, True):  # the others are in it
        wait_for_stacks(site)
        for stack in stacks(site):
            name = stack["StackName"]
            if network or name != network_stack(site):
                find(f"delete stack {name}", delete, StackName=name)
    wait_for_stacks(site)
    if left := stacks(site):
        names = ", ".join(stack["StackName"] for stack in left)
        raise meant(f"CloudFormation could not delete {names}", "\n".join(stack_reasons(site)))


# --- Making -------------------------------------------------------------------------------------


def make(site: Site) -> None:
    """The cluster is there, with its node groups and add-ons. Raises LabError's children."""
    if site.environment.make_cluster:
        build(site)
    else:
        adopt(site)


def exists(site: Site) -> bool:
    """Whether there is a cluster that answers."""
    found = described(site.aws, site.environment.cluster)
    return bool(found) and found["status"] in IN_USE


def build(site: Site) -> None:
    """The cluster that eksctl makes of the file. What a killed `make` began is ended first."""
    refuse_another(site)
    name = site.environment.cluster
    refuse_foreign(site)
    with site.ledger.making(KIND, name) as facts:
        wait_for_stacks(site)
        found = ready(site)
        if found is None:
            clear(site)  # of a first attempt that failed, or of a cluster deleted by hand
            eksctl(site, "create", "cluster", "--write-kubeconfig=false")
        limit_logs(site)
        if found:
            upgrade(site, found)
            complete(site)
        refuse_broken_groups(site)
        facts["arn"] = str((ready(site) or {}).get("arn", ""))


def refuse_foreign(site: Site) -> None:
    """Raises NameTaken when the cluster, or the stack it would be in, is not this environment's."""
    environment = site.environment
    found = described(site.aws, environment.cluster)
    if found and not is_ours(environment, found["tags"]):
        raise foreign(KIND, environment.cluster, environment)
    client = site.aws.client("cloudformation")
    for stack in pages("list the stacks", client, "describe_stacks", "Stacks"):
        other = not is_ours(environment, tags(stack))
        if stack["StackName"] == network_stack(site) and other:
            raise foreign("stack", stack["StackName"], environment)


def ready(site: Site) -> Any:
    """The cluster, once it is active; None where there is none. Raises PromotionError."""
    name = site.environment.cluster

    def look() -> Any:
        found = described(site.aws, name)
        if found and found["status"] in UNDERWAY:
            raise NotYet(f"it is {found['status']}")
        return found

    found = settled(look, what=f"cluster {name}", timeout=WAIT_SECONDS, interval=WAIT_INTERVAL)
    if found and found["status"] != "ACTIVE":
        issues = [issue["message"] for issue in found.get("health", {}).get("issues", [])]
        again = "nox -s eks -- destroy removes it; then apply again"
        raise meant(f"cluster {name} is {found['status']}", "\n".join(issues), fix=again)
    return found


def limit_logs(site: Site) -> None:
    """What the control plane logs is kept for the file's days, and not for ever.

    eksctl says so to CloudWatch after its stack, which alone switches the logs on: an eksctl that
    was killed has not. Raises CloudBusy while the cluster logs, and has no group for it yet.
    """
    days, group = days_of_logs(site), LOGS.format(cluster=site.environment.cluster)
    put = site.aws.client("logs").put_retention_policy

    def check() -> None:
        doing = f"keep log group {group} for {days} days"
        if find(doing, put, logGroupName=group, retentionInDays=days) is None and is_logging(site):
            raise NotYet("EKS has not made it, and what goes there later would be kept for ever")

    if days:
        settled(check, what=f"log group {group}", timeout=LOG_SECONDS, interval=WAIT_INTERVAL)


def days_of_logs(site: Site) -> int:
    """For how long the file wants the logs; 0 for ever, as with eksctl."""
    chosen = wanted(site.environment, site.tree).get("cloudWatch", {}).get("clusterLogging", {})
    return int(chosen.get("logRetentionInDays", 0))


def is_logging(site: Site) -> bool:
    """Whether the cluster logs anything. Somebody may have switched that off."""
    said = (described(site.aws, site.environment.cluster) or {}).get("logging", {})
    return any(kind["enabled"] and kind["types"] for kind in said.get("clusterLogging", []))


def upgrade(site: Site, found: Mapping[str, Any]) -> None:
    """The control plane has the environment's version.

    Raises PromotionError when it has a newer one, or is more than one version behind.
    """
    had, chosen = Version(found["version"]), Version(site.environment.kubernetes)
    if had > chosen:
        raise wrong_version(site, found)
    if had.minor + 1 < chosen.minor:
        raise too_far(site, had, chosen)
    if had < chosen:
        eksctl(site, "upgrade", "cluster", "--approve")


def too_far(site: Site, had: Version, chosen: Version) -> PromotionError:
    return PromotionError(
        f"cluster {site.environment.cluster} has Kubernetes {had}, and can't go to {chosen} at"
        " once: EKS upgrades by one version at a time",
        f"one after the other: set kubernetes to {had.major}.{had.minor + 1} in"
        f" {FOLDER / site.environment.name}.toml, apply, upgrade the nodes, and go on from there",
    )


def wrong_version(site: Site, found: Mapping[str, Any]) -> PromotionError:
    environment = site.environment
    return PromotionError(
        f"cluster {environment.cluster} has Kubernetes {found['version']},"
        f" and environment {environment.name} asks for {environment.kubernetes}",
        f"correct kubernetes in {FOLDER / environment.name}.toml, or upgrade the cluster",
    )


def complete(site: Site) -> None:
    """The cluster has every add-on and node group of the file; eksctl leaves those there alone.

    Add-ons come first: no node gets ready without vpc-cni. eksctl does not wait for their pods.
    """
    chosen = wanted(site.environment, site.tree)
    for what, kind in (("addon", "addons"), ("nodegroup", "managedNodeGroups")):
        if lacking := named(chosen[kind]) - listed(site, f"{what}s"):
            drop_stacks(site, what, lacking)
            eksctl(site, "create", what)
            refuse_lacking(site, what, named(chosen[kind]))


def drop_stacks(site: Site, what: str, names: set[str]) -> None:
    """There are no stacks of what is not there: eksctl would take it for made."""
    delete = site.aws.client("cloudformation").delete_stack
    prefixes = tuple(f"eksctl-{site.environment.cluster}-{what}-{name}-" for name in names)
    for stack in stacks(site):
        name = stack["StackName"]
        if f"{name}-".startswith(prefixes):
            find(f"delete stack {name}", delete, StackName=name)
    wait_for_stacks(site)


def refuse_lacking(site: Site, what: str, names: set[str]) -> None:
    """Raises PromotionError when eksctl says that it is done, and is not."""
    if lacking := names - listed(site, f"{what}s"):
        raise PromotionError(
            f"eksctl made no {what} {', '.join(sorted(lacking))}",
            "read its log",
            site.folder / "eksctl.log",
        )


def named(entries: list[dict[str, Any]]) -> set[str]:
    return {entry["name"] for entry in entries}


def listed(site: Site, what: str) -> set[str]:
    """The names of the cluster's node groups or add-ons."""
    eks, name = site.aws.client("eks"), site.environment.cluster
    return set(pages(f"list the {what} of {name}", eks, f"list_{what}", what, clusterName=name))


def refuse_broken_groups(site: Site) -> None:
    """Raises PromotionError when machines of a node group could not be had."""
    name = site.environment.cluster
    look = site.aws.client("eks").describe_nodegroup
    for group in sorted(listed(site, "nodegroups")):
        said = ask(f"look at {group}", look, clusterName=name, nodegroupName=group)["nodegroup"]
        if said["status"].endswith("FAILED"):
            issues = [issue["message"] for issue in said.get("health", {}).get("issues", [])]
            raise meant(
                f"node group {group} is {said['status']}",
                "\n".join(issues),
                fix=f"eksctl delete nodegroup --region {site.aws.region} --cluster {name}"
                f" --name {group}; then apply again",
            )


# --- One that is there already ------------------------------------------------------------------


def adopt(site: Site) -> None:
    """The cluster that is there will do. Raises PromotionError when it won't."""
    environment = site.environment
    found = ready(site)
    if not found:
        raise PromotionError(
            f"there is no cluster {environment.cluster} in {environment.region}",
            f"correct cluster, or set make_cluster, in {FOLDER / environment.name}.toml",
        )
    if found["version"] != environment.kubernetes:
        raise wrong_version(site, found)
    make_agent(site)  # what the drivers' identities need, too
    refuse_without(site, DRIVER, "the steps share a volume")
    if RDS not in environment.options:
        refuse_without(site, DISK_DRIVER, "the database has a disk")


def refuse_without(site: Site, driver: str, why: str) -> None:
    """Raises PromotionError when the cluster lacks the driver's add-on."""
    environment = site.environment
    if driver not in listed(site, "addons"):
        raise PromotionError(
            f"cluster {environment.cluster} has no add-on {driver}, and {why}",
            f"add it, with its Pod Identity association: eksctl create addon --name {driver}"
            f" --cluster {environment.cluster} --region {environment.region}"
            " --auto-apply-pod-identity-associations",
        )


def make_agent(site: Site) -> None:
    """The cluster gives identities to pods. What was there before the ledger does not name."""
    name = addon_name(site)
    if not site.ledger.find(ADDON, name) and AGENT in listed(site, "addons"):
        return
    with site.ledger.making(ADDON, name) as facts:
        if AGENT not in listed(site, "addons"):
            ask(
                f"add {AGENT}",
                site.aws.client("eks").create_addon,
                clusterName=site.environment.cluster,
                addonName=AGENT,
                tags=site.environment.tags,
            )
        facts["arn"] = settled(
            lambda: active_agent(site), what=AGENT, timeout=WAIT_SECONDS, interval=WAIT_INTERVAL
        )


def addon_name(site: Site) -> str:
    return f"{site.environment.cluster}/{AGENT}"


def active_agent(site: Site) -> str:
    """The add-on's ARN. Raises NotYet until it runs, PromotionError when it can't."""
    look = site.aws.client("eks").describe_addon
    said = ask(f"look at {AGENT}", look, clusterName=site.environment.cluster, addonName=AGENT)
    state, issues = said["addon"]["status"], said["addon"].get("health", {}).get("issues", [])
    if state.endswith("FAILED"):
        raise meant(f"{AGENT} is {state}", "\n".join(issue["message"] for issue in issues))
    if state not in ("ACTIVE", "DEGRADED"):  # without a node it has nowhere to run yet
        raise NotYet(f"it is {state}")
    return str(said["addon"]["addonArn"])


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site) -> None:
    """There is no cluster, if an `apply` made it; of another's, what an `apply` added is gone."""
    refuse_another(site)
    name = site.environment.cluster
    if not site.environment.make_cluster:
        remove_agent(site)
        return
    if site.ledger.find(KIND, name) or is_tagged(site) or stacks(site):
        wait_for_stacks(site)
        if is_tagged(site):
            eksctl(site, "delete", "cluster", "--wait", "--disable-nodegroup-eviction")
        clear(site)
        delete_logs(site)
    site.ledger.forget(KIND, name)
    (site.folder / "kubeconfig").unlink(missing_ok=True)


def is_tagged(site: Site) -> bool:
    """Whether there is a cluster that was made for this environment."""
    found = described(site.aws, site.environment.cluster)
    return bool(found) and is_ours(site.environment, found["tags"])


def delete_logs(site: Site) -> None:
    """What the control plane logged is gone, unless another cluster has its name by now."""
    if described(site.aws, site.environment.cluster):
        return
    group = LOGS.format(cluster=site.environment.cluster)
    delete = site.aws.client("logs").delete_log_group
    find(f"delete log group {group}", delete, logGroupName=group)


def remove_agent(site: Site) -> None:
    """The cluster has no agent of ours, unless it serves others by now: then it is theirs."""
    cluster, name = site.environment.cluster, addon_name(site)
    if site.ledger.find(ADDON, name):
        if is_used(site):
            print(f"  {AGENT} stays in {cluster}: others there get their identities from it")
        else:
            delete = site.aws.client("eks").delete_addon
            find(f"remove {AGENT}", delete, clusterName=cluster, addonName=AGENT)
    site.ledger.forget(ADDON, name)


def is_used(site: Site) -> bool:
    """Whether any pod of the cluster is given an identity. Ours are not any more."""
    eks, cluster = site.aws.client("eks"), site.environment.cluster
    doing, key = f"list the associations of {cluster}", "associations"
    return bool(pages(doing, eks, "list_pod_identity_associations", key, clusterName=cluster))


# --- Its key ------------------------------------------------------------------------------------


def kubeconfig(site: Site) -> Path:
    """A file for kubectl, of the cluster as it is now. It holds no secret: `eks.token` signs in."""
    import yaml

    name = site.environment.cluster
    found = described(site.aws, name)
    if not found or "endpoint" not in found:
        raise NotRunningError(f"there is no cluster {name} that answers", "nox -s eks -- apply")
    path = site.folder / "kubeconfig"
    write_private(path, yaml.safe_dump(kubectl_reads(site, found), sort_keys=False))
    return path


def kubectl_reads(site: Site, found: Mapping[str, Any]) -> dict[str, Any]:
    """One cluster, one user, and the context of both."""
    name = site.environment.cluster
    where = {
        "server": found["endpoint"],
        "certificate-authority-data": found["certificateAuthority"]["data"],
    }
    signs_in = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": ["-m", "eks.token", site.aws.region, name],
        "env": [{"name": "PYTHONPATH", "value": str(site.tree)}],
        "interactiveMode": "Never",
    }
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": where}],
        "users": [{"name": name, "user": {"exec": signs_in}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
