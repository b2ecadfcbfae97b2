"""What runs in the cluster: the overlay's objects, the Secrets, and Airflow by its chart."""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from eks import cluster, prerequisites
from eks.access import PASSWORD, USER
from eks.aws import settled
from eks.environment import PRIVATE, Environment
from eks.rendering import Made, made, overlay, values
from eks.site import Row, Site
from lab.client import git
from lab.cluster import chart, manifests, workloads
from lab.cluster.api import CALL_SECONDS, Cluster, answers_known
from lab.cluster.workloads import AIRFLOW, STORES
from lab.delivery import ssh
from lab.errors import AccountError, LabError, NameTaken, PromotionError
from lab.layout import OWNER
from lab.shell import tail
from lab.wait import NotYet, together

KIND = "namespaces"
LABEL = "mlops-lab/environment"  # of every object of the overlay
OWNED = "namespace,storageclass"  # what holds the rest, or is there for all
# What an option brings and takes away again by itself, and what a person has to look at first.
CLOSED = "networkpolicy"
KEPT = "statefulset,persistentvolumeclaim,service,configmap"
HOPELESS = ("InvalidImageName", "ErrImageNeverPull")  # a pull that fails is tried again
START_SECONDS = 900  # nodes may have to be added first
REMOVE_SECONDS = 600
SSH_FOLDER = "/opt/airflow/pipelines-ssh"
LONG = 32  # random bytes
EXTERNAL = "external-secrets"


@dataclass(frozen=True)
class Given:
    """A value of a Secret that only a person knows: from a variable, until the cluster has it."""

    variable: str
    secret: str
    key: str
    option: str | None = None  # asked for only with this option


GIVEN = (
    Given(USER, "git-credentials", USER),
    Given(PASSWORD, "git-credentials", PASSWORD),
    Given("RDS_PASSWORD", "airflow-metadata", "password", "rds"),
    Given("OIDC_CLIENT_SECRET", "airflow-oidc", "client-secret", "oidc"),
    Given("PIPELINES_SSH_KEY", "pipelines-ssh", "key", PRIVATE),
)
# What the cluster makes in AWS by itself, or needs there, by option.
BROUGHT = (
    (
        "ingress",
        Row("Load balancer", "airflow", "internal, HTTPS", "1 balancer's hours, its units"),
    ),
    ("external-secrets", Row("Secrets Manager", "entries", "yours: read", "entries, calls")),
)
Values = dict[tuple[str, str], dict[str, str]]  # by namespace and name of the Secret


def plan(environment: Environment) -> list[Row]:
    """What an apply would bring to the cluster."""
    options = ", ".join(environment.options) or "no options"
    return [
        Row("Secrets", AIRFLOW, secrets_in_words(environment)),
        Row("overlay", "manifests/overlays/eks", options),
        *(row for option, row in BROUGHT if option in environment.options),
        Row("Helm release", f"{AIRFLOW}/{chart.RELEASE}", f"chart {chart.pinned()['version']}"),
    ]


def secrets_in_words(environment: Environment) -> str:
    if EXTERNAL in environment.options:
        return "brought by the External Secrets operator from AWS Secrets Manager"
    asked = ", ".join(one.variable for one in asked_for(environment))
    return f"random values, and yours: {asked}"


def asked_for(environment: Environment) -> list[Given]:
    """What a person has to give for this environment."""
    if EXTERNAL in environment.options:
        return []
    return [one for one in GIVEN if one.option is None or one.option in environment.options]


def api_of(site: Site) -> Cluster:
    """The cluster's API, as the person who runs the command. The cluster has to be there.

    Raises AccountError when it does not let that person in.
    """
    api = Cluster(cluster.kubeconfig(site))
    try:
        api.kubectl("get", "namespace", "default", "--output", "name")
    except LabError as error:
        if re.search("Unauthorized|Forbidden|must be logged in|exec: .*failed", error.what):
            raise AccountError(
                f"cluster {site.environment.cluster} does not let you in: {tail(error.what, 1)}",
                "sign in again (aws sso login), or have its maker give you an EKS access entry",
            ) from error
        raise
    return api


