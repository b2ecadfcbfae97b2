"""How the environment of a session is installed; what pip and uv are told of an index."""

from __future__ import annotations

import ast
import os
import ssl
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import installing

TREE = Path(__file__).resolve().parents[2]
FOREIGN = ("PIP_", "UV_", "SSL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove what this machine says of indexes."""
    for name in [name for name in os.environ if name.startswith(FOREIGN)]:
        monkeypatch.delenv(name)


@pytest.fixture
def session(tmp_path: Path) -> Any:
    """Return what the functions use of a session: the place of its environment."""
    folder = tmp_path / "environment"
    (folder / "bin").mkdir(parents=True)
    return SimpleNamespace(virtualenv=SimpleNamespace(location=str(folder)), bin=folder / "bin")


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, object]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))


def set_system_certificates(
    monkeypatch: pytest.MonkeyPatch, file: Path | None = None, folder: Path | None = None
) -> None:
    found = SimpleNamespace(cafile=file and str(file), capath=folder and str(folder))
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: found)
    monkeypatch.setattr(sys, "platform", "linux")


# --- Where nox runs -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["__init__", "installing", "progress", "sessions"])
def test_an_old_python_can_read_what_nox_imports(name: str) -> None:
    """It says that it is too old only once it has imported this."""
    tree = ast.parse((TREE / "lab" / f"{name}.py").read_text("utf-8"), feature_version=(3, 9))
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {a.name for i in imports if isinstance(i, ast.Import) for a in i.names}
    froms = {str(i.module) for i in imports if isinstance(i, ast.ImportFrom)}
    others = names | froms - {"nox", "lab.installing", "lab.progress"}
    assert {name.partition(".")[0] for name in others} - {"nox"} <= sys.stdlib_module_names
    assert "tomllib" not in names | froms  # since 3.11
    assert "__future__" in froms or name == "__init__"  # annotations stay text


