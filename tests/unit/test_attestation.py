"""Attestations: what they list after a green test on kind, what counts as a change, signatures."""

from __future__ import annotations

import base64
import json
import random
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from eks import attestation
from eks.attestation import PREDICATE_TYPE, STATEMENT_TYPE, Statement
from lab.cluster import docker, images, tools
from lab.config import KIT, Config
from lab.delivery import bundle, ssh
from lab.errors import MachineError, PromotionError
from lab.testing import witness
from lab.testing.witness import Witness
from tests.support import attested
from tests.support.attested import PREDICATE, PROOF, TESTS, make_statement

pytest_plugins = ["pytester"]
SEED = 20260101


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    """Return the Config of a copy of this tree; without kubectl, its base is not rendered."""
    monkeypatch.setattr(tools, "find_local", lambda _: None)
    monkeypatch.setattr(attestation, "digest_rendering", lambda _: "0" * 64)
    return attested.use_library(attested.copy_tree(tmp_path), monkeypatch)


def test_where_it_is_and_what_signs_it_may_be_chosen(tmp_path: Path) -> None:
    chosen = {"LAB_ATTESTATION": str(tmp_path / "a"), "LAB_ATTESTATION_KEY": str(tmp_path / "k")}
    found = Config.from_environment(chosen)
    assert (attestation.attestation_path(found), found.attestation_key) == (
        tmp_path / "a",
        tmp_path / "k",
    )
    default = Config.from_environment({"LAB_ATTESTATION": "", "LAB_ATTESTATION_KEY": ""})
    assert attestation.attestation_path(default) == KIT / "attestation.json"
    assert default.attestation_key is None


# --- The statement ------------------------------------------------------------------------------


def test_every_file_that_is_promoted_is_a_subject(config: Config) -> None:
    found = attestation.digest_files(config)
    wanted = [p for p in (KIT / "manifests" / "base").rglob("*") if p.suffix in {".yaml", ".py"}]
    for key in ("worker", "trainer"):
        wanted += images.list_sources(KIT / "images" / key)
    assert len(wanted) > 40
    assert {path.relative_to(KIT).as_posix() for path in wanted} <= found.keys()
    assert "manifests/base/plugins/.airflowignore" in found
    assert {"images/lock.toml", "manifests/airflow/values.yaml"} <= found.keys()


def test_the_dags_are_those_that_are_published(config: Config, tmp_path: Path) -> None:
    (config.root / "dags" / ".secret").write_text("x")
    (config.root / "dags" / "notes.txt").write_text("x")
    bundle.write_bundle(config, tmp_path / "published")
    files = [path for path in (tmp_path / "published").rglob("*") if path.is_file()]
    delivered = {path.relative_to(tmp_path / "published").as_posix() for path in files}
    tops = ("dags/", f"{attested.LIBRARY.as_posix()}/")
    names = attestation.digest_files(config)
    found = {name.removeprefix(top) for top in tops for name in names if name.startswith(top)}
    assert found == delivered - {bundle.DECLARED}, "which is made of lab.toml"
    assert {"notes.txt", "steps.py", "runtimes/pod.py"} <= found
    assert "lab.toml" in names


def test_what_python_has_compiled_counts_for_nothing(config: Config) -> None:
    before = attestation.digest_files(config)
    for folder in ("dags", "manifests/base/plugins", "images/worker/dataset_steps"):
        cache = config.root / folder / "__pycache__"
        cache.mkdir()
        (cache / "steps.cpython-311.pyc").write_bytes(b"x")
    assert attestation.digest_files(config) == before


def test_the_chart_is_the_pinned_one_or_the_file_that_was_given(
    config: Config, tmp_path: Path
) -> None:
    pinned = attestation.compute_digests(config)["chart/airflow"]
    chart = tmp_path / "chart.tgz"
    chart.write_bytes(b"another")
    given = replace(config, chart=chart)
    assert attestation.compute_digests(given)["chart/airflow"] != pinned
    assert attestation.list_changes(make_statement(config), given) == ["chart/airflow was changed"]
    with pytest.raises(MachineError):
        attestation.compute_digests(replace(config, chart=tmp_path / "absent.tgz"))


