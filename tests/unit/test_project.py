"""What a lab.toml declares: what is read, and what can't be right."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lab import project
from lab.config import KIT, Config
from lab.dataset import first_version
from lab.delivery import bundle
from lab.errors import DatasetError, DatasetMissing, LabError, ProjectError
from lab.home.state import State
from lab.lab import Lab
from tests.support.histories import build_lab

DATASET = "datasets/a.csv"
HEAD = '[kit]\nversion = "0.2.0"\n[lab]\nname = "mine"\ndag = "mine_pipeline"\n'
ONE = '[data.a]\npath = "data/a"\n'


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the folder of a project with a DAG and two things to build images from."""
    for folder in ("dags", "images/steps"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "dags" / "mine_pipeline.py").write_text("with DAG('mine_pipeline'): ...\n")
    (tmp_path / "images" / "dbt.txt").write_text("dbt-core==1.0\n")
    return tmp_path


def read(root: Path, text: str, head: str = HEAD) -> project.Project:
    (root / project.FILE).write_text(head + text, "utf-8")
    return project.read_project(root, samples=KIT)


def test_what_is_declared_is_read_in_its_order(root: Path) -> None:
    text = """
[data.model]
path = "models/größe in Zoll.joblib"
first = "data/größe.joblib"
[data.b_2]
path = "./data//b/"
[images.steps]
folder = "images/steps"
memory = "1.5Gi"
cpu = "500m"
[images.dbt]
requirements = "images/dbt.txt"
[origin]
url = "https://example.org/data.git"
"""
    found = read(root, text)
    assert found.paths == {"model": "models/größe in Zoll.joblib", "b_2": "data/b"}
    assert (found.main, found.data["model"].first) == ("model", "data/größe.joblib")
    assert (found.name, found.dag, found.samples) == ("mine", "mine_pipeline", False)
    assert found.images["steps"].folder == root / "images" / "steps"
    assert (found.images["steps"].memory, found.images["steps"].cpu) == ("1.5Gi", "500m")
    assert found.images["dbt"].requirements == root / "images" / "dbt.txt"
    assert (found.kit_version, found.origin) == ("0.2.0", "https://example.org/data.git")


def test_the_main_data_set_may_be_elsewhere_in_a_lab(root: Path) -> None:
    found = read(root, f'{ONE}[data.b]\npath = "data/b"\n')
    assert found.name_other_paths(DATASET) == {"b": "data/b"}
    with pytest.raises(ProjectError, match="a and b share files: they are at data and data/b"):
        found.name_other_paths("data")


def test_samples_bring_their_data_sets(root: Path) -> None:
    head = HEAD + "samples = true\n"
    samples = project.read_project(KIT)
    found = read(root, ONE, head)
    assert found.main == "a"
    assert found.paths == {"a": "data/a", **samples.paths}
    assert found.data["dataset"].first == project.KIT_DATA
    with pytest.raises(ProjectError, match="the samples have a data set model, too"):
        read(root, '[data.model]\npath = "data/a"\n', head)
    with pytest.raises(ProjectError, match="it declares no data set of its own"):
        read(root, "", head)


def test_the_kit_is_a_project_like_any_other() -> None:
    found = Config(home=KIT / "home").project
    assert found.main == "dataset"
    assert (KIT / "dags" / f"{found.dag}.py").exists()
    assert (
        found.kit_version
        == tomllib.loads((KIT / "pyproject.toml").read_text())["project"]["version"]
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[data", "it is no TOML"),
        ("", "it declares no data set"),
        ("[dat.a]", "it has a table [dat], which nothing reads; is it [data]?"),
        ('[data.a]\npaht = "b"', "[data.a] has `paht`, which nothing reads; is it `path`?"),
        ('[images.a]\nfoldr = "b"', "[images.a] has `foldr`, which nothing reads; is it `folder`?"),
        ('[data]\na = "b"', "data.a is a table"),
        ("[data.a]", "[data.a] lacks `path`"),
        ("[data.a]\npath = 1", "[data.a] path has to be a text"),
        ('[data.A]\npath = "b"', "'A' is no name of a data set"),
        (f'[data.{"a" * 41}]\npath = "b"', "is no name of a data set"),
        ('[data.a-b]\npath = "b"', "'a-b' is no name of a data set"),
        ('[data.a]\npath = "/b"', "the path of a, '/b', is none inside the repository"),
        ('[data.a]\npath = "b/../../c"', "is none inside the repository"),
        ('[data.a]\npath = "."', "is none inside the repository"),
        ('[data.a]\npath = ".git/b"', "has a name that git and DVC keep for themselves"),
        ('[data.a]\npath = ".dvc"', "has a name that git and DVC keep for themselves"),
        ('[data.a]\npath = "b.dvc"', "has a name that git and DVC keep for themselves"),
        ('[data.a]\npath = "b\\nc"', "has a control character"),
        ('[data.a]\npath = "b"\nfirst = "kit:employes"', "of the kit there is only"),
        (
            '[data.a]\npath = "b"\n[data.c]\npath = "./b"',
            "a and c share files: they are at b and b",
        ),
        ('[data.a]\npath = "b/c"\n[data.d]\npath = "b"', "d and a share files"),
        (f"{ONE}[images.step]\nfolder = 'images/steps'", "has the name of one of the kit's own"),
        (f"{ONE}[images.A]\nfolder = 'images/steps'", "'A' is no name of an image"),
        (f"{ONE}[images.a]\nfolder = 'images/none'", "there is no such folder"),
        (f"{ONE}[images.a]\nrequirements = 'images/steps'", "there is no such file"),
        (f"{ONE}[images.a]", "[images.a] has either `folder` or `requirements`"),
        (f"{ONE}[images.a]\nfolder = 'images/steps'\nmemory = 'much'", "is no amount"),
        (f"{ONE}[origin]\nurl = 1", "[origin] url has to be a text"),
    ],
)
def test_what_can_not_be_right_is_refused_in_one_line(root: Path, text: str, why: str) -> None:
    with pytest.raises(ProjectError, match=r"^lab\.toml: [^\n]+$") as raised:
        read(root, text)
    assert why in raised.value.what


