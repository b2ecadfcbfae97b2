"""An environment's file, and what is refused in it before AWS is called."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from eks import environment
from lab.config import KIT, TABLE_DAG
from lab.errors import EnvironmentFileError

LINES = {
    "account": '"111122223333"',
    "region": '"eu-central-1"',
    "branch": '"main"',
    "bucket": '"a-bucket"',
    "dataset": '"datasets/employee_attrition.csv"',
    "cluster": '"a-cluster"',
    "make_cluster": "true",
    "kubernetes": '"1.36"',
    "pipelines": '"https://git.example.org/me/pipelines.git"',
    "datasets": '"https://git.example.org/me/datasets.git"',
    "attestation_key": '""',
    "options": "[]",
    "settings": "{}",
}


PROJECT = """
[kit]
version = "1"
[lab]
name = "churn"
dag = "{dag}"
[data.orders]
path = "my data/orders"
"""


def write_tree(folder: Path, **changed: str | None) -> Path:
    """Write a project with one environment, `mine`, with keys changed or, by None, left out."""
    write_project(folder, TABLE_DAG)
    given = {**LINES, **changed}
    file = folder / environment.FOLDER / "mine.toml"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(f"{k} = {v}" for k, v in given.items() if v is not None))
    for option in ("spot", "private-repository"):
        (folder / environment.OPTIONS / option).mkdir(parents=True, exist_ok=True)
    return folder


def write_project(folder: Path, dag: str) -> None:
    (folder / "lab.toml").write_text(PROJECT.format(dag=dag))


def test_a_file_becomes_an_environment(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, options='["spot"]', settings='{host = "a.example.org"}')
    found = environment.load("mine", tree, tree)
    assert found.name == "mine"
    assert found.options == ("spot",)
    assert found.tags == {"mlops-lab:environment": "mine", "mlops-lab:cluster": "a-cluster"}
    assert found.fill("${bucket} in ${region}, ${host}", "x") == (
        "a-bucket in eu-central-1, a.example.org"
    )


@pytest.mark.parametrize("name", environment.list_names())
def test_the_environments_of_this_tree_can_be_read(name: str) -> None:
    assert environment.load(name).name == name


def test_what_a_file_may_choose_of_its_cluster(tmp_path: Path) -> None:
    subnets = '{eu-central-1a = "subnet-1", eu-central-1b = "subnet-2"}'
    tree = write_tree(
        tmp_path,
        nat_per_zone="true",
        public_access_cidrs='["203.0.113.0/24"]',
        vpc=f'{{id = "vpc-1", private = {subnets}}}',
        sizes='{airflow = {instanceTypes = ["m7i.xlarge"], volumeSize = 80}}',
        untested_images="true",
    )
    found = environment.load("mine", tree, tree)
    assert found.untested_images
    assert found.choices.nat_per_zone
    assert found.choices.public_access_cidrs == ("203.0.113.0/24",)
    assert found.choices.vpc["private"]["eu-central-1b"] == "subnet-2"
    assert found.choices.sizes["airflow"]["volumeSize"] == 80


def test_choices_of_a_cluster_that_is_there_already_are_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, make_cluster="false", nat_per_zone="true")
    with pytest.raises(EnvironmentFileError, match="are for a cluster that apply makes"):
        environment.load("mine", tree, tree)


def test_staging_follows_main_and_production_follows_release() -> None:
    staging, production = (environment.load(name) for name in ("staging", "production"))
    assert (staging.branch, production.branch) == ("main", "release")
    assert staging.pipelines == production.pipelines
    assert staging.bucket != production.bucket
    assert staging.datasets != production.datasets, "a commit names one bucket"
    assert staging.cluster != production.cluster


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("account", '"1111"'),
        ("account", "111122223333"),
        ("account", None),
        ("region", '"Frankfurt"'),
        ("branch", '"--upload-pack=x"'),
        ("branch", '"release/"'),
        ("bucket", '"Capital"'),
        ("bucket", '"ab"'),
        ("bucket", '"two..dots"'),
        ("dataset", '"/etc/passwd.csv"'),
        ("dataset", '"../other.csv"'),
        ("dataset", '"datasets/a.parquet"'),
        ("cluster", '"-x"'),
        ("cluster", f'"{"x" * 39}"'),
        ("make_cluster", '"yes"'),
        ("kubernetes", '"latest"'),
        ("pipelines", '"http://git.example.org/x.git"'),
        ("pipelines", '"https://me:secret@git.example.org/x.git"'),
        ("pipelines", '"ssh://git@git.example.org/x.git"'),
        ("pipelines", '"SSH://git@git.example.org/x.git"'),
        ("pipelines", '"git@git.example.org:x.git"'),
        ("pipelines", '"https://[git/x.git"'),
        ("pipelines", '"https://git.example.org/\\nx.git"'),
        ("pipelines", '"http://me:secret@git.example.org/x.git"'),
        ("datasets", '"file:///x.git"'),
        ("datasets", '"http://git.example.org/x.git"'),
        ("datasets", '"ssh://git@git.example.org/x.git"'),
        ("datasets", '"me:secret@git.example.org/x.git"'),
        ("options", '["nowhere"]'),
        ("settings", '{Host = "x"}'),
        ("settings", "{host = 1}"),
        ("unknown_key", '"x"'),
        ("nat_per_zone", '"yes"'),
        ("untested_images", "1"),
        ("public_access_cidrs", '"203.0.113.0/24"'),
        ("public_access_cidrs", '["203.0.113.1/24"]'),
        ("vpc", '{id = "vpc-1"}'),
        (
            "vpc",
            '{id = "mine", private = {eu-central-1a = "subnet-1", eu-central-1b = "subnet-2"}}',
        ),
        ("vpc", '{id = "vpc-1", private = {eu-central-1a = "subnet-1"}}'),
        ("vpc", '{id = "vpc-1", private = {frankfurt = "subnet-1", eu-central-1b = "subnet-2"}}'),
        ("vpc", '{id = "vpc-1", private = ["subnet-1", "subnet-2"]}'),
        ("vpc", '{id = "vpc-1", nat = "none"}'),
        ("sizes", "{workers = {}}"),
        ("sizes", "{training = {}}"),
        ("sizes", "{airflow = 3}"),
        ("sizes", "{airflow = {minSize = 3}}"),
        ("sizes", "{airflow = {minSize = 3, desiredCapacity = 2, maxSize = 4}}"),
        ("sizes", "{airflow = {minSize = -1, desiredCapacity = 2, maxSize = 4}}"),
        ("sizes", "{airflow = {minSize = true, desiredCapacity = 2, maxSize = 4}}"),
        ("sizes", '{airflow = {minSize = "3", desiredCapacity = 3, maxSize = 4}}'),
        ("sizes", "{airflow = {instanceTypes = 3}}"),
        ("sizes", "{airflow = {instanceTypes = []}}"),
        ("sizes", '{airflow = {instanceTypes = ["large"]}}'),
        ("sizes", "{airflow = {machines = 1}}"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    tmp_path: Path, key: str, value: str | None
) -> None:
    tree = write_tree(tmp_path, **{key: value})
    with pytest.raises(EnvironmentFileError) as refused:
        environment.load("mine", tree, tree)
    named = {"options": "option", "settings": "settings"}.get(key, key)
    assert named in refused.value.what
    assert "mine.toml" in refused.value.fix
    assert "secret" not in refused.value.what


def test_the_main_data_set_s_path_is_lab_toml_s_unless_the_file_names_another(
    tmp_path: Path,
) -> None:
    """Only the DAG that appends to a table needs one."""
    tree = write_tree(tmp_path, dataset=None)
    write_project(tree, "churn_pipeline")
    assert environment.load("mine", tree, tree).dataset == "my data/orders"
    file = tree / environment.FOLDER / "mine.toml"
    without = file.read_text()
    for path in ("2024", "a/b.parquet"):
        file.write_text(f'dataset = "{path}"\n{without}')
        assert environment.load("mine", tree, tree).dataset == path
    file.write_text(without)
    write_project(tree, TABLE_DAG)
    with pytest.raises(
        EnvironmentFileError, match=r"'my data/orders' is no \.csv, and dataset_pipe"
    ):
        environment.load("mine", tree, tree)


BY_KEY = {"options": '["private-repository"]', "pipelines": '"ssh://git@git.example.org/x.git"'}


def test_the_pipelines_are_read_by_a_key_with_its_option(tmp_path: Path) -> None:
    found = environment.load("mine", write_tree(tmp_path, **BY_KEY), tmp_path)
    assert found.pipelines == "ssh://git@git.example.org/x.git"


@pytest.mark.parametrize(
    ("key", "url"),
    [
        ("pipelines", '"https://git.example.org/x.git"'),
        ("pipelines", '"ssh://git:secret@git.example.org/x.git"'),
        ("datasets", '"ssh://git@git.example.org/x.git"'),
    ],
)
def test_with_its_option_nothing_else_is_read_by_a_key(tmp_path: Path, key: str, url: str) -> None:
    tree = write_tree(tmp_path, **{**BY_KEY, key: url})
    with pytest.raises(EnvironmentFileError, match=key) as refused:
        environment.load("mine", tree, tree)
    assert "secret" not in refused.value.what


def test_a_name_that_no_label_can_have_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path)
    file = tree / environment.FOLDER / "mine.toml"
    file.rename(file.with_name("My_own.toml"))
    with pytest.raises(EnvironmentFileError, match="name"):
        environment.load("My_own", tree, tree)


def test_an_environment_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(EnvironmentFileError) as refused:
        environment.load("prod")
    assert "production, staging" in refused.value.fix


def test_a_file_that_is_no_toml_is_refused(tmp_path: Path) -> None:
    tree = write_tree(tmp_path, account="]")
    with pytest.raises(EnvironmentFileError, match="no TOML"):
        environment.load("mine", tree, tree)


def test_a_word_that_nothing_gives_names_the_setting_and_the_file(tmp_path: Path) -> None:
    found = environment.load("mine", write_tree(tmp_path), tmp_path)
    with pytest.raises(EnvironmentFileError) as refused:
        found.fill("host: ${rds_host}", "values.yaml")
    assert "values.yaml needs rds_host" in refused.value.what
    assert "[settings]" in refused.value.fix


def test_every_option_of_this_tree_can_be_switched_on(tmp_path: Path) -> None:
    shutil.copytree(KIT / environment.OPTIONS, tmp_path / environment.OPTIONS)
    names = sorted(folder.name for folder in (KIT / environment.OPTIONS).glob("*/"))
    assert names
    url = '"ssh://git@git.example.org/x.git"'
    tree = write_tree(tmp_path, options=str(names).replace("'", '"'), pipelines=url)
    assert environment.load("mine", tree, tree).options == tuple(names)