def test_a_statement_has_the_form_of_in_toto(config: Config, tmp_path: Path) -> None:
    attestation.write(tmp_path / "a.json", make_statement(config))
    content = json.loads((tmp_path / "a.json").read_text())
    assert (content["_type"], content["predicateType"]) == (STATEMENT_TYPE, PREDICATE_TYPE)
    names = [subject["name"] for subject in content["subject"]]
    assert names == sorted(set(names))
    assert all(len(subject["digest"]["sha256"]) == 64 for subject in content["subject"])
    assert attestation.read(tmp_path / "a.json") == make_statement(config)


def test_a_statement_tells_how_it_came_to_be_and_nothing_of_the_machine(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker, "image_id", lambda name: f"sha256:{len(name)}")
    monkeypatch.setattr(docker, "list_digests", lambda name: [f"sha256:of-{name}"])
    monkeypatch.setattr(attestation, "read_kubernetes_version", lambda _: "v1.36.4")
    monkeypatch.setattr(tools, "find", lambda name: config.root / name)
    monkeypatch.setattr(tools, "ask_version", lambda name, _: {"kind": "0.33.0"}.get(name, "1.2.3"))
    subjects = attestation.compute_digests(config)
    found = attestation.build_statement(config, subjects, PROOF, TESTS, variations=False)
    told = json.loads(found.as_json())["predicate"]
    assert told["proof"]["commit"] == PROOF.commit and told["proof"]["ok"] is True
    assert told["tools"] == {
        "kind": "0.33.0", "kubectl": "1.2.3", "helm": "1.2.3", "kubernetes": "v1.36.4"
    }  # fmt: skip
    worker = images.read_lock(config)["worker"].name
    known = {"id": f"sha256:{len(worker)}", "digests": [f"sha256:of-{worker}"]}
    assert {"name": worker, **known} in told["images"]
    assert (told["tests"], told["variations"]) == (TESTS, False)
    assert (told["commit"], told["dirty"]) == (None, None)  # the copy is no git checkout
    assert str(config.root) not in found.as_json() and str(Path.home()) + "/" not in found.as_json()


def test_the_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    def run_git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    run_git("init", "--quiet")
    run_git("commit", "--quiet", "--allow-empty", "--message", "x")
    assert attestation.read_revision(tmp_path) == (run_git("rev-parse", "HEAD"), False)
    (tmp_path / "new").touch()
    assert attestation.read_revision(tmp_path) == (run_git("rev-parse", "HEAD"), True)


def test_a_statement_in_a_line(config: Config) -> None:
    told = {**PREDICATE, "dirty": True, "variations": False}
    line = str(Statement({"a": "b"}, told))
    assert line.startswith("1 files, at eeeeeeeeeeee with changes, green on kind 2026-01-01")
    assert "without variations" in line and "\n" not in line


# --- Changes since then -------------------------------------------------------------------------


def flip_bit(data: bytes, chance: random.Random) -> bytes:
    """Return the bytes with one random bit flipped, or one zero byte if there are none."""
    if not data:
        return b"\0"
    position = chance.randrange(len(data))
    flipped = data[position] ^ (1 << chance.randrange(8))
    return data[:position] + bytes([flipped]) + data[position + 1 :]


def test_one_byte_of_any_file_is_enough(config: Config) -> None:
    known, chance = make_statement(config), random.Random(SEED)
    attestation.write(attestation.attestation_path(config), known)
    paths = list(attestation.list_promoted_files(config))
    assert len(paths) > 80
    for path in paths:
        name, before = path.relative_to(config.root).as_posix(), path.read_bytes()
        path.write_bytes(flip_bit(before, chance))
        with pytest.raises(PromotionError) as refused:
            attestation.check(config)
        assert f"\n    {name} was changed" in refused.value.what
        path.write_bytes(before)
    assert attestation.check(config).subjects == known.subjects


FOLDERS = (
    "manifests/base",
    "manifests/base/plugins",
    "manifests/overlays/kind",
    "eks/policies",
    "dags",
    "lab/delivery/library",
    "lab/delivery/library/runtimes",
    "images/worker",
    "images/worker/dataset_steps",
    "images/trainer",
    "images/pod-identity",
)


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_file_that_is_added_removed_or_renamed(config: Config, folder: str) -> None:
    known, place = make_statement(config), config.root / folder
    (place / "added.txt").touch()
    assert attestation.list_changes(known, config) == [f"{folder}/added.txt was added"]
    (place / "added.txt").unlink()
    first = min(path for path in place.iterdir() if path.is_file() and path.name[0] != ".")
    first.rename(place / "renamed.txt")
    assert attestation.list_changes(known, config) == sorted(
        [f"{folder}/{first.name} was removed", f"{folder}/renamed.txt was added"]
    )
    (place / "renamed.txt").rename(first)
    assert attestation.list_changes(known, config) == []