@pytest.mark.parametrize(
    ("head", "why"),
    [
        (HEAD.replace('"mine"', '"Mein Projekt"'), "'Mein Projekt' is no name that Kubernetes"),
        (HEAD.replace('"mine"', f'"{"a" * 31}"'), "30 at most"),
        (HEAD.replace("dag =", "dga ="), "[lab] has `dga`, which nothing reads; is it `dag`?"),
        (HEAD.replace('dag = "mine_pipeline"', ""), "[lab] lacks `dag`"),
        (HEAD.replace('version = "0.2.0"', ""), "[kit] lacks `version`"),
        (HEAD + "samples = 1\n", "[lab] samples has to be true or false"),
        ("kit = 1\n", "kit is a table: [kit]"),
    ],
)
def test_a_head_that_can_not_be_right_is_refused(root: Path, head: str, why: str) -> None:
    with pytest.raises(ProjectError, match=r"^lab\.toml: [^\n]+$") as raised:
        read(root, ONE if "[kit]" in head else "", head)
    assert why in raised.value.what


def test_a_file_that_is_not_text_or_can_not_be_read_is_refused(root: Path) -> None:
    file = root / project.FILE
    file.write_bytes(b"\xff")
    with pytest.raises(ProjectError, match="it is no TOML"):
        project.read_project(root)
    file.unlink()
    with pytest.raises(ProjectError, match=r"there is no lab\.toml in"):
        project.read_project(root)
    file.mkdir()
    with pytest.raises(ProjectError, match=os.strerror(21)):
        project.read_project(root)


def test_neighbours_with_a_common_beginning_share_nothing(root: Path) -> None:
    text = '[data.a]\npath = "data/b"\n[data.b]\npath = "data/b-c"\n[data.c]\npath = "data/b.d"'
    assert len(read(root, text).data) == 3


def test_a_lab_knows_them_by_name_and_prints_none(tmp_path: Path) -> None:
    lab = build_lab(tmp_path, DATASET, {"model": "m"})
    assert lab.data_paths == {"dataset": DATASET, "model": "m"}
    assert "data_sets" not in lab.env()
    values: dict[str, Any] = {**lab.env()}
    assert Lab(**values).data_paths == {"dataset": DATASET}


# --- Where a project is ---------------------------------------------------------------------------


def test_a_project_is_found_from_any_folder_in_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(root, ONE)
    inner = root / "images" / "steps"
    assert project.find_root(None, inner, KIT) == root
    monkeypatch.chdir(inner)
    assert Config.from_environment({}).home == root / ".lab"
    assert Config.from_environment({}).project.name == "mine"


def test_a_variable_names_another_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(root, ONE)
    monkeypatch.chdir(KIT)
    assert Config.from_environment({"LAB_PROJECT": str(root)}).root == root
    with pytest.raises(ProjectError, match=r"has no lab\.toml"):
        Config.from_environment({"LAB_PROJECT": str(root / "dags")})


def test_outside_of_any_project_there_is_the_kit_s_own_or_an_error(tmp_path: Path) -> None:
    assert project.find_root(None, tmp_path, KIT) == KIT
    with pytest.raises(ProjectError, match=r"there is no lab\.toml here or above") as raised:
        project.find_root(None, tmp_path, None)
    assert "lab init NAME" in raised.value.fix


# --- First versions -------------------------------------------------------------------------------


