"""The attestation of a green end-to-end test on kind: the files tested, and what was proved.

It is an in-toto Statement, which names files by their sha256, in a DSSE envelope if it is signed.
A promotion requires one that matches the checkout: what changed since has not been tested.
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

from eks.environment import Environment
from lab import project
from lab.backends.kind import node
from lab.cluster import cache, chart, docker, images, manifests, tools
from lab.cluster.api import Cluster
from lab.cluster.associations import POLICIES
from lab.config import PACKAGE, Config
from lab.delivery import bundle
from lab.delivery.bundle import NOT_DAGS
from lab.errors import LabError, PromotionError
from lab.files import write_private_file
from lab.model import Proof
from lab.shell import run

NAME = "attestation.json"
EARN = "earn one: nox -s e2e -- -k kind"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://mlops-lab.example/green-on-kind/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"

BASE = Path("manifests", "base")
# Kind's part, which `plan` compares a promotion with: it must be what was tested, too.
BESIDE = (Path("manifests", "stores"), Path("manifests", "overlays", "kind"))
BUILT = (Path("images", "worker"), Path("images", "trainer"))
STAND_IN = Path("images", "pod-identity")  # of kind alone: steps got their access by it
SINGLE = (
    images.LOCK,
    chart.PIN,
    Path("manifests", "airflow", "values.yaml"),
    Path("manifests", "airflow", "values-kind.yaml"),
)
COMPILED = shutil.ignore_patterns("__pycache__", "*.pyc")
# Subjects that are not files of the tree.
CHART, RENDERING = "chart/airflow", "rendering/base"
MOST_NAMED = 10
GIT_SECONDS = 30
Digests = Mapping[str, str]


@dataclass(frozen=True)
class Statement:
    """An in-toto Statement: the digests of the subjects by name, and how they were tested."""

    subjects: Digests
    predicate: Mapping[str, Any]
    signer: str | None = None  # ID of the key that verified the signature

    def as_json(self) -> str:
        """Return the Statement as in-toto's JSON."""
        named = [{"name": n, "digest": {"sha256": d}} for n, d in sorted(self.subjects.items())]
        content = {
            "_type": STATEMENT_TYPE,
            "subject": named,
            "predicateType": PREDICATE_TYPE,
            "predicate": self.predicate,
        }
        return json.dumps(content, indent=1) + "\n"

    def __str__(self) -> str:
        """Return a one-line summary."""
        tested = self.predicate
        changed = " with changes" if tested["dirty"] else ""
        variations = "" if tested["variations"] else ", without variations"
        return (
            f"{len(self.subjects)} files, at {str(tested['commit'])[:12]}{changed}, green on kind "
            f"{tested['when']} in {len(tested['tests'])} test files{variations}; "
            + (f"signed by {self.signer}" if self.signer else "no signature was asked for")
        )


def attestation_path(config: Config) -> Path:
    """Return the path of the attestation, whether or not it exists."""
    return config.attestation or config.root / NAME


def public_key_path(environment: Environment, config: Config) -> Path | None:
    """Return the path of the public key that verifies attestations; None if none is required."""
    return config.root / environment.attestation_key if environment.attestation_key else None


# --- What was tested ----------------------------------------------------------------------------


def compute_digests(config: Config) -> dict[str, str]:
    """Compute the sha256 of everything that a promotion takes to another cluster, by its name.

    Raise MachineError when kubectl can't be obtained.
    """
    rendered = digest_rendering(config.kit)
    return {**digest_files(config), CHART: digest_chart(config), RENDERING: rendered}


def digest_files(config: Config) -> dict[str, str]:
    """Compute the sha256 of each promoted file, by its path in the project or in the kit."""
    return digest_paths(config, list_promoted_files(config))


def digest_paths(config: Config, paths: Iterable[Path]) -> dict[str, str]:
    return {name_file(config, path): cache.file_sha256(path) for path in paths}


def name_file(config: Config, path: Path) -> str:
    """Return the path of a file in the project or, as `kit/…`, in a kit that is elsewhere.

    An installed kit is often inside the project: in the environment of a session of nox, another
    one for each. So the innermost of these folders counts.
    """
    tops = {PACKAGE.parent: "kit/", config.kit: "kit/", config.root: ""}
    top = max((each for each in tops if path.is_relative_to(each)), key=lambda p: len(p.parts))
    return f"{tops[top]}{path.relative_to(top).as_posix()}"


def list_promoted_files(config: Config) -> Iterator[Path]:
    """Yield the files that are promoted, and those that a promotion is compared with."""
    kit = config.kit
    for folder in (BASE, POLICIES, *BESIDE):
        yield from walk_files(kit / folder, COMPILED)
    for folder in (*BUILT, STAND_IN):
        yield from images.list_sources(kit / folder)
    yield from (kit / name for name in SINGLE if (kit / name).is_file())
    for folder in bundle.list_sources(config):
        yield from walk_files(folder, NOT_DAGS)
    for image in images.read_lock(config).values():
        yield from image.files.values()
    yield lab_toml(config)


