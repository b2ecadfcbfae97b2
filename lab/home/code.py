"""Which code the processes of a lab have imported: `up` starts them anew when it has changed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

from lab.config import PLUGINS
from lab.files import digest_files

PACKAGES = ("lab", "dataset_steps", "model_steps", "reading_steps")
LOCK = Path("requirements", "lab.txt")  # what is installed beside them


@cache
def digest_code(kit: Path) -> str:
    """Return the sha256 of the kit's modules, Airflow's plugins and the lock of what is installed.

    Every module counts: which of them a process has imported is not known from outside. It takes
    6 ms.
    """
    found = sorted({*list_modules(), *kit.joinpath(PLUGINS).glob("*.py"), kit / LOCK})
    return digest_files({str(file): file for file in found})


def list_modules() -> Iterator[Path]:
    """Yield the modules of the installed packages, without the resources in `lab/kit/`."""
    for name in PACKAGES:
        (place,) = import_module(name).__path__
        for file in Path(place).rglob("*.py"):
            if file.relative_to(place).parts[0] != "kit":
                yield file
