"""A whole promotion to moto's AWS, with a real git server, but without what is in the cluster.

`test_eks_in_the_cluster` and `test_eks_api` try that on kind.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eks import apply, attestation, destroy, registry, release, repositories
from eks.environment import FOLDER
from eks.ledger import Ledger
from eks.rendering import PUSHED, AwsOutputs
from eks.site import Site
from lab import layout
from lab.backends.embedded.gitserver.repositories import create_repository
from lab.backends.embedded.services import gitserver
from lab.client.git import run_git
from lab.cluster import docker
from lab.config import KIT, Config
from lab.delivery import bundle, publish
from lab.errors import AccountError, LabError, MachineError, NameTaken, PromotionError
from lab.lab import Lab
from lab.progress import silent_phase
from tests.support import attested
from tests.support.attested import make_statement
from tests.support.cloud import ACCOUNT, Cloud
from tests.support.needs import need_renderers, skip_or_fail
from tests.support.renderings import locked_images
from tests.support.stores import Project, new_project

pytestmark = pytest.mark.kind

DATASET = "datasets/employee_attrition.csv"
ADDONS = ("aws-ebs-csi-driver", "aws-efs-csi-driver", "eks-pod-identity-agent")


@pytest.fixture(autouse=True)
def _able() -> None:
    need_renderers()
    try:
        docker.inspect_engine()
    except MachineError as error:
        skip_or_fail(error.what)


@pytest.fixture
def pipelines(template: Project, tmp_path: Path) -> str:
    """Return the URL of a repository whose branch `main` has this checkout's DAGs."""
    (tmp_path / "pipelines").mkdir()
    project = new_project(template.stores, tmp_path / "pipelines")
    create_repository(project.stores.config.data / gitserver.NAME, project.name)
    write = partial(bundle.write_bundle, Config(home=tmp_path / "home"))
    publish.publish_dags(project.lab, project.lab.git_url, write)
    return project.lab.git_url


@pytest.fixture
def lab(empty: Project) -> Lab:
    return empty.lab


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[AwsOutputs]:
    """Return the list of what would have been installed in the cluster, which moto lacks."""
    seen: list[AwsOutputs] = []
    monkeypatch.setattr(release, "connect_api", lambda _: None)
    monkeypatch.setattr(release, "make", lambda _, known: seen.append(known))
    monkeypatch.setattr(release, "remove", lambda _: None)
    return seen


@pytest.fixture
def ready(
    cloud: Cloud,
    pipelines: str,
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    installed: list[AwsOutputs],
) -> Iterator[Site]:
    """Yield staging with an existing cluster, all of it attested; the registry has the images."""
    found = cloud.site(
        pipelines=pipelines, datasets=lab.git_url, dataset=DATASET, make_cluster=False
    )
    cloud.make_cluster(found, *ADDONS)
    put_images(cloud, found)
    attest(found, monkeypatch)
    monkeypatch.setenv("GIT_SYNC_USERNAME", lab.git_user)
    monkeypatch.setenv("GIT_SYNC_PASSWORD", lab.git_password)
    yield found
    shutil.rmtree(found.folder, ignore_errors=True)


def put_images(cloud: Cloud, site: Site) -> None:
    """Put this checkout's images into the registry, as a push would have."""
    for key in PUSHED:
        repository = registry.repository_name(site.environment, key)
        registry.make_repository(site, repository)
        digest = hashlib.sha256(key.encode()).hexdigest()
        cloud.client("ecr").put_image(
            repositoryName=repository,
            imageManifest=f'{{"schemaVersion": 2, "config": {{"digest": "sha256:{digest}"}}}}',
            imageManifestMediaType="application/vnd.docker.distribution.manifest.v2+json",
            imageTag=attested.tag_of(locked_images()[key]),
        )


