"""The model's steps as real processes, against the lab's real S3 server and git server."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import numpy as np
import pytest
import yaml

from dataset_steps import publication
from dataset_steps.errors import StepError
from lab import layout
from lab.client import versions
from lab.dataset.employees import write_employees
from model_steps import records, schema
from model_steps.request import Request
from model_steps.schema import Schema
from tests.support.steps import MEASURE, run_dvc
from tests.support.stores import DAG_VERSION, PATH, md5_of, new_project
from tests.support.training import (
    CONF,
    DAG,
    METRICS,
    MODEL,
    RECORDS,
    SCHEMA,
    STEPS,
    first_records,
    list_training_runs,
    new_training,
    read_published,
)

if TYPE_CHECKING:
    from tests.support.stores import Project

RESULT = f"results/{DAG}/model.json"
VALUES = ("md5:", "size:")  # what a run changes in a model's pointer
WORK = ("pull", "prepare", "train", "validate")  # all that comes before the publishing


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the lab's own dataset, as a new lab has it."""
    path = tmp_path_factory.mktemp("employees") / "employees.csv"
    write_employees(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def employees(whole: bytes) -> bytes:
    """Return the first records of it: enough to learn something from."""
    return first_records(whole, RECORDS)


@pytest.fixture
def project(project: Project, employees: bytes) -> Project:
    """Return a repository whose newest dataset is one to train on."""
    project.replace_dataset(employees)
    return project


@pytest.fixture(scope="module")
def first_model(
    template: Project, employees: bytes, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Return a repository with a model that a run has just published. Push nothing to it."""
    project = copy_project(template, tmp_path_factory.mktemp("first"))
    project.replace_dataset(employees)
    new_training(project).run_steps(*STEPS)
    return project


@pytest.fixture
def modelled(first_model: Project, tmp_path: Path) -> Project:
    """Return a test's own copy of the repository with that model."""
    return copy_project(first_model, tmp_path)


def copy_project(other: Project, folder: Path) -> Project:
    project = new_project(other.stores, folder)
    shutil.copytree(other.bare, project.bare)
    return project


def find_dataset_commit(project: Project) -> str:
    """Return the commit of the newest dataset."""
    return versions.read_history(project.lab, "main")[0].commit


# --- A run ----------------------------------------------------------------------------------------


def test_a_run_makes_one_commit(project: Project, employees: bytes) -> None:
    before = project.list_commits()[-1]
    run = replace(new_training(project), fresh=True)
    run.run_steps(*STEPS)
    after = project.list_commits()[-1]
    found = read_published(project)
    assert (after.parents, found.commit) == ((before.hash,), after.hash)
    assert found.trailers == {
        "Run-Id": run.id,
        "Dag-Id": DAG,
        "Dag-Version": DAG_VERSION,
        "Data-Path": MODEL,
        "Data-Md5": md5_of(found.content),
        "Data-Size": str(len(found.content)),
        "From-Path": PATH,
        "From-Commit": before.hash,
        "From-Md5": md5_of(employees),
    }
    assert after.message.startswith(f"data: train {MODEL}\n\nRun-Id: ")
    changed = project.git("show", "--name-status", "--format=%an", after.hash).split()
    names = ("dvc.yaml", "models/.gitignore", f"{MODEL}.dvc", METRICS, SCHEMA)
    assert changed == [DAG, *(word for name in names for word in ("A", name))]
    assert project.list_leftovers() == []
    body = project.stores.client.get_object(Bucket=layout.BUCKET, Key=RESULT)["Body"]
    assert json.loads(body.read()) == {
        "run_id": run.id,
        "dag_id": DAG,
        "dag_version": DAG_VERSION,
        "commit": found.commit,
        "data": [
            {
                "name": "model",
                "path": MODEL,
                "md5": md5_of(found.content),
                "size": len(found.content),
            }
        ],
        "from": [
            {
                "name": "dataset",
                "path": PATH,
                "commit": before.hash,
                "md5": md5_of(employees),
            }
        ],
        "metrics": found.metrics,
    }


def test_the_metrics_say_how_good_the_model_is_on_records_it_never_saw(
    first_model: Project, employees: bytes
) -> None:
    found = read_published(first_model)
    rows = [line.split(",") for line in employees.decode().splitlines()]
    header, held_out = rows[0], [row for row in rows[1:] if row[-1] == "test"]
    columns = found.schema["features"]
    assert not {"Employee ID", "Attrition", "dataset_type"} & set(columns)
    model = load_model(found.content)
    places = [header.index(name) for name in columns]
    said = model.predict([[row[place] for place in places] for row in held_out])
    answers = np.array([row[header.index("Attrition")] for row in held_out])
    assert found.metrics["accuracy"] == round(float((said == answers).mean()), 6)
    assert found.metrics["held_out_records"] == len(held_out)
    assert found.metrics["training_records"] == RECORDS - len(held_out)
    assert 0.7 < found.metrics["roc_auc"] < 0.9, "the dataset says much of who leaves, never all"
    assert found.metrics["threshold"] == 0.6


def load_model(content: bytes) -> Any:
    """Load the model as somebody does who has scikit-learn and nothing of the lab."""
    import io

    assert b"model_steps" not in content
    return joblib.load(io.BytesIO(content))


def test_anybody_can_pull_a_model_and_see_its_metrics(first_model: Project, tmp_path: Path) -> None:
    project, clone = first_model, tmp_path / "clone"
    project.git("clone", "--quiet", project.lab.git_url, clone, cwd=tmp_path)
    run_dvc(clone, project, "pull")
    found = read_published(project)
    assert (clone / MODEL).read_bytes() == found.content
    shown = json.loads(run_dvc(clone, project, "metrics", "show", "--json"))
    (files,) = (part["data"] for part in shown.values())
    assert files[METRICS]["data"]["roc_auc"] == found.metrics["roc_auc"]
    assert "up to date" in run_dvc(clone, project, "status")
    assert project.git("status", "--porcelain", cwd=clone) == ""


def test_the_same_data_and_seed_make_the_same_model(modelled: Project) -> None:
    """The very same model makes no commit, nor a result in the bucket."""
    found, tip = read_published(modelled), modelled.tip()
    said = new_training(modelled).run_steps(*STEPS)
    assert "byte for byte what main has: no commit was made" in said
    assert modelled.tip() == tip
    new_training(modelled, SEED="8").run_steps(*STEPS)
    assert read_published(modelled).content != found.content
    assert len(list_training_runs(modelled)) == 2


def test_a_model_of_an_older_data_commit(project: Project, whole: bytes, employees: bytes) -> None:
    older = find_dataset_commit(project)
    project.replace_dataset(first_records(whole, RECORDS + 500))
    project.push_change(lambda clone: write_text(clone / "README.md", "# Data\n"))
    newer = project.list_commits()[-2].hash
    for seed, asked, made, content in (
        ("1", older, older, employees),
        ("2", older[:7], older, employees),
        # Not the commit that changed the README.
        ("3", "main", newer, first_records(whole, RECORDS + 500)),
    ):
        new_training(project, DATA_COMMIT=asked, SEED=seed).run_steps(*STEPS)
        trailers = read_published(project).trailers
        assert (trailers["From-Commit"], trailers["From-Md5"]) == (made, md5_of(content))
    assert project.list_commits()[-1].md5 == md5_of(first_records(whole, RECORDS + 500)), (
        "the newest data stays"
    )


def test_models_change_nothing_of_the_dataset_s_line(modelled: Project) -> None:
    before = versions.read_history(modelled.lab, "main~1")
    assert versions.read_history(modelled.lab, "main") == before
    modelled.run().run_steps("pull", "modify", "publish")
    new_training(modelled, SEED="8").run_steps(*STEPS)
    after = versions.read_history(modelled.lab, "main")
    assert after[1:] == before
    assert read_published(modelled).trailers["From-Commit"] == after[0].commit


def test_the_lab_reads_the_newest_model(modelled: Project) -> None:
    found = read_published(modelled)
    modelled.run().run_steps("pull", "modify", "publish")
    model = versions.read_model(modelled.lab, "main")
    assert (model.commit, model.md5) == (found.commit, md5_of(found.content))
    assert model.size == len(found.content)
    assert model.metrics == found.metrics
    assert model.trailers.items() <= found.trailers.items()
    assert model.data_commit == found.trailers["From-Commit"]
    with versions.temporary_checkout(modelled.lab, "main", MODEL, PATH) as checkout:
        assert checkout.read(MODEL) == found.content
        assert md5_of(checkout.read(PATH)) == modelled.list_commits()[-1].md5


def write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


# --- Runs that are killed, repeated, or not alone -------------------------------------------------

PLACES = [
    ("pull", "after", "dataset_steps.repository:clone"),
    ("pull", "before", "dataset_steps.remote:Remote.download"),
    ("prepare", "after", "model_steps.records:split"),
    ("prepare", "before", "dataset_steps.workspace:Workspace.record"),
    ("prepare", "after", "dataset_steps.workspace:Workspace.record"),
    ("train", "after", "model_steps.train:fit_pipeline"),
    ("train", "after", "model_steps.model:dump"),
    ("train", "after", "dataset_steps.workspace:Workspace.record"),
    ("validate", "before", "dataset_steps.workspace:Workspace.seal"),
    ("validate", "after", "dataset_steps.workspace:Workspace.seal"),
    ("publish", "before", "dataset_steps.remote:Remote.store"),
    ("publish", "after", "dataset_steps.remote:Remote.store"),
    ("publish", "after", "dataset_steps.pointer:write"),
    ("publish", "after", "dataset_steps.repository:commit"),
    ("publish", "after", "dataset_steps.repository:push"),
    ("publish", "after", "dataset_steps.result:write"),
    ("publish", "before", "dataset_steps.workspace:Workspace.remove"),
    ("publish", "after", "dataset_steps.workspace:Workspace.clear"),
]


def test_a_run_whose_steps_are_killed_between_all_that_they_do(project: Project) -> None:
    run = new_training(project, SEED="11")  # no other test has stored the model of this seed
    for step in STEPS:
        for _, when, place in (p for p in PLACES if p[0] == step):
            run.kill_step(step, when, place)
            assert len(list_training_runs(project)) <= 1
            if list_training_runs(project):
                read_published(project)
        run.run_steps(step)
    assert list_training_runs(project) == [run.id]
    read_published(project)
    assert not run.folder.exists()


def test_every_step_can_be_repeated(project: Project) -> None:
    run = new_training(project)
    run.run_steps("pull", "prepare")
    assert "already prepared" in run.run_steps("prepare")
    run.run_steps("train")
    assert "already trained" in run.run_steps("train")
    said = run.run_steps("validate")
    assert run.run_steps("validate") == said
    run.run_steps("publish")
    tip = project.tip()
    assert tip in run.run_steps("publish")
    run.run_steps(*STEPS)  # as when somebody clears a finished run
    assert (project.tip(), list_training_runs(project), project.list_leftovers()) == (
        tip,
        [run.id],
        [],
    )


def test_no_commit_names_a_model_that_is_not_stored(project: Project) -> None:
    run = new_training(project)
    run.run_steps(*WORK)
    tip, content = project.tip(), (run.folder / "repository" / MODEL).read_bytes()
    run.kill_step("publish", "after", "dataset_steps.remote:Remote.store")
    assert project.stores.read_object(md5_of(content)) == content
    assert project.tip() == tip
    run.run_steps("publish")
    assert read_published(project).content == content


def test_a_branch_that_moves_during_the_push(project: Project) -> None:
    run, other = new_training(project), project.with_own_folder().run()
    run.run_steps(*WORK)
    data = project.tip()
    with run.holding_step("publish", "dataset_steps.repository:push"):
        project.push_change(lambda clone: write_text(clone / "README.md", "# Data\n"))
        other.run_steps("pull", "modify", "publish")
    *_, readme, record, mine = project.list_commits()
    assert (record.parents, mine.parents) == ((readme.hash,), (record.hash,))
    assert (record.trailers["Run-Id"], list_training_runs(project)) == (other.id, [run.id])
    assert read_published(project).trailers["From-Commit"] == data
    assert project.git("show", "main:README.md") == "# Data\n"


def test_a_dataset_run_that_is_overtaken_by_a_model(project: Project) -> None:
    run, other = new_training(project), project.with_own_folder().run()
    run.run_steps(*WORK)
    other.run_steps("pull", "modify")
    with other.holding_step("publish", "repository:push"):
        run.run_steps("publish")
    *_, model, record = project.list_commits()
    assert (record.parents, model.trailers["Run-Id"]) == ((model.hash,), run.id)
    assert read_published(project).content


def test_two_runs_at_once_make_two_commits(project: Project) -> None:
    run, other = new_training(project, SEED="1"), new_training(project.with_own_folder(), SEED="2")
    for one in (run, other):
        one.run_steps(*WORK)
    with run.holding_step("publish", "dataset_steps.repository:push"):
        other.run_steps("publish")
        first = read_published(project)
    assert list_training_runs(project) == [other.id, run.id]
    assert (
        read_published(project).content
        != first.content
        == read_published(project, "main~1").content
    )


def test_steps_out_of_order(project: Project) -> None:
    tip, run = project.tip(), new_training(project)
    assert "nothing was pulled" in run.expect_refusal("publish")
    assert "dataset was not pulled" in run.expect_refusal("prepare")
    for step in ("validate", "train"):
        assert "nothing of prepare_features" in run.expect_refusal(step)
    run.run_steps("pull", "prepare")
    assert "nothing of train_model" in run.expect_refusal("validate")
    assert MODEL in run.expect_refusal("publish")
    run.run_steps("train")
    assert f"no step wrote {SCHEMA}" in run.expect_refusal("publish")
    assert project.tip() == tip


# --- Models that are not published ----------------------------------------------------------------


def test_a_model_below_the_threshold_is_not_published(modelled: Project) -> None:
    kept = read_published(modelled)
    run = new_training(modelled, THRESHOLD="0.95")
    run.run_steps("pull", "prepare", "train")
    said = run.expect_refusal("validate")
    assert f"roc_auc is {kept.metrics['roc_auc']} on" in said
    assert "below the threshold of 0.95" in said
    assert f"no step wrote {METRICS}" in run.expect_refusal("publish"), "not those of main"
    assert read_published(modelled) == kept


def test_a_model_that_was_changed_or_lost_is_not_read(project: Project) -> None:
    run = new_training(project)
    run.run_steps(*WORK)
    tip, path = project.tip(), run.folder / "repository" / MODEL
    content = path.read_bytes()
    for wrong in (content[:-9], content[:-9] + bytes(9), b"", None):
        path.unlink() if wrong is None else path.write_bytes(wrong)
        said = run.expect_refusal("publish")
        assert ("model was changed by somebody else" if wrong is not None else MODEL) in said
        assert "is not the one that was trained" in run.expect_refusal("validate")
    assert project.tip() == tip
    run.run_steps("train", "validate", "publish")
    assert read_published(project).content == content


@pytest.mark.parametrize("wrong", ["text", "version"])
def test_a_model_that_can_not_be_loaded(project: Project, wrong: str) -> None:
    """Its hash is right, but this scikit-learn can't read it."""
    import sklearn

    run = new_training(project)
    run.run_steps("pull", "prepare", "train")
    path = run.folder / "repository" / MODEL
    version = sklearn.__version__.encode()
    content = b"no pickle" if wrong == "text" else path.read_bytes().replace(version, b"0.9.9")
    path.write_bytes(content)
    record = {"md5": md5_of(content), "size": len(content)}
    (run.folder / "trained.json").write_text(json.dumps(record))
    said = run.expect_refusal("validate")
    assert "can't be read" in said
    assert "clear train_model" in said
    assert list_training_runs(project) == []


def test_a_data_commit_that_does_not_exist(project: Project) -> None:
    tip = project.tip()
    for asked in ("0123456789", "0" * 40, project.git("rev-parse", f"main:{PATH}.dvc").strip()):
        run = new_training(project, DATA_COMMIT=asked)
        assert f"has no commit {asked} on any branch" in run.expect_refusal("pull")
    assert project.tip() == tip


def test_a_data_commit_without_a_dataset(empty: Project) -> None:
    empty.push_change(lambda clone: write_text(clone / "README.md", "# Data\n"))
    assert f"has no {PATH}.dvc" in new_training(empty).expect_refusal("pull")


def test_an_object_that_is_gone(project: Project, whole: bytes) -> None:
    key = project.replace_dataset(first_records(whole, RECORDS + 1))
    project.stores.client.delete_object(Bucket=layout.BUCKET, Key=key)
    assert f"the remote has no object s3://{layout.BUCKET}/{key}" in new_training(
        project
    ).expect_refusal("pull")


def test_what_is_there_of_dvc_yaml_stays(tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    write_text(path, "# theirs\nmetrics:\n  - other.json\nplots: []\n")
    for _ in range(2):
        publication.register_metrics(path, [METRICS])
        now = path.read_text()
        assert "# theirs" in now
        assert yaml.safe_load(now) == {"metrics": ["other.json", METRICS], "plots": []}


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("# theirs\n\n# alone\n", f"# theirs\n\n# alone\n\nmetrics:\n- {METRICS}\n"),
        ("stages: {} # none\n", f"stages: {{}} # none\nmetrics:\n- {METRICS}\n"),
        (f"metrics:   [ {METRICS} ]  # theirs\n", None),
        (f"metrics:\n  - {METRICS}:\n      cache: false\n", None),
    ],
)
def test_dvc_yaml_is_edited_where_it_has_to_be(
    tmp_path: Path, text: str, after: str | None
) -> None:
    path = tmp_path / "dvc.yaml"
    write_text(path, text)
    for _ in range(2):
        publication.register_metrics(path, [METRICS])
        assert path.read_text() == (after or text)


def test_what_somebody_has_noted_of_a_model_stays(modelled: Project) -> None:
    """A new model's run changes what it knows of; the model goes where the pointer says."""
    archive = f"['remote \"archive\"']\nurl = s3://{layout.BUCKET}/archive\n"

    def note(clone: Path) -> None:
        config, path = clone / ".dvc" / "config", clone / f"{MODEL}.dvc"
        write_text(config, config.read_text() + archive)
        pointer = f"{path.read_text()}meta:\n  owner: me # not you\n"
        write_text(path, f"# theirs\n{pointer}".replace("  hash:", "  remote: archive\n  hash:"))

    modelled.push_change(note)
    before = modelled.git("show", f"main:{MODEL}.dvc")
    run = new_training(modelled, SEED="5")
    run.run_steps(*STEPS)
    after = modelled.git("show", f"main:{MODEL}.dvc")
    kept = [line for line in before.splitlines() if not line.strip("- ").startswith(VALUES)]
    assert [line for line in after.splitlines() if not line.strip("- ").startswith(VALUES)] == kept
    (out,), meta = yaml.safe_load(after)["outs"], yaml.safe_load(after)["meta"]
    content = modelled.stores.read_object(out["md5"], prefix="archive/files/md5")
    assert (md5_of(content), len(content)) == (out["md5"], out["size"])
    assert meta == {"owner": "me"}


@pytest.mark.parametrize("text", ["metrics: {}\n", "- a\n", "metrics: [\n", "text\n"])
def test_a_dvc_yaml_that_is_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "dvc.yaml"
    write_text(path, text)
    with pytest.raises(StepError, match=r"dvc\.yaml"):
        publication.register_metrics(path, [METRICS])


# --- Schemas --------------------------------------------------------------------------------------


def change_schema(content: bytes) -> bytes:
    """Return the dataset with a column less, a new one, and one that holds something else."""
    header, *rows = (line.split(",") for line in content.decode().splitlines())
    age, years, role = (header.index(n) for n in ("Age", "Years at Company", "Job Role"))
    header[age] = "Birthday"
    for row in rows:
        row[age] = f"{row[age]}-01-01"
        row[years] = f"{row[years]} years"
        row[role] = row[role].upper()
    return "".join(",".join(row) + "\n" for row in [header, *rows]).encode()


def test_a_dataset_of_another_schema_is_refused_until_it_is_accepted(
    modelled: Project, employees: bytes
) -> None:
    project, kept = modelled, read_published(modelled)
    project.replace_dataset(change_schema(employees))
    refused = new_training(project)
    refused.run_steps("pull")
    said = refused.expect_refusal("prepare")
    for part in ("'Age' is missing", "'Birthday' is new", "'Years at Company' is text and was int"):
        assert part in said
    assert "Job Role" not in said
    assert "accept_schema_change" in said
    assert versions.read_model(project.lab, "main").commit == kept.commit
    accepted = new_training(project, ACCEPT_SCHEMA_CHANGE="true")
    accepted.run_steps(*STEPS)
    assert read_published(project).schema["columns"]["Birthday"] == "text"
    older = new_training(project, DATA_COMMIT=kept.trailers["From-Commit"])
    older.run_steps("pull")
    assert "'Birthday' is missing" in older.expect_refusal("prepare")
    assert list_training_runs(project)[1:] == [accepted.id]


def test_a_schema_that_another_run_published_meanwhile(project: Project, employees: bytes) -> None:
    """The steps run again, and find that their data no longer fits."""
    older, free = new_training(project, DATA_COMMIT=project.tip()), new_training(project, SEED="8")
    for run in (older, free):
        run.run_steps(*WORK)
    project.replace_dataset(change_schema(employees))
    new_training(project).run_steps(*STEPS)
    tip = project.tip()
    done = older.run_step("publish")
    assert (done.code, project.tip()) == (65, tip)
    assert "'Birthday' is missing" in done.output
    free.run_steps("publish")
    assert "Birthday" in read_published(project).schema["columns"], "of the newest data"


def test_a_schema_in_the_repository_that_is_none(modelled: Project) -> None:
    modelled.push_change(lambda clone: write_text(clone / SCHEMA, "{}"))
    run = new_training(modelled)
    run.run_steps("pull")
    assert "is not a schema" in run.expect_refusal("prepare")


def test_what_is_a_drift_and_what_is_not() -> None:
    old = Schema({"a": "integer", "b": "text", "c": "number"})
    assert schema.find_changes(old, Schema({"c": "number", "a": "integer", "b": "text"})) == []
    assert schema.find_changes(old, Schema({"a": "number", "b": "text", "d": "text"})) == [
        "'c' is missing",
        "'d' is new",
        "'a' is number and was integer",
    ]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "-2", "+3"], "integer"),
        (["1", "2.5", "3"], "number"),
        (["1e3", ".5", "7."], "number"),
        (["1", "", "2"], "integer"),
        (["1", "x", "2"], "text"),
        (["2.5", "nan"], "text"),
        (["2.5", "inf"], "text"),
        (["1e9999"], "text"),
        (["1_000"], "text"),
        (["٣"], "integer"),
        ([""], None),
        ([], None),
    ],
)
def test_what_a_column_holds(values: list[str], kind: str | None) -> None:
    found = None
    for value in values:
        found = schema.widen(found, value)
    assert found == kind
    if kind in ("integer", "number"):
        assert all(np.isfinite(records.parse_number(value)) for value in values if value)


