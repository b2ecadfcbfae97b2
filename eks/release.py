"""What runs in the cluster: the overlay's objects, the Secrets, and Airflow's Helm release."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from eks import cluster, kubeconfig, prerequisites
from eks.access import PASSWORD, USER, Account, find_git_account
from eks.aws import wait_until_settled
from eks.environment import PRIVATE, Environment
from eks.rendering import AwsOutputs, make_folder, render_overlay, write_values_files
from eks.site import Row, Site
from lab.client import git
from lab.cluster import chart, manifests, workloads
from lab.cluster.api import CALL_SECONDS, Cluster, translating_errors
from lab.cluster.secrets import METADATA, Value, Values, merge_values, random_values
from lab.cluster.workloads import AIRFLOW, STORES
from lab.delivery import ssh
from lab.errors import AccountError, LabError, NameTaken, PromotionError
from lab.layout import OWNER
from lab.reasons import find_reason
from lab.wait import NotYet, run_in_parallel

KIND = "namespaces"
LABEL = "mlops-lab/environment"  # of every object of the overlay
OWNED = "namespace,storageclass"  # what contains the rest, or is cluster-wide
# Kinds that an option adds: deleted when it is turned off, or left for the user to look at first.
CLOSED = "networkpolicy"
KEPT = "statefulset,persistentvolumeclaim,service,configmap"
HOPELESS = ("InvalidImageName", "ErrImageNeverPull")  # a failed pull is retried, so not in here
START_SECONDS = 900  # nodes may have to be added first
REMOVE_SECONDS = 600
SSH_FOLDER = "/opt/airflow/pipelines-ssh"
EXTERNAL = "external-secrets"


@dataclass(frozen=True)
class Given:
    """A value of a Secret that only the user knows: from a variable until the cluster has it."""

    variable: str
    secret: str
    key: str
    option: str | None = None  # needed only with this option


GIVEN = (
    Given(USER, "git-credentials", USER),
    Given(PASSWORD, "git-credentials", PASSWORD),
    Given("RDS_PASSWORD", "airflow-metadata", "password", "rds"),
    Given("OIDC_CLIENT_SECRET", "airflow-oidc", "client-secret", "oidc"),
    Given("PIPELINES_SSH_KEY", "pipelines-ssh", "key", PRIVATE),
)
# By option: what the cluster itself creates in AWS, or needs there.
BROUGHT = (
    (
        "ingress",
        Row("Load balancer", "airflow", "internal, HTTPS", "1 balancer's hours, its units"),
    ),
    ("external-secrets", Row("Secrets Manager", "entries", "yours: read", "entries, calls")),
)


def plan(environment: Environment) -> list[Row]:
    """List what an apply would install in the cluster."""
    options = ", ".join(environment.options) or "no options"
    return [
        Row("Secrets", AIRFLOW, describe_secrets(environment)),
        Row("overlay", "manifests/overlays/eks", options),
        *(row for option, row in BROUGHT if option in environment.options),
        Row("Helm release", f"{AIRFLOW}/{chart.RELEASE}", f"chart {chart.read_pin()['version']}"),
    ]


def describe_secrets(environment: Environment) -> str:
    if EXTERNAL in environment.options:
        return "brought by the External Secrets operator from AWS Secrets Manager"
    asked = ", ".join(one.variable for one in required_values(environment))
    return f"random values, and yours: {asked}"


def required_values(environment: Environment) -> list[Given]:
    """List the values that the user has to supply for this environment."""
    if EXTERNAL in environment.options:
        return []
    return [one for one in GIVEN if one.option is None or one.option in environment.options]


def connect_api(site: Site) -> Cluster:
    """Return the API of the cluster, which must exist, with the user's own credentials.

    Raise AccountError when it refuses them.
    """
    api = Cluster(kubeconfig.write_kubeconfig(site))
    try:
        api.kubectl("get", "namespace", "default", "--output", "name")
    except LabError as error:
        if re.search("Unauthorized|Forbidden|must be logged in|exec: .*failed", error.output):
            why = find_reason(error.output)
            raise AccountError(
                f"cluster {site.environment.cluster} does not let you in: {why}",
                "sign in again (aws sso login), or have its maker give you an EKS access entry",
            ) from error
        raise
    return api


def check(site: Site, api: Cluster | None) -> None:
    """Raise PromotionError when neither a variable nor the cluster has a value that a Secret needs,
    or when an option lacks a prerequisite; NameTaken when something in the cluster belongs to
    somebody else. `api` is None while there is no cluster."""
    if api:
        refuse_foreign(site, api, render_manifests(site, AwsOutputs()))
    lacking = [
        one.variable
        for one in required_values(site.environment)
        if not os.environ.get(one.variable)
        and not (api and secret_value(api, AIRFLOW, one.secret, one.key))
    ]
    if lacking:
        raise PromotionError(
            f"a Secret of the cluster needs {', '.join(lacking)}",
            "set it for this one command: the cluster keeps it",
        )
    if api:
        prerequisites.check(site.environment, api)
        for line in prerequisites.check_adopted(site.environment, api):
            print(f"  {line}")


def secret_value(api: Cluster, namespace: str, secret: str, key: str) -> str | None:
    """Return one value of a Secret in the cluster; None if the cluster does not have it."""
    return (api.read_secret(namespace, secret) or {}).get(key)


def refuse_foreign(site: Site, api: Cluster, rendered: str) -> None:
    """Raise NameTaken when a namespace or storage class of our names is not this environment's."""
    ours = {kind_and_name(entry) for entry in manifests.parse_objects(rendered)}
    for name, owner in owners_by_name(api, OWNED).items():
        if name in ours and owner != site.environment.name:
            raise NameTaken(
                f"the cluster has {name} without the label {LABEL}={site.environment.name}:"
                " it is somebody else's",
                "use a cluster of its own, or have them remove it",
            )