def attest(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    path = site.folder / "attestation.json"
    monkeypatch.setenv("LAB_ATTESTATION", str(path))
    attestation.write(path, make_statement(site.config))


def agree() -> None:
    """Agree, as a person who says yes."""


def list_resources(cloud: Cloud) -> dict[str, list[Any]]:
    """Return the buckets, roles and file systems that are in AWS."""
    iam = cloud.client("iam")
    return {
        "buckets": [b["Name"] for b in cloud.client("s3").list_buckets()["Buckets"]],
        "roles": [
            role["RoleName"]
            for role in iam.list_roles()["Roles"]
            if not role["Path"].startswith("/aws")
        ],
        "filesystems": [
            one["FileSystemId"]
            for one in cloud.client("efs").describe_file_systems()["FileSystems"]
        ],
    }


def test_a_promotion_makes_everything_and_a_second_one_nothing(
    cloud: Cloud, ready: Site, lab: Lab, installed: list[AwsOutputs]
) -> None:
    apply.apply(ready, agree, silent_phase)
    once, ledger = list_resources(cloud), ready.ledger.entries()
    assert once["buckets"] == [ready.environment.bucket]
    assert {entry.state for entry in ledger} == {"made"}
    assert installed[0].filesystem.startswith("fs-")
    assert all("@sha256:" in reference for reference in installed[0].pushed.values())
    first = run_git(lab, "ls-remote", lab.git_url, "refs/heads/main", cwd=ready.folder)
    assert first
    apply.apply(ready, agree, silent_phase)
    assert list_resources(cloud) == once
    assert installed[1] == installed[0]
    assert run_git(lab, "ls-remote", lab.git_url, "refs/heads/main", cwd=ready.folder) == first
    key = next(
        entry["Key"]
        for entry in cloud.client("s3").list_objects_v2(Bucket=ready.environment.bucket)["Contents"]
    )
    assert key.startswith("store/files/md5/")


def test_what_was_made_is_removed_and_the_bucket_only_by_its_name(
    cloud: Cloud, ready: Site
) -> None:
    before = list_resources(cloud)
    apply.apply(ready, agree, silent_phase)
    destroy.destroy(ready, lambda: None, silent_phase)
    assert list_resources(cloud) == {**before, "buckets": [ready.environment.bucket]}
    assert [entry.kind for entry in ready.ledger.entries()] == ["bucket"]
    destroy.destroy(ready, lambda: ready.environment.bucket, silent_phase)
    assert list_resources(cloud) == before
    assert ready.ledger.entries() == []
    assert cloud.client("eks").list_clusters()["clusters"] == [ready.environment.cluster]


def expect_refusal(cloud: Cloud, site: Site, kind: type[LabError]) -> LabError:
    """Return the error of a promotion that was refused; nothing was made, nobody was asked."""
    before, ledger = list_resources(cloud), site.ledger.entries()
    asked: list[str] = []
    with pytest.raises(kind) as error:
        apply.apply(site, lambda: asked.append("?"), silent_phase)
    assert (list_resources(cloud), site.ledger.entries(), asked) == (before, ledger, [])
    return error.value


def test_without_an_attestation_nothing_is_made(
    cloud: Cloud, ready: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (ready.folder / "attestation.json").unlink()
    error = expect_refusal(cloud, ready, PromotionError)
    assert "nox -s e2e" in error.fix


def test_another_account_is_refused(
    cloud: Cloud, ready: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(ready, environment=replace(ready.environment, account="999999999999"))
    error = expect_refusal(cloud, other, AccountError)
    assert ACCOUNT in error.what
    assert "999999999999" in error.what


def push_by_hand(lab: Lab, url: str, folder: Path, change: Callable[[Path], object]) -> None:
    """Push to `main`, as somebody else, what `change` does in a clone."""
    clone = folder / "by hand"
    run_git(lab, "clone", "--quiet", url, clone, cwd=folder)
    change(clone)
    run_git(lab, "add", "--all", "--force", cwd=clone)
    run_git(lab, "commit", "--quiet", "--message", "By hand", cwd=clone)
    run_git(lab, "push", "--quiet", "origin", "HEAD:main", cwd=clone)


def write_zip(path: Path) -> None:
    """Write a file in which Airflow would look for DAGs, whatever its name ends in."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("evil.py", "DAG")


def write_file(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("[]\n")


def link_folder(path: Path) -> None:
    path.symlink_to("runtimes", target_is_directory=True)


@pytest.mark.parametrize(
    ("name", "put"),
    [
        ("sample_etl.py", write_file),
        ("sample_etl.py", Path.unlink),
        ("evil.zip", write_zip),
        ("queries.json", write_file),
        ("runtimes/names.yaml", write_file),
        ("linked", link_folder),
        # Publishing delivers none of these, but Airflow finds DAGs in them all the same.
        (".hidden.py", write_file),
        (".hidden/evil.py", write_file),
        ("__pycache__/evil.py", write_file),
        ("evil.pyc", write_zip),
    ],
)
def test_a_branch_with_other_dags_is_refused_by_the_files_name(
    ready: Site, lab: Lab, tmp_path: Path, name: str, put: Callable[[Path], object]
) -> None:
    push_by_hand(
        lab, ready.environment.pipelines, tmp_path, lambda clone: put(clone / "dags" / name)
    )
    with pytest.raises(PromotionError, match=ready.environment.branch) as error:
        repositories.check(ready, apply.repository_access(ready))
    assert error.value.what.endswith(f"attested ones: {name}")


def test_what_python_has_compiled_and_hidden_files_make_no_difference(
    ready: Site, lab: Lab, tmp_path: Path
) -> None:
    def add_ignored_files(clone: Path) -> None:
        write_file(clone / "dags" / "__pycache__" / "steps.cpython-311.pyc")
        write_file(clone / "dags" / ".gitkeep")
        write_file(clone / "docs" / "other.py")

    push_by_hand(lab, ready.environment.pipelines, tmp_path, add_ignored_files)
    repositories.check(ready, apply.repository_access(ready))


def test_what_is_attested_of_the_dags_is_what_a_branch_is_compared_with(tmp_path: Path) -> None:
    config = attested.copy_tree(tmp_path)
    for name in ("evil.zip", "a/b.json", ".hidden.py", ".d/x.yaml", "__pycache__/x.pyc", "y.pyc"):
        write_file(config.root / "dags" / name)
    bundle.write_bundle(config, tmp_path / "mirror")
    compared = {
        path.relative_to(tmp_path / "mirror")
        for path in repositories.list_dag_files(tmp_path / "mirror")
    }
    names = attestation.digest_files(config)
    attested_names = {name for name in names if name.startswith("dags/")}
    library = {name for name in names if "/delivery/library/" in name}
    delivered = {name.rpartition("/library/")[2] for name in library}
    assert {f"dags/{path.as_posix()}" for path in compared} == attested_names | {
        f"dags/{name}" for name in (*delivered, bundle.DECLARED)
    }
    assert {"dags/evil.zip", "dags/a/b.json", "dags/.airflowignore"} <= attested_names
    assert "dags/y.pyc" not in attested_names


# --- Where the datasets repository stores its versions --------------------------------------------


def change_dvc_config(url: str) -> Callable[[Path], None]:
    """Return a change that gives a repository a DVC configuration, and no pointer."""
    remote = f"[core]\n    remote = s3\n['remote \"s3\"']\n    url = {url}\n" if url else ""

    def change(clone: Path) -> None:
        (clone / ".dvc").mkdir(exist_ok=True)
        (clone / ".dvc" / "config").write_text(remote)

    return change


def test_a_repository_that_stores_in_another_bucket_is_refused(
    cloud: Cloud, ready: Site, lab: Lab
) -> None:
    """As if production named the repository that staging's apply has configured."""
    apply.apply(ready, agree, silent_phase)
    mine = ready.environment.bucket
    chosen = replace(ready.environment, name="production", bucket="lab-production")
    ledger = Ledger(ready.folder / "another.json", chosen.place)
    other = replace(ready, environment=chosen, ledger=ledger)
    error = expect_refusal(cloud, other, PromotionError)
    assert error.exit_code == 40
    assert f"{mine}/store" in error.what
    assert "lab-production/store" in error.what
    assert str(FOLDER / "production.toml") in error.fix
    with pytest.raises(PromotionError, match="lab-production/store"):
        repositories.make(other, apply.repository_access(other))


@pytest.mark.parametrize(
    "url", ["s3://another/store", "s3://lab-staging/elsewhere", "gs://lab-staging/store", ""]
)
def test_a_configuration_without_a_pointer_counts_too(
    ready: Site, lab: Lab, tmp_path: Path, url: str
) -> None:
    """The first version would be stored where it says."""
    push_by_hand(lab, lab.git_url, tmp_path, change_dvc_config(url))
    with pytest.raises(PromotionError, match="lab-staging/store only"):
        repositories.check(ready, apply.repository_access(ready))
    with pytest.raises(PromotionError, match="lab-staging/store only"):
        repositories.make(ready, apply.repository_access(ready))


def test_a_configuration_of_this_bucket_is_taken(
    cloud: Cloud, ready: Site, lab: Lab, tmp_path: Path
) -> None:
    push_by_hand(lab, lab.git_url, tmp_path, change_dvc_config("s3://lab-staging/store/"))
    apply.apply(ready, agree, silent_phase)
    found = repositories.read_datasets_state(apply.repository_access(ready))
    assert found == repositories.DatasetsState(pointer=True, store="lab-staging/store")


def test_the_steps_may_use_the_folder_that_is_asked_for() -> None:
    policy = json.loads((KIT / "eks" / "policies" / "steps.json").read_text())
    allowed = [entry["Resource"] for entry in policy["Statement"]]
    assert any(str(one).endswith(f"${{bucket}}/{layout.STORE}/*") for one in allowed)


def test_a_branch_that_is_not_there_is_refused(
    cloud: Cloud, ready: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(ready, environment=replace(ready.environment, branch="nowhere"))
    assert "nowhere" in expect_refusal(cloud, other, PromotionError).what


def test_without_an_account_of_the_git_server_nothing_is_made(
    cloud: Cloud, ready: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "secret_value", lambda *_: None)
    monkeypatch.delenv("GIT_SYNC_PASSWORD")
    error = expect_refusal(cloud, ready, PromotionError)
    assert "GIT_SYNC_PASSWORD" in error.what


def test_a_bucket_of_somebody_elses_ends_it_and_is_left_alone(cloud: Cloud, ready: Site) -> None:
    where = {"LocationConstraint": ready.environment.region}
    cloud.client_of_stranger().create_bucket(
        Bucket=ready.environment.bucket, CreateBucketConfiguration=where
    )
    with pytest.raises(NameTaken):
        apply.apply(ready, agree, silent_phase)
    assert [e.kind for e in ready.ledger.entries() if e.kind == "bucket"] == []


def test_a_person_who_says_no_changes_nothing(cloud: Cloud, ready: Site) -> None:
    before = list_resources(cloud)

    def decline() -> None:
        raise PromotionError("no", "")

    with pytest.raises(PromotionError):
        apply.apply(ready, decline, silent_phase)
    assert list_resources(cloud) == before