# --- Datasets on which no model can be trained ----------------------------------------------------

HEADER = "Employee ID,Age,Attrition,dataset_type\n"


def make_rows(*changes: tuple[int, str]) -> str:
    """Return the rows of a dataset that is just large enough, with other text on some lines."""
    rows = [
        f"{n},{20 + n % 40},{'Left' if n % 2 else 'Stayed'},{part}\n"
        for part in ("train", "test")
        for n in range(2 * records.LEAST)
    ]
    for line, text in changes:
        rows[line - 2] = text
    return "".join(rows)


BROKEN = [
    (HEADER.replace("Attrition", "Left"), make_rows(), "no column Attrition, which"),
    (HEADER.replace("Attrition,dataset_type", "a,b"), make_rows(), "no column dataset_type"),
    (HEADER.replace("Age", "Employee ID"), make_rows(), "names a column twice"),
    (HEADER, make_rows((9, "1,20,Left\n")), "line 9 has 3 fields, the header 4"),
    (HEADER, make_rows((9, '1,"20,Left,train\n')), "the record of line 9 is never closed"),
    (
        HEADER,
        make_rows((9, "1,20,Left,spare\n")),
        "record 8 of the dataset has 'spare' in the column",
    ),
    (HEADER, make_rows((9, "1,20,Maybe,train\n")), "record 8 of the dataset has 'Maybe'"),
    (HEADER, make_rows((9, "1,20,,train\n")), "record 8 of the dataset has ''"),
    (HEADER, make_rows((2, "1,20,Left,train\n")), "49 of the part 'train' have 'Stayed'"),
    (HEADER, make_rows((201, "1,20,Left,train\n")), "49 of the part 'test' have 'Left'"),
    (HEADER, "1,20,Left,train\n" * 99, "holds Left only"),
    (HEADER, "", "holds nothing only"),
    ("", "", "is empty"),
]


