"""Requests and answers of both servers, on top of WSGI."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

LONGEST = 16 * 1024  # bytes of a request's body; a token has about one thousand

Environ = Mapping[str, Any]
Start = Callable[[str, list[tuple[str, str]]], object]


@dataclass(frozen=True)
class Answer:
    """What a server says: a status, a body, and headers beside the body's own."""

    status: HTTPStatus
    body: bytes
    kind: str = "text/plain"
    headers: tuple[tuple[str, str], ...] = ()


class Refused(Exception):
    """A request gets no credentials. `name` is that of EKS Auth's error, `str(error)` says why."""

    def __init__(self, status: HTTPStatus, name: str, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.name = name


def json_answer(
    content: object, status: HTTPStatus = HTTPStatus.OK, *headers: tuple[str, str]
) -> Answer:
    return Answer(status, json.dumps(content).encode(), "application/json", headers)


def text_answer(text: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    return Answer(status, text.encode())


def send(answer: Answer, start: Start) -> Iterable[bytes]:
    """Send the answer by WSGI. No cache may keep it: it may hold credentials."""
    headers = [
        ("Content-Type", answer.kind),
        ("Content-Length", str(len(answer.body))),
        ("Cache-Control", "no-store"),
        *answer.headers,
    ]
    start(f"{answer.status.value} {answer.status.phrase}", headers)
    return [answer.body]


def read_body(environ: Environ) -> bytes:
    """Return the request's body. Raises Refused for one that is too long."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length > LONGEST:
        raise Refused(
            HTTPStatus.BAD_REQUEST, "InvalidRequestException", f"more than {LONGEST} bytes"
        )
    content: bytes = environ["wsgi.input"].read(length)
    return content
