"""The `.dvc` file: the small text in git that names the large bytes in S3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_steps import yaml_files
from dataset_steps.errors import StepError

# What DVC may say of an out's bytes beside what a pointer has: it is not true of other bytes.
OF_OLD_BYTES = ("etag", "checksum", "version_id", "cloud", "files")
OF_OLD_RUN = {"data_commit", "dag_id", "run_id"}
DIRECTORY = ".dir"  # the end of the MD5 of a directory, which is that of its listing


@dataclass(frozen=True)
class Pointer:
    """What a `.dvc` file says of its only output, a file or a directory, and of its remote."""

    md5: str
    size: int  # bytes; of a directory those of its files
    # DVC 2 wrote no `hash:`. It hashed texts as if their lines ended in LF, and its layout of the
    # remote is another one.
    legacy: bool = False
    remote: str | None = None  # None: the repository's default
    nfiles: int | None = None  # of a directory
    executable: bool = False  # of a file; DVC keeps no modes of the files of a directory

    @property
    def is_directory(self) -> bool:
        """Whether the MD5 is that of a directory's listing."""
        return self.md5.endswith(DIRECTORY)

    @property
    def bytes_md5(self) -> str:
        """The MD5 of the object that it names: the file's, or the listing's."""
        return self.md5.removesuffix(DIRECTORY)


def trailers(dataset_path: str, version: Pointer) -> dict[str, str]:
    """Return the trailers of a commit whose pointer names this version."""
    return {
        "Data-Path": dataset_path,
        "Data-Md5": version.md5,
        "Data-Size": str(version.size),
    }


def read(path: Path) -> Pointer:
    """Read the pointer in `path`. Raise StepError unless it names one file or one directory."""
    with refusing_other_files(path.name):
        return from_content(yaml_files.read(path), path.name)


def parse(text: str, name: str) -> Pointer:
    """Return the pointer that a file of this name holds. Raise the errors of `read`."""
    with refusing_other_files(name):
        return from_content(yaml_files.parse(text, name), name)


@contextmanager
def refusing_other_files(name: str) -> Iterator[None]:
    """Translate the errors of reading YAML: what can't be read is no pointer."""
    try:
        yield
    except FileNotFoundError:
        raise StepError(f"the repository has no {name}: import the data set first") from None
    except yaml_files.NotYaml as error:
        raise StepError(f"{name} is not a pointer: {error}") from error


def from_content(content: Any, name: str) -> Pointer:
    """Return the pointer in a file's content. Raise StepError unless it has an MD5 and a size."""
    out = find_only_out(content, name)
    md5, size, remote, nfiles = (out.get(key) for key in ("md5", "size", "remote", "nfiles"))
    require_md5(name, str(md5), out.get("hash", "md5"))
    if type(size) is not int:
        raise StepError(f"{name} is not a pointer with a size: `dvc add` the data again")
    return Pointer(
        str(md5),
        size,
        legacy="hash" not in out,
        remote=str(remote) if remote else None,
        nfiles=nfiles if type(nfiles) is int else None,
        executable=out.get("isexec") is True,
    )


def find_only_out(content: Any, name: str) -> dict[str, Any]:
    """Return the pointer's only out. Raise StepError where there is none, or more than one."""
    outs = content.get("outs") if isinstance(content, dict) else None
    if not isinstance(outs, list) or not outs or not all(isinstance(out, dict) for out in outs):
        raise StepError(f"{name} is not a pointer: it has no list of outs")
    if len(outs) > 1:
        raise StepError(
            f"{name} names {len(outs)} outs, and a data set is one file or one directory: leave "
            f"only {name.removesuffix('.dvc')} in it, and give the others pointers of their own "
            "with `dvc add`"
        )
    only: dict[str, Any] = outs[0]
    return only


def require_md5(name: str, md5: str, kind: Any) -> None:
    """Raise StepError unless the out names a file or a directory by an MD5."""
    digits = md5.removesuffix(DIRECTORY)
    if kind != "md5" or len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        raise StepError(f"{name} names {md5!r}, which is not the MD5 of a file or a directory")


def write(path: Path, version: Pointer) -> None:
    """Have the file name this version as `dvc add` would: edit it, or create it.

    All else in it stays: comments, descriptions, labels, keys that no step knows, their order, the
    file's mode.
    """
    content = yaml_files.read_for_update(path) if path.exists() else {"outs": [{}]}
    out = find_only_out(content, path.name)
    said = describe_bytes(version)
    for key in {"nfiles", "isexec", *OF_OLD_BYTES} - said.keys():
        out.pop(key, None)
    out |= said
    out.setdefault("path", path.name.removesuffix(".dvc"))
    drop_old_run(content)
    yaml_files.write(path, content)


def describe_bytes(version: Pointer) -> dict[str, Any]:
    """Return what a pointer says of its bytes, in the order in which DVC says it."""
    found: dict[str, Any] = {"md5": version.md5, "size": version.size}
    if version.nfiles is not None:
        found["nfiles"] = version.nfiles
    if version.executable:
        found["isexec"] = True
    return found | {"hash": "md5"}


def drop_old_run(content: dict[str, Any]) -> None:
    """Drop what the first kits noted of the run that made a model: it is in the commit now."""
    known = content.get("meta")
    if isinstance(known, dict) and known.keys() >= OF_OLD_RUN:
        for key in OF_OLD_RUN:
            del known[key]
        if not known:
            del content["meta"]
