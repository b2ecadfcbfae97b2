"""`lab init NAME`: a project, whole or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.errors import LabError
from lab.init.declaration import name_data, name_kit, quote
from lab.init.history import begin_history, require_git
from lab.init.names import require_name
from lab.init.places import claim, locate, refuse_place
from lab.init.wheels import Wheel, is_checkout, provide_wheel
from lab.init.writing import open_to_all, write_files
from lab.origin.fetch import fetch_origin
from lab.origin.found import Origin
from lab.origin.mirror import normalize_url
from lab.progress import phase
from lab.project import FILE, read_project

# In the files that a project with an origin begins with.
ADDRESS, MAIN, MAIN_PATH = "https://example.com/data.git", "measurements", 'dataset = "orders"'


def create_project(
    path: Path,
    origin: str | None = None,
    wheel: Path | None = None,
    env: Mapping[str, str] = os.environ,
) -> str:
    """Make a project in a new folder, and return what to do next.

    `origin` is the address of a DVC repository to take in, to which the person has access by `env`;
    `wheel` is the kit's. Raises LabError, and changes nothing then.
    """
    target = locate(path)
    require_name(target)
    require_git()
    refuse_place(target)
    url = normalize_url(origin) if origin is not None else None
    with claim(target) as scratch:
        refuse_place(target)  # another `lab init` may have ended since
        folder = scratch / "project"
        folder.mkdir()
        with phase("Build the kit's wheel" if is_checkout() and not wheel else "Find the wheel"):
            kit = provide_wheel(wheel, scratch)
        taken = take_in(url, folder, env) if url else None
        with phase("Write the project and commit it"):
            write_project(folder, target.name, kit, taken)
            why = begin_history(folder, f"Begin {target.name} with mlops-lab {kit.version}")
        folder.rename(target)
    if why:
        print(f"not committed, and staged: {why}")
    return next_steps(target)


def take_in(url: str, folder: Path, env: Mapping[str, str]) -> Origin:
    """Fetch a DVC repository into the project's folder, and print what it has.

    Raises LabError when it has nothing that can be a data set.
    """
    with phase("Fetch the repository and its objects"):
        found = fetch_origin(url, folder, env)
    print(*(f"  {line}" for line in found.describe()), sep="\n")
    if not found.data:
        raise LabError(
            f"{url} has no data set on its branch {found.branch}", "dvc add one there, and push"
        )
    return found


def write_project(folder: Path, name: str, kit: Wheel, taken: Origin | None) -> None:
    """Write all files of a project. Raises ProjectError when its lab.toml can't be right."""
    write_files(folder, name, words_of(taken) if taken else {}, takes_in=bool(taken))
    (folder / "kit").mkdir()
    shutil.copyfile(kit.file, folder / "kit" / kit.file.name)
    declared = name_kit((folder / FILE).read_text("utf-8"), kit.version, kit.sha256)
    (folder / FILE).write_text(name_data(declared, taken.data) if taken else declared, "utf-8")
    open_to_all(folder)
    read_project(folder)


def words_of(taken: Origin) -> dict[str, str]:
    """Return what the template's words are replaced by: the origin's address and main data set."""
    main, path = next(iter(taken.data.items()))
    return {ADDRESS: quote(taken.url)[1:-1], MAIN: main, MAIN_PATH: f"dataset = {quote(path)}"}


def next_steps(target: Path) -> str:
    return f"""
next  cd {shlex.quote(os.path.relpath(target))}
      nox -s lab    # a lab, a run of its pipeline, and the proof of what that made
      nox -s e2e    # the tests, on a fresh lab"""