def owners_by_name(api: Cluster, kinds: str, *where: str) -> dict[str, str | None]:
    """Return by `Kind/name` the environment in the label of each object of these kinds, or None."""
    shown = prerequisites.list_objects(api, kinds, *where)
    return {kind_and_name(entry): entry["metadata"].get("labels", {}).get(LABEL) for entry in shown}


def kind_and_name(entry: Mapping[str, Any]) -> str:
    """Return `Kind/name` of an object."""
    return f"{entry['kind']}/{entry['metadata']['name']}"


def make(site: Site, outputs: AwsOutputs) -> None:
    """Apply the overlay and its Secrets, install Airflow, and wait until it serves.

    What is up to date is left alone. Raise subclasses of LabError.
    """
    api = connect_api(site)
    rendered = render_manifests(site, outputs)
    with site.ledger.making(KIND, site.environment.cluster):
        refuse_foreign(site, api, rendered)
        api.apply(manifests.select_namespaces(rendered))
        prerequisites.check(site.environment, api)
        write_secrets(site, api)
        api.apply(rendered)
        prune(site, api, rendered)
    install_airflow(site, api)


def render_manifests(site: Site, outputs: AwsOutputs) -> str:
    """Render the overlay as it is applied; keep a copy in the site's folder, for reading."""
    rendered = render_overlay(
        site.environment, site.config, make_folder(site.folder / "overlay"), outputs
    )
    (site.folder / "manifests.yaml").write_text(rendered, "utf-8")
    return rendered


def prune(site: Site, api: Cluster, rendered: str) -> None:
    """Delete the network policies of options that are now off; print what else they left, which may
    hold data."""
    wanted = {kind_and_name(entry) for entry in manifests.parse_objects(rendered)}
    ours = ("--selector", f"{LABEL}={site.environment.name}")
    for namespace in (AIRFLOW, STORES):
        where = ("--namespace", namespace)
        for name in owners_by_name(api, CLOSED, *where, *ours).keys() - wanted:
            api.kubectl("delete", name.lower(), *where, "--ignore-not-found")
        for name in sorted(owners_by_name(api, KEPT, *where, *ours).keys() - wanted):
            print(f"  {namespace}: {name} is of an option that is off: yours to remove")