@pytest.mark.parametrize("folder", ["dags", "manifests/base"])
def test_what_a_link_to_a_folder_would_bring_counts(config: Config, folder: str) -> None:
    known = make_statement(config)
    (config.root / folder / "more").symlink_to(config.root / "eks" / "environments")
    assert f"{folder}/more/staging.toml was added" in attestation.list_changes(known, config)


def test_a_file_that_is_not_promoted_may_change(config: Config) -> None:
    known = make_statement(config)
    (config.root / "images" / "minio" / "Dockerfile").write_text("FROM scratch")
    (config.root / "manifests" / "airflow" / "values-eks.yaml").write_text("{}")
    assert attestation.list_changes(known, config) == []


def test_a_file_that_the_attestation_leaves_out_was_not_tested(config: Config) -> None:
    subjects = attestation.compute_digests(config)
    del subjects["dags/assets.py"], subjects["chart/airflow"]
    assert attestation.list_changes(Statement(subjects, PREDICATE), config) == [
        "dags/assets.py was added"
    ]
    subjects["dags/assets.py"] = attestation.compute_digests(config)["dags/assets.py"]
    assert attestation.list_changes(Statement(subjects, PREDICATE), config) == [
        "chart/airflow was changed"
    ]


def test_of_many_changes_the_first_are_named(config: Config) -> None:
    attestation.write(attestation.attestation_path(config), make_statement(config))
    for path in (config.root / "dags").glob("*.py"):
        path.write_text("")
    with pytest.raises(PromotionError, match=r"and \d+ more") as refused:
        attestation.check(config)
    assert refused.value.what.count(" was changed") == attestation.MOST_NAMED
    assert "nox -s e2e -- -k kind" in refused.value.fix


def test_objects_are_compared_by_what_they_say() -> None:
    one = "kind: A\nx: {b: 1, a: [2]}\n---\nkind: B\n"
    other = "# laid out otherwise\n---\nkind: B\n---\nx:\n  a:\n  - 2\n  b: 0x1\nkind: A\n"
    assert attestation.digest_objects(one) == attestation.digest_objects(other)
    assert attestation.digest_objects(one) != attestation.digest_objects(
        one.replace("[2]", "['2']")
    )


# --- Invalid attestations -----------------------------------------------------------------------


def test_a_missing_attestation_says_how_to_earn_one(config: Config) -> None:
    with pytest.raises(PromotionError, match="there is no attestation at") as refused:
        attestation.check(config)
    assert "nox -s e2e -- -k kind" in refused.value.fix


