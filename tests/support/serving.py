"""An HTTP server for one test, on a port of this machine."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

LOOK_SECONDS = 0.02  # between two checks whether the server is to end


class Silent:
    """Mixin for a request handler that logs nothing: a test's output is for what went wrong."""

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(
    handler: Callable[..., BaseHTTPRequestHandler], tls: ssl.SSLContext | None = None
) -> Iterator[str]:
    """Serve while the block runs, by HTTPS with `tls`; yield the server's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = Thread(target=server.serve_forever, args=(LOOK_SECONDS,), daemon=True)
        thread.start()
        try:
            yield f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
