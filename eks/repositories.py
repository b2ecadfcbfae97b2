"""An environment's git repositories: the DAGs that it runs, the dataset's first version."""

from __future__ import annotations

import filecmp
import zipfile
from dataclasses import dataclass
from pathlib import Path

from eks.environment import FOLDER, Environment
from eks.site import Row, Site
from lab.client import versions
from lab.client.git import run_git
from lab.dataset import first_version
from lab.delivery import bundle, publish
from lab.errors import (
    AccessError,
    AccountError,
    CommitError,
    LabError,
    PromotionError,
    ProofError,
)
from lab.home.state import State
from lab.layout import STORE
from lab.model import Access

CONFIG = ".dvc/config"


def plan(environment: Environment) -> list[Row]:
    """List what an apply would read from git and commit to it."""
    first = "its first version, where it has none"
    return [
        Row("git branch", f"{environment.pipelines} {environment.branch}", "read; never written"),
        Row("dataset", f"{environment.datasets} {environment.dataset}", first),
    ]


def check(site: Site, access: Access) -> None:
    """Raise PromotionError unless the branch that the environment follows holds the checkout's DAGs
    and its datasets are stored in its bucket; LabError when a repository can't be read. Changes
    nothing."""
    refuse_other_store(site, read_datasets_state(access))
    if site.environment.pipelines.startswith("ssh:"):
        print("  not checked: the pipelines' branch, which is read by an SSH key of the cluster's")
        return
    if odd := compare_dags(site, access):
        branch = site.environment.branch
        raise PromotionError(
            f"branch {branch} of {site.environment.pipelines} does not hold the DAGs of this"
            f" project, which are the attested ones: {', '.join(odd)}",
            "in a clone of it: lab bundle dags, commit and push; to production:"
            f" git push origin main:{branch}",
        )


@dataclass(frozen=True)
class DatasetsState:
    """What the newest commit of the datasets repository holds."""

    pointer: bool  # whether there is one at the dataset's path
    store: str | None  # bucket/folder of the DVC remote; "" if .dvc/config names none


def read_datasets_state(access: Access) -> DatasetsState:
    """Clone the repository and read its state. Raise AccountError when git refuses our account."""
    try:
        with versions.temporary_clone(access) as folder:
            return read_newest_commit(access, folder)
    except AccessError as error:
        raise AccountError(
            f"the git server of {access.git_url} refused {access.git_user!r}",
            "correct GIT_SYNC_USERNAME and GIT_SYNC_PASSWORD: a token that may write there",
        ) from error


def read_newest_commit(access: Access, folder: Path) -> DatasetsState:
    """Read the state of the clone's newest commit; an empty one when there is no commit.

    Raise ProofError when the pointer is invalid.
    """
    try:
        commit = versions.resolve_commit(access, folder, "main")
    except CommitError:
        return DatasetsState(pointer=False, store=None)
    pointer = f"{access.dataset_path}.dvc"
    asked = ("ls-tree", "-z", "--name-only", commit, "--", pointer, CONFIG)
    names = run_git(access, *asked, cwd=folder).split("\0")
    if pointer in names:
        _ = versions.read_graph(access, folder, commit).version  # ProofError unless it is a pointer
    store = read_store(access, folder, commit) if CONFIG in names else None
    return DatasetsState(pointer in names, store)


def read_store(access: Access, folder: Path, commit: str) -> str:
    """Return bucket/folder of the DVC remote; "" when the configuration names none."""
    try:
        return "/".join(versions.read_remote(access, folder, commit))
    except ProofError:
        return ""


def refuse_other_store(site: Site, found: DatasetsState) -> None:
    """Raise PromotionError when the repository's versions are not stored in our bucket."""
    if found == DatasetsState(pointer=False, store=None):
        return  # `make` configures it
    chosen = site.environment
    wanted = f"{chosen.bucket}/{STORE}"
    if found.store != wanted:
        raise PromotionError(
            f"{chosen.datasets} stores its versions in {found.store or 'no remote of DVC'}, by its"
            f" {CONFIG}; the steps of {chosen.name} may use {wanted} only",
            f"give {chosen.name} a datasets repository of its own, in {FOLDER / chosen.name}.toml;"
            f" or bring the objects there, and have {CONFIG} name it: url = s3://{wanted}",
        )


def compare_dags(site: Site, access: Access) -> list[str]:
    """List the files of dags/ that differ between the branch and what is delivered from here."""
    branch = site.environment.branch
    with publish.temporary_clone(access, site.environment.pipelines) as clone:
        try:
            run_git(access, "checkout", "--quiet", f"origin/{branch}", cwd=clone)
        except LabError as error:
            raise PromotionError(
                f"{site.environment.pipelines} has no branch {branch}",
                f"make it: git push origin main:{branch}",
            ) from error
        mine = clone.parent / "delivered"
        bundle.write_bundle(site.config, mine)
        return sorted(compare_folders(mine, clone / bundle.FOLDER))


def compare_folders(one: Path, other: Path) -> set[str]:
    """Return the files that only one of the folders has, or that differ."""
    names = {f.relative_to(top).as_posix() for top in (one, other) for f in list_dag_files(top)}
    return {name for name in names if not is_same_file(one / name, other / name)}


def list_dag_files(top: Path) -> list[Path]:
    """List the files below a folder that are attested, and those that Airflow would parse as well.

    A link to a folder counts as a file, so that it differs from any checkout's and is never
    followed out of the clone.
    """
    found = (path for path in top.rglob("*") if path.is_symlink() or path.is_file())
    return [
        path for path in found if is_attested(path.relative_to(top)) or is_parsed_by_airflow(path)
    ]


def is_attested(name: Path) -> bool:
    """Return whether a file of this name below dags/ is published, and so attested."""
    return not bundle.NOT_DAGS("", list(name.parts))


def is_parsed_by_airflow(path: Path) -> bool:
    """Return whether Airflow's DAG processor would look for DAGs in the file, hidden or not."""
    return path.is_file() and (path.suffix == ".py" or zipfile.is_zipfile(path))


def is_same_file(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def make(site: Site, access: Access) -> None:
    """Store the first version of the main data set and commit it, unless there is a version.

    Raise PromotionError when there is none and lab.toml declares no first one, or when the
    repository stores its versions in another bucket.
    """
    found = read_datasets_state(access)
    refuse_other_store(site, found)
    if found.pointer:
        return
    config, path = site.config, site.environment.dataset
    known = State(access.backend, "postgresql", path, None, {})
    firsts = first_version.list_first_versions(config, known)
    main = next((first for first in firsts if first.path == path), None)
    if main is None or path != config.project.paths[config.project.main]:
        raise PromotionError(
            f"{site.environment.datasets} has no {path}.dvc",
            "version your data there by DVC, or choose what lab.toml has a first version of:"
            f" dataset = {config.project.paths[config.project.main]!r}",
        )
    first_version.publish_data(config, main, first_version.import_environment(config, access))