def config_of(root: Path, text: str, **choices: Any) -> Config:
    read(root, text)
    return Config(home=root / ".lab", root=root, **choices)


def test_each_first_version_is_taken_from_where_it_is_said_to_be(root: Path) -> None:
    text = (
        f'{ONE}first = "in/a"\n[data.b]\npath = "b"\n[data.c]\npath = "c"\nfirst = "kit:employees"'
    )
    config = config_of(root, text)
    known = State("embedded", "sqlite", "data/a", None, {})
    listed = first_version.list_first_versions(config, known)
    assert [(one.name, one.path, one.is_given) for one in listed] == [
        ("a", "data/a", True),
        ("c", "c", False),
    ]
    assert listed[0].source == root / "in" / "a"
    other = State("embedded", "sqlite", "datasets/x.bin", "/data/x.bin", {})
    first = first_version.list_first_versions(config, other)[0]
    assert (first.path, str(first.source)) == ("datasets/x.bin", "/data/x.bin")


def test_a_first_version_that_dvc_could_not_keep_is_refused(root: Path) -> None:
    config = config_of(root, f'{ONE}first = "in/a"\n')
    with pytest.raises(DatasetMissing, match="there is no such file") as raised:
        first_version.refuse_unfit(config.project)
    assert "correct `first` of [data.a] in lab.toml" in raised.value.fix
    (root / "in").mkdir()
    (root / "in" / "a").mkdir()
    (root / "in" / "a" / "link").symlink_to("nowhere")
    with pytest.raises(DatasetError, match="is a symbolic link"):
        first_version.refuse_unfit(config.project)
    (root / "in" / "a" / "link").unlink()
    (root / "in" / "a" / "ragged.csv").write_text("a,b\n1\n")  # no step here has to read it
    first_version.refuse_unfit(config.project)


# --- What is delivered ----------------------------------------------------------------------------


def test_a_bundle_has_the_dags_the_library_and_what_it_must_know(root: Path) -> None:
    (root / "dags" / "team").mkdir()
    (root / "dags" / "team" / "notes.txt").write_text("kept")
    (root / "dags" / ".airflowignore").write_text("team/")
    (root / "dags" / ".secret").write_text("left out")
    text = f"{ONE}[images.steps]\nfolder = 'images/steps'\nmemory = '1Gi'\n"
    config = config_of(root, text)
    target = root / "delivered"
    (target / "old").mkdir(parents=True)
    bundle.write_bundle(config, target)
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert {"mine_pipeline.py", "steps.py", "runtimes/pod.py", "team/notes.txt"} <= names
    assert not names & {"dataset_pipeline.py", ".secret"}
    assert not (target / "old").exists()
    assert (target / ".airflowignore").read_text().splitlines()[1:] == [
        "steps.py",
        "runtimes/",
        "team/",
    ]
    assert '"memory": "1Gi"' in (target / "declared.json").read_text()
    assert bundle.find_dag_files(config) == ["mine_pipeline.py"]


def test_samples_are_delivered_when_asked_for(root: Path) -> None:
    (root / project.FILE).write_text(f"{HEAD}samples = true\n{ONE}", "utf-8")
    config = Config(home=root / ".lab", root=root)
    bundle.write_bundle(config, root / "delivered")
    assert (root / "delivered" / "dataset_pipeline.py").exists()
    assert {"dataset_pipeline.py", "mine_pipeline.py"} <= {*bundle.find_dag_files(config)}


@pytest.mark.parametrize("name", ["steps.py", "runtimes", "declared.json"])
def test_a_file_that_the_kit_s_would_replace_is_refused(root: Path, name: str) -> None:
    (root / "dags" / name).mkdir()
    with pytest.raises(ProjectError, match=f"^dags/{name} has the name of a file"):
        bundle.refuse_taken_names(config_of(root, ONE))


def test_a_project_without_dags_is_told(root: Path) -> None:
    (root / "dags" / "mine_pipeline.py").unlink()
    (root / "dags").rmdir()
    with pytest.raises(ProjectError, match="has no folder dags/"):
        bundle.refuse_taken_names(config_of(root, ONE))


def test_a_bundle_is_written_into_a_clone_and_over_nothing_else(root: Path, tmp_path: Path) -> None:
    config = config_of(root, ONE)
    clone = root.parent / f"{root.name}-clone"
    (clone / "dags").mkdir(parents=True)
    (clone / "dags" / "old.py").write_text("")
    bundle.write_elsewhere(config, clone / "dags")
    assert {path.name for path in (clone / "dags").glob("*.py")} == {"mine_pipeline.py", "steps.py"}
    for target in (root, root / "dags", root.parent, clone):
        with pytest.raises(LabError, match=r"is in this project|is not empty"):
            bundle.write_elsewhere(config, target)
    assert (root / "dags" / "mine_pipeline.py").exists()
