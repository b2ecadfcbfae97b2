"""A person's own data becomes the first version of a lab, is proved, and comes back as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lab.dataset import first_version
from lab.home.state import State
from lab.lab import Lab
from tests.support.stores import Project, md5_of

ODD = ("-x", "a b.csv", "zwei ü", "zwei u\u0308", "A", "a", "new\nline", "n" * 255, "sub/none")


def publish(empty: Project, source: Path) -> Lab:
    """Publish `source` as `lab up --dataset` does, and return the lab."""
    path = first_version.repository_path(source)
    known = State("embedded", "sqlite", path, str(source), {})
    (first,) = first_version.list_first_versions(empty.stores.config, known)
    first_version.publish_data(empty.stores.config, first, empty.environment("import"))
    return replace(empty.lab, dataset_path=path)


@pytest.mark.parametrize(
    ("name", "content"), [("-weights, größer.bin", b"\xff\0" * 1000), (f".{'n' * 250}", b"")]
)
def test_a_file_of_any_format_is_the_dataset(
    name: str, content: bytes, empty: Project, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    lab = publish(empty, tmp_path / name)
    proof = lab.verify()
    assert (proof.made_by, proof.size, proof.data[0].files) == ("import", len(content), None)
    assert proof.md5 == md5_of(content)


def test_a_directory_is_the_dataset(
    empty: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    top = tmp_path / "out.csv"  # as Spark calls it
    for name in ODD:
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(b"" if "none" in name else name.encode())
    (top / "sub" / "empty").mkdir()
    lab = publish(empty, top)
    assert "left out, as DVC keeps no empty directory: sub/empty" in capsys.readouterr().out
    proof = lab.verify()
    assert (proof.made_by, proof.data[0].files) == ("import", len(ODD))
    assert lab.version().files == len(ODD)
    with lab.checkout("main") as checkout:
        for name in ODD:
            assert checkout.read(f"{lab.dataset_path}/{name}") == (top / name).read_bytes()