def check(site: Site, api: Cluster | None) -> None:
    """Raises PromotionError when nobody has given a value that a Secret needs, neither a variable
    nor the cluster, or when an option lacks something; NameTaken when something in the cluster is
    somebody else's. `api` is None while there is no cluster."""
    if api:
        refuse_foreign(site, api, render(site, Made()))
    lacking = [
        one.variable
        for one in asked_for(site.environment)
        if not os.environ.get(one.variable)
        and not (api and held(api, AIRFLOW, one.secret, one.key))
    ]
    if lacking:
        raise PromotionError(
            f"a Secret of the cluster needs {', '.join(lacking)}",
            "set it for this one command: the cluster keeps it",
        )
    if api:
        prerequisites.check(site.environment, api)


def held(api: Cluster, namespace: str, secret: str, key: str) -> str | None:
    """A value that a Secret of the cluster has."""
    return (api.secret(namespace, secret) or {}).get(key)


def refuse_foreign(site: Site, api: Cluster, rendered: str) -> None:
    """Raises NameTaken when a namespace or storage class of our names is not this environment's."""
    ours = {named(entry) for entry in manifests.objects(rendered)}
    for name, owner in there(api, OWNED).items():
        if name in ours and owner != site.environment.name:
            raise NameTaken(
                f"the cluster has {name} without the label {LABEL}={site.environment.name}:"
                " it is somebody else's",
                "use a cluster of its own, or have them remove it",
            )


def there(api: Cluster, kinds: str, *where: str) -> dict[str, str | None]:
    """Whose label each object of these kinds has, by its kind and name."""
    shown = json.loads(api.kubectl("get", kinds, *where, "--output", "json"))["items"]
    return {named(entry): entry["metadata"].get("labels", {}).get(LABEL) for entry in shown}


def named(entry: Mapping[str, Any]) -> str:
    """An object by its kind and name."""
    return f"{entry['kind']}/{entry['metadata']['name']}"


def make(site: Site, known: Made) -> None:
    """The cluster has the overlay's objects, their Secrets, and Airflow of this checkout, serving.

    What is so already is left alone. Raises LabError's children.
    """
    api = api_of(site)
    rendered = render(site, known)
    with site.ledger.making(KIND, site.environment.cluster):
        refuse_foreign(site, api, rendered)
        api.apply(manifests.namespaces(rendered))
        prerequisites.check(site.environment, api)
        write_secrets(site, api)
        api.apply(rendered)
        prune(site, api, rendered)
    install(site, api)


def render(site: Site, known: Made) -> str:
    """The overlay as it is applied; a copy stays for reading."""
    rendered = overlay(site.environment, site.tree, made(site.folder / "overlay"), known)
    (site.folder / "manifests.yaml").write_text(rendered, "utf-8")
    return rendered


def prune(site: Site, api: Cluster, rendered: str) -> None:
    """No way is open any more that only an option needed which is now off. What else such an option
    has left is named: it may hold data."""
    wanted = {named(entry) for entry in manifests.objects(rendered)}
    ours = ("--selector", f"{LABEL}={site.environment.name}")
    for namespace in (AIRFLOW, STORES):
        where = ("--namespace", namespace)
        for name in there(api, CLOSED, *where, *ours).keys() - wanted:
            api.kubectl("delete", name.lower(), *where, "--ignore-not-found")
        for name in sorted(there(api, KEPT, *where, *ours).keys() - wanted):
            print(f"  {namespace}: {name} is of an option that is off: yours to remove")


def install(site: Site, api: Cluster) -> None:
    """Airflow's release is made of this checkout's values, and its components serve."""
    files = values(site.environment, site.tree, made(site.folder / "values"), versions_of(api))
    chart.install(site.config, api, files)
    parts = workloads.AIRFLOW_COMPONENTS
    ready = partial(workloads.await_ready, timeout=START_SECONDS, hopeless=HOPELESS)
    together(*(partial(ready, api, part) for part in parts))