def install_airflow(site: Site, api: Cluster) -> None:
    """Install or upgrade Airflow's release with the kit's values; wait until it serves."""
    folder, versions = make_folder(site.folder / "values"), read_secret_versions(api)
    files = write_values_files(site.environment, site.config, folder, versions)
    chart.install(site.config, api, files)
    parts = workloads.AIRFLOW_COMPONENTS
    ready = partial(workloads.wait_until_ready, timeout=START_SECONDS, hopeless=HOPELESS)
    run_in_parallel(*(partial(ready, api, part) for part in parts))


def read_secret_versions(api: Cluster) -> str:
    """Return a text that changes with any Secret that Airflow's pods may read; without contents."""
    chosen = ("--selector", "heritage!=Helm", "--field-selector", "type=Opaque")
    each = "{.metadata.name} {.metadata.uid} {.metadata.resourceVersion}"
    shown = f'jsonpath={{range .items[*]}}{each}{{"\\n"}}{{end}}'
    return api.kubectl("get", "secrets", "--namespace", AIRFLOW, *chosen, "--output", shown)


# --- Secrets ------------------------------------------------------------------------------------


def write_secrets(site: Site, api: Cluster) -> None:
    """Write every Secret that Airflow and the steps need; random values stay as they are.

    Do nothing with the option external-secrets: its operator creates them.
    """
    if EXTERNAL in site.environment.options:
        return
    for (namespace, name), content in build_secrets(site.environment, api).items():
        api.write_secret(namespace, name, content)


def build_secrets(environment: Environment, api: Cluster) -> Values:
    """Return every Secret's values: supplied, kept from the cluster, or new random ones."""
    made: dict[str, str] = {}  # by what two Secrets may share

    def find(value: Value) -> str:
        known = secret_value(api, value.namespace, value.secret, value.key)
        new = value.encode(secrets.token_urlsafe(value.length))
        return made.setdefault(str(value.stored), known or new)

    login = find_git_account(api)
    both = git.git_sync_keys(login.user, login.password)
    named = {
        (AIRFLOW, "airflow-metadata"): {"connection": METADATA},
        (AIRFLOW, "airflow-login"): {"user": OWNER},
        (AIRFLOW, "git-credentials"): both,
        (AIRFLOW, "pipelines-credentials"): {
            **both,
            "connection": git_connection(environment, login),
        },
    }
    found = merge_values(
        random_values(find, on_kind=False), named, option_secrets(environment, api)
    )
    if "rds" in environment.options:
        del found[STORES, "postgresql"]
        found[AIRFLOW, "airflow-metadata"] = rds_secret(environment, api)
    return found


def supplied_value(api: Cluster, one: Given) -> str:
    """Return a value of the user's: from the variable if it is set, else from the cluster.

    Raise PromotionError when neither has it.
    """
    found = os.environ.get(one.variable) or secret_value(api, AIRFLOW, one.secret, one.key)
    if not found:
        raise PromotionError(f"{one.variable} is not set", "set it for this one command")
    return found


def rds_secret(environment: Environment, api: Cluster) -> dict[str, str]:
    """Return how Airflow reaches its metadata in RDS: an address without a password, and it."""
    rds = next(one for one in GIVEN if one.option == "rds")
    address = environment.fill(RDS, "option rds")
    return {"connection": address, "password": supplied_value(api, rds)}


# TLS verification is set in variables that both of Airflow's drivers read: see the option rds.
RDS = "postgresql://${rds_user}@${rds_host}:5432/${rds_database}"


