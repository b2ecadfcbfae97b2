"""What the LAB_* variables set, and which values are refused."""

from __future__ import annotations

import os
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from lab import config
from lab.config import KIT, Config
from lab.errors import HomeError, LabError
from lab.home import ports


def test_an_empty_environment_chooses_the_defaults() -> None:
    chosen = Config.from_environment({})
    assert chosen.home == KIT / ".lab"
    assert (chosen.backend, chosen.database, chosen.dataset) == ("auto", None, None)
    assert dict(chosen.ports) == {}
    assert chosen.require is None


def test_an_empty_variable_is_as_good_as_none() -> None:
    names = ("LAB_HOME", "LAB_BACKEND", "LAB_DATABASE", "LAB_REQUIRE", "LAB_PORT_GITSERVER")
    assert Config.from_environment(dict.fromkeys(names, "")) == Config.from_environment({})


def test_each_variable_is_read(tmp_path: Path) -> None:
    chosen = Config.from_environment(
        {
            "LAB_HOME": str(tmp_path / "lab"),
            "LAB_BACKEND": "kind",
            "LAB_DATABASE": "postgresql",
            "LAB_REQUIRE": "kind",
            "LAB_PORT_AIRFLOW_API_SERVER": "12345",
        }
    )
    assert (chosen.home, chosen.backend, chosen.require) == (tmp_path / "lab", "kind", "kind")
    assert (chosen.database, dict(chosen.ports)) == ("postgresql", {"airflow-api-server": 12345})


def test_reading_the_choices_makes_nothing(tmp_path: Path) -> None:
    Config.from_environment({"LAB_HOME": str(tmp_path / "a" / "b")})
    assert not list(tmp_path.iterdir())


def test_the_environment_of_the_process_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert Config.from_environment().home == tmp_path


def test_choices_do_not_change(tmp_path: Path) -> None:
    chosen = Config.from_environment({"LAB_PORT_GITSERVER": "12345"})
    with pytest.raises(FrozenInstanceError):
        chosen.home = tmp_path  # type: ignore[misc]
    with pytest.raises(TypeError):
        chosen.ports["gitserver"] = 1  # type: ignore[index]


def test_every_folder_is_inside_the_home(tmp_path: Path) -> None:
    chosen = Config(home=tmp_path)
    folders = [chosen.logs, chosen.data, chosen.secrets, chosen.run, chosen.shared]
    assert {folder.parent for folder in folders} == {tmp_path}
    assert len(set(folders)) == len(folders)


@pytest.mark.parametrize("spelling", ["lab", "./lab", "other/../lab", "link", "link/../lab"])
def test_each_spelling_of_a_home_is_the_same_home(
    spelling: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lab finds its processes by the path of its home, so there must be only one spelling."""
    (tmp_path / "lab").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "link").symlink_to("lab")
    monkeypatch.chdir(tmp_path)
    assert config.parse_home(spelling) == tmp_path / "lab"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert config.parse_home("~/lab") == tmp_path / "lab"


def test_a_home_of_nobody_is_refused() -> None:
    with pytest.raises(HomeError, match="LAB_HOME=~no-such-person/lab leads nowhere"):
        config.parse_home("~no-such-person/lab")


def test_a_home_behind_links_in_a_circle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(HomeError, match="leads nowhere"):
        config.parse_home(tmp_path / "a" / "lab")


@pytest.mark.parametrize("name", ["sqlite", "postgresql", None])
def test_a_known_database_is_taken(name: str | None) -> None:
    assert config.parse_database(name) == name


@pytest.mark.parametrize("name", ["mysql", "SQLite", " sqlite"])
def test_an_unknown_database_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(LabError) as caught:
        Config.from_environment({"LAB_DATABASE": name})
    assert repr(name) in caught.value.what
    assert "sqlite, postgresql" in caught.value.fix


@pytest.mark.parametrize("port", ["1024", "8080", "65535"])
def test_a_port_in_range_is_pinned(port: str) -> None:
    assert config.parse_ports({"LAB_PORT_GITSERVER": port}) == {"gitserver": int(port)}


OUT_OF_RANGE = ["0", "80", "1023", "65536", "9" * 5000]
NO_NUMBER = ["http", "-1", "+8080", "8080.0", " 8080", "8_080", "²²²²"]


@pytest.mark.parametrize("port", OUT_OF_RANGE + NO_NUMBER)
def test_a_port_out_of_range_or_no_number_is_refused(port: str) -> None:
    with pytest.raises(LabError, match=r"LAB_PORT_GITSERVER=.* is no port") as caught:
        config.parse_ports({"LAB_PORT_GITSERVER": port})
    assert "1024 to 65535" in caught.value.fix


@pytest.mark.parametrize("service", ["gitserver", "seaweedfs-master", "airflow-api-server"])
def test_the_variable_of_a_service_pins_its_port(service: str) -> None:
    assert config.parse_ports({ports.port_variable(service): "12345"}) == {service: 12345}


@pytest.mark.parametrize(("value", "shown"), [("", False), ("0", False), ("1", True)])
def test_tracebacks_are_shown_when_asked_for(value: str, shown: bool) -> None:
    assert config.is_debug({"LAB_DEBUG": value}) is shown
    assert config.is_debug({}) is False


def test_the_tree_is_this_checkout() -> None:
    assert (KIT / "lab" / "config.py").samefile(config.__file__)
    assert os.path.isabs(KIT)  # noqa: PTH117
