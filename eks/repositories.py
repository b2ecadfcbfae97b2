"""What git holds for an environment: the DAGs that it runs, and the dataset's first version."""

from __future__ import annotations

import filecmp
import zipfile
from dataclasses import dataclass
from pathlib import Path

from eks.environment import FOLDER, Environment
from eks.site import Row, Site
from lab.client import versions
from lab.client.git import git
from lab.dataset import first_version
from lab.dataset.employees import EMPLOYEES_NAME
from lab.delivery import publish
from lab.errors import (
    AccessError,
    AccountError,
    CommitError,
    LabError,
    PromotionError,
    ProofError,
)
from lab.home.state import State
from lab.model import Access

GENERATED = first_version.path_of(Path(EMPLOYEES_NAME))
CONFIG = ".dvc/config"
STORE = "store"  # the folder in the bucket: the steps may read and write datasets nowhere else


def plan(environment: Environment) -> list[Row]:
    """What an apply would leave in git."""
    first = "its first version, where it has none" if environment.dataset == GENERATED else "as is"
    return [
        Row("git branch", f"{environment.pipelines} {environment.branch}", "read; never written"),
        Row("dataset", f"{environment.datasets} {environment.dataset}", first),
    ]


def check(site: Site, access: Access) -> None:
    """Raises PromotionError unless the branch that the environment follows holds the checkout's
    DAGs, and its datasets are stored in its bucket; LabError when a repository can't be read.
    Changes nothing."""
    refuse_elsewhere(site, held(access))
    if site.environment.pipelines.startswith("ssh:"):
        print("  not checked: the pipelines' branch, which is read by an SSH key of the cluster's")
        return
    if odd := different(site, access):
        branch = site.environment.branch
        raise PromotionError(
            f"branch {branch} of {site.environment.pipelines} does not hold the DAGs of this"
            f" checkout, which are the attested ones: {', '.join(odd)}",
            f"push this checkout's dags/ there; to production: git push origin main:{branch}",
        )


@dataclass(frozen=True)
class Held:
    """What the datasets repository has at its newest commit."""

    pointer: bool  # at the dataset's path
    store: str | None  # where DVC keeps the bytes: bucket/folder, "" if that is not said


def held(access: Access) -> Held:
    """What there is. Raises AccountError when the git server does not take our account."""
    try:
        with versions.clone(access) as folder:
            return newest(access, folder)
    except AccessError as error:
        raise AccountError(
            f"the git server of {access.git_url} refused {access.git_user!r}",
            "correct GIT_SYNC_USERNAME and GIT_SYNC_PASSWORD: a token that may write there",
        ) from error


def newest(access: Access, folder: Path) -> Held:
    """What a clone's newest commit has; of a repository without one, nothing.

    Raises ProofError when the pointer is none.
    """
    try:
        commit = versions.resolve(access, folder, "main")
    except CommitError:
        return Held(pointer=False, store=None)
    pointer = f"{access.dataset_path}.dvc"
    asked = ("ls-tree", "-z", "--name-only", commit, "--", pointer, CONFIG)
    names = git(access, *asked, cwd=folder).split("\0")
    if pointer in names:
        (text,) = versions.contents(access, folder, [f"{commit}:{pointer}"])
        versions.version_of(commit, text, "")  # which refuses what is no pointer
    store = store_of(access, folder, commit) if CONFIG in names else None
    return Held(pointer in names, store)


def store_of(access: Access, folder: Path, commit: str) -> str:
    """Bucket and folder of the DVC remote; nothing when the configuration names none."""
    try:
        return "/".join(versions.remote_of(access, folder, commit))
    except ProofError:
        return ""


def refuse_elsewhere(site: Site, found: Held) -> None:
    """Raises PromotionError when the repository's versions are not stored in our bucket."""
    if found == Held(pointer=False, store=None):
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


def different(site: Site, access: Access) -> list[str]:
    """The files of dags/ that are not the same in the branch and in this checkout."""
    branch = site.environment.branch
    with publish.cloned(access, site.environment.pipelines) as clone:
        try:
            git(access, "checkout", "--quiet", f"origin/{branch}", cwd=clone)
        except LabError as error:
            raise PromotionError(
                f"{site.environment.pipelines} has no branch {branch}",
                f"make it: git push origin main:{branch}",
            ) from error
        mine = clone.parent / "checkout"
        publish.mirror(site.tree / publish.FOLDER, mine)
        return sorted(compared(mine, clone / publish.FOLDER))


def compared(one: Path, other: Path) -> set[str]:
    """The files below two folders that only one has, or that differ."""
    names = {f.relative_to(top).as_posix() for top in (one, other) for f in files(top)}
    return {name for name in names if not same(one / name, other / name)}


def files(top: Path) -> list[Path]:
    """What counts below a folder: what is attested, and what Airflow would parse beside that.

    A link to a folder counts as a file, which no checkout has: nobody follows it out of the clone.
    """
    found = (path for path in top.rglob("*") if path.is_symlink() or path.is_file())
    return [path for path in found if attested(path.relative_to(top)) or parsed(path)]


def attested(name: Path) -> bool:
    """Whether a file of this name below dags/ is published, and attested."""
    return not publish.NOT_DAGS("", list(name.parts))


def parsed(path: Path) -> bool:
    """Whether Airflow looks for DAGs in it, hidden or not: as its DAG processor chooses files."""
    return path.is_file() and (path.suffix == ".py" or zipfile.is_zipfile(path))


def same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def make(site: Site, access: Access) -> None:
    """The datasets repository names a first version of the dataset, whose bytes are in the bucket.

    Raises PromotionError where there is none and the kit has none to give, and where the bytes are
    in another bucket.
    """
    found = held(access)
    refuse_elsewhere(site, found)
    if found.pointer:
        return
    if site.environment.dataset != GENERATED:
        raise PromotionError(
            f"{site.environment.datasets} has no {site.environment.dataset}.dvc",
            f"version your CSV there by DVC, or choose the generated one: dataset = {GENERATED!r}",
        )
    config = site.config
    known = State(access.backend, "postgresql", GENERATED, None, {})
    first_version.prepare(config, known)
    first_version.publish(config, known, first_version.environment(config, access))
