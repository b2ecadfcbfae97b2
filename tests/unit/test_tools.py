"""A tool is the one on PATH if its version is accepted, else the pinned release, verified."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
import tarfile
import tomllib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from lab.cluster import cache, tools
from lab.errors import LabError, MachineError
from tests.support.serving import Silent, serving

NAMES = ["kind", "kubectl", "helm"]
PLATFORMS = {f"{os}-{arch}" for os in ("linux", "darwin") for arch in ("amd64", "arm64")}
SAID = {
    "kind": "kind v{0} go1.26.8 linux/amd64",
    "kubectl": "Client Version: v{0}\nKustomize Version: v5.8.1",
    "helm": "v{0}",
}
PutOnPath = Callable[[str, str], Path]


def script(name: str, version: str) -> str:
    """Return a script that prints its version for the real tool's arguments, and nothing else."""
    asked = " ".join(tools.VERSION_ARGUMENTS[name])
    return f"#!/bin/sh\n[ \"$*\" = '{asked}' ] && echo '{SAID[name].format(version)}'\n"


def build_archive(program: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        entry = tarfile.TarInfo(program)
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


class Releases:
    """A release server, and a `tools.toml` that pins its files."""

    def __init__(self, folder: Path, pins: Path) -> None:
        self.folder = folder
        self.pins = pins
        self.requests: list[str] = []
        self.address = ""

    def publish(self) -> None:
        """Write the files and the pins: the real ones, but with this server's URLs and digests."""
        lines = []
        for name, pin in tomllib.loads(tools.PINS.read_text("utf-8")).items():
            content = self.build_content(name, pin["version"], pin.get("program"))
            (self.folder / name).write_bytes(content)
            sha256 = hashlib.sha256(content).hexdigest()
            lines += [
                f"[{name}]",
                *(f'{k} = "{pin[k]}"' for k in pin if k not in ("url", "sha256")),
            ]
            lines += [f'url = "{self.address}/{name}"', f"[{name}.sha256]"]
            lines += [f'{platform} = "{sha256}"' for platform in PLATFORMS]
        self.pins.write_text("\n".join(lines))

    def build_content(self, name: str, version: str, program: str | None) -> bytes:
        text = script(name, version).encode()
        os, arch = tools.os_and_arch()
        return build_archive(program.format(os=os, arch=arch), text) if program else text


@pytest.fixture
def releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    folder = tmp_path / "releases"
    folder.mkdir()
    found = Releases(folder, tmp_path / "tools.toml")

    class Handler(Silent, SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append(self.path)
            super().do_GET()

    with serving(partial(Handler, directory=str(folder))) as found.address:
        found.publish()
        monkeypatch.setattr(tools, "PINS", found.pins)
        yield found


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(cache, "PAUSE", 0.01)
    tools.find.cache_clear()
    yield tmp_path / "caches" / "mlops-lab"
    tools.find.cache_clear()


@pytest.fixture
def put_on_path(tmp_path: Path) -> PutOnPath:
    def put(name: str, version: str) -> Path:
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(script(name, version))
        program.chmod(0o755)
        return program

    return put


# --- What is pinned -----------------------------------------------------------------------------


def test_each_tool_is_pinned_for_each_platform() -> None:
    pins = tomllib.loads(tools.PINS.read_text("utf-8"))
    assert list(pins) == NAMES == list(tools.VERSION_ARGUMENTS)
    digests = [digest for pin in pins.values() for digest in pin["sha256"].values()]
    assert all(set(pin["sha256"]) == PLATFORMS for pin in pins.values())
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("name", NAMES)
def test_the_pinned_release_is_one_that_would_do_on_path(name: str) -> None:
    pin = tools.read_pin(name)
    assert pin.version in SpecifierSet(pin.accepts)


@pytest.mark.parametrize(
    ("name", "system", "arch", "url", "program"),
    [
        (
            "kind",
            "Linux",
            "x86_64",
            "https://github.com/kubernetes-sigs/kind/releases/download/v{}/kind-linux-amd64",
            None,
        ),
        (
            "kubectl",
            "Darwin",
            "arm64",
            "https://dl.k8s.io/release/v{}/bin/darwin/arm64/kubectl",
            None,
        ),
        (
            "helm",
            "Linux",
            "aarch64",
            "https://get.helm.sh/helm-v{}-linux-arm64.tar.gz",
            "linux-arm64/helm",
        ),
    ],
)
def test_a_release_is_the_one_for_this_machine(
    name: str,
    system: str,
    arch: str,
    url: str,
    program: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.system", lambda: system)
    monkeypatch.setattr("platform.machine", lambda: arch)
    pin = tools.read_pin(name)
    release = tools.pinned_release(pin)
    assert release.url == url.format(pin.version)
    assert release.program == program
    assert release.sha256 in pin.sha256.values()


def test_a_machine_without_releases_needs_the_tool_on_path(
    put_on_path: PutOnPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    for look in (tools.find, tools.describe):
        with pytest.raises(MachineError, match="no kind is pinned for linux on riscv64") as error:
            look("kind")
        assert error.value.fix.startswith("put kind ")
    program = put_on_path("kind", "0.33.0")
    assert tools.find("kind") == program


# --- On PATH ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("kind", "0.31.0"),
        ("kind", "0.33.0"),
        ("kubectl", "1.35.0"),
        ("kubectl", "1.36.3"),
        ("kubectl", "1.37.1-gke.200"),
        ("kubectl", "1.36.0+k3s1"),
        ("helm", "3.19.0+g3d8990f"),
        ("helm", "4.3"),
        ("helm", "4.3.1"),
    ],
)
def test_the_one_on_path_is_taken_when_it_will_do(
    name: str, version: str, put_on_path: PutOnPath, releases: Releases
) -> None:
    program = put_on_path(name, version)
    assert tools.find(name) == program
    numbers = re.match(r"[\d.]+", version)
    assert numbers and tools.describe(name) == f"{name} {numbers[0]} ({program})"
    assert name not in tools.list_missing()
    assert not releases.requests


def test_a_relative_path_is_made_whole(
    put_on_path: PutOnPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = put_on_path("kind", "0.33.0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "bin")
    assert tools.find("kind") == program


def test_a_version_is_asked_for_once(put_on_path: PutOnPath) -> None:
    program = put_on_path("kind", "0.33.0")
    assert tools.find("kind") == program
    program.unlink()
    assert tools.find("kind") == program


# --- From a release -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_without_one_on_path_the_release_is_downloaded_once(
    name: str, own_cache: Path, releases: Releases
) -> None:
    version = tools.read_pin(name).version
    assert tools.list_missing() == NAMES
    url = f"{releases.address}/{name}"
    assert tools.describe(name) == f"{name} {version} (to be downloaded: {url})"
    assert not releases.requests and not own_cache.exists()

    program = tools.find(name)
    assert program.parent == own_cache
    assert version in program.name
    assert program.stat().st_mode & 0o777 == 0o755
    assert tools.ask_version(name, program) == Version(version)

    tools.find.cache_clear()
    assert tools.find(name) == program
    assert tools.describe(name) == f"{name} {version} ({program})"
    assert name not in tools.list_missing()
    assert len(releases.requests) == 1


@pytest.mark.parametrize(
    ("name", "version"),
    [("kind", "0.30.0"), ("kubectl", "1.34.9"), ("kubectl", "1.38.0"), ("helm", "3.18.6")],
)
def test_one_that_will_not_do_is_left_alone(
    name: str, version: str, put_on_path: PutOnPath, own_cache: Path, releases: Releases
) -> None:
    program = put_on_path(name, version)
    assert tools.find(name).parent == own_cache
    assert program.read_text() == script(name, version)


@pytest.mark.parametrize(
    "content", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\necho hello\n", "\x7fELF no"]
)
def test_one_that_does_not_run_or_has_no_version_will_not_do(
    content: str, put_on_path: PutOnPath, own_cache: Path, releases: Releases
) -> None:
    put_on_path("kind", "0.33.0").write_text(content)
    assert tools.find("kind").parent == own_cache


@pytest.mark.parametrize("name", NAMES)
def test_a_release_that_is_another_file_is_refused(
    name: str, own_cache: Path, releases: Releases
) -> None:
    (releases.folder / name).write_text(script(name, "6.6.6"))
    with pytest.raises(LabError, match="another file than the pinned one"):
        tools.find(name)
    assert not list(own_cache.iterdir())
    assert name in tools.list_missing()


@pytest.mark.parametrize("name", NAMES)
def test_a_tampered_cache_is_mended(name: str, own_cache: Path, releases: Releases) -> None:
    good = tools.find(name).read_bytes()
    for path in own_cache.iterdir():
        path.write_bytes(b"#!/bin/sh\necho I am another program\n")
    assert name in tools.list_missing()
    tools.find.cache_clear()
    assert tools.find(name).read_bytes() == good
    assert len(releases.requests) == 2


def test_a_tampered_program_is_unpacked_anew(own_cache: Path, releases: Releases) -> None:
    program = tools.find("helm")
    good = program.read_bytes()
    for bad in (good[:-1], good + b"x", b""):
        program.write_bytes(bad)
        tools.find.cache_clear()
        assert tools.find("helm").read_bytes() == good
    assert len(releases.requests) == 1
    assert len(list(own_cache.iterdir())) == 2


def test_an_archive_without_the_program_is_said(releases: Releases) -> None:
    pins = releases.pins.read_text()
    releases.pins.write_text(pins.replace('{os}-{arch}/helm"', 'elsewhere/helm"'))
    with pytest.raises(LabError, match="holds no file elsewhere/helm"):
        tools.find("helm")


# --- Nowhere ------------------------------------------------------------------------------------


def test_without_a_network_it_says_what_to_do(own_cache: Path, releases: Releases) -> None:
    shutil.rmtree(releases.folder)
    with pytest.raises(MachineError, match=f"{releases.address}/kind can't be downloaded") as error:
        tools.find("kind")
    fix = error.value.fix
    assert "put kind >=0.31,<1 on PATH" in fix
    assert "nox -s lab -- up --backend kind" in fix
    assert str(own_cache / "kind-0.33.0-") in fix


def test_it_says_what_is_wrong_with_the_one_on_path(
    put_on_path: PutOnPath, releases: Releases
) -> None:
    program = put_on_path("kind", "0.20.0")
    shutil.rmtree(releases.folder)
    with pytest.raises(MachineError) as error:
        tools.find("kind")
    assert f"({program} is 0.20.0)" in error.value.fix
