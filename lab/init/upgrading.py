"""`lab init --upgrade`: another kit for a project that is there."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from lab.config import KIT
from lab.errors import ProjectError
from lab.init.declaration import name_kit
from lab.init.wheels import Wheel, provide_wheel
from lab.progress import phase
from lab.project import FILE, read_tables
from lab.shell import run

SECONDS = 60
# The kit that comes knows what it has changed; the one that runs this may be older.
ASK = """
import sys
sys.path.insert(0, sys.argv[1])
from lab.changes import describe_changes
print(describe_changes(*sys.argv[2:]))
"""


def upgrade_project(root: Path, wheel: Path | None = None) -> str:
    """Bring this kit, or the one of `wheel`, into a project; return what has changed.

    It replaces the wheel in kit/ and what lab.toml says of it, and nothing else. Raises
    ProjectError in the kit's own checkout, and for a kit that is older than the project's.
    """
    if root == KIT:
        raise ProjectError(
            f"{root} is the kit's own checkout, which is the newest kit there", "git pull"
        )
    with tempfile.TemporaryDirectory() as scratch, phase("Bring the kit's wheel into the project"):
        kit = provide_wheel(wheel, Path(scratch))
        before = str(read_tables(root).get("kit", {}).get("version", "0.1.0"))
        said = ask_for_changes(kit, before)
        replace_kit(root, kit)
    return f"kit {before} → {kit.version}\n{said or 'nothing to do: no change needs your hand'}"


def ask_for_changes(kit: Wheel, before: str) -> str:
    """Return what has changed since a version, as a kit tells that need not be installed."""
    words = (sys.executable, "-I", "-c", ASK, str(kit.file), before, kit.version)
    return run(words, timeout=SECONDS).strip()


def replace_kit(root: Path, kit: Wheel) -> None:
    """Replace the project's wheel. One that lab.toml names is there at each moment."""
    text = name_kit((root / FILE).read_text("utf-8"), kit.version, kit.sha256)
    folder, name = root / "kit", kit.file.name
    folder.mkdir(exist_ok=True)
    others = [file for file in folder.glob("*.whl") if file.name != name]
    write_whole(folder / name, kit.file.read_bytes())
    write_whole(root / FILE, text.encode())
    for file in others:
        file.unlink()


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that others may read, at once or not at all."""
    part = file.with_name(f".{file.name}.part")
    part.write_bytes(content)
    part.chmod(0o644)
    if file.exists():
        shutil.copymode(file, part)
    part.replace(file)
