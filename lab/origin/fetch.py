"""An origin, copied to a folder of the project: nothing of it is changed, and nothing rewritten."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from lab.files import folder_lock, make_private_folder
from lab.origin import mirror as mirrors
from lab.origin import objects
from lab.origin.found import FOLDER, Missing, Origin, Unread, sort_data_sets, write_found


def fetch_origin(url: str, project: Path, env: Mapping[str, str]) -> Origin:
    """Copy an origin's branches, tags and the objects of all its commits to the project's folder.

    `env` is the environment of the person, who has access to the repository and to its remotes. A
    copy that is not whole is completed. Return what was found, which is written beside it, too.
    Raises LabError for what is no DVC repository, or can't be read now.
    """
    url = mirrors.normalize_url(url)
    folder = project / FOLDER
    make_private_folder(folder)
    with folder_lock(folder):
        for part in folder.glob("part-*"):  # of an attempt that was killed
            shutil.rmtree(part)
        mirror = mirrors.ensure_mirror(url, folder, env)
        branch = mirrors.find_default_branch(mirror, url)
        pointers = mirrors.list_pointers(mirror, url, branch)
        said = objects.copy_objects(mirror, mirrors.find_folder(url), pointers, env)
        data, refused = sort_data_sets(said["newest"])
        found = Origin(
            url=url,
            branch=branch,
            commits=len(mirrors.list_commits(mirror)),
            branches=mirrors.list_refs(mirror, "heads"),
            tags=mirrors.list_refs(mirror, "tags"),
            data=data,
            refused=refused,
            objects=said["objects"],
            size=said["size"],
            missing=tuple(map(Missing.from_json, said["missing"])),
            unread=tuple(Unread(**each) for each in said["unread"]),
            remotes=tuple(dict.fromkeys(each["url"] for each in said["remotes"])),
            named=tuple(said["named"]),
        )
        write_found(folder, found)
    return found
