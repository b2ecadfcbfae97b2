"""The kind cluster of a lab: one node, a container of this machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import yaml

from lab.cluster import images, tools
from lab.cluster.docker import docker
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import LabError
from lab.shell import run
from lab.wait import NotYet, until

CREATE_SECONDS = 300
DELETE_SECONDS = 120
BOOT_SECONDS = 60
LOAD_SECONDS = 600
ARCHIVES = "/var/lib/lab-images"  # where the node sees the archives of this user's cache
VOLUMES = "/var/local-path-provisioner"  # where the node keeps the volumes of its pods
# A container that was killed is started again at once, and at the latest after this time. The
# default's upper limit is five minutes: too long to watch for somebody who learns.
RESTART = "5s"
SERVICES = "10.96.0.0/16"  # the addresses of Services
# A packet that still goes to a Service when it is about to leave a pod's network has met no rule of
# kube-proxy: the node has just been started, or the Service's pod was killed. It would follow the
# node's way out, and whatever answers there would be taken for the Service: a transparent proxy's
# 404 for the news that a dataset is lost. It is refused instead, from before the first pod on.
BARRIER = "[Service]\n" + "".join(
    f"ExecStartPre=/bin/sh -c 'iptables -w -C {rule} || iptables -w -I {rule}'\n"
    for rule in (f"FORWARD -d {SERVICES} -j REJECT", f"OUTPUT -d {SERVICES} -j REJECT")
)
BARRIER_PLACE = "/etc/systemd/system/kubelet.service.d/20-services-stay-inside.conf"


def name(config: Config) -> str:
    """The cluster's name: one per LAB_HOME."""
    return f"mlops-lab-{hashlib.sha256(str(config.home).encode()).hexdigest()[:8]}"


def container(config: Config) -> str:
    """The node's container."""
    return f"{name(config)}-control-plane"


def kubeconfig(config: Config) -> Path:
    """The key to the cluster; kind writes it when the cluster is complete."""
    return config.secrets / "kubeconfig"


def state(config: Config) -> str | None:
    """What Docker says of the node (running, exited, …), or None when there is no node."""
    try:
        return docker(
            "container", "inspect", "--format", "{{.State.Status}}", container(config)
        ).strip()
    except LabError as error:
        if "No such container" in error.what:
            return None
        raise


def clear(config: Config) -> None:
    """There is no half-made cluster: an interrupted command may have left one without its key."""
    if state(config) and not kubeconfig(config).exists():
        delete(config)


def ensure(config: Config, image: Image) -> None:
    """The node runs: as it is, started again, or made."""
    now = state(config)
    if now is None:
        create(config, image)
    elif now != "running":
        docker("start", container(config), timeout=BOOT_SECONDS)


def create(config: Config, image: Image) -> None:
    """A new cluster of one node; its kubeconfig is written last, for its owner only."""
    layout, barrier = config.run / "kind.yaml", config.run / "services-stay-inside.conf"
    barrier.write_text(BARRIER, "utf-8")
    layout.write_text(yaml.safe_dump(description(barrier)), "utf-8")
    part = kubeconfig(config).with_suffix(".part")
    part.unlink(missing_ok=True)
    kind(
        "create",
        "cluster",
        *("--name", name(config), "--image", image.name, "--config", layout),
        *("--kubeconfig", part, "--wait", f"{CREATE_SECONDS}s"),
        timeout=CREATE_SECONDS + 60,
    )
    part.chmod(0o600)
    part.replace(kubeconfig(config))


def description(barrier: Path) -> dict[str, object]:
    """The cluster, as kind wants it described. Its API listens on loopback alone.

    `barrier` is the file with BARRIER: it stays where it is while there is a node.
    """
    kubelet = {
        "kind": "KubeletConfiguration",
        "crashLoopBackOff": {"maxContainerRestartPeriod": RESTART},
    }
    return {
        "kind": "Cluster",
        "apiVersion": "kind.x-k8s.io/v1alpha4",
        "networking": {"apiServerAddress": "127.0.0.1", "serviceSubnet": SERVICES},
        "nodes": [
            {
                "role": "control-plane",
                "extraMounts": [mount(images.folder(), ARCHIVES), mount(barrier, BARRIER_PLACE)],
                "kubeadmConfigPatches": [yaml.safe_dump(kubelet)],
            }
        ],
    }


def mount(here: Path, there: str) -> dict[str, object]:
    return {"hostPath": str(here), "containerPath": there, "readOnly": True}


def kind(*arguments: str | Path, timeout: float) -> str:
    """What kind printed. Raises LabError."""
    fix = "lab doctor says what this machine lacks; then lab up again"
    return run([tools.find("kind"), *arguments], timeout=timeout, fix=fix, env=kind_environment())


def kind_environment() -> dict[str, str]:
    """kind sees the caller's environment but for its own experiments, and no kubeconfig."""
    return {k: v for k, v in os.environ.items() if not k.startswith("KIND_") and k != "KUBECONFIG"}


def delete(config: Config) -> None:
    """There is no cluster, and no volume of it."""
    kind("delete", "cluster", "--name", name(config), timeout=DELETE_SECONDS)
    kubeconfig(config).unlink(missing_ok=True)


def stop(config: Config) -> bool:
    """The node does not run; what it holds stays. Whether it ran."""
    if state(config) != "running":
        return False
    docker("stop", "-t", "10", container(config), timeout=BOOT_SECONDS)
    return True


def inside(config: Config, *command: str, timeout: float = 60) -> str:
    """What a command printed inside of the node. Raises LabError."""
    return docker("exec", container(config), *command, timeout=timeout)


def await_containerd(config: Config) -> None:
    """The node takes images: it does so long before its cluster is complete."""

    def answers() -> None:
        try:
            inside(config, "ctr", "version")
        except LabError as error:
            raise NotYet(error.what.splitlines()[-1].strip()) from error

    until(answers, what="the node's containerd", timeout=BOOT_SECONDS, interval=0.5)


def load(config: Config, wanted: Sequence[Image]) -> None:
    """The node holds these images; those that it holds already are left as they are.

    The archives are where the node sees them: streaming them into it takes half as long again.
    """
    held = set(inside(config, "ctr", "--namespace", "k8s.io", "images", "ls", "-q").split())
    for image in wanted:
        if reference(image) not in held:
            inside(
                config,
                *("ctr", "--namespace", "k8s.io", "images", "import", "--local", "--digests"),
                *("--snapshotter", "overlayfs", f"{ARCHIVES}/{images.archive(image).name}"),
                timeout=LOAD_SECONDS,
            )


def reference(image: Image) -> str:
    """An image's name as containerd writes it."""
    first, slash, _ = image.name.partition("/")
    if not slash:
        return f"docker.io/library/{image.name}"
    return image.name if "." in first or ":" in first else f"docker.io/{image.name}"
