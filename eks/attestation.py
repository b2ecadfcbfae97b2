"""What a green end-to-end test on kind attests: the files that were tested, and what was proved.

In in-toto's form: a Statement names files by their sha256; signed, it lies in a DSSE envelope.
A promotion is earned by it: what was changed since is not what was tested.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from lab.backends.kind import node
from lab.cluster import cache, chart, docker, images, manifests, tools
from lab.cluster.api import Cluster
from lab.config import Config
from lab.delivery.publish import NOT_DAGS
from lab.errors import LabError, PromotionError
from lab.files import write_private
from lab.model import Proof
from lab.shell import run

NAME = "attestation.json"
EARN = "earn one: nox -s e2e -- -k kind"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://mlops-lab.example/green-on-kind/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

BASE, DAGS = Path("manifests", "base"), Path("dags")
# What kind has and a promotion is compared with, too: it must be what was tested.
BESIDE = (Path("manifests", "stores"), Path("manifests", "overlays", "kind"))
BUILT = (Path("images", "worker"), Path("images", "trainer"))
SINGLE = (
    images.LOCK,
    chart.PIN,
    Path("manifests", "airflow", "values.yaml"),
    Path("manifests", "airflow", "values-kind.yaml"),
)
COMPILED = shutil.ignore_patterns("__pycache__", "*.pyc")
# Subjects that are no files of the tree.
CHART, RENDERING = "chart/airflow", "rendering/base"
MOST_NAMED = 10
GIT_SECONDS = 30
Digests = Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """What is attested: the digests of files by their names, and how it came to be."""

    subjects: Digests
    predicate: Mapping[str, Any]
    signer: str | None = None  # the key by which the signature was checked

    def as_json(self) -> str:
        """The Statement as in-toto has it."""
        named = [{"name": n, "digest": {"sha256": d}} for n, d in sorted(self.subjects.items())]
        content = {
            "_type": STATEMENT_TYPE,
            "subject": named,
            "predicateType": PREDICATE_TYPE,
            "predicate": self.predicate,
        }
        return json.dumps(content, indent=1) + "\n"

    def __str__(self) -> str:
        """The statement in a line."""
        told = self.predicate
        changed = " with changes" if told["dirty"] else ""
        variations = "" if told["variations"] else ", without variations"
        return (
            f"{len(self.subjects)} files, at {str(told['commit'])[:12]}{changed}, green on kind "
            f"{told['when']} in {len(told['tests'])} test files{variations}; "
            + (f"signed by {self.signer}" if self.signer else "no signature was asked for")
        )


def place(config: Config) -> Path:
    """Where the attestation is, or would be."""
    return config.attestation or config.tree / NAME


# --- What was tested ----------------------------------------------------------------------------


def digests(config: Config) -> dict[str, str]:
    """The sha256 of everything that a promotion takes to another cluster, by its name.

    Raises MachineError when kubectl can't be had.
    """
    tree = config.tree
    return {**of_files(tree), CHART: of_chart(config), RENDERING: rendering(tree)}


def of_files(tree: Path) -> dict[str, str]:
    """The sha256 of each file by its path in the tree."""
    return {path.relative_to(tree).as_posix(): cache.digest(path) for path in files(tree)}


def files(tree: Path) -> Iterator[Path]:
    """The files that are promoted, and those that the promotion is compared with."""
    for folder in (BASE, *BESIDE):
        yield from below(tree / folder, COMPILED)
    yield from below(tree / DAGS, NOT_DAGS)
    for folder in BUILT:
        yield from images.sources(tree / folder)
    yield from (tree / name for name in SINGLE if (tree / name).is_file())


def below(folder: Path, ignored: Callable[[str, list[str]], set[str]]) -> Iterator[Path]:
    """Each file below the folder, as `shutil.copytree` would copy it."""
    for place, folders, names in os.walk(folder, followlinks=True):
        skipped = ignored(place, [*folders, *names])
        folders[:] = sorted(set(folders) - skipped)
        yield from (Path(place, name) for name in sorted(set(names) - skipped))


def of_chart(config: Config) -> str:
    """The sha256 of the chart's file: the one that was given, or the pinned one."""
    if config.chart:
        return cache.digest(chart.find(config))
    return str(tomllib.loads((config.tree / chart.PIN).read_text("utf-8"))["sha256"])


