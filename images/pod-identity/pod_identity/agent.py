"""The node's agent: serves `GET /v1/credentials` as EKS Pod Identity's agent does.

What it refuses by itself has a status of its own, as there: 400 for a token that has ended or can't
be parsed, 403 for a call by another name, 429 for too many requests. Everything else is EKS Auth's
answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from pod_identity.cache import Cache, Credentials, Unreachable
from pod_identity.clients import open_client
from pod_identity.decisions import logging_refusal
from pod_identity.limit import Limit
from pod_identity.tokens import read_claims, refuse_ended, refuse_token
from pod_identity.wsgi import Answer, Environ, Refused, Start, json_answer, send, text_answer

ADDRESS = "169.254.170.23"  # the only one at which SDKs take credentials without TLS
PATH = "/v1/credentials"
HEALTH = "/healthz"
TIMEOUTS = (0.5, 1.0)  # seconds, for a connection to EKS Auth and for its answer


class Agent:
    """The WSGI application of the agent. `fetch` returns EKS Auth's credentials for a token.

    A request that calls the agent by another name than its `host` is refused: a web page that has a
    name of its own point here can't ask.
    """

    def __init__(
        self,
        fetch: Callable[[str], Credentials],
        host: str = ADDRESS,
        limit: Limit | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.cache, self.limit, self.now = Cache(fetch, now), limit or Limit(), now
        self.host = host

    def __call__(self, environ: Environ, start: Start) -> Iterable[bytes]:
        return send(self.answer(environ), start)

    def answer(self, environ: Environ) -> Answer:
        """Return the answer to a request."""
        asked, address = (environ["REQUEST_METHOD"], environ["PATH_INFO"]), environ["REMOTE_ADDR"]
        if asked == ("GET", HEALTH):
            return text_answer("ok\n")
        if asked != ("GET", PATH):
            return text_answer("404 page not found\n", HTTPStatus.NOT_FOUND)
        if environ.get("HTTP_HOST", "").partition(":")[0] != self.host:
            said = f"Access Denied. Called agent through invalid address, please use {self.host}\n"
            return text_answer(said, HTTPStatus.FORBIDDEN)
        if not self.limit.admits(address):
            return text_answer("Too Many Requests\n", HTTPStatus.TOO_MANY_REQUESTS)
        return self.answer_token(environ.get("HTTP_AUTHORIZATION", ""), address)

    def answer_token(self, token: str, address: str) -> Answer:
        """Return the credentials of a token, or why there are none."""
        try:
            with logging_refusal(token):
                if not token:
                    raise refuse_token("Service account token cannot be empty")
                refuse_ended(read_claims(token), self.now())
            return json_answer(name_fields(self.cache.find(token, address)))
        except Refused as error:
            return text_answer(f"({error.name}): {error}\n", error.status)
        except Unreachable as error:
            return text_answer(f"{error}\n", HTTPStatus.INTERNAL_SERVER_ERROR)


def name_fields(found: Credentials) -> dict[str, str]:
    """Return credentials as an SDK's provider for containers reads them."""
    return {
        "AccessKeyId": found.access_key,
        "SecretAccessKey": found.secret_key,
        "Token": found.token,
        "AccountId": found.account,
        "Expiration": datetime.fromtimestamp(found.ends, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }


def connect(cluster: str, region: str, endpoint: str = "") -> Callable[[str], Credentials]:
    """Return the function that asks EKS Auth for a token's credentials.

    At an `endpoint` of one's own requests are not signed. Without one it is AWS's, which wants them
    signed by the node's role.
    """
    from botocore import UNSIGNED

    signature = UNSIGNED if endpoint else None
    client = open_client("eks-auth", region, endpoint, TIMEOUTS, signature)
    return lambda token: assume_role(client, cluster, token)


def assume_role(client: Any, cluster: str, token: str) -> Credentials:
    """Return EKS Auth's credentials for the token. Raises Refused and Unreachable."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        said = client.assume_role_for_pod_identity(clusterName=cluster, token=token)
    except ClientError as error:
        said, name = error.response["Error"], error.response["Error"]["Code"]
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            raise Unreachable(f"({name}): {said['Message']}") from error
        raise Refused(HTTPStatus(status), name, said["Message"]) from error
    except BotoCoreError as error:
        raise Unreachable(f"unable to fetch credentials from EKS Auth: {error}") from error
    keys = said["credentials"]
    return Credentials(
        access_key=keys["accessKeyId"],
        secret_key=keys["secretAccessKey"],
        token=keys["sessionToken"],
        account=said["assumedRoleUser"]["arn"].split(":")[4],
        ends=keys["expiration"].timestamp(),
    )
