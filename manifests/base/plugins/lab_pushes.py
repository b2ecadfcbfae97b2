"""POST /lab/push: a git server tells of a push, and the DAGs that wait for that branch run.

DAGs that are on that branch themselves are looked at anew, at once.

Gitea's webhook calls it on a cluster, the embedded git server's hook on one machine. Both send what
Gitea sends, and a secret as a bearer token: Airflow's own login does not guard what a plugin
serves. Who knows the secret can make events of pushes, and nothing else.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow.plugins_manager import AirflowPlugin
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from airflow.models.asset import AssetModel
    from sqlalchemy.orm import Session
    from starlette.requests import Request

SECRET = "PUSH_SECRET"  # noqa: S105  the variable that holds it
LIMIT = 1024 * 1024  # bytes of a delivery
# The account of the steps. Its pushes make no events: what a run publishes would start the next.
STEPS = "steps"
HEADS = "refs/heads/"
NO_FILE = ".pushed"  # a request to parse a file has its whole bundle looked at; this one is none

# Nothing that a database or a log could not hold passes.
NAME = r"[A-Za-z0-9._-]{1,255}"
SHAPES = {
    "repository": re.compile(f"{NAME}/{NAME}"),
    "ref": re.compile(r"refs/[^\x00-\x20\x7f~^:?*\[\\\ud800-\udfff]{1,500}"),
    "before": re.compile("[0-9a-f]{40}|[0-9a-f]{64}"),
    "after": re.compile("[0-9a-f]{40}|[0-9a-f]{64}"),
    "pusher": re.compile(f"({NAME})?"),
}


@dataclass(frozen=True)
class Push:
    """One reference that somebody's push has moved."""

    repository: str
    ref: str
    before: str  # commits; all zeros where there was none, or is none any more
    after: str
    pusher: str

    @property
    def branch(self) -> str:
        return self.ref.removeprefix(HEADS)

    @property
    def asset(self) -> str:
        """The name of the asset that stands for the branch."""
        return f"push:{self.repository}:{self.branch}"

    def ignored(self) -> str | None:
        """Why no DAG is to hear of it, if none is."""
        if not self.ref.startswith(HEADS):
            return f"{self.ref} is no branch"
        if not self.after.strip("0"):
            return f"{self.ref} was deleted"
        return f"{STEPS} pushes what runs have made" if self.pusher == STEPS else None


def parsed(body: bytes) -> Push:
    """The push that a delivery tells of. Raises HTTPException when it tells of none."""
    try:
        found = json.loads(body)
        told = {name: found[name] for name in ("ref", "before", "after")}
        told["repository"] = found["repository"]["full_name"]
        told["pusher"] = found["pusher"]["login"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise HTTPException(400, f"no push: {type(error).__name__}: {error}"[:200]) from error
    for name, shape in SHAPES.items():
        if not isinstance(told[name], str) or not shape.fullmatch(told[name]):
            raise HTTPException(400, f"no push: {name} is unusable")
    return Push(**told)


def admit(authorization: str | None) -> None:
    """Raises HTTPException unless the request bears the secret."""
    secret = os.environ.get(SECRET)
    if not secret:
        raise HTTPException(503, f"{SECRET} is not set: nobody can be believed")
    given, wanted = (authorization or "").encode(), f"Bearer {secret}".encode()
    if not hmac.compare_digest(given, wanted):
        raise HTTPException(401, "wrong secret, or none", {"WWW-Authenticate": "Bearer"})


async def body_of(request: Request) -> bytes:
    """What the request sends. Raises HTTPException when it is too much."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMIT:
            raise HTTPException(413, f"more than {LIMIT} bytes")
    return bytes(body)


async def receive(request: Request) -> JSONResponse:
    """Answers 200 when there is an event of the push, 202 when none is wanted."""
    admit(request.headers.get("authorization"))
    push = parsed(await body_of(request))
    reason = push.ignored()
    if reason is None:
        await run_in_threadpool(look_again, push.branch)
        reason = await run_in_threadpool(register, push)
    if reason:
        return JSONResponse({"detail": reason}, 202)
    return JSONResponse({"detail": f"an event of {push.asset}"})


def look_again(branch: str) -> None:
    """The DAG processor looks at the bundles of such a branch now, and not at their next turn."""
    from airflow.configuration import conf
    from airflow.models.dagbag import DagPriorityParsingRequest
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    for bundle in conf.getjson("dag_processor", "dag_bundle_config_list"):
        if bundle["kwargs"].get("tracking_ref") == branch:
            # One that nobody has answered yet stands for this push, too.
            with suppress(IntegrityError), create_session() as session:
                session.add(DagPriorityParsingRequest(bundle["name"], NO_FILE))


def register(push: Push) -> str | None:
    """There is one event of the push, however often it is told; or why there is none."""
    from airflow.assets.manager import asset_manager
    from airflow.utils.session import create_session

    with create_session() as session:
        asset = asset_of(session, push.asset)
        if asset is None:
            return f"no DAG waits for {push.asset}"
        if not known(session, asset, push):
            asset_manager.register_asset_change(
                asset=asset, extra=asdict(push), source_is_api=True, session=session
            )
        return None


def asset_of(session: Session, name: str) -> AssetModel | None:
    """The asset of this name, held until the session ends: no other delivery is at it meanwhile.

    One that no DAG names at the moment counts too: its file may just be broken, and the event waits
    until it is mended.
    """
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    found = session.scalars(select(AssetModel).where(AssetModel.name == name).with_for_update())
    return max(found, key=lambda asset: (asset.active is not None, asset.id), default=None)


def known(session: Session, asset: AssetModel, push: Push) -> bool:
    """Whether there is an event of this push."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import Text, cast, select

    holds = cast(AssetEvent.extra, Text).contains(push.after)  # few events do: they are compared
    events = select(AssetEvent.extra).where(AssetEvent.asset_id == asset.id, holds)
    same = {key: value for key, value in asdict(push).items() if key != "pusher"}
    return any(same.items() <= extra.items() for extra in session.scalars(events))


async def refused(_: Request, error: HTTPException) -> JSONResponse:
    """Says why, in the form in which Airflow's own API does."""
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


handlers: dict[Any, Any] = {HTTPException: refused}
app = Starlette(
    routes=[Route("/push", receive, methods=["POST"])],
    exception_handlers=handlers,
)


class PushesPlugin(AirflowPlugin):
    """Mounts the receiver in the api-server."""

    name = "lab_pushes"
    fastapi_apps = [{"app": app, "url_prefix": "/lab", "name": "pushes"}]  # noqa: RUF012