def walk_files(folder: Path, ignored: Callable[[str, list[str]], set[str]]) -> Iterator[Path]:
    """Yield each file below the folder that `shutil.copytree(ignore=ignored)` would copy."""
    for place, folders, names in os.walk(folder, followlinks=True):
        skipped = ignored(place, [*folders, *names])
        folders[:] = sorted(set(folders) - skipped)
        yield from (Path(place, name) for name in sorted(set(names) - skipped))


def digest_chart(config: Config) -> str:
    """Return the sha256 of the chart's archive: of the configured file, or the pinned digest."""
    if config.chart:
        return cache.file_sha256(chart.find(config))
    return str(tomllib.loads((config.kit / chart.PIN).read_text("utf-8"))["sha256"])


def digest_rendering(kit: Path) -> str:
    """Render manifests/base; compute the sha256 of its objects, independent of YAML layout."""
    command: list[str | Path] = [tools.find("kubectl"), "kustomize", kit / BASE]
    return digest_objects(run(command, timeout=manifests.RENDER_SECONDS))


def digest_objects(rendered: str) -> str:
    """Compute the sha256 of the objects, independent of their order."""
    lines = sorted(json.dumps(entry, sort_keys=True) for entry in manifests.parse_objects(rendered))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


# --- Writing ------------------------------------------------------------------------------------


def build_statement(
    config: Config, subjects: Digests, proof: Proof, tests: Iterable[str], *, variations: bool
) -> Statement:
    """Build the Statement of what a lab running on kind has proved of these files.

    Of this machine it holds versions only, and no secret. Raise LabError.
    """
    known = images.choose(images.read_lock(config))
    names = [known[key].name for key in images.list_wanted(known)]
    commit, dirty = read_revision(config.root)
    predicate = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "dirty": dirty,
        "tests": sorted(tests),
        "variations": variations,
        "proof": asdict(proof),
        "images": [describe_image(name) for name in names],
        "tools": {**read_tool_versions(), "kubernetes": read_kubernetes_version(config)},
    }
    return Statement(subjects, predicate)


def describe_image(name: str) -> dict[str, Any]:
    """Return what Docker knows an image by: its ID, and its registries' digests if it has any."""
    return {"name": name, "id": docker.image_id(name), "digests": docker.list_digests(name)}


def read_revision(root: Path) -> tuple[str | None, bool | None]:
    """Return the commit checked out and whether files differ from it; (None, None) without git."""
    git = ("git", "--no-optional-locks", "-C", root)
    try:
        commit = run([*git, "rev-parse", "HEAD"], timeout=GIT_SECONDS).strip()
        return commit, bool(run([*git, "status", "--porcelain"], timeout=GIT_SECONDS))
    except LabError:
        return None, None


def read_tool_versions() -> dict[str, str]:
    """Read the versions of the tools that brought up the lab."""
    return {
        name: str(tools.ask_version(name, tools.find(name))) for name in tools.VERSION_ARGUMENTS
    }


def read_kubernetes_version(config: Config) -> str:
    """Return the Kubernetes version that the cluster's API server reports."""
    shown = Cluster(node.kubeconfig_path(config)).kubectl("version", "--output", "json")
    return str(json.loads(shown)["serverVersion"]["gitVersion"])


def write(path: Path, found: Statement, key: Path | None = None) -> None:
    """Write the Statement to `path` atomically, signed if a key is given.

    Raise PromotionError when the key can't be used.
    """
    text = found.as_json()
    write_private_file(path, sign_envelope(text.encode(), read_private_key(key)) if key else text)


# --- Reading ------------------------------------------------------------------------------------


def check(config: Config, key: Path | None = None) -> Statement:
    """Return the attestation of this tree. Raise PromotionError unless it matches the tree.

    With a public key, it must be signed by the private half of that key.
    """
    found = read(attestation_path(config), key)
    if names := list_changes(found, config):
        more = f"\n    and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        listed = "".join(f"\n    {name}" for name in names[:MOST_NAMED])
        raise PromotionError(
            f"what {attestation_path(config)} attests is not what is here:{listed}{more}", EARN
        )
    return found


def list_changes(found: Statement, config: Config) -> list[str]:
    """List what differs from what was tested, each as "NAME was changed" (added, removed).

    The files that name other files come first: a changed one may be no TOML any more. The rendering
    is compared only if kubectl is on this machine and no file differs.
    """
    known = dict(found.subjects)
    others = {name: known.pop(name, "") for name in (CHART, RENDERING)}
    if names := list_changed_lists(known, config) or compare_digests(known, digest_files(config)):
        return names
    now = {CHART: digest_chart(config)}
    if tools.find_local("kubectl"):
        now[RENDERING] = digest_rendering(config.kit)
    return compare_digests({name: others[name] for name in now}, now)