def rendering(tree: Path) -> str:
    """The sha256 of the base's objects: of what they say, however their YAML is laid out."""
    command: list[str | Path] = [tools.find("kubectl"), "kustomize", tree / BASE]
    return canonical(run(command, timeout=manifests.RENDER_SECONDS))


def canonical(rendered: str) -> str:
    """The sha256 of objects in whatever order."""
    lines = sorted(json.dumps(entry, sort_keys=True) for entry in manifests.objects(rendered))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- Making one ---------------------------------------------------------------------------------


def statement(
    config: Config, subjects: Digests, proof: Proof, tests: Iterable[str], *, variations: bool
) -> Statement:
    """What a lab that runs on kind has shown of these files. Raises LabError.

    Nothing of this machine is in it but versions, and no secret.
    """
    known = images.locked(config.tree)
    names = [known[key].name for key in images.WANTED]
    commit, dirty = revision(config.tree)
    predicate = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "tests": sorted(tests),
        "variations": variations,
        "proof": asdict(proof),
        "images": [{"name": name, "id": docker.image_id(name)} for name in names],
        "tools": {**tool_versions(), "kubernetes": kubernetes(config)},
    }
    return Statement(subjects, predicate)


def revision(tree: Path) -> tuple[str | None, bool | None]:
    """The commit that is checked out, and whether files differ from it; unknown without git."""
    git = ("git", "--no-optional-locks", "-C", tree)
    try:
        commit = run([*git, "rev-parse", "HEAD"], timeout=GIT_SECONDS).strip()
        return commit, bool(run([*git, "status", "--porcelain"], timeout=GIT_SECONDS))
    except LabError:
        return None, None


def tool_versions() -> dict[str, str]:
    """The versions of what brought the lab up."""
    return {name: str(tools.version_of(name, tools.find(name))) for name in tools.ASK}


def kubernetes(config: Config) -> str:
    """The version that the cluster says it has."""
    shown = Cluster(node.kubeconfig(config)).kubectl("version", "--output", "json")
    return str(json.loads(shown)["serverVersion"]["gitVersion"])


def write(path: Path, found: Statement, key: Path | None = None) -> None:
    """`path` holds the statement, whole; signed when a key is given. Raises PromotionError."""
    text = found.as_json()
    write_private(path, sealed(text.encode(), private_key(key)) if key else text)


# --- Reading one --------------------------------------------------------------------------------


def check(config: Config, key: Path | None = None) -> Statement:
    """The attestation of this very tree. Raises PromotionError where there is none.

    With a public key, it must be signed by the other half of it.
    """
    found = read(place(config), key)
    if names := changed(found, config):
        more = f"\n    and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        listed = "".join(f"\n    {name}" for name in names[:MOST_NAMED])
        raise PromotionError(
            f"what {place(config)} attests is not what is here:{listed}{more}", EARN
        )
    return found


def changed(found: Statement, config: Config) -> list[str]:
    """What is not as it was tested, each with a word for how; nothing when all is.

    The rendering is looked at where kubectl is on this machine, and no file differs.
    """
    known = dict(found.subjects)
    others = {name: known.pop(name, "") for name in (CHART, RENDERING)}
    if names := differing(known, of_files(config.tree)):
        return names
    now = {CHART: of_chart(config)}
    if tools.here("kubectl"):
        now[RENDERING] = rendering(config.tree)
    return differing({name: others[name] for name in now}, now)


def differing(before: Digests, now: Digests) -> list[str]:
    """The names of what differs: changed, added or removed."""
    words = dict.fromkeys(before, "removed") | {
        name: "changed" if name in before else "added" for name in now
    }
    return [f"{n} was {words[n]}" for n in sorted(words) if before.get(n) != now.get(n)]


