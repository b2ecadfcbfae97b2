"""What the lab applies to a cluster, rendered by kubectl and helm without a cluster.

overlay   manifests/overlays/kind, with the locked images and a lab's choices
base      manifests/base alone
chart     Airflow's chart with the lab's values
git-sync  the same with values-git-sync.yaml on top
git-sync-ssh  and with values-git-sync-ssh.yaml on that
eks       manifests/overlays/eks, as staging has it without options
eks-chart the chart with that overlay's values
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
from eks.rendering import Rendering, render_eks
from lab.backends.kind import backend as kind
from lab.backends.kind import stores
from lab.backends.kind.site import Site
from lab.cluster import chart, images, manifests
from lab.cluster.images import Image
from lab.config import KIT, Config
from lab.home.secrets import Secrets
from lab.home.state import State
from tests.support import attested
from tests.support.needs import need_chart, need_tool

NAMES = ("overlay", "base", "chart", "git-sync", "git-sync-ssh", "eks", "eks-chart")
# The files of values that come on top of the lab's own.
ON_TOP = {
    "git-sync": ("values-git-sync.yaml",),
    "git-sync-ssh": ("values-git-sync.yaml", "values-git-sync-ssh.yaml"),
}
BASE = KIT / "manifests" / "base"
VALUES = KIT / "manifests" / "airflow"
POD_FILE = "pod_template_file.yaml"  # in the chart's ConfigMap: the KubernetesExecutor's pods
# The settings of all options of EKS.
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
    """A pod that a rendering describes, whichever object would create it."""

    name: str
    namespace: str
    count: int
    labels: Mapping[str, str]
    spec: Object

    @property
    def ends_by_itself(self) -> bool:
        """Whether the pod ends by itself."""
        return bool(self.spec.get("restartPolicy", "Always") != "Always")

    @property
    def starting_containers(self) -> list[Object]:
        """The init containers, which end before the others start."""
        return [c for c in self.spec.get("initContainers") or [] if not is_sidecar(c)]

    @property
    def staying_containers(self) -> list[Object]:
        """The containers that run side by side, sidecars first."""
        sidecars = [c for c in self.spec.get("initContainers") or [] if is_sidecar(c)]
        return [*sidecars, *self.spec["containers"]]

    @property
    def containers(self) -> list[Object]:
        return [*self.starting_containers, *self.staying_containers]


def locked_images() -> dict[str, Image]:
    """Return the images of the kit's lock, by their keys."""
    return images.read_lock(Config(home=Path("unused")))


def is_sidecar(init: Object) -> bool:
    return bool(init.get("restartPolicy") == "Always")


@functools.cache
def read_chart_file(name: str) -> str:
    """Read a file of the chart's archive."""
    with tarfile.open(need_chart()) as archive:
        member = archive.extractfile(f"airflow/{name}")
        assert member is not None
        return member.read().decode()


@contextmanager
def temporary_home() -> Iterator[Config]:
    """Yield the configuration of a lab that does not run, with the folders that rendering needs."""
    with tempfile.TemporaryDirectory() as folder:
        config = replace(Config.from_environment(), home=Path(folder))
        config = attested.with_images(config, Path(folder, "attestation.json"))
        for path in (config.run, config.secrets, config.shared, config.data):
            path.mkdir()
        yield config


@contextmanager
def temporary_site() -> Iterator[Site]:
    """Yield a site on kind with what rendering needs."""
    with temporary_home() as config:
        ports = {name: 11_000 + number for number, name in enumerate(kind.PORTS)}
        state = State(kind.NAME, "postgresql", "datasets/employees.csv", None, ports)
        yield Site(config, state, Secrets(config))


