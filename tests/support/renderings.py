"""What the lab applies to a cluster, rendered by kubectl and helm without any cluster.

overlay   manifests/overlays/kind, with the locked images and a lab's choices
base      manifests/base alone
chart     Airflow's chart with the lab's values
git-sync  the same with values-git-sync.yaml on top
git-sync-ssh  and with values-git-sync-ssh.yaml on that
eks       manifests/overlays/eks, as staging has it without any option
eks-chart the chart with the values of that
"""

from __future__ import annotations

import functools
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from eks import environment
from eks.environment import Environment
from eks.rendering import Rendering, on_eks
from lab.backends.kind import backend as kind
from lab.cluster import chart, images, manifests
from lab.config import TREE, Config
from lab.home.secrets import Secrets
from lab.home.state import State
from tests.support.needs import chart_file, need_tool

NAMES = ("overlay", "base", "chart", "git-sync", "git-sync-ssh", "eks", "eks-chart")
# The files of values that come on top of the lab's own.
ON_TOP = {
    "git-sync": ("values-git-sync.yaml",),
    "git-sync-ssh": ("values-git-sync.yaml", "values-git-sync-ssh.yaml"),
}
BASE = TREE / "manifests" / "base"
VALUES = TREE / "manifests" / "airflow"
POD_FILE = "pod_template_file.yaml"  # in the chart's ConfigMap: the KubernetesExecutor's pods
# Everything that any option of EKS asks for.
SETTINGS = {
    "certificate": "arn:aws:acm:eu-central-1:111122223333:certificate/0f0e",
    "host": "airflow.example.com",
    "oidc_admins": "platform",
    "oidc_client_id": "airflow-staging",
    "oidc_issuer": "https://login.example.com/realms/data",
    "oidc_operators": "data-engineering",
    "oidc_viewers": "analysts",
    "pipelines_host_key": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9ok",
    "rds_database": "metadata",
    "rds_host": "staging.c0ffee.eu-central-1.rds.amazonaws.com",
    "rds_user": "airflow_staging",
    "vpc_cidr": "10.20.0.0/16",
}
Object = dict[str, Any]


@dataclass(frozen=True)
class Pod:
    """A pod that a rendering describes, whatever object would make it."""

    name: str
    namespace: str
    count: int
    labels: Mapping[str, str]
    spec: Object

    @property
    def ends(self) -> bool:
        """Whether it ends by itself."""
        return bool(self.spec.get("restartPolicy", "Always") != "Always")

    @property
    def starting(self) -> list[Object]:
        """The containers that end before the others start."""
        return [c for c in self.spec.get("initContainers") or [] if not sidecar(c)]

    @property
    def staying(self) -> list[Object]:
        """The containers that run side by side."""
        sidecars = [c for c in self.spec.get("initContainers") or [] if sidecar(c)]
        return [*sidecars, *self.spec["containers"]]

    @property
    def containers(self) -> list[Object]:
        return [*self.starting, *self.staying]


def sidecar(init: Object) -> bool:
    return bool(init.get("restartPolicy") == "Always")


@functools.cache
def packed(name: str) -> str:
    """A file of the chart."""
    with tarfile.open(chart_file()) as archive:
        member = archive.extractfile(f"airflow/{name}")
        assert member is not None
        return member.read().decode()


