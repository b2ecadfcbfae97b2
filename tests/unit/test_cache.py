"""The cache holds the pinned file or nothing, whatever the server, the network or a kill does."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lab.cluster import cache
from lab.errors import LabError, MachineError

CONTENT = b"a release\n" * 100_000
PINNED = hashlib.sha256(CONTENT).hexdigest()
FIX = "nox -s lab -- up"


class ReleaseServer(ThreadingHTTPServer):
    """A server that sends `content` at every path; each of `misbehave` spoils one request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.misbehave: list[str] = []
        self.requests: list[str] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/release"


class Handler(BaseHTTPRequestHandler):
    server: ReleaseServer

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        how = self.server.misbehave.pop(0) if self.server.misbehave else "well"
        if how.isdigit():
            self.send_error(int(how))
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        if how == "well":
            self.wfile.write(self.server.content)
        else:
            self.wfile.write(self.server.content[: len(self.server.content) // 2])
        if how == "stall":
            self.server.released.wait(30)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


@pytest.fixture
def server() -> Iterator[ReleaseServer]:
    with ReleaseServer() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(cache, "PAUSE", 0.01)
    return tmp_path / "caches" / "mlops-lab"


def fetch(server: ReleaseServer, sha256: str = PINNED) -> Path:
    return cache.fetch(server.url, sha256, "release", fix=FIX)


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*"))


# --- The folder ---------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["Linux", "Darwin"])
def test_a_named_cache_is_used(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    assert cache.cache_path({"XDG_CACHE_HOME": "/x"}) == Path("/x/mlops-lab")


@pytest.mark.parametrize(
    ("system", "caches"), [("Linux", ".cache"), ("Darwin", "Library/Caches")], ids=["Linux", "mac"]
)
@pytest.mark.parametrize("env", [{}, {"XDG_CACHE_HOME": ""}, {"XDG_CACHE_HOME": "relative"}])
def test_else_it_is_where_the_system_has_caches(
    system: str, caches: str, env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.cache_path(env) == tmp_path / caches / "mlops-lab"


def test_it_is_for_its_owner_only(own_cache: Path) -> None:
    own_cache.mkdir(parents=True, mode=0o755)
    assert cache.ensure_folder() == own_cache
    assert own_cache.stat().st_mode & 0o777 == 0o700


def test_one_that_cannot_be_made_is_said(own_cache: Path) -> None:
    own_cache.parent.write_text("a file, no folder")
    with pytest.raises(MachineError, match="can't be written") as error:
        cache.ensure_folder()
    assert "XDG_CACHE_HOME=" in error.value.fix


def test_a_user_without_a_home_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def raise_no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", raise_no_home)
    with pytest.raises(MachineError, match="no home") as error:
        cache.cache_path({})
    assert "XDG_CACHE_HOME=" in error.value.fix


# --- Downloads ----------------------------------------------------------------------------------


def test_a_file_is_downloaded_once(server: ReleaseServer, own_cache: Path) -> None:
    assert cache.find_cached(PINNED, "release") is None
    assert not own_cache.exists()  # a look-up creates nothing
    path = fetch(server)
    assert path == own_cache / "release"
    assert path.read_bytes() == CONTENT
    assert fetch(server) == path == cache.find_cached(PINNED, "release")
    assert server.requests == ["/release"]
    assert list_names(own_cache) == ["release"]


def test_a_tampered_file_is_downloaded_anew(server: ReleaseServer) -> None:
    path = fetch(server)
    path.write_bytes(CONTENT + b"x")
    assert cache.find_cached(PINNED, "release") is None
    assert fetch(server).read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_another_file_is_refused_and_not_kept(server: ReleaseServer, own_cache: Path) -> None:
    server.content = b"<html>log in to this network first</html>"
    with pytest.raises(LabError, match="another file than the pinned one") as error:
        fetch(server)
    assert PINNED in error.value.what and server.url in error.value.what
    assert list_names(own_cache) == []
    assert len(server.requests) == 1


def test_another_file_does_not_replace_what_is_there(
    server: ReleaseServer, own_cache: Path
) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "release").write_text("tampered")
    server.content = b"tampered on the way too"
    with pytest.raises(LabError):
        fetch(server)
    assert list_names(own_cache) == ["release"]
    assert cache.find_cached(PINNED, "release") is None


@pytest.mark.parametrize("trouble", ["503", "429", "break"])
def test_passing_trouble_is_got_over(trouble: str, server: ReleaseServer) -> None:
    server.misbehave = [trouble, trouble]
    assert fetch(server).read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_an_interrupted_download_leaves_nothing(server: ReleaseServer, own_cache: Path) -> None:
    server.misbehave = ["break"] * 3
    with pytest.raises(MachineError, match="broke off"):
        fetch(server)
    assert list_names(own_cache) == []


def test_a_server_that_refuses_is_not_asked_again(server: ReleaseServer) -> None:
    server.misbehave = ["404"]
    with pytest.raises(MachineError, match="the server answered 404 Not Found"):
        fetch(server)
    assert len(server.requests) == 1


def test_without_a_network_it_says_what_to_do(server: ReleaseServer, own_cache: Path) -> None:
    url = server.url
    server.server_close()
    with pytest.raises(MachineError, match="can't be reached") as error:
        cache.fetch(url, PINNED, "release", fix=FIX)
    assert url in error.value.what
    assert error.value.fix.startswith(FIX)
    assert str(own_cache / "release") in error.value.fix
    assert list_names(own_cache) == []


def test_a_file_brought_by_hand_will_do(own_cache: Path) -> None:
    own_cache.mkdir(parents=True)
    (own_cache / "release").write_bytes(CONTENT)
    nowhere = "http://127.0.0.1:1/release"
    assert cache.fetch(nowhere, PINNED, "release", fix=FIX) == own_cache / "release"


# --- Several processes, and killed ones ---------------------------------------------------------


def test_several_at_once_do_no_harm(server: ReleaseServer, own_cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(server), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert list_names(own_cache) == ["release"]


def test_a_killed_download_leaves_no_half_file(server: ReleaseServer, own_cache: Path) -> None:
    server.misbehave = ["stall"]
    code = (
        f"from lab.cluster import cache; cache.fetch({server.url!r}, {PINNED!r}, 'release', fix='')"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(cache.__file__).parents[2]) as it:
        deadline = time.monotonic() + 30
        while not list(own_cache.glob("release.part-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        it.kill()
    assert len(list_names(own_cache)) == 1
    assert not (own_cache / "release").exists()
    assert fetch(server).read_bytes() == CONTENT


def test_what_killed_downloads_left_goes_after_a_while(
    server: ReleaseServer, own_cache: Path
) -> None:
    own_cache.mkdir(parents=True)
    old, young = own_cache / "release.part-0000", own_cache / "release.part-1111"
    for part in (old, young):
        part.write_text("half")
    os.utime(old, (time.time() - 2 * cache.STALE,) * 2)
    fetch(server)
    assert list_names(own_cache) == ["release", young.name]