def read(path: Path, key: Path | None = None) -> Statement:
    """What the file attests. Raises PromotionError when there is none, or no signature by `key`."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise PromotionError(f"there is no attestation at {path}", EARN) from None
    except (OSError, ValueError) as error:
        raise PromotionError(f"{path} is no attestation: {error}", EARN) from error
    try:
        if key and "payload" not in content:
            raise PromotionError(
                f"{path} is not signed", "make it anew, with LAB_ATTESTATION_KEY=/path/to/key"
            )
        signer = verified(path, content, public_key(key)) if key else None
        inner = json.loads(payload(content)) if "payload" in content else content
        return parsed(inner, signer)
    except (KeyError, TypeError, ValueError) as error:
        raise PromotionError(f"{path} is no attestation: {error!r}", EARN) from error


def parsed(content: Mapping[str, Any], signer: str | None) -> Statement:
    """The statement that this is. Raises KeyError, TypeError and ValueError when it is none."""
    if (content["_type"], content["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError(f"it is a {content['predicateType']}")
    subjects = {str(s["name"]): str(s["digest"]["sha256"]) for s in content["subject"]}
    found = Statement(subjects, content["predicate"], signer)
    if found.predicate["proof"]["ok"] is not True:
        raise ValueError("it proves nothing")
    str(found)
    return found


# --- Signatures: DSSE ---------------------------------------------------------------------------


def sealed(content: bytes, key: Ed25519PrivateKey) -> str:
    """The content in an envelope that the key signs."""
    signature = {"keyid": key_id(key.public_key()), "sig": base64_of(key.sign(encoded(content)))}
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64_of(content),
        "signatures": [signature],
    }
    return json.dumps(envelope, indent=1) + "\n"


def encoded(content: bytes) -> bytes:
    """What is signed: DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(content), content)


def payload(envelope: Mapping[str, Any]) -> bytes:
    """What the envelope holds. Raises KeyError, TypeError and ValueError when it is none."""
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"its payload is a {envelope['payloadType']}")
    return base64.b64decode(envelope["payload"], validate=True)


def verified(path: Path, envelope: Mapping[str, Any], key: Ed25519PublicKey) -> str:
    """The key's id, when the envelope has a valid signature by it. Raises PromotionError."""
    known, content = key_id(key), encoded(payload(envelope))
    for signature in envelope["signatures"]:
        try:
            key.verify(base64.b64decode(signature["sig"], validate=True), content)
        except InvalidSignature:
            continue
        return known
    claimed = [str(signature.get("keyid")) for signature in envelope["signatures"]]
    raise PromotionError(
        f"{path} was changed after it was signed"
        if known in claimed
        else f"{path} is signed by {', '.join(claimed) or 'nobody'}, not by {known}",
        "make it anew, with the key that the environment's attestation_key belongs to",
    )


def private_key(path: Path) -> Ed25519PrivateKey:
    """The ed25519 key of an OpenSSH or PEM file. Raises PromotionError."""
    found = loaded(
        path,
        lambda data: (
            serialization.load_ssh_private_key(data, password=None)
            if b"OPENSSH PRIVATE KEY" in data
            else serialization.load_pem_private_key(data, password=None)
        ),
    )
    if not isinstance(found, Ed25519PrivateKey):
        raise no_key(path, "private")
    return found


def public_key(path: Path) -> Ed25519PublicKey:
    """The public half of an ed25519 key, of an OpenSSH or PEM file. Raises PromotionError."""
    found = loaded(
        path,
        lambda data: (
            serialization.load_ssh_public_key(data)
            if data.lstrip().startswith(b"ssh-")
            else serialization.load_pem_public_key(data)
        ),
    )
    if not isinstance(found, Ed25519PublicKey):
        raise no_key(path, "public")
    return found


def loaded(path: Path, load: Callable[[bytes], object]) -> object:
    """The key, or None when the file holds nothing of that kind that can be read."""
    try:
        return load(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None


def no_key(path: Path, half: str) -> PromotionError:
    return PromotionError(
        f"{path} is no {half} ed25519 key that can be read without a passphrase",
        "make a pair: ssh-keygen -t ed25519 -N '' -f attestation-key",
    )


def key_id(key: Ed25519PublicKey) -> str:
    """The key's fingerprint, as `ssh-keygen -l` shows it."""
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    blob = base64.b64decode(key.public_bytes(*form).split()[1])
    return f"SHA256:{base64_of(hashlib.sha256(blob).digest()).rstrip('=')}"


def base64_of(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
