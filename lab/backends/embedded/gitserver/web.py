"""A read-only web view of the repositories: klaus, behind the same accounts as git.

/web/                                   the repositories that the account may read
/web/~OWNER/NAME/                       the newest commits and the files
/web/~OWNER/NAME/commit/REV/            a commit and its diff
/web/~OWNER/NAME/blob/REV/PATH          a file
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import defaultdict
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from starlette.exceptions import HTTPException

from lab.backends.embedded.gitserver import repositories
from lab.backends.embedded.gitserver.smart_http import CHALLENGE, find_header

if TYPE_CHECKING:
    from pathlib import Path

    from a2wsgi.wsgi_typing import WSGIApp
    from starlette.types import ASGIApp, Receive, Scope, Send

    from lab.backends.embedded.gitserver.accounts import Accounts

_WORKERS = 2  # threads for each set of repositories
# `raw` is left out: it would run a pushed HTML file's scripts with the reader's credentials. So is
# `tarball`, which is built in memory.
_PAGES = re.compile(r"/|/static/[^/]+|/~[^/]+/[^/]+/([^/]*|(commit|tree|blob|blame)/.*)")


class Web:
    """The ASGI application that shows each account the repositories that it may read."""

    def __init__(self, root: Path, accounts: Accounts) -> None:
        self._root = root
        self._accounts = accounts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request. Raises HTTPException for one that must not reach klaus."""
        names = self._readable_names(scope)
        _check_request(scope)
        # Importing klaus and opening repositories takes a while: not in the event loop.
        pages = await asyncio.to_thread(_build_pages, self._root, names)
        await pages(_strip_headers(scope), receive, send)

    def _readable_names(self, scope: Scope) -> tuple[str, ...]:
        who = self._accounts.authenticate(find_header(scope, b"authorization"))
        if who is None:
            raise HTTPException(401, headers=CHALLENGE)
        _, account = who
        return tuple(name for name in repositories.list_names(self._root) if name in account.read)


def _check_request(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise HTTPException(405, headers={"Allow": "GET, HEAD"})
    path: str = scope["path"].removeprefix(scope["root_path"])
    if not _PAGES.fullmatch(path) or not scope["query_string"].isascii():
        raise HTTPException(404)


def _strip_headers(scope: Scope) -> Scope:
    # Klaus must neither see credentials nor trust a proxy that a header names.
    kept = [(name, value) for name, value in scope["headers"] if name == b"host"]
    return {**scope, "headers": kept}


@lru_cache(maxsize=8)
def _build_pages(root: Path, names: tuple[str, ...]) -> ASGIApp:
    """Build klaus for exactly these repositories: its list is fixed when it is built."""
    # Imported at the first page: the server starts 0.5 s earlier, and git does not need it.
    import klaus
    from a2wsgi import WSGIMiddleware
    from klaus import markup

    # A README is shown as text: rendered Markdown may hold scripts, like `raw`.
    markup.LANGUAGES.clear()
    by_owner: defaultdict[str, list[str]] = defaultdict(list)
    for name in names:
        by_owner[name.partition("/")[0]].append(os.fspath(repositories.folder(root, name)))
    application = cast("WSGIApp", klaus.make_app(by_owner, "lab"))
    return cast("ASGIApp", WSGIMiddleware(application, workers=_WORKERS))
