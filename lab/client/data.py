"""The data of versions: an object each, or a folder's list of files and an object for each of them.

DVC says where the objects are, by the configuration of a commit that has the version; their bytes
are read from the bucket itself.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from lab.client import dvc_process
from lab.client.dvc_process import Locate, Place, Question
from lab.client.history import History
from lab.client.objects import Bucket, Named
from lab.client.s3 import RESTORE
from lab.client.taken_in import TakenIn, lost_at
from lab.errors import ProofError
from lab.model import Version

THREADS = 8
FOLDER = ".dir"  # how the hash of a folder's list ends

Answers = Sequence[tuple[Question, Place | str]]
Keys = Mapping[str, Mapping[str, str]]  # of files' objects, by store and hash


@dataclass(frozen=True)
class File:
    """A file of a folder that is a version."""

    path: str  # in the folder
    md5: str


@dataclass(frozen=True)
class Data:
    """Where the data of a version is."""

    version: Version
    question: Question
    place: Place
    files: tuple[File, ...] | None  # None: it is no folder

    def name_object(self) -> Named:
        """Return the version's own object: the data, or the list of a folder's files."""
        version, place = self.version, self.place
        folder = version.md5.endswith(FOLDER)
        return Named(
            endpoint=place.endpoint,
            bucket=place.bucket,
            key=place.key,
            hash=place.hash,
            md5=version.md5.removesuffix(FOLDER),
            size=None if folder else version.size,  # a folder's is that of its files
            by=f"the pointer at {version.commit}",
        )

    def name_file(self, file: File, keys: Keys) -> Named:
        """Return the object of one file of the folder."""
        return replace(
            self.name_object(),
            key=keys[self.place.store][file.md5],
            md5=file.md5,
            by=f"the folder at {self.version.commit}",
        )


# --- Asking DVC -----------------------------------------------------------------------------------


def locate_versions(
    locate: Locate, histories: Mapping[str, History]
) -> dict[str, dict[str, Answers]]:
    """Return what DVC says of each version, by data set and by the version's commit.

    The newest commit's version must be where that commit's own configuration says; an older one may
    be wherever any commit that has it brings it back from.
    """
    asked = {
        (name, version.commit): list_questions(history, version)
        for name, history in histories.items()
        for version in history.versions
    }
    answers = iter(locate([one for each in asked.values() for one in each]))
    located: dict[str, dict[str, Answers]] = {name: {} for name in histories}
    for (name, commit), questions in asked.items():
        located[name][commit] = [(one, next(answers)) for one in questions]
    return located


def list_questions(history: History, version: Version) -> list[Question]:
    """List what to ask of one version: a question for each configuration that may know it."""
    pointer = history.pointers[version.commit]
    is_own = version.commit == history.version.commit
    commits = [history.head] if is_own else history.holders[pointer.blob]
    return [Question(each.name, history.path, pointer.text, each.config) for each in commits]


def locate_files(locate: Locate, folders: Iterable[Data]) -> Keys:
    """Return the keys of all files of these folders: DVC is asked once for each store."""
    questions: dict[str, Question] = {}
    hashes: dict[str, dict[str, None]] = {}
    for data in folders:
        questions.setdefault(data.place.store, data.question)
        known = hashes.setdefault(data.place.store, {})
        known.update(dict.fromkeys(file.md5 for file in data.files or ()))
    asked = [replace(question, oids=tuple(hashes[store])) for store, question in questions.items()]
    places = map(require_place, asked, locate(asked))
    return {
        store: dict(zip(hashes[store], place.keys, strict=True))
        for store, place in zip(questions, places, strict=True)
    }


def require_place(question: Question, place: Place | str) -> Place:
    """Return DVC's answer. Raises ProofError when it names no place."""
    if isinstance(place, str):
        what = f"DVC can't say where the data of {question.commit} is: {place}"
        raise ProofError(what, dvc_process.MEND)
    return place


# --- Reading the bucket ---------------------------------------------------------------------------


def open_data(bucket: Bucket, version: Version, question: Question, place: Place | str) -> Data:
    """Return where the data of a version is; a folder's list is read. Raises ProofError."""
    data = Data(version, question, require_place(question, place), None)
    if not version.md5.endswith(FOLDER):
        return data
    named, content = data.name_object(), io.BytesIO()
    bucket.copy(named, content)
    return replace(data, files=parse_folder(content.getvalue(), named.url))


def parse_folder(content: bytes, url: str) -> tuple[File, ...]:
    """Parse a folder's list of files. Raises ProofError when it is none."""
    try:
        return tuple(File(each["relpath"], each["md5"]) for each in json.loads(content))
    except (ValueError, KeyError, TypeError) as error:
        raise ProofError(f"{url} is no list of files: {error!r}", RESTORE) from error


def check_older(
    locate: Locate,
    bucket: Bucket,
    located: Sequence[tuple[Version, Answers]],
    taken: TakenIn | None = None,
) -> None:
    """Check that the data of each version is in the bucket, whole. Raises ProofError.

    A file that several folders have is looked at once; what was missing when the repository was
    `taken` in, not at all.
    """
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda each: find_data(bucket, *each), located)
        folders = [data for data in found if data.files]
        keys = locate_files(locate, folders)
        files = {
            (data.place.store, file.md5): data.name_file(file, keys)
            for data in folders
            for file in data.files or ()
            if file.md5 not in lost_at(taken, data.version.commit)
        }
        list(pool.map(bucket.check, files.values()))


def find_data(bucket: Bucket, version: Version, answers: Answers) -> Data:
    """Return the data of a version, at the first of the places that has it.

    Raises ProofError with what is wrong at the last: where its newest commit says.
    """
    errors = []
    for question, place in answers:
        try:
            data = open_data(bucket, version, question, place)
            if data.files is None:
                bucket.check(data.name_object())
        except ProofError as error:
            errors.append(error)
        else:
            return data
    raise errors[-1]


def fetch_data(locate: Locate, bucket: Bucket, data: Data, into: Path) -> dict[str, Path]:
    """Download all files of a version's data to the folder `into`, which must not exist.

    Return the copies by the path at which DVC puts each into a clone. Raises ProofError for bytes
    that are not what their hash and the pointer say.
    """
    into.mkdir()
    if data.files is None:
        bucket.fetch(data.name_object(), into / "0")
        return {data.place.output: into / "0"}
    keys = locate_files(locate, [data])
    named = [data.name_file(file, keys) for file in data.files]
    copies = [into / str(number) for number in range(len(named))]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(bucket.fetch, named, copies))
    refuse_other_size(data, sum(copy.stat().st_size for copy in copies))
    paths = (f"{data.place.output}/{file.path}" for file in data.files)
    return dict(zip(paths, copies, strict=True))


def refuse_other_size(data: Data, size: int) -> None:
    """Raise ProofError when the files of a folder have another size than its pointer says."""
    if data.version.size not in {None, size}:
        named = data.name_object()
        raise ProofError(
            f"the files of {named.url} have {size} bytes; {named.by} says {data.version.size}",
            RESTORE,
        )