def versions_of(api: Cluster) -> str:
    """Another text when a Secret that Airflow's pods may read is another one; not what it holds."""
    chosen = ("--selector", "heritage!=Helm", "--field-selector", "type=Opaque")
    each = "{.metadata.name} {.metadata.uid} {.metadata.resourceVersion}"
    shown = f'jsonpath={{range .items[*]}}{each}{{"\\n"}}{{end}}'
    return api.kubectl("get", "secrets", "--namespace", AIRFLOW, *chosen, "--output", shown)


# --- Secrets ------------------------------------------------------------------------------------


def write_secrets(site: Site, api: Cluster) -> None:
    """The cluster has every Secret that Airflow and the steps need; what is random stays as it is.

    With the External Secrets operator, it brings them.
    """
    if EXTERNAL in site.environment.options:
        return
    for (namespace, name), content in wanted(site.environment, api).items():
        api.write_secret(namespace, name, content)


def wanted(environment: Environment, api: Cluster) -> Values:
    """Every Secret's values: given ones, those that the cluster has, or new random ones."""

    def kept(namespace: str, name: str, key: str) -> str:
        return held(api, namespace, name, key) or secrets.token_urlsafe(LONG)

    database = database_of(environment, api, kept)
    login = {one.variable: given(api, one) for one in GIVEN if one.secret == "git-credentials"}  # noqa: S105
    both = git.sync_keys(login[USER], login[PASSWORD])
    return {
        **database,
        (AIRFLOW, "airflow-fernet-key"): {"fernet-key": fernet(api)},
        **{
            (AIRFLOW, name): {key: kept(AIRFLOW, name, key)}
            for name, key in (
                ("airflow-api-secret-key", "api-secret-key"),
                ("airflow-jwt-secret", "jwt-secret"),
            )
        },
        (AIRFLOW, "airflow-login"): {
            "user": OWNER,
            "password": kept(AIRFLOW, "airflow-login", "password"),
        },
        (AIRFLOW, "git-credentials"): both,
        (AIRFLOW, "pipelines-credentials"): both | {"connection": connection(environment, login)},
        **optional(environment, api),
    }


def given(api: Cluster, one: Given) -> str:
    """A person's value: of the variable where it is set, else the cluster's.

    Raises PromotionError where there is none.
    """
    found = os.environ.get(one.variable) or held(api, AIRFLOW, one.secret, one.key)
    if not found:
        raise PromotionError(f"{one.variable} is not set", "set it for this one command")
    return found


def fernet(api: Cluster) -> str:
    """Airflow's key for what it encrypts in its database: 32 bytes of padded base64."""
    known = held(api, AIRFLOW, "airflow-fernet-key", "fernet-key")
    return known or base64.urlsafe_b64encode(secrets.token_bytes(LONG)).decode()


def database_of(environment: Environment, api: Cluster, kept: Any) -> Values:
    """How Airflow reaches its metadata: an address without a password, and the password."""
    if "rds" in environment.options:
        rds = next(one for one in GIVEN if one.option == "rds")
        address = environment.fill(RDS, "option rds")
        return {(AIRFLOW, "airflow-metadata"): {"connection": address, "password": given(api, rds)}}
    password = kept(STORES, "postgresql", "password")
    return {
        (STORES, "postgresql"): {"password": password},
        (AIRFLOW, "airflow-metadata"): {"connection": IN_CLUSTER, "password": password},
    }


IN_CLUSTER = "postgresql://airflow@postgresql.stores.svc.cluster.local:5432/airflow"
# How TLS is checked is in variables that both of Airflow's drivers read: see the option rds.
RDS = "postgresql://${rds_user}@${rds_host}:5432/${rds_database}"