@pytest.mark.parametrize("version", [(3, 10, 14), (3, 15, 0)])
def test_a_python_that_the_lab_does_not_support_is_refused(
    session: Any, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    session.name, session.error = "e2e", pytest.fail
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(pytest.fail.Exception, match=r"this is Python .*python3.13 -m nox -s e2e"):
        installing.prepare(session)


# --- pip's own ----------------------------------------------------------------------------------


def test_pips_settings_are_merged_as_pip_does(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A variable before a section of `pip install`, that before the global one; empty is unset."""
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex_url = https://global\nretries = 1\ncert = ~/global.pem\nuser = true\n"
        "[install]\nindex-url = https://install\nretries = 2\ntarget = /elsewhere\n"
        "extra-index-url =\n  https://one\n  https://two\n"
        "[download]\nproxy = http://download\n"
    )
    variables = {"CONFIG_FILE": file, "RETRIES": 3, "INDEX_URL": "", "USER": 1, "PROXY": ""}
    set_variables(monkeypatch, {f"PIP_{name}": value for name, value in variables.items()})
    monkeypatch.setenv("HOME", str(tmp_path))
    found = installing.read_pip_settings(session)
    assert {"user", "target", "proxy", "config-file"}.isdisjoint(found)
    assert found["index-url"] == "https://install"
    assert found["retries"] == "3"
    assert found["cert"] == "~/global.pem"
    assert found["extra-index-url"].split() == ["https://one", "https://two"]


def test_pips_files_are_read_in_its_order(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (
        "env_var:\n  PIP_CONFIG_FILE='/e'\nenv:\n  /e, exists: True\n    global.cert: x\n"
        "global:\n  /etc/xdg/pip/pip.conf, exists: False\n  /g, with a comma, exists: True\n"
        "site:\n  /s, exists: True\nuser:\n  /u1, exists: True\n  /u2, exists: True\n"
    )
    asked = SimpleNamespace(returncode=0, stdout=said, stderr="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: asked)
    assert installing.list_pip_files(session) == ["/g, with a comma", "/u1", "/u2", "/s", "/e"]


# --- For uv -------------------------------------------------------------------------------------


def test_uv_is_told_what_pip_is_told(tmp_path: Path) -> None:
    found = {
        "index-url": "https://me:pw@one/simple",
        "extra-index-url": "\nhttps://two/simple\nhttps://three/simple",
        "find-links": f"{tmp_path} /not/there https://four/links",
        "trusted-host": "five six:8443",
        "client-cert": "~/mine.pem",
        "keyring-provider": "subprocess",
        "timeout": "7.5",
        "retries": "9",
        "proxy": "http://me:pw@proxy:3128",
        "cache-dir": "/pips/own",
    }
    told = installing.uv_variables(found)
    proxies = {name: told.pop(name) for name in list(told) if name.lower().endswith("_proxy")}
    assert set(proxies) == {"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"}
    assert set(proxies.values()) == {"http://me:pw@proxy:3128"}
    assert told == {
        "UV_DEFAULT_INDEX": "https://me:pw@one/simple",
        "UV_INDEX": "https://two/simple https://three/simple",
        "UV_FIND_LINKS": f"{tmp_path},https://four/links",
        "UV_INSECURE_HOST": "five six:8443",
        "UV_KEYRING_PROVIDER": "subprocess",
        "UV_HTTP_TIMEOUT": "8",
        "UV_HTTP_RETRIES": "9",
        "SSL_CLIENT_CERT": str(Path("~/mine.pem").expanduser()),
    }


def test_uvs_own_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names that uv had for them before, too."""
    set_variables(monkeypatch, {"UV_INDEX_URL": "https://mine", "UV_HTTP_RETRIES": "1"})
    told = installing.uv_variables({"index-url": "https://pip", "retries": "9", "timeout": "7"})
    assert told == {"UV_HTTP_TIMEOUT": "7"}


KEPT = ("UV_INDEX", "UV_INDEX_COMPANY_PASSWORD", "UV_SYSTEM_CERTS", "UV_CACHE_DIR", "PYTHONUTF8")
FOREIGN_TO_ALL = ("UV_CONSTRAINT", "UV_PYTHON", "UV_FIND_LINKS_TOO", "PYTHONPATH", "PYTHONHOME")


def test_variables_are_kept_by_name() -> None:
    assert list(filter(installing.KEPT.fullmatch, (*KEPT, *FOREIGN_TO_ALL))) == list(KEPT)


# --- Certificates -------------------------------------------------------------------------------


def test_without_a_setting_uv_trusts_the_system(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But not the empty store of a small container: there uv's own certificates are the only."""
    folder = tmp_path / "certs"
    folder.mkdir()
    set_system_certificates(monkeypatch, folder=folder)
    assert installing.certificate_variables({}, session) == {}
    (folder / "one.pem").touch()
    assert installing.certificate_variables({}, session) == {"UV_SYSTEM_CERTS": "true"}


@pytest.mark.parametrize("name", ["UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "SSL_CERT_FILE"])
def test_what_tells_uv_already_is_left_alone(
    session: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "true")
    assert installing.certificate_variables({}, session) == {}


@pytest.mark.parametrize("variable", ["", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_a_certificate_of_pips_is_trusted_beside_the_systems(
    session: Any, tmp_path: Path, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One variable takes one file: the system's and the setting's become one."""
    system, given = tmp_path / "system.pem", tmp_path / "company.pem"
    system.write_text("of the system")
    given.write_text("of the company")
    found = {} if variable else {"cert": str(given)}
    set_variables(monkeypatch, {variable: given} if variable else {})
    set_system_certificates(monkeypatch, system, tmp_path)
    told = installing.certificate_variables(found, session)
    assert told["SSL_CERT_DIR"] == str(tmp_path)
    assert Path(told["SSL_CERT_FILE"]).read_text() == "of the system\nof the company"
    set_system_certificates(monkeypatch, given)
    told = installing.certificate_variables(found, session)
    assert told == {"SSL_CERT_FILE": str(given)}


def test_a_folder_of_certificates_is_trusted(
    session: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    system.mkdir()
    set_system_certificates(monkeypatch, folder=system)
    told = installing.certificate_variables({"cert": str(tmp_path)}, session)
    assert told == {"SSL_CERT_DIR": f"{system}{os.pathsep}{tmp_path}"}
