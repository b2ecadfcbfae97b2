"""POST /lab/push: a git server reports a push, and the DAGs that wait for that branch run.

If DAGs come from that branch, its bundle is refreshed at once.

On a cluster Gitea's webhook calls it, on one machine the embedded git server's hook. Both send
Gitea's payload, and a secret as a bearer token: Airflow's own login does not guard what a plugin
serves. Whoever knows the secret can make events of pushes, and nothing else.
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

SECRET = "PUSH_SECRET"  # noqa: S105  the variable that holds the secret
LIMIT = 1024 * 1024  # bytes of a delivery
# The account of the steps. Its pushes make no events: else each run would start the next.
STEPS = "steps"
HEADS = "refs/heads/"
NO_FILE = ".pushed"  # no such file exists; a request to parse it refreshes the whole bundle

# Values that a database or a log could not hold are refused.
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
    """One reference that a push has moved."""

    repository: str
    ref: str
    before: str  # a commit, as `after`; all zeros for none
    after: str
    pusher: str

    @property
    def branch(self) -> str:
        return self.ref.removeprefix(HEADS)

    @property
    def asset(self) -> str:
        """The name of the asset that stands for the branch."""
        return f"push:{self.repository}:{self.branch}"

    def reason_to_ignore(self) -> str | None:
        """Return why the push makes no event, or None if it makes one."""
        if not self.ref.startswith(HEADS):
            return f"{self.ref} is no branch"
        if not self.after.strip("0"):
            return f"{self.ref} was deleted"
        return f"{STEPS} pushes what runs have made" if self.pusher == STEPS else None


def parse_push(body: bytes) -> Push:
    """Parse a delivery. Raise HTTPException when it does not describe a push."""
    try:
        found = json.loads(body)
        values = {name: found[name] for name in ("ref", "before", "after")}
        values["repository"] = found["repository"]["full_name"]
        values["pusher"] = found["pusher"]["login"]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise HTTPException(400, f"no push: {type(error).__name__}: {error}"[:200]) from error
    for name, shape in SHAPES.items():
        if not isinstance(values[name], str) or not shape.fullmatch(values[name]):
            raise HTTPException(400, f"no push: {name} is unusable")
    return Push(**values)


def check_secret(authorization: str | None) -> None:
    """Raise HTTPException unless the request has the secret."""
    secret = os.environ.get(SECRET)
    if not secret:
        raise HTTPException(503, f"{SECRET} is not set: nobody can be believed")
    given, wanted = (authorization or "").encode(), f"Bearer {secret}".encode()
    if not hmac.compare_digest(given, wanted):
        raise HTTPException(401, "wrong secret, or none", {"WWW-Authenticate": "Bearer"})


async def read_body(request: Request) -> bytes:
    """Return the request's body. Raise HTTPException when it exceeds LIMIT."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > LIMIT:
            raise HTTPException(413, f"more than {LIMIT} bytes")
    return bytes(body)


async def receive(request: Request) -> JSONResponse:
    """Answer 200 when there is an event of the push, 202 when it makes none."""
    check_secret(request.headers.get("authorization"))
    push = parse_push(await read_body(request))
    reason = push.reason_to_ignore()
    if reason is None:
        await run_in_threadpool(request_parsing, push.branch)
        reason = await run_in_threadpool(register_event, push)
    if reason:
        return JSONResponse({"detail": reason}, 202)
    return JSONResponse({"detail": f"an event of {push.asset}"})


def request_parsing(branch: str) -> None:
    """Have the DAG processor refresh the bundles of this branch now, not at their interval."""
    from airflow.configuration import conf
    from airflow.models.dagbag import DagPriorityParsingRequest
    from airflow.utils.session import create_session
    from sqlalchemy.exc import IntegrityError

    for bundle in conf.getjson("dag_processor", "dag_bundle_config_list"):
        if bundle["kwargs"].get("tracking_ref") == branch:
            # A pending request covers this push, too.
            with suppress(IntegrityError), create_session() as session:
                session.add(DagPriorityParsingRequest(bundle["name"], NO_FILE))


def register_event(push: Push) -> str | None:
    """Make one event of the push, however often it is delivered; or return why there is none."""
    from airflow.assets.manager import asset_manager
    from airflow.utils.session import create_session

    with create_session() as session:
        asset = lock_asset(session, push.asset)
        if asset is None:
            return f"no DAG waits for {push.asset}"
        if not is_registered(session, asset, push):
            asset_manager.register_asset_change(
                asset=asset, extra=asdict(push), source_is_api=True, session=session
            )
        return None


def lock_asset(session: Session, name: str) -> AssetModel | None:
    """Return the asset of this name, locked against other deliveries until the session ends.

    One that no DAG names at the moment counts, too: its file may just be broken, and the event
    waits until that is fixed.
    """
    from airflow.models.asset import AssetModel
    from sqlalchemy import select

    found = session.scalars(select(AssetModel).where(AssetModel.name == name).with_for_update())
    return max(found, key=lambda asset: (asset.active is not None, asset.id), default=None)


def is_registered(session: Session, asset: AssetModel, push: Push) -> bool:
    """Return whether there is an event of this push."""
    from airflow.models.asset import AssetEvent
    from sqlalchemy import Text, cast, select

    holds = cast(AssetEvent.extra, Text).contains(push.after)  # few events do: compare those
    events = select(AssetEvent.extra).where(AssetEvent.asset_id == asset.id, holds)
    same = {key: value for key, value in asdict(push).items() if key != "pusher"}
    return any(same.items() <= extra.items() for extra in session.scalars(events))


async def error_response(_: Request, error: HTTPException) -> JSONResponse:
    """Return the error in the form of Airflow's own API."""
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


handlers: dict[Any, Any] = {HTTPException: error_response}
app = Starlette(
    routes=[Route("/push", receive, methods=["POST"])],
    exception_handlers=handlers,
)


class PushesPlugin(AirflowPlugin):
    """Mounts the receiver in the api-server."""

    name = "lab_pushes"
    fastapi_apps = [{"app": app, "url_prefix": "/lab", "name": "pushes"}]  # noqa: RUF012
