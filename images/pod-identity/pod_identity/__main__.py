"""The commands of the image: `agent` and `eks-auth` serve until they are terminated."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pod_identity.agent import ADDRESS

THREADS = 16
BACKLOG = 256  # connections that wait for a thread


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve what the arguments ask for."""
    given = read_arguments(arguments)
    serve(given.application(given), given.address, given.port)


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="pod-identity")
    parser.add_argument("--cluster", required=True, help="the name of the cluster")
    parser.add_argument("--region", default="us-east-1")
    commands = parser.add_subparsers(required=True)
    agent = commands.add_parser("agent", help="the node's agent")
    agent.add_argument("--address", default=ADDRESS)
    agent.add_argument("--port", type=int, default=80)
    agent.add_argument("--endpoint", default="", help="of EKS Auth, if it is not AWS's")
    agent.set_defaults(application=build_agent)
    auth = commands.add_parser("eks-auth", help="what stands in for EKS Auth")
    auth.add_argument("--address", default="0.0.0.0")  # noqa: S104 - a pod's own network
    auth.add_argument("--port", type=int, default=8080)
    auth.add_argument("--s3", required=True, help="S3's server, which opens the sessions")
    auth.add_argument("--associations", type=Path, required=True)
    auth.add_argument("--keys", type=Path, required=True)
    auth.set_defaults(application=build_eks_auth)
    return parser.parse_args(arguments)


def build_agent(given: argparse.Namespace) -> Any:
    from pod_identity.agent import Agent, connect

    return Agent(connect(given.cluster, given.region, given.endpoint), given.address)


def build_eks_auth(given: argparse.Namespace) -> Any:
    from pod_identity.eks_auth import EksAuth
    from pod_identity.kubernetes import Kubernetes
    from pod_identity.roles import Roles

    host, port = (os.environ[f"KUBERNETES_SERVICE_{name}"] for name in ("HOST", "PORT"))
    seconds = int(os.environ.get("SESSION_SECONDS", "21600"))
    roles = Roles(given.associations, given.keys, given.s3, given.region, seconds)
    return EksAuth(given.cluster, given.region, Kubernetes(f"https://{host}:{port}"), roles)


def serve(application: Any, address: str, port: int) -> None:
    """Serve until a signal ends the process. The first process of a container ignores SIGTERM
    unless it says what to do then."""
    import waitress

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    waitress.serve(application, host=address, port=port, threads=THREADS, backlog=BACKLOG)


if __name__ == "__main__":
    main()
