"""The `.dvc` file: the small text in git that names the large bytes in S3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_steps import yaml_files
from dataset_steps.errors import StepError

# What DVC may say of an out's bytes beside their MD5 and size: it is not true of other bytes.
OF_OLD_BYTES = ("nfiles", "etag", "checksum", "version_id", "cloud", "files")


@dataclass(frozen=True)
class Pointer:
    """The MD5 and size of a `.dvc` file's only output, and the remote that it names."""

    md5: str
    size: int  # bytes
    # DVC 2 wrote no `hash:`. It hashed texts as if their lines ended in LF, and its layout of the
    # remote is another one.
    legacy: bool = False
    remote: str | None = None  # None: the repository's default


def trailers(dataset_path: str, version: Pointer) -> dict[str, str]:
    """Return the trailers of a commit whose pointer names this version."""
    return {
        "Data-Path": dataset_path,
        "Data-Md5": version.md5,
        "Data-Size": str(version.size),
    }


def read(path: Path) -> Pointer:
    """Read the pointer in `path`. Raise StepError unless it exists and names one file."""
    try:
        out = find_only_out(yaml_files.read(path), path)
    except FileNotFoundError:
        raise StepError(f"the repository has no {path.name}: import the dataset first") from None
    except yaml_files.NotYaml as error:
        raise StepError(f"{path.name} is not a pointer to one file: {error}") from error
    md5, size, remote = str(out.get("md5")), out.get("size"), out.get("remote")
    refuse_other_hashes(path, md5, out.get("hash", "md5"))
    if type(size) is not int:
        raise StepError(
            f"{path.name} is not a pointer to one file with a size: `dvc add` the file again"
        )
    return Pointer(md5, size, legacy="hash" not in out, remote=str(remote) if remote else None)


def find_only_out(content: Any, path: Path) -> dict[str, Any]:
    """Return the pointer's only out. Raise StepError where there is none, or more than one."""
    outs = content.get("outs") if isinstance(content, dict) else None
    if not isinstance(outs, list) or not outs or not all(isinstance(out, dict) for out in outs):
        raise StepError(f"{path.name} is not a pointer to one file: it has no list of outs")
    if len(outs) > 1:
        raise StepError(
            f"{path.name} names {len(outs)} files, and a run appends to one: leave only "
            f"{path.name.removesuffix('.dvc')} in it, and give the others pointers of their own "
            "with `dvc add`"
        )
    only: dict[str, Any] = outs[0]
    return only


def refuse_other_hashes(path: Path, md5: str, kind: Any) -> None:
    """Raise StepError unless the out names a file, by its MD5."""
    name = path.name.removesuffix(".dvc")
    if md5.endswith(".dir"):
        raise StepError(
            f"{path.name} names a folder, and a run appends to a file: `dvc remove {path.name}`, "
            f"then `dvc add` the file itself as {name}"
        )
    if kind != "md5" or len(md5) != 32 or not set(md5) <= set("0123456789abcdef"):
        raise StepError(f"{path.name} names {md5!r}, which is not the MD5 of a file")


def write(path: Path, version: Pointer, meta: dict[str, str] | None = None) -> None:
    """Have the file name this version as `dvc add` would: edit it, or create it.

    All else in it stays: comments, descriptions, labels, keys that no step knows, their order, the
    file's mode. `meta` is set in its metadata, which DVC keeps and does not use.
    """
    content = yaml_files.read_for_update(path) if path.exists() else {"outs": [{}]}
    out = find_only_out(content, path)
    for name in OF_OLD_BYTES:
        out.pop(name, None)
    out |= {"md5": version.md5, "size": version.size, "hash": "md5"}
    out.setdefault("path", path.name.removesuffix(".dvc"))
    if meta:
        set_meta(content, meta, path)
    yaml_files.write(path, content)


def set_meta(content: Any, meta: dict[str, str], path: Path) -> None:
    """Set these keys in the file's metadata. Raise StepError when that has no keys."""
    known = content.setdefault("meta", {})
    if not isinstance(known, dict):
        raise StepError(
            f"`meta` in {path.name} is no mapping, and a run notes {', '.join(meta)} in it: "
            "give what is there a key"
        )
    known |= meta