@pytest.mark.parametrize(("header", "text", "why"), BROKEN, ids=[why for *_, why in BROKEN])
def test_a_dataset_that_no_model_can_be_trained_on(
    header: str, text: str, why: str, tmp_path: Path
) -> None:
    file = tmp_path / "data.csv"
    write_text(file, header + text)
    with pytest.raises(StepError, match=why):
        records.split(file, tmp_path / "train.csv", tmp_path / "test.csv")


def test_a_dataset_that_is_just_large_enough(tmp_path: Path) -> None:
    file, train, test = (tmp_path / name for name in ("data.csv", "train.csv", "test.csv"))
    write_text(file, HEADER + make_rows())
    found = records.split(file, train, test)
    assert (found.size_of("train"), found.size_of("test")) == (100, 100)
    assert train.read_text().startswith("20,Stayed\n21,Left\n")
    assert found.schema().columns == {
        "Employee ID": "integer",
        "Age": "integer",
        "Attrition": "text",
        "dataset_type": "text",
    }
    part = records.read_part(test, found.schema())
    assert (part.features[0].tolist(), part.answers[0]) == ([20.0], "Stayed")


def test_a_broken_dataset_changes_nothing(project: Project) -> None:
    project.replace_dataset((HEADER.replace("Attrition", "Left") + make_rows()).encode())
    tip, run = project.tip(), new_training(project)
    run.run_steps("pull")
    assert "no column Attrition" in run.expect_refusal("prepare")
    assert project.tip() == tip