def render(name: str) -> str:
    """Render one of NAMES anew as YAML. Skips where kubectl, helm or the chart is missing."""
    if name in {"eks", "eks-chart"}:
        found = render_for_eks()
        return found.overlay if name == "eks" else found.chart
    need_tool("kubectl" if name in {"overlay", "base"} else "helm")
    with temporary_site() as site:
        if name == "overlay":
            return stores.render(site)
        if name == "base":
            layer = site.config.run / "layer"
            return manifests.render(BASE, layer, images.read_lock(site.config).values(), [])
        need_chart()
        on_top = [VALUES / file for file in ON_TOP.get(name, ())]
        return chart.render(site.config, [*kind.values_files(site), *on_top])


def render_for_eks(*options: str) -> Rendering:
    """Render anew what an environment with these options gets on EKS. Skips as `render` does."""
    for tool in ("kubectl", "helm"):
        need_tool(tool)
    need_chart()
    with temporary_home() as config:
        return render_eks(staging(*options), config, config.run)


@functools.cache
def eks_objects(*options: str) -> tuple[Object, ...]:
    """Return the objects that an environment with these options gets on EKS. Don't change them."""
    return tuple(render_for_eks(*options).objects())


@functools.cache
def eks_pods(*options: str) -> tuple[Pod, ...]:
    """Return every pod that these objects describe. Don't change them."""
    return tuple(pod for entry in eks_objects(*options) for pod in pods_from_object("eks", entry))


def staging(*options: str) -> Environment:
    """Return the environment `staging` with these options and the settings of all options."""
    return replace(environment.load("staging"), options=options, settings=SETTINGS)


@functools.cache
def rendering(name: str) -> str:
    """Return one rendering as YAML, made once for all tests."""
    return render(name)


@functools.cache
def objects(*names: str) -> tuple[Object, ...]:
    """Return the objects of these renderings. Don't change them."""
    return tuple(entry for name in names for entry in yaml.safe_load_all(rendering(name)) if entry)


def objects_of_kind(wanted: str, *names: str) -> list[Object]:
    """Return the objects of one kind, in these renderings or in all."""
    return [entry for entry in objects(*(names or NAMES)) if entry["kind"] == wanted]


def find_object(wanted: str, name: str, *names: str) -> Object:
    """Return the one object of this kind and name."""
    (found,) = (o for o in objects_of_kind(wanted, *names) if o["metadata"]["name"] == name)
    return found


def namespace_of(entry: Object) -> str:
    """Return an object's namespace; the chart leaves it to helm."""
    return str(entry["metadata"].get("namespace", chart.NAMESPACE))


@functools.cache
def pods(*names: str) -> tuple[Pod, ...]:
    """Return every pod that these renderings describe. Don't change them."""
    return tuple(
        pod for name in names or NAMES for o in objects(name) for pod in pods_from_object(name, o)
    )


def pods_from_object(rendered: str, entry: Object) -> Iterator[Pod]:
    name = f"{rendered}: {entry['kind']} {entry['metadata']['name']}"
    count = int((entry.get("spec") or {}).get("replicas", 1))
    for template in find_templates(entry):
        labels = (template.get("metadata") or {}).get("labels") or {}
        yield Pod(name, namespace_of(entry), count, labels, template["spec"])


def find_templates(part: object) -> Iterator[Object]:
    """Yield each pod template in an object, however deep, and in the chart's POD_FILE."""
    if isinstance(part, list):
        for item in part:
            yield from find_templates(item)
    if isinstance(part, dict):
        if isinstance(part.get("spec"), dict) and "containers" in part["spec"]:
            yield part
        for key, value in part.items():
            yield from find_templates(yaml.safe_load(value) if key == POD_FILE else value)


def worker_pod() -> Object:
    """Return the KubernetesExecutor's pod, as Airflow reads it from its configuration."""
    text = find_object("ConfigMap", "airflow-config", "chart")["data"][POD_FILE]
    found: Object = yaml.safe_load(text)
    return found


def airflow_cfg() -> str:
    """Return the text of airflow.cfg, as the chart writes it."""
    return str(find_object("ConfigMap", "airflow-config", "chart")["data"]["airflow.cfg"])
