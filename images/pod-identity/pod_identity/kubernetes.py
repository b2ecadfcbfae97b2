"""What the stand-in asks Kubernetes: whose a token is, and whether its pod is there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import urllib3

from pod_identity.tokens import refuse_token
from pod_identity.wsgi import Refused

AUDIENCE = "pods.eks.amazonaws.com"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # the stand-in's own
TIMEOUT = urllib3.Timeout(connect=0.3, read=0.7)  # seconds; the agent waits one for all of it
PREFIX = "system:serviceaccount:"
POD = "authentication.kubernetes.io/pod-"  # of what the API server says beside the user's name


@dataclass(frozen=True)
class Subject:
    """The pod that a token was made for."""

    namespace: str
    account: str
    pod: str
    uid: str


class Kubernetes:
    """The API server, as the stand-in's own service account may ask it."""

    def __init__(self, address: str, own: Path = ACCOUNT) -> None:
        self.address, self.own = address, own
        self.pool = urllib3.PoolManager(
            timeout=TIMEOUT, retries=False, maxsize=16, ca_certs=str(own / "ca.crt")
        )

    def ask(self, method: str, path: str, content: object = None) -> dict[str, Any]:
        """Return an object; an empty one for 404. Raises Refused for any other failure."""
        bearer = (self.own / "token").read_text("ascii")  # the kubelet replaces it
        try:
            said = self.pool.request(
                method,
                f"{self.address}{path}",
                headers={"Authorization": f"Bearer {bearer}", "Content-Type": "application/json"},
                body=json.dumps(content) if content else None,
            )
        except urllib3.exceptions.HTTPError as error:
            raise unavailable(f"the Kubernetes API does not answer: {error}") from error
        if said.status == HTTPStatus.NOT_FOUND:
            return {}
        if said.status >= HTTPStatus.BAD_REQUEST:
            raise unavailable(f"the Kubernetes API answered {said.status}")
        found: dict[str, Any] = said.json()
        return found

    def review(self, token: str) -> Subject:
        """Return the pod that the token was made for. Raises Refused."""
        wanted = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        status = self.ask("POST", "/apis/authentication.k8s.io/v1/tokenreviews", wanted)["status"]
        if not status.get("authenticated") or AUDIENCE not in status.get("audiences", ()):
            raise refuse_reviewed(status.get("error", "the token is of another audience"))
        return read_subject(status["user"])

    def refuse_gone(self, subject: Subject) -> None:
        """Raise Refused unless the pod is there and has that service account."""
        pod = self.ask("GET", f"/api/v1/namespaces/{subject.namespace}/pods/{subject.pod}")
        if not pod or pod["metadata"]["uid"] != subject.uid:
            raise refuse_token(f"the pod {subject.pod} of this token is gone")
        if pod["spec"].get("serviceAccountName") != subject.account:
            raise refuse_token(f"the pod {subject.pod} has another service account")


def read_subject(user: dict[str, Any]) -> Subject:
    """Return the pod of a token that the API server admits. Raises Refused for one of no pod."""
    extra = user.get("extra", {})
    names = extra.get(f"{POD}name"), extra.get(f"{POD}uid")
    if not user["username"].startswith(PREFIX) or not all(names):
        raise refuse_token("the token was made for no pod")
    namespace, account = user["username"].removeprefix(PREFIX).split(":")
    return Subject(namespace, account, *(str(name[0]) for name in names if name))


def refuse_reviewed(why: str) -> Refused:
    """Return the refusal of a token that the API server does not admit. It says why in words."""
    return refuse_token(why, *(["ExpiredTokenException"] if "expired" in why else []))


def unavailable(why: str) -> Refused:
    return Refused(HTTPStatus.SERVICE_UNAVAILABLE, "ServiceUnavailableException", why)
