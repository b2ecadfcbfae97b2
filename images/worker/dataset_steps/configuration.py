"""DVC's own view of a clone: which remote a pointer's object is in, and what hides a file from it.

Plain `dvc pull` of anybody's clone must bring back what a step commits: DVC is asked, not imitated.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError
from dvc.config import NoRemoteError
from dvc.dvcfile import load_file
from dvc.exceptions import DvcException
from dvc.fs import get_cloud_fs
from dvc.repo import Repo
from dvc.utils.strictyaml import YAMLValidationError
from dvc_objects.fs.errors import ConfigError

from dataset_steps.errors import StepError

if TYPE_CHECKING:
    from dvc.output import Output

# Seconds. Nothing answers a connection to a server whose pod is gone; the default is 60.
CONNECT, READ = 5, 60
# Options of a remote that name files of one person's machine. A step's credentials are in its
# environment, on every backend.
PERSONAL = ("profile", "credentialpath", "configpath")


def open_repository(clone: Path) -> Repo:
    """Return DVC's repository of the clone, set up for a step; the clone's files stay unchanged.

    Raise StepError when its configuration is none.
    """
    with refusing("the repository's DVC configuration is unusable"):
        repo = Repo(str(clone))
    for options in repo.config["remote"].values():
        if str(options.get("url")).lower().startswith(("s3://", "remote://")):
            options |= {"connect_timeout": CONNECT, "read_timeout": READ}
            for name in PERSONAL:
                options.pop(name, None)
    return repo


def find_remote(repo: Repo, name: str | None) -> Any:
    """Return DVC's remote of this name, or its default one. Raise StepError unless S3 keeps it."""
    name = name or repo.config["core"].get("remote")
    with refusing("the repository's DVC configuration is unusable"):
        require_s3(repo, name)
        remote = repo.cloud.get_remote(name)
        _ = remote.fs.fs_args  # it is made when it is read, and options may contradict each other
    if remote.fs.version_aware or remote.worktree:
        raise StepError(
            f"the DVC remote {name} keeps versions of files (version_aware or worktree), and these "
            "steps store objects by their hash: name another remote, or take that option away"
        )
    return remote


def require_s3(repo: Repo, name: str | None) -> None:
    """Raise StepError unless the remote is on S3. Raise DvcException when there is none."""
    options: dict[str, Any] = {}
    protocol = "s3"
    if name:
        try:
            kind, options, _ = get_cloud_fs(repo.config, name=name)
            protocol = kind.protocol
        except ImportError:  # DVC's plugin for another storage is not installed here
            protocol = repo.config["remote"][name]["url"].partition(":")[0]
    if protocol != "s3":
        raise StepError(f"the DVC remote {name} is {protocol}; these steps need s3")
    certificates = options.get("ssl_verify")
    if isinstance(certificates, str) and not Path(certificates).exists():
        raise StepError(
            f"the DVC remote {name} has `ssl_verify = {certificates}`, which no step has: put the "
            "certificates into the steps' image and name them by AWS_CA_BUNDLE"
        )


def require_pullable(repo: Repo, path: str) -> None:
    """Raise StepError unless DVC brings a file or directory back by its pointer, from a remote."""
    for name in (path, f"{path}.dvc"):
        if repo.dvcignore.is_ignored_file(str(Path(repo.root_dir, name))):
            raise hidden_error(repo, path, name)
    with refusing(f"DVC refuses {path}.dvc"):
        (out,) = load_file(repo, str(Path(repo.root_dir, f"{path}.dvc"))).stage.outs
    if out.hash_info.isdir and repo.dvcignore.is_ignored_dir(str(Path(repo.root_dir, path))):
        raise hidden_error(repo, path, path)
    if why := find_obstacle(repo, path, out):
        raise StepError(f"{path}.dvc {why}")


def hidden_error(repo: Repo, path: str, name: str) -> StepError:
    """Return the error for a pattern, as ".dvcignore:2:*.csv", that hides data or its pointer."""
    patterns = repo.dvcignore.check_ignore(str(Path(repo.root_dir, name))).pattern_infos
    pattern = patterns[-1] if patterns else ".dvcignore"
    return StepError(
        f"{pattern} hides {path} from DVC, so that nobody can pull it: take the pattern away"
    )


def find_obstacle(repo: Repo, path: str, out: Output) -> str | None:
    """Return why the pointer's out is nothing that a run can replace, or None."""
    tracked = os.path.relpath(out.fs_path, repo.root_dir)
    if tracked != os.path.normpath(path):
        return f"is about {tracked}, and not about {path}: correct its `path` and its `wdir`"
    if not out.use_cache:
        return "says `cache: false`, so that no remote keeps its data: take that line away"
    if out.stage.is_repo_import:
        return (
            "imports its data from another repository, whose remote keeps it: `dvc remove` the "
            "pointer, then `dvc add` a copy of the file"
        )
    return None


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Translate DVC's refusals into step errors of one line: no retry helps."""
    try:
        yield
    except NoRemoteError as error:
        raise StepError(
            f"{what}: neither the pointer nor .dvc/config names a remote: `dvc remote default NAME`"
            " sets one, then commit .dvc/config"
        ) from error
    except YAMLValidationError as error:
        raise StepError(f"{what}: {error.exc}") from error
    except (DvcException, ConfigError, BotoCoreError, SyntaxError) as error:
        # SyntaxError is the base of what ConfigObj raises.
        raise StepError(f"{what}: {' '.join(str(error).split())}") from error
