"""The kind cluster of a lab: one node, a container of this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection
from pathlib import Path

import yaml

from lab.cluster import images, tools
from lab.cluster.docker import PLATFORM, docker, image_platform
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import LabError
from lab.shell import run
from lab.wait import NotYet, wait_until

CREATE_SECONDS = 300
DELETE_SECONDS = 120
BOOT_SECONDS = 60
STOP_SECONDS = "5"  # until what still runs in the node is killed
LOAD_SECONDS = 600
ARCHIVES = "/var/lib/lab-images"  # the mount of the user's archives in the node
VOLUMES = "/var/local-path-provisioner"  # the volumes of the pods in the node
# The longest back-off before a killed container is restarted. The default of five minutes is
# too long to watch for somebody who learns.
RESTART = "5s"
SERVICES = "10.96.0.0/16"  # the cluster IPs of Services
# Refuse unrouted Service traffic in the node. A packet that is still addressed to a Service when it
# leaves a pod's network has met no rule of kube-proxy: the node has just been started, or the
# Service's pod was killed. It would take the node's default route, and whatever answers there would
# be taken for the Service: a transparent proxy's 404 would mean that a dataset is lost. The rules
# are set before the first pod starts.
BARRIER = "[Service]\n" + "".join(
    f"ExecStartPre=/bin/sh -c 'iptables -w -C {rule} || iptables -w -I {rule}'\n"
    for rule in (f"FORWARD -d {SERVICES} -j REJECT", f"OUTPUT -d {SERVICES} -j REJECT")
)
BARRIER_PLACE = "/etc/systemd/system/kubelet.service.d/20-services-stay-inside.conf"


def cluster_name(config: Config) -> str:
    """Return the cluster's name, which is unique for each LAB_HOME."""
    return f"mlops-lab-{hashlib.sha256(str(config.home).encode()).hexdigest()[:8]}"


def container_name(config: Config) -> str:
    """Return the name of the node's container."""
    return f"{cluster_name(config)}-control-plane"


def kubeconfig_path(config: Config) -> Path:
    """Return the path of the kubeconfig, which exists once the cluster is complete."""
    return config.secrets / "kubeconfig"


def read_state(config: Config) -> str | None:
    """Return the state of the node's container (running, exited, …), or None if there is none."""
    try:
        return docker(
            "container", "inspect", "--format", "{{.State.Status}}", container_name(config)
        ).strip()
    except LabError as error:
        if "No such container" in error.output:
            return None
        raise


def delete_incomplete(config: Config) -> None:
    """Delete a cluster without kubeconfig, which an interrupted command may have left."""
    if read_state(config) and not kubeconfig_path(config).exists():
        delete(config)


def ensure_running(config: Config, image: Image) -> None:
    """Create the node, or start it if it is stopped."""
    now = read_state(config)
    if now is None:
        create(config, image)
    elif now != "running":
        docker("start", container_name(config), timeout=BOOT_SECONDS)


def create(config: Config, image: Image) -> None:
    """Create a cluster of one node, and write its kubeconfig last, with mode 0600."""
    layout, barrier = config.run / "kind.yaml", config.run / "services-stay-inside.conf"
    barrier.write_text(BARRIER, "utf-8")
    layout.write_text(yaml.safe_dump(cluster_config(barrier)), "utf-8")
    part = kubeconfig_path(config).with_suffix(".part")
    part.unlink(missing_ok=True)
    kind(
        "create",
        "cluster",
        *("--name", cluster_name(config), "--image", image.name, "--config", layout),
        *("--kubeconfig", part, "--wait", f"{CREATE_SECONDS}s"),
        timeout=CREATE_SECONDS + 60,
    )
    part.chmod(0o600)
    part.replace(kubeconfig_path(config))


