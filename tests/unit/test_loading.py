"""Images on their way into the node: their order, what is waited for, and what goes wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lab.backends.kind import loading, node
from lab.backends.kind.loading import Loading
from lab.cluster import images
from lab.cluster.images import Image
from lab.config import Config
from lab.errors import LabError

KEYS = ("postgresql", "airflow", "worker")


@dataclass
class Machine:
    """What is done to images, in its order; `broken` can't be had."""

    done: list[str] = field(default_factory=list)
    broken: str | None = None

    def ensure_image(self, _known: object, image: Image) -> None:
        if image.key == self.broken:
            raise LabError(f"no {image.key}", "try again")
        self.done.append(f"bring {image.key}")

    def load_image(self, _config: Config, image: Image, archive: Path, held: set[str]) -> None:
        assert held == {"docker.io/library/held:1"}
        assert archive.name == f"{image.key}.tar"
        assert f"bring {image.key}" in self.done
        self.done.append(f"load {image.key}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    def save(_known: object, image: Image) -> Path:
        path = tmp_path / f"{image.key}.tar"
        path.write_bytes(b"12345678" * 500_000)
        return path

    found = Machine()
    monkeypatch.setattr(images, "ensure_image", found.ensure_image)
    monkeypatch.setattr(images, "ensure_archive", save)
    monkeypatch.setattr(images, "choose_one", lambda image: image)
    monkeypatch.setattr(node, "wait_for_containerd", lambda _: None)
    monkeypatch.setattr(node, "list_images", lambda _: {"docker.io/library/held:1"})
    monkeypatch.setattr(node, "load_image", found.load_image)
    return found


@pytest.fixture
def on_their_way(machine: Machine, tmp_path: Path) -> Loading:
    known = {key: Image(key, f"{key}:1", None, None, {}) for key in KEYS}
    return Loading(Config(home=tmp_path), known, KEYS)


def test_each_is_loaded_once_it_was_brought(
    machine: Machine, on_their_way: Loading, capsys: pytest.CaptureFixture[str]
) -> None:
    on_their_way.start()
    on_their_way.wait_for_all()
    assert [done for done in machine.done if done.startswith("load")] == [f"load {k}" for k in KEYS]
    assert [done for done in machine.done if done.startswith("bring")] == [
        f"bring {key}" for key in KEYS
    ]
    assert capsys.readouterr().out == "", "what takes no time has no line"


def test_what_takes_its_time_is_told(
    on_their_way: Loading, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loading, "SLOW", -1.0)
    on_their_way.start()
    on_their_way.wait_for_all()
    assert capsys.readouterr().out.splitlines() == [
        f"  loaded {key}:1 into the node: 4 MB, 0 s" for key in KEYS
    ]


def test_one_that_can_not_be_had_fails_whoever_waits_for_it(
    machine: Machine, on_their_way: Loading
) -> None:
    machine.broken = "airflow"
    on_their_way.start()
    on_their_way.wait_for(["postgresql"])
    with pytest.raises(LabError, match="no airflow"):
        on_their_way.wait_for(["airflow"])
    on_their_way.wait_for(["worker"])
    assert "load airflow" not in machine.done