def git_connection(environment: Environment, login: Account) -> str:
    """Return Airflow's connection to the pipelines repository, as JSON."""
    if PRIVATE in environment.options:
        files = (f"{SSH_FOLDER}/key", f"{SSH_FOLDER}/config")
        return json.dumps(ssh.airflow_connection(environment.pipelines, *files))
    return json.dumps(git.airflow_connection(environment.pipelines, login.user, login.password))


def option_secrets(environment: Environment, api: Cluster) -> Values:
    """Build the Secrets that options need."""
    found: Values = {}
    for one in required_values(environment):
        if one.option in {"oidc", PRIVATE}:
            found.setdefault((AIRFLOW, one.secret), {})[one.key] = supplied_value(api, one)
    if client := found.get((AIRFLOW, "pipelines-ssh")):
        client["key"] = client["key"].rstrip("\n") + "\n"  # ssh needs it; $(cat key) strips it
        client |= ssh_client_config(environment)
    return found


def ssh_client_config(environment: Environment) -> dict[str, str]:
    """Return SSH's files beside the key: its config, and the only trusted server's host key."""
    hosts = environment.fill("${pipelines_host_key}", "option private-repository")
    return {
        "known-hosts": f"{ssh.SERVER} {hosts}\n",
        "config": ssh.client_config(f"{SSH_FOLDER}/known-hosts"),
    }


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site) -> None:
    """Remove Airflow, its volumes and its namespaces from the cluster, if the cluster exists.

    Raise a failure only if the cluster is not ours: one that an apply made is deleted as a whole
    afterwards.
    """
    if cluster.exists(site):
        try:
            clear_namespaces(site, connect_api(site))
        except LabError as error:
            if not site.environment.make_cluster:
                raise
            print(f"  not removed one by one, since the cluster goes: {first_line(error)}")
    site.ledger.forget(KIND, site.environment.cluster)


def first_line(error: LabError) -> str:
    return error.what.splitlines()[0]


def clear_namespaces(site: Site, api: Cluster) -> None:
    """Delete this environment's release, namespaces, volumes and storage classes."""
    mine = owners_by_name(api, OWNED, "--selector", f"{LABEL}={site.environment.name}")
    if f"Namespace/{AIRFLOW}" in mine:
        flags = ("--namespace", AIRFLOW, "--ignore-not-found", "--wait")
        where = ("--kubeconfig", api.kubeconfig)
        chart.helm("uninstall", chart.RELEASE, *flags, *where, timeout=REMOVE_SECONDS)
    delete_owned(site, api, "namespace")
    namespaces = {name.partition("/")[2] for name in mine if name.startswith("Namespace/")}
    gone = partial(refuse_volumes, api, namespaces)
    wait_until_settled(gone, what="the removal of volumes", timeout=REMOVE_SECONDS)
    delete_owned(site, api, "storageclass")


def refuse_volumes(api: Cluster, namespaces: Collection[str]) -> None:
    """Raise NotYet while the cluster has volumes of these namespaces: without the cluster, nothing
    would delete them."""
    with translating_errors():
        found = api.core.list_persistent_volume(_request_timeout=CALL_SECONDS).items
    claims = [volume.spec.claim_ref for volume in found if volume.spec.claim_ref]
    if left := [claim.name for claim in claims if claim.namespace in namespaces]:
        raise NotYet(f"there are volumes of {', '.join(left)}")


def delete_owned(site: Site, api: Cluster, kind: str) -> None:
    """Delete this environment's objects of this kind and wait for it. Raise PromotionError."""
    mine = f"{LABEL}={site.environment.name}"
    words = ("delete", kind, "--selector", mine, "--ignore-not-found", "--wait")
    try:
        api.kubectl(*words, f"--timeout={REMOVE_SECONDS}s", timeout=REMOVE_SECONDS + 30)
    except LabError as error:
        raise PromotionError(
            f"the cluster keeps some {kind}: {error.what}",
            f"kubectl --kubeconfig {api.kubeconfig} get {kind} shows them; then destroy again",
        ) from error
