"""The `.dvc` file: the small text in git that names the large bytes in S3."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dvc.utils.serialize import ParseError, dump_yaml, load_yaml

from dataset_steps.errors import StepError


@dataclass(frozen=True)
class Pointer:
    """The MD5 and size of a `.dvc` file's only output."""

    md5: str
    size: int  # bytes


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
        (out,) = load_yaml(path)["outs"]
        md5, size = str(out["md5"]), int(out["size"])
    except FileNotFoundError:
        raise StepError(f"the repository has no {path.name}: import the dataset first") from None
    except (ParseError, KeyError, TypeError, ValueError) as error:
        raise StepError(f"{path.name} is not a pointer to one file: {error}") from error
    if len(md5) != 32 or not set(md5) <= set("0123456789abcdef"):
        raise StepError(f"{path.name} names {md5!r}, which is not the MD5 of a file")
    return Pointer(md5, size)


def write(path: Path, pointer: Pointer, meta: dict[str, str] | None = None) -> None:
    """Write the pointer to `path`, in the form that `dvc add` writes.

    `meta` is additional metadata; DVC keeps it and does not use it.
    """
    name = path.name.removesuffix(".dvc")
    out = {"md5": pointer.md5, "size": pointer.size, "hash": "md5", "path": name}
    content: dict[str, Any] = {"outs": [out]}
    dump_yaml(path, {**content, "meta": meta} if meta else content)
