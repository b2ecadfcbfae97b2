"""The lab's S3 server, as AWS's S3 answers for an object that is not there.

Whoever may not list a bucket is told 403 instead of 404, and DVC takes that for a failure.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

from tests.support.serving import Silent, serving

REFUSED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
SECONDS = 30


def may_list(policy: Mapping[str, Any]) -> bool:
    """Return whether a policy allows a request that names no prefix to list the bucket."""
    return any(
        one["Effect"] == "Allow"
        and "s3:ListBucket" in one["Action"]
        and one.get("Condition") in (None, {"Null": {"s3:prefix": ["true"]}})
        for one in policy["Statement"]
    )


@contextmanager
def on_s3_terms(server: str, *, lists: bool) -> Iterator[str]:
    """Serve what the server has, for a caller who may list or not; yield the address."""
    where = urlsplit(server).netloc

    class Handler(Silent, BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            """Pass the request on as it is signed, and the answer back."""
            length = int(self.headers.get("Content-Length") or 0)
            there = http.client.HTTPConnection(where, timeout=SECONDS)
            there.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                there.putheader(name, value)
            there.endheaders(self.rfile.read(length) if length else None)
            said = there.getresponse()
            self.give(said.status, said.getheaders(), said.read())

        def give(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
            asked = urlsplit(self.path).path.strip("/").count("/") > 0  # an object, not the bucket
            if status == HTTPStatus.NOT_FOUND and asked and not lists:
                status, headers = HTTPStatus.FORBIDDEN, [("Content-Type", "application/xml")]
                body = b"" if self.command == "HEAD" else REFUSED
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection"):
                    self.send_header(name, value)
            if not any(name.lower() == "content-length" for name, _ in headers):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = forward  # noqa: N815

    with serving(Handler) as url:
        yield url
