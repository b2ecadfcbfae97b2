"""A package index over HTTPS with a password, whose wheels are made on the fly."""

from __future__ import annotations

import base64
import hashlib
import io
import ssl
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from lab.backends.embedded.services.certificates import Authority
from tests.support.serving import Silent, serving

VERSION = "1.0"


@dataclass
class Index:
    """The packages of an index, what was asked of it, and what it does not give out."""

    user: str
    password: str
    wheels: dict[str, bytes] = field(default_factory=dict)  # by package
    asked: list[str] = field(default_factory=list)  # paths
    withheld: set[str] = field(default_factory=set)  # packages
    address: str = ""
    certificate: Path = Path()

    @property
    def address_with_password(self) -> str:
        return self.address.replace("://", f"://{self.user}:{self.password}@")

    def add(self, package: str, files: Mapping[str, str]) -> None:
        """Add a package of these files."""
        self.wheels[package] = build_wheel(package, files)

    def lock(self, package: str) -> str:
        """Return the line of a lock that pins a package by its hash."""
        return f"{package}=={VERSION} --hash=sha256:{self.hash_of(package)}\n"

    def hash_of(self, package: str) -> str:
        return hashlib.sha256(self.wheels[package]).hexdigest()

    def find(self, path: str) -> bytes | None:
        """Return what is at a path: the page of a package, or its wheel; None for nothing."""
        *_, folder, name = path.rstrip("/").split("/")
        package = name.partition("-")[0]
        if package not in self.wheels or package in self.withheld:
            return None
        if folder == "files":
            return self.wheels[package]
        file = wheel_name(package)
        return f'<a href="/files/{file}#sha256={self.hash_of(package)}">{file}</a>'.encode()


def wheel_name(package: str) -> str:
    return f"{package}-{VERSION}-py3-none-any.whl"


def build_wheel(package: str, files: Mapping[str, str]) -> bytes:
    """Return a wheel of these files; those under `scripts/` become programs."""
    scripts = f"{package}-{VERSION}.data/scripts/"
    about = f"{package}-{VERSION}.dist-info"
    held = {name.replace("scripts/", scripts): text for name, text in files.items()}
    held[f"{about}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {VERSION}\n"
    held[f"{about}/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    held[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in (*held, f"{about}/RECORD"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as wheel:
        for name, text in held.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16  # a program is one by its mode
            wheel.writestr(entry, text)
    return packed.getvalue()


@contextmanager
def serving_index(folder: Path) -> Iterator[Index]:
    """Serve an empty index while the block runs; `folder` gets its authority's certificate."""
    authority = Authority("a company")
    (folder / "company.pem").write_text(authority.certificate())
    (folder / "server.pem").write_text("".join(authority.issue_certificate("index")))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(folder / "server.pem")
    index = Index("jane", "pass-w0rd-of-the-index", certificate=folder / "company.pem")
    with serving(make_handler(index), tls) as address:
        index.address = address
        yield index


def make_handler(index: Index) -> Callable[..., BaseHTTPRequestHandler]:
    """Return a handler that answers GET and HEAD to those who have the password."""
    login = base64.b64encode(f"{index.user}:{index.password}".encode()).decode()

    class Handler(Silent, BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.asked.append(self.path)
            if self.headers["Authorization"] != f"Basic {login}":
                self.answer(401, b"")
                return
            found = index.find(self.path)
            self.answer(404 if found is None else 200, found or b"")

        do_HEAD = do_GET  # noqa: N815

        def answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("WWW-Authenticate", "Basic realm=index")
            kind = "application/octet-stream" if body[:2] == b"PK" else "text/html"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    return Handler