def connection(environment: Environment, login: Mapping[str, str]) -> str:
    """Airflow's connection to the pipelines' repository."""
    if PRIVATE in environment.options:
        files = (f"{SSH_FOLDER}/key", f"{SSH_FOLDER}/config")
        return json.dumps(ssh.connection(environment.pipelines, *files))
    return json.dumps(git.connection(environment.pipelines, login[USER], login[PASSWORD]))


def optional(environment: Environment, api: Cluster) -> Values:
    """The Secrets that options ask for."""
    found: Values = {}
    for one in asked_for(environment):
        if one.option in {"oidc", PRIVATE}:
            found.setdefault((AIRFLOW, one.secret), {})[one.key] = given(api, one)
    if client := found.get((AIRFLOW, "pipelines-ssh")):
        client["key"] = client["key"].rstrip("\n") + "\n"  # $(cat key) has none; ssh wants one
        client |= ssh_client(environment)
    return found


def ssh_client(environment: Environment) -> dict[str, str]:
    """What SSH has to be told beside its key: the one server that it may trust."""
    hosts = environment.fill("${pipelines_host_key}", "option private-repository")
    return {
        "known-hosts": f"{ssh.SERVER} {hosts}\n",
        "config": ssh.config(f"{SSH_FOLDER}/known-hosts"),
    }


# --- Removing -----------------------------------------------------------------------------------


def remove(site: Site) -> None:
    """Nothing of the environment is in the cluster: neither Airflow, nor volumes, nor namespaces.

    A cluster that is gone has nothing either. One that an apply made and that does not let go goes
    as a whole afterwards; of any other, the failure is raised.
    """
    if cluster.exists(site):
        try:
            clear(site, api_of(site))
        except LabError as error:
            if not site.environment.make_cluster:
                raise
            print(f"  not removed one by one, since the cluster goes: {first_line(error)}")
    site.ledger.forget(KIND, site.environment.cluster)


def first_line(error: LabError) -> str:
    return error.what.splitlines()[0]


def clear(site: Site, api: Cluster) -> None:
    """The cluster has none of this environment's namespaces, volumes and storage classes."""
    mine = there(api, OWNED, "--selector", f"{LABEL}={site.environment.name}")
    if f"Namespace/{AIRFLOW}" in mine:
        flags = ("--namespace", AIRFLOW, "--ignore-not-found", "--wait")
        where = ("--kubeconfig", api.kubeconfig)
        chart.helm("uninstall", chart.RELEASE, *flags, *where, timeout=REMOVE_SECONDS)
    delete(site, api, "namespace")
    namespaces = {name.partition("/")[2] for name in mine if name.startswith("Namespace/")}
    gone = partial(refuse_volumes, api, namespaces)
    settled(gone, what="the removal of volumes", timeout=REMOVE_SECONDS)
    delete(site, api, "storageclass")


def refuse_volumes(api: Cluster, namespaces: Collection[str]) -> None:
    """Raises NotYet while the cluster has volumes of these namespaces: without the cluster, nobody
    would delete them."""
    with answers_known():
        found = api.core.list_persistent_volume(_request_timeout=CALL_SECONDS).items
    claims = [volume.spec.claim_ref for volume in found if volume.spec.claim_ref]
    if left := [claim.name for claim in claims if claim.namespace in namespaces]:
        raise NotYet(f"there are volumes of {', '.join(left)}")


def delete(site: Site, api: Cluster, kind: str) -> None:
    """No object of this kind that is this environment's is left. Raises LabError."""
    mine = f"{LABEL}={site.environment.name}"
    words = ("delete", kind, "--selector", mine, "--ignore-not-found", "--wait")
    try:
        api.kubectl(*words, f"--timeout={REMOVE_SECONDS}s", timeout=REMOVE_SECONDS + 30)
    except LabError as error:
        raise PromotionError(
            f"the cluster keeps some {kind}: {error.what}",
            f"kubectl --kubeconfig {api.kubeconfig} get {kind} shows them; then destroy again",
        ) from error
