"""What git holds for an environment: the DAGs that it runs, and the dataset's first version."""

from __future__ import annotations

import filecmp
from pathlib import Path

from eks.environment import Environment
from eks.site import Row, Site
from lab import first_version, publish, versions
from lab.dataset import EMPLOYEES_NAME
from lab.errors import AccessError, AccountError, CommitError, LabError, PromotionError
from lab.git import git
from lab.model import Access
from lab.state import State

GENERATED = first_version.path_of(Path(EMPLOYEES_NAME))


def plan(environment: Environment) -> list[Row]:
    """What an apply would leave in git."""
    first = "its first version, where it has none" if environment.dataset == GENERATED else "as is"
    return [
        Row("git branch", f"{environment.pipelines} {environment.branch}", "read; never written"),
        Row("dataset", f"{environment.datasets} {environment.dataset}", first),
    ]


def check(site: Site, access: Access) -> None:
    """Raises PromotionError unless the branch that the environment follows holds the checkout's
    DAGs, and LabError when a repository can't be read. Changes nothing."""
    refuse_stranger(access)
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


def refuse_stranger(access: Access) -> None:
    """Raises AccountError when the git server does not take our account."""
    try:
        published(access)
    except AccessError as error:
        raise AccountError(
            f"the git server of {access.git_url} refused {access.git_user!r}",
            "correct GIT_SYNC_USERNAME and GIT_SYNC_PASSWORD: a token that may write there",
        ) from error


def different(site: Site, access: Access) -> list[str]:
    """The DAG files that are not the same in the branch and in this checkout."""
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
    return [file for file in top.rglob("*") if file.is_file() and file.suffix in {".py", ""}]


def same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and filecmp.cmp(one, other, shallow=False)


def published(access: Access) -> bool:
    """Whether the datasets repository has a pointer at the dataset's path."""
    try:
        versions.history(access, "main")
    except CommitError:
        return False
    return True


def make(site: Site, access: Access) -> None:
    """The datasets repository names a first version of the dataset, whose bytes are in the bucket.

    Raises PromotionError where there is none and the kit has none to give.
    """
    if published(access):
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