def list_changed_lists(known: Digests, config: Config) -> list[str]:
    """List the changes in the files by which `list_promoted_files` finds others."""
    lists = (config.kit / images.LOCK, lab_toml(config))
    names = [name_file(config, path) for path in lists]
    before = {name: known[name] for name in names if name in known}
    return compare_digests(before, digest_paths(config, filter(Path.is_file, lists)))


def lab_toml(config: Config) -> Path:
    return config.root / project.FILE


def compare_digests(before: Digests, now: Digests) -> list[str]:
    """List the names whose digests differ, each as "NAME was changed" (added, removed)."""
    words = dict.fromkeys(before, "removed") | {
        name: "changed" if name in before else "added" for name in now
    }
    return [f"{n} was {words[n]}" for n in sorted(words) if before.get(n) != now.get(n)]


def read(path: Path, key: Path | None = None) -> Statement:
    """Read the Statement in the file, signed or not.

    Raise PromotionError when there is none, or when `key` is given and has not signed it.
    """
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
        signer = verify_signature(path, content, read_public_key(key)) if key else None
        inner = json.loads(decode_payload(content)) if "payload" in content else content
        return parse_statement(inner, signer)
    except (KeyError, TypeError, ValueError) as error:
        raise PromotionError(f"{path} is no attestation: {error!r}", EARN) from error


def parse_statement(content: Mapping[str, Any], signer: str | None) -> Statement:
    """Parse in-toto's JSON. Raise KeyError, TypeError or ValueError unless it is our Statement."""
    if (content["_type"], content["predicateType"]) != (STATEMENT_TYPE, PREDICATE_TYPE):
        raise ValueError(f"it is a {content['predicateType']}")
    subjects = {str(s["name"]): str(s["digest"]["sha256"]) for s in content["subject"]}
    found = Statement(subjects, content["predicate"], signer)
    if found.predicate["proof"]["ok"] is not True:
        raise ValueError("it proves nothing")
    str(found)
    return found


# --- Signatures: DSSE ---------------------------------------------------------------------------


def sign_envelope(content: bytes, key: Ed25519PrivateKey) -> str:
    """Return a DSSE envelope of the content, signed with the key, as JSON."""
    signature = {"keyid": key_id(key.public_key()), "sig": to_base64(key.sign(encode_pae(content)))}
    envelope = {
        "payloadType": PAYLOAD_TYPE,
        "payload": to_base64(content),
        "signatures": [signature],
    }
    return json.dumps(envelope, indent=1) + "\n"


def encode_pae(content: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding of the content: the bytes that are signed."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(content), content)


def decode_payload(envelope: Mapping[str, Any]) -> bytes:
    """Decode an envelope's payload. Raise KeyError, TypeError or ValueError if it is malformed."""
    if envelope["payloadType"] != PAYLOAD_TYPE:
        raise ValueError(f"its payload is a {envelope['payloadType']}")
    return base64.b64decode(envelope["payload"], validate=True)


def verify_signature(path: Path, envelope: Mapping[str, Any], key: Ed25519PublicKey) -> str:
    """Return the key's ID. Raise PromotionError unless the envelope has a valid signature by it."""
    known, content = key_id(key), encode_pae(decode_payload(envelope))
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


def read_private_key(path: Path) -> Ed25519PrivateKey:
    """Read a private ed25519 key from an OpenSSH or PEM file. Raise PromotionError otherwise."""
    found = load_key(
        path,
        lambda data: (
            serialization.load_ssh_private_key(data, password=None)
            if b"OPENSSH PRIVATE KEY" in data
            else serialization.load_pem_private_key(data, password=None)
        ),
    )
    if not isinstance(found, Ed25519PrivateKey):
        raise key_error(path, "private")
    return found


def read_public_key(path: Path) -> Ed25519PublicKey:
    """Read a public ed25519 key from an OpenSSH or PEM file. Raise PromotionError otherwise."""
    found = load_key(
        path,
        lambda data: (
            serialization.load_ssh_public_key(data)
            if data.lstrip().startswith(b"ssh-")
            else serialization.load_pem_public_key(data)
        ),
    )
    if not isinstance(found, Ed25519PublicKey):
        raise key_error(path, "public")
    return found


def load_key(path: Path, load: Callable[[bytes], object]) -> object:
    """Return what `load` makes of the file; None if it can't be read or loaded."""
    try:
        return load(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return None


def key_error(path: Path, half: str) -> PromotionError:
    return PromotionError(
        f"{path} is no {half} ed25519 key that can be read without a passphrase",
        "make a pair: ssh-keygen -t ed25519 -N '' -f attestation-key",
    )


def key_id(key: Ed25519PublicKey) -> str:
    """Return the key's fingerprint, as `ssh-keygen -l` shows it."""
    form = (serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    blob = base64.b64decode(key.public_bytes(*form).split()[1])
    return f"SHA256:{to_base64(hashlib.sha256(blob).digest()).rstrip('=')}"


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
