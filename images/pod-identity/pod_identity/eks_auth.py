"""The stand-in for EKS Auth: AssumeRoleForPodIdentity, in the shape of botocore's model `eks-auth`.

A token is looked at by Kubernetes; the associations say which role its service account has; the
pod that it names must be there. Each decision is one line of JSON on the standard output.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from pod_identity.decisions import GRANTED, log_decision, logging_refusal
from pod_identity.kubernetes import AUDIENCE, Kubernetes, Subject
from pod_identity.roles import Roles
from pod_identity.tokens import read_claims, refuse_ended
from pod_identity.wsgi import (
    Answer,
    Environ,
    Refused,
    Start,
    json_answer,
    read_body,
    send,
    text_answer,
)

PATH = re.compile(r"/clusters/([^/]+)/assume-role-for-pod-identity")
HEALTH = "/healthz"
AWS_ACCOUNT = "000000000000"  # of the stand-in: it is in no AWS account


@dataclass(frozen=True)
class EksAuth:
    """The WSGI application of the stand-in, for one cluster."""

    cluster: str
    region: str
    kubernetes: Kubernetes
    roles: Roles

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        return send(self.answer(environ), start)

    def answer(self, environ: Environ) -> Answer:
        """Return the answer to a request."""
        if (environ["REQUEST_METHOD"], environ["PATH_INFO"]) == ("GET", HEALTH):
            return text_answer("ok\n")
        found = PATH.fullmatch(environ["PATH_INFO"])
        if not found or environ["REQUEST_METHOD"] != "POST":
            return text_answer("404 page not found\n", HTTPStatus.NOT_FOUND)
        try:
            return json_answer(self.assume_role(found[1], read_token(read_body(environ))))
        except Refused as error:
            return error_answer(error)

    def assume_role(self, cluster: str, token: str) -> dict[str, Any]:
        """Return EKS Auth's answer for a token, and log it. Raises Refused."""
        with logging_refusal(token):
            if cluster != self.cluster:
                raise refuse_unknown(f"No cluster found for name: {cluster}.")
            granted = self.grant(token)
        ends = datetime.fromtimestamp(granted["credentials"]["expiration"], UTC).isoformat()
        role = granted["assumedRoleUser"]["arn"].split("/")[1]
        log_decision(token, GRANTED, role=role, ends=ends)
        return granted

    def grant(self, token: str) -> dict[str, Any]:
        """Return the answer for a token of a pod that is there. Raises Refused for any other."""
        refuse_ended(read_claims(token), time.time())  # Kubernetes lets it count a minute longer
        subject = self.kubernetes.review(token)
        role = self.roles.find(subject.namespace, subject.account)
        if not role:
            raise refuse_unknown(
                "No association found for service account "
                f"{subject.account} in namespace {subject.namespace}"
            )
        self.kubernetes.refuse_gone(subject)
        session = f"eks-{self.cluster}-{subject.pod}"[:27] + f"-{uuid.uuid4()}"
        return self.describe(subject, role, session, self.roles.open_session(role, session))

    def describe(
        self, subject: Subject, role: str, session: str, keys: dict[str, Any]
    ) -> dict[str, Any]:
        """Return what EKS Auth says of a session that was opened."""
        association = f"a-{digest(f'{subject.namespace}/{subject.account}')[:17]}"
        arn = f"arn:aws:eks:{self.region}:{AWS_ACCOUNT}:podidentityassociation/{self.cluster}"
        return {
            "subject": {"namespace": subject.namespace, "serviceAccount": subject.account},
            "audience": AUDIENCE,
            "podIdentityAssociation": {
                "associationArn": f"{arn}/{association}",
                "associationId": association,
            },
            "assumedRoleUser": {
                "arn": f"arn:aws:sts::{AWS_ACCOUNT}:assumed-role/{role}/{session}",
                "assumeRoleId": f"{role_id(role)}:{session}",
            },
            "credentials": {
                "accessKeyId": keys["AccessKeyId"],
                "secretAccessKey": keys["SecretAccessKey"],
                "sessionToken": keys["SessionToken"],
                "expiration": int(keys["Expiration"].timestamp()),
            },
        }


def read_token(body: bytes) -> str:
    """Return the token of a request. Raises Refused for a request without one."""
    try:
        token = json.loads(body)["token"]
    except (ValueError, KeyError, TypeError) as error:
        why = f"the request has no token: {type(error).__name__}"
        raise Refused(HTTPStatus.BAD_REQUEST, "InvalidRequestException", why) from error
    read_claims(str(token))
    return str(token)


def refuse_unknown(why: str) -> Refused:
    return Refused(HTTPStatus.NOT_FOUND, "ResourceNotFoundException", why)


def error_answer(error: Refused) -> Answer:
    """Return an error as AWS's services write it in the protocol rest-json."""
    return json_answer({"message": str(error)}, error.status, ("x-amzn-errortype", error.name))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def role_id(role: str) -> str:
    """Return an ID in the form of IAM's for roles, always the same for the same role."""
    return "AROA" + base64.b32encode(hashlib.sha256(role.encode()).digest()).decode()[:17]