def spoil_statement(**changes: Any) -> str:
    content = {**json.loads(Statement({"a": "b"}, PREDICATE).as_json()), **changes}
    return json.dumps({key: value for key, value in content.items() if value is not None})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "7",
        '{"_type":',
        "\x00",
        spoil_statement(_type="https://in-toto.io/Statement/v0.1"),
        spoil_statement(predicateType="https://slsa.dev/provenance/v1"),
        spoil_statement(subject=None),
        spoil_statement(subject=[{"name": "a"}]),
        spoil_statement(subject=[{"name": "a", "digest": {"md5": "b"}}]),
        spoil_statement(predicate={"proof": {"ok": False}}),
        spoil_statement(predicate={}),
        spoil_statement(predicate={"proof": {"ok": True}}),
        '{"payload": "e30=", "payloadType": "application/json", "signatures": []}',
        '{"payload": "%%%", "payloadType": "application/vnd.in-toto+json", "signatures": []}',
        '{"payload": "e30=", "payloadType": "application/vnd.in-toto+json", "signatures": []}',
    ],
)
def test_a_file_that_is_no_attestation(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(PromotionError, match="is no attestation"):
        attestation.read(tmp_path / "a.json")


def test_a_folder_is_no_attestation(tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="is no attestation"):
        attestation.read(tmp_path)


# --- Signatures ---------------------------------------------------------------------------------


def write_pem_keys(key: Any, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a key pair in OpenSSL's format; return the paths, the private key's first."""
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    private, public = folder / name, folder / f"{name}.pub"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    info = serialization.PublicFormat.SubjectPublicKeyInfo
    public.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, info))
    return private, public


def write_openssh_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a new key pair in OpenSSH's format; return the paths, the private key's first."""
    text = ssh.generate_private_key()
    private, public = folder / name, folder / f"{name}.pub"
    private.write_text(text)
    public.write_text(f"{ssh.public_key(text)} somebody@somewhere\n")
    return private, public


@pytest.fixture(params=["openssh", "pem"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    """Return the paths of a private key and of its public key."""
    if request.param == "openssh":
        return write_openssh_keys(tmp_path, "key")
    return write_pem_keys(Ed25519PrivateKey.generate(), tmp_path, "key")


def test_a_signature_by_the_key_is_accepted(tmp_path: Path, keys: tuple[Path, Path]) -> None:
    known = Statement({"a": "b"}, PREDICATE)
    attestation.write(tmp_path / "a.json", known, keys[0])
    found = attestation.read(tmp_path / "a.json", keys[1])
    assert (found.subjects, found.predicate) == (known.subjects, known.predicate)
    assert found.signer and found.signer.startswith("SHA256:") and found.signer in str(found)
    assert attestation.read(tmp_path / "a.json").signer is None


def test_the_envelope_is_dsse_s(tmp_path: Path) -> None:
    private, public = write_openssh_keys(tmp_path, "key")
    attestation.write(tmp_path / "a.json", Statement({"a": "b"}, PREDICATE), private)
    envelope = json.loads((tmp_path / "a.json").read_text())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    payload, (signature,) = base64.b64decode(envelope["payload"]), envelope["signatures"]
    assert payload.decode() == Statement({"a": "b"}, PREDICATE).as_json()
    head = f"DSSEv1 28 application/vnd.in-toto+json {len(payload)} ".encode()
    key = attestation.read_public_key(public)
    key.verify(base64.b64decode(signature["sig"]), head + payload)  # raises if it is of another key
    assert signature["keyid"] == attestation.key_id(key)


def test_the_key_s_name_is_the_one_that_ssh_keygen_shows(tmp_path: Path) -> None:
    if not ssh.has_ssh_client():
        pytest.skip("there is no client of SSH")
    _, public = write_openssh_keys(tmp_path, "key")
    command = ["ssh-keygen", "-l", "-f", str(public)]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert shown.split()[1] == attestation.key_id(attestation.read_public_key(public))


def test_one_valid_signature_among_others_will_do(tmp_path: Path) -> None:
    path, (private, public) = tmp_path / "a.json", write_openssh_keys(tmp_path, "key")
    attestation.write(path, Statement({"a": "b"}, PREDICATE), private)
    envelope = json.loads(path.read_text())
    other = base64.b64encode(b"x" * 64).decode()
    envelope["signatures"].insert(0, {"keyid": "SHA256:other", "sig": other})
    path.write_text(json.dumps(envelope))
    assert attestation.read(path, public).signer


def test_what_is_not_signed_is_refused_where_a_key_is_given(tmp_path: Path) -> None:
    _, public = write_openssh_keys(tmp_path, "key")
    attestation.write(tmp_path / "a.json", Statement({"a": "b"}, PREDICATE))
    with pytest.raises(PromotionError, match="is not signed") as refused:
        attestation.read(tmp_path / "a.json", public)
    assert "LAB_ATTESTATION_KEY" in refused.value.fix


def test_a_signature_by_another_key_is_refused(tmp_path: Path) -> None:
    private, _ = write_openssh_keys(tmp_path, "one")
    _, public = write_openssh_keys(tmp_path, "other")
    attestation.write(tmp_path / "a.json", Statement({"a": "b"}, PREDICATE), private)
    with pytest.raises(PromotionError, match=r"is signed by SHA256:.*, not by SHA256:"):
        attestation.read(tmp_path / "a.json", public)


def test_an_envelope_that_nobody_signed_is_refused(tmp_path: Path) -> None:
    path, (private, public) = tmp_path / "a.json", write_openssh_keys(tmp_path, "key")
    attestation.write(path, Statement({"a": "b"}, PREDICATE), private)
    path.write_text(json.dumps({**json.loads(path.read_text()), "signatures": []}))
    with pytest.raises(PromotionError, match="signed by nobody"):
        attestation.read(path, public)


def test_what_was_changed_after_it_was_signed_is_refused(tmp_path: Path) -> None:
    path, (private, public) = tmp_path / "a.json", write_openssh_keys(tmp_path, "key")
    attestation.write(path, Statement({"a": "b"}, PREDICATE), private)
    envelope = json.loads(path.read_text())
    forged = Statement({"a": "c"}, PREDICATE).as_json().encode()
    envelope["payload"] = base64.b64encode(forged).decode()
    path.write_text(json.dumps(envelope))
    with pytest.raises(PromotionError, match="was changed after it was signed"):
        attestation.read(path, public)


def write_broken_keys(folder: Path) -> Iterator[Path]:
    """Yield files without an ed25519 key: absent, no key at all, RSA, or locked by a passphrase."""
    yield folder / "absent"
    (folder / "text").write_text("no key")
    yield folder / "text"
    yield from write_pem_keys(rsa.generate_private_key(65537, 2048), folder, "rsa")
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
    secret = serialization.BestAvailableEncryption(b"passphrase")
    (folder / "locked").write_bytes(Ed25519PrivateKey.generate().private_bytes(*form, secret))
    yield folder / "locked"


def test_a_file_that_is_no_such_key_is_named(tmp_path: Path) -> None:
    private, public = write_openssh_keys(tmp_path, "key")
    for path in [*write_broken_keys(tmp_path), public]:
        with pytest.raises(PromotionError, match=f"{path.name} is no private ed25519 key"):
            attestation.write(tmp_path / "a.json", Statement({}, PREDICATE), path)
    attestation.write(tmp_path / "a.json", Statement({}, PREDICATE), private)
    for path in [*write_broken_keys(tmp_path), private]:
        with pytest.raises(PromotionError, match=f"{path.name} is no public ed25519 key"):
            attestation.read(tmp_path / "a.json", path)


# --- When it is written -------------------------------------------------------------------------

CONFTEST = """
import pytest
from eks import attestation
from lab.config import Config
from lab.testing import witness
from pathlib import Path
from tests.conftest import pytest_collection_modifyitems
TREE = Path(__file__).parent
PATCH = pytest.MonkeyPatch()

def build_statement(_, subjects, proof, tests, **how):
    told = {"proof": {"ok": True, "said": proof}, "tests": tests, "dirty": 0, "commit": ""}
    return attestation.Statement(subjects, {**told, "when": "now", **how})

def pytest_addoption(parser):
    parser.addoption("--once", action="store_true")
    parser.addoption("--every", action="store_true")

def pytest_configure(config):
    for marker in ("variation", "long"):
        config.addinivalue_line("markers", f"{marker}: of a test")
    again = {"variation"} if config.getoption("--once") else set()
    config.stash[witness.LEFT_OUT] = frozenset({"long"} | again)
    config.pluginmanager.register(witness.Witness(TREE), witness.NAME)
    PATCH.setattr(attestation, "build_statement", build_statement)

def pytest_unconfigure():
    PATCH.undo()

class Lab:
    def verify(self):
        return "the proof"

@pytest.fixture(scope="session", params=["embedded", "kind"])
def lab_backend(request):
    return request.param

@pytest.fixture(scope="session")
def lab(request, lab_backend):
    config = Config(home=TREE / "home", backend=lab_backend, root=TREE, kit=TREE)
    before = witness.digest_tested_files(config)
    yield Lab()
    witness.keep_statement(request, config, Lab(), before)
"""
FIRST = """
import pytest
def test_one(lab): pass
@pytest.mark.parametrize("n", [1, 2])
def test_two(lab, n): pass
@pytest.mark.variation
def test_three(lab): pass
@pytest.mark.long
def test_of_faults(lab): pass
"""
SECOND = """
def test_four(lab): {body}
def test_of_no_backend(): pass
"""


@pytest.fixture
def project(
    config: Config, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """Return a project with the files to attest and two end-to-end test files of a fake lab."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the kit's has a real lab
    config.root.rename(pytester.path / "tree")
    for entry in (pytester.path / "tree").iterdir():
        entry.rename(pytester.path / entry.name)
    folder = pytester.mkdir("tests") / "e2e"
    folder.mkdir()
    pytester.makeconftest(CONFTEST)
    (folder / "test_first.py").write_text(FIRST)
    (folder / "test_second.py").write_text(SECOND.format(body="pass"))
    return pytester


def test_a_green_session_is_attested(project: pytest.Pytester) -> None:
    result = project.runpytest()
    result.stdout.fnmatch_lines("attested, for a promotion to AWS: *attestation.json")
    config = Config(home=project.path, root=project.path, kit=project.path)
    told = attestation.check(config).predicate
    assert told["tests"] == ["tests/e2e/test_first.py", "tests/e2e/test_second.py"]
    assert (told["proof"]["said"], told["variations"]) == ("the proof", True)


@pytest.mark.parametrize("chosen", [("-k", "kind"), ("--once",), ("-k", "kind or no_backend")])
def test_all_tests_on_kind_are_enough(project: pytest.Pytester, chosen: tuple[str, ...]) -> None:
    project.runpytest(*chosen).stdout.fnmatch_lines("attested, *")
    told = attestation.read(project.path / "attestation.json").predicate
    assert told["variations"] == ("--once" not in chosen)


@pytest.mark.parametrize(
    "chosen",
    [
        ("-k", "embedded"),
        ("-k", "kind and one"),
        ("-k", "kind and not two"),
        ("-k", "kind and not three"),
        ("tests/e2e/test_first.py",),
        ("tests/e2e/test_first.py", "tests/e2e/test_second.py::test_of_no_backend"),
        ("tests/e2e/test_first.py::test_one", "tests/e2e/test_second.py"),
        ("--deselect", "tests/e2e/test_second.py::test_four[kind]"),
    ],
    ids=" ".join,
)
def test_a_part_of_the_tests_attests_nothing(
    project: pytest.Pytester, chosen: tuple[str, ...]
) -> None:
    result = project.runpytest(*chosen)
    assert result.ret == 0
    assert not (project.path / "attestation.json").exists()
    result.stdout.no_fnmatch_line("attested*")


@pytest.mark.parametrize(
    "body", ["assert False", "__import__('pytest').skip('no')", "__import__('pytest').xfail('no')"]
)
def test_a_test_that_has_not_passed_attests_nothing(project: pytest.Pytester, body: str) -> None:
    (project.path / "tests" / "e2e" / "test_second.py").write_text(SECOND.format(body=body))
    project.runpytest()
    assert not (project.path / "attestation.json").exists()


@pytest.mark.parametrize("failed", [0, 1])
def test_what_a_worker_has_shown_is_attested_when_all_workers_are_green(
    tmp_path: Path, failed: int
) -> None:
    path = tmp_path / "attestation.json"
    worker, controller = Witness(tmp_path), Witness(tmp_path)
    shown = {"subjects": {"a": "b"}, "predicate": PREDICATE, "path": str(path)}
    worker.shown = json.dumps(shown)
    output: dict[str, object] = {}
    finish_session(worker, SimpleNamespace(workeroutput=output), failed=0)
    assert not path.exists()
    controller.pytest_testnodedown(SimpleNamespace(workeroutput=output))
    finish_session(controller, SimpleNamespace(), failed=failed)
    assert path.exists() == (not failed)
    if not failed:
        assert attestation.read(path).subjects == {"a": "b"}


def finish_session(ended: Witness, config: SimpleNamespace, failed: int) -> None:
    """End a session with that many failed tests."""
    ended.pytest_sessionfinish(cast("Any", SimpleNamespace(config=config, testsfailed=failed)))


def test_a_tree_that_was_changed_meanwhile_is_not_attested(project: pytest.Pytester) -> None:
    body = "open('dags/assets.py', 'a').write('# later')"
    (project.path / "tests" / "e2e" / "test_second.py").write_text(SECOND.format(body=body))
    result = project.runpytest()
    result.stdout.fnmatch_lines("nothing is attested: dags/assets.py was changed while *")
    assert not (project.path / "attestation.json").exists()


def test_a_key_of_no_use_is_named_before_a_lab_is_made(config: Config, tmp_path: Path) -> None:
    with pytest.raises(PromotionError, match="is no private ed25519 key"):
        witness.digest_tested_files(
            replace(config, backend="kind", attestation_key=tmp_path / "absent")
        )


def test_other_backends_look_at_nothing(tmp_path: Path) -> None:
    assert (
        witness.digest_tested_files(Config(home=tmp_path, backend="embedded", root=tmp_path)) == {}
    )