def cluster_config(barrier: Path) -> dict[str, object]:
    """Return kind's configuration of the cluster, whose API listens on loopback only.

    `barrier` is the file with BARRIER; it must exist as long as the node.
    """
    kubelet = {
        "kind": "KubeletConfiguration",
        "crashLoopBackOff": {"maxContainerRestartPeriod": RESTART},
    }
    # There is one of each. By default they wait 20 s for their own leases when a node starts again.
    alone = {"name": "leader-elect", "value": "false"}
    # What kind itself has put into the list, which a patch replaces.
    by_kind = {"name": "enable-hostpath-provisioner", "value": "true"}
    control_plane = {
        "kind": "ClusterConfiguration",
        "controllerManager": {"extraArgs": [by_kind, alone]},
        "scheduler": {"extraArgs": [alone]},
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"apiServerAddress": "127.0.0.1", "serviceSubnet": SERVICES},
        "nodes": [
            {
                "role": "control-plane",
                "extraMounts": [
                    read_only_mount(images.ensure_archive_folder(), ARCHIVES),
                    read_only_mount(barrier, BARRIER_PLACE),
                ],
                "kubeadmConfigPatches": [*map(yaml.safe_dump, (kubelet, control_plane))],
            }
        ],
    }


def read_only_mount(here: Path, there: str) -> dict[str, object]:
    return {"hostPath": str(here), "containerPath": there, "readOnly": True}


def kind(*arguments: str | Path, timeout: float) -> str:
    """Run kind and return what it printed. Raises LabError."""
    fix = "lab doctor says what this machine lacks; then lab up again"
    return run([tools.find("kind"), *arguments], timeout=timeout, fix=fix, env=kind_environment())


def kind_environment() -> dict[str, str]:
    """Return the environment without KUBECONFIG and kind's own (experimental) variables."""
    return {k: v for k, v in os.environ.items() if not k.startswith("KIND_") and k != "KUBECONFIG"}


def delete(config: Config) -> None:
    """Delete the cluster, its volumes and its kubeconfig, if they exist."""
    kind("delete", "cluster", "--name", cluster_name(config), timeout=DELETE_SECONDS)
    kubeconfig_path(config).unlink(missing_ok=True)


def stop(config: Config) -> bool:
    """Stop the node, keeping its data. Return whether it ran."""
    if read_state(config) != "running":
        return False
    docker("stop", "-t", STOP_SECONDS, container_name(config), timeout=BOOT_SECONDS)
    return True


def run_inside(config: Config, *command: str, timeout: float = 60) -> str:
    """Run a command in the node and return what it printed. Raises LabError."""
    return docker("exec", container_name(config), *command, timeout=timeout)


def wait_for_containerd(config: Config) -> None:
    """Wait until images can be loaded into the node, long before its cluster is complete."""

    def check_containerd() -> None:
        try:
            run_inside(config, "ctr", "version")
        except LabError as error:
            raise NotYet(error.what) from error

    wait_until(check_containerd, what="the node's containerd", timeout=CREATE_SECONDS, interval=0.5)


def list_images(config: Config) -> set[str]:
    """Return the names of the images that the node has, as containerd writes them."""
    return set(run_inside(config, "ctr", "--namespace", "k8s.io", "images", "ls", "-q").split())


def load_image(config: Config, image: Image, archive: Path, held: Collection[str]) -> None:
    """Load the image into the node, unless it is among those that the node holds.

    The node reads the archive from a mount: streaming it takes half as long again.
    """
    if containerd_name(image) not in held:
        run_inside(
            config,
            *("ctr", "--namespace", "k8s.io", "images", "import", "--local", "--digests"),
            *("--snapshotter", "overlayfs", *platform_words(image), f"{ARCHIVES}/{archive.name}"),
            timeout=LOAD_SECONDS,
        )


def platform_words(image: Image) -> tuple[str, ...]:
    """Return containerd's flag for an image that may be of another platform than the node's."""
    return ("--platform", image_platform(image.name)) if os.environ.get(PLATFORM) else ()


def containerd_name(image: Image) -> str:
    """Return the image's name as containerd writes it, with its registry."""
    first, slash, _ = image.name.partition("/")
    if not slash:
        return f"docker.io/library/{image.name}"
    return image.name if "." in first or ":" in first else f"docker.io/{image.name}"