# --- What a run may be asked ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("THRESHOLD", ""),
        ("SEED", "1\n"),
        ("THRESHOLD", "1.01"),
        ("THRESHOLD", "-0.1"),
        ("THRESHOLD", "nan"),
        ("THRESHOLD", "high"),
        ("SEED", "-1"),
        ("SEED", "1.5"),
        ("SEED", str(2**32)),
        ("ACCEPT_SCHEMA_CHANGE", "True"),
    ],
)
def test_a_request_that_makes_no_sense(name: str, value: str) -> None:
    with pytest.raises(StepError, match=name):
        Request.from_environment({**CONF, name: value})


def test_a_request() -> None:
    env = {**CONF, "ACCEPT_SCHEMA_CHANGE": "true"}
    assert Request.from_environment(env) == Request(0.6, 7, accept_schema_change=True)


# --- Size -----------------------------------------------------------------------------------------


def test_the_lab_s_own_dataset_is_trained_on_in_the_memory_of_the_pod(
    project: Project, whole: bytes
) -> None:
    project.replace_dataset(whole)
    run, peaks = replace(new_training(project), fresh=True), {}
    for step in STEPS:
        argv = (sys.executable, "-c", MEASURE, *STEPS[step])
        done = run.run.finish(run.run.start(*argv, **run.env))
        code, peaks[step] = json.loads(done.output.splitlines()[-1])
        assert code == 0, done.output
    print({step: peak >> 20 for step, peak in peaks.items()}, "MB")
    assert max(peaks.values()) < 700 << 20
    assert read_published(project).metrics["roc_auc"] > 0.75, "the DAG's own threshold"