@contextmanager
def home_of_a_lab() -> Iterator[Config]:
    """The choices of a lab that is nowhere: its home has what rendering writes to, and goes."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(Config.from_environment(), home=Path(folder), tree=TREE)
        for path in (config.run, config.secrets, config.shared, config.data):
            path.mkdir()
        yield config


@contextmanager
def site_on_kind() -> Iterator[kind.Site]:
    """A lab on kind, as far as rendering needs one."""
    with home_of_a_lab() as config:
        ports = {name: 11_000 + number for number, name in enumerate(kind.PORTS)}
        state = State(kind.NAME, "postgresql", "datasets/employees.csv", None, ports)
        yield kind.Site(config, state, Secrets(config))


def render(name: str) -> str:
    """One rendering as YAML, made anew. Skips where kubectl, helm or the chart is missing."""
    if name in {"eks", "eks-chart"}:
        found = promote()
        return found.overlay if name == "eks" else found.chart
    need_tool("kubectl" if name in {"overlay", "base"} else "helm")
    with site_on_kind() as site:
        if name == "overlay":
            return kind.render(site)
        if name == "base":
            layer = site.config.run / "layer"
            return manifests.render(BASE, layer, images.locked().values(), [])
        chart_file()
        on_top = [VALUES / file for file in ON_TOP.get(name, ())]
        return chart.render(site.config, [*kind.values(site), *on_top])


def promote(*options: str) -> Rendering:
    """What an environment with these options gets on EKS, made anew. Skips as `render` does."""
    for tool in ("kubectl", "helm"):
        need_tool(tool)
    chart_file()
    with home_of_a_lab() as config:
        return on_eks(staging(*options), config, config.run)


@functools.cache
def promoted(*options: str) -> tuple[Object, ...]:
    """The objects that an environment with these options gets on EKS. Not to be changed."""
    return tuple(promote(*options).objects())


@functools.cache
def promoted_pods(*options: str) -> tuple[Pod, ...]:
    """Every pod that something in these objects describes. Not to be changed."""
    return tuple(pod for entry in promoted(*options) for pod in pods_of("eks", entry))


def staging(*options: str) -> Environment:
    """The environment with these options, and all that any of them asks for."""
    return replace(environment.load("staging"), options=options, settings=SETTINGS)


@functools.cache
def rendering(name: str) -> str:
    """One rendering as YAML, made once for all tests."""
    return render(name)


@functools.cache
def objects(*names: str) -> tuple[Object, ...]:
    """The objects of these renderings. Not to be changed."""
    return tuple(entry for name in names for entry in yaml.safe_load_all(rendering(name)) if entry)


def of_kind(wanted: str, *names: str) -> list[Object]:
    """The objects of one kind."""
    return [entry for entry in objects(*(names or NAMES)) if entry["kind"] == wanted]


def the(wanted: str, name: str, *names: str) -> Object:
    """The one object of this kind and name."""
    (found,) = (o for o in of_kind(wanted, *names) if o["metadata"]["name"] == name)
    return found


def namespace_of(entry: Object) -> str:
    """Where an object goes; the chart leaves it to helm."""
    return str(entry["metadata"].get("namespace", chart.NAMESPACE))


@functools.cache
def pods(*names: str) -> tuple[Pod, ...]:
    """Every pod that something in these renderings describes. Not to be changed."""
    return tuple(pod for name in names or NAMES for o in objects(name) for pod in pods_of(name, o))


def pods_of(rendered: str, entry: Object) -> Iterator[Pod]:
    name = f"{rendered}: {entry['kind']} {entry['metadata']['name']}"
    count = int((entry.get("spec") or {}).get("replicas", 1))
    for template in templates(entry):
        labels = (template.get("metadata") or {}).get("labels") or {}
        yield Pod(name, namespace_of(entry), count, labels, template["spec"])


def templates(part: object) -> Iterator[Object]:
    """Whatever in an object has the containers of a pod, however deep; the chart's file, too."""
    if isinstance(part, list):
        for item in part:
            yield from templates(item)
    if isinstance(part, dict):
        if isinstance(part.get("spec"), dict) and "containers" in part["spec"]:
            yield part
        for key, value in part.items():
            yield from templates(yaml.safe_load(value) if key == POD_FILE else value)


def worker_pod() -> Object:
    """The pod of the KubernetesExecutor, as Airflow reads it from its configuration."""
    text = the("ConfigMap", "airflow-config", "chart")["data"][POD_FILE]
    found: Object = yaml.safe_load(text)
    return found


def settings() -> str:
    """Airflow's configuration file, as the chart writes it."""
    return str(the("ConfigMap", "airflow-config", "chart")["data"]["airflow.cfg"])
