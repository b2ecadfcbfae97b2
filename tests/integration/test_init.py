"""`lab init`: what it refuses, what it makes, what is in the template, and another kit for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from eks import environment
from lab import changes
from lab.config import KIT, Config
from lab.console import COMMANDS
from lab.delivery import bundle
from lab.errors import BusyError, LabError, MachineError, ProjectError
from lab.init import declaration, names, places, upgrading, wheels, writing
from lab.init.creation import create_project
from lab.origin.found import Origin
from lab.project import NAME, Project, read_project
from lab.sessions import SESSIONS
from tests.support.dag_tasks import run_parser

IDENTITY = {"name": "Jane Doe", "email": "jane@example.com"}
WORKFLOWS = (
    KIT / ".github" / "workflows" / "ci.yml",
    writing.TEMPLATE / ".github" / "workflows" / "lab.yml",
)
TEMPLATES = (writing.TEMPLATE, writing.TEMPLATE_ORIGIN)
LONGEST = "a-" * 14 + "bc"  # a name of 30 characters


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> wheels.Wheel:
    """Return this checkout's wheel, as `lab init` builds it."""
    return wheels.build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(autouse=True)
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the configuration of git of somebody who has an identity, and nothing else."""
    for name in [name for name in os.environ if name.startswith(("GIT_", "EMAIL"))]:
        monkeypatch.delenv(name)
    file = tmp_path / "home" / ".gitconfig"
    file.parent.mkdir()
    file.write_text("[user]\n" + "".join(f"{key} = {text}\n" for key, text in IDENTITY.items()))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(file))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("HOME", str(file.parent))
    return file


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory: an empty folder outside of every project."""
    folder = tmp_path / "a place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def read_tree(folder: Path) -> dict[str, bytes]:
    """Return the content of each file below a folder, by its path."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


# --- Names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["churn", "a", "a-b2", LONGEST])
def test_a_name_that_a_label_of_kubernetes_can_be(name: str) -> None:
    names.require_name(Path(name))


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("Churn", "churn"),
        ("customer_churn", "customer-churn"),
        ("Größe von 2024", "groe-von-2024"),
        ("2024-churn", "churn"),
        ("churn-", "churn"),
        ("a" * 31, "a" * 30),
        ("実験", "my-project"),
        ("dataset", "my-dataset"),  # the kit has a package dataset_steps, a DAG dataset_pipeline
        ("ml-training", "my-ml-training"),
        ("mlops-lab", "my-mlops-lab"),
    ],
)
def test_another_name_is_answered_with_the_nearest_one(name: str, nearest: str, here: Path) -> None:
    with pytest.raises(ProjectError) as caught:
        create_project(Path("..", name))
    assert caught.value.fix == f"lab init ../{nearest}"
    assert NAME.fullmatch(nearest)
    assert not names.is_taken(nearest)


# --- Places ---------------------------------------------------------------------------------------


def refuse(path: Path, match: str) -> LabError:
    """Require that nothing is made at the path, and that nothing around it changes."""
    around = path.absolute().parent
    before = read_tree(around) if around.is_dir() and around != KIT else {}
    with pytest.raises(LabError, match=match) as caught:
        create_project(path)
    assert not before or read_tree(around) == before
    assert "\n" not in caught.value.what
    return caught.value


def test_a_folder_that_is_not_empty_stays_as_it_is(here: Path) -> None:
    (here / "churn").mkdir()
    (here / "churn" / "mine.txt").write_text("mine")
    refuse(Path("churn"), "exists and is no empty folder")


def test_a_file_and_a_link_are_no_folders(here: Path) -> None:
    (here / "churn").write_text("mine")
    (here / "empty").mkdir()
    (here / "link").symlink_to("empty")
    for name in ("churn", "link"):
        refuse(Path(name), "exists and is no empty folder")


def test_the_working_directory_would_be_gone(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "churn").mkdir()
    monkeypatch.chdir(tmp_path / "churn")
    assert refuse(Path(), "is the folder that you are in").fix == "cd .. && lab init churn"


def test_a_project_is_not_in_another_one(here: Path) -> None:
    (here / "mine" / "data").mkdir(parents=True)
    (here / "mine" / "lab.toml").touch()
    refused = refuse(here / "mine" / "data" / "churn", "inside of another project")
    assert refused.fix == "lab init churn"
    assert refuse(KIT / "churn", "inside of the kit's own checkout")


def test_the_folder_above_has_to_be_there(here: Path) -> None:
    assert refuse(Path("no/where/churn"), "there is no folder").fix.startswith("mkdir -p ")


def test_without_git_nothing_is_made(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(MachineError, match="no git on PATH"):
        create_project(Path("churn"))
    assert not list(here.iterdir())


def test_two_at_once_do_not_meet(here: Path) -> None:
    with places.claim(here / "churn") as folder:
        (folder / "mine").touch()
        with pytest.raises(BusyError), places.claim(here / "churn"):
            pass
        assert (folder / "mine").exists()
    assert not list(here.iterdir())


# --- Making one -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(wheel: wheels.Wheel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with the longest name that there is."""
    folder = tmp_path_factory.mktemp("made") / LONGEST
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AUTHOR", "COMMITTER"):
            for key, text in IDENTITY.items():
                patch.setenv(f"GIT_{name}_{key.upper()}", text)
        before = os.umask(0o077)  # as the command line sets it
        try:
            create_project(folder, wheel=wheel.file)
        finally:
            os.umask(before)
    return folder


def test_a_project_names_the_kit_that_it_holds(made: Path, wheel: wheels.Wheel) -> None:
    project = read_project(made)
    (held,) = (made / "kit").iterdir()
    assert held.name == wheel.file.name
    assert project.wheel_sha256 == sha256(held) == sha256(wheel.file)
    assert project.kit_version == wheel.version
    assert (project.name, project.dag) == (LONGEST, f"{names.as_identifier(LONGEST)}_pipeline")
    assert project.main == "orders"


def test_its_first_commit_is_the_persons_and_holds_all_of_it(made: Path) -> None:
    assert git(made, "log", "--format=%an <%ae>") == "{name} <{email}>".format(**IDENTITY)
    assert git(made, "branch", "--show-current") == "main"
    assert git(made, "status", "--short", "--ignored") == ""
    held = {name for name in read_tree(made) if not name.startswith(".git/")}
    assert held == set(git(made, "ls-files").splitlines())
    assert len(held) == len(list(writing.list_files(writing.TEMPLATE))) + 1  # the wheel


def test_the_name_is_in_place_of_the_templates(made: Path) -> None:
    for name, content in read_tree(made).items():
        if not name.startswith((".git/", "kit/")):
            assert b"churn" not in content, name
            assert "churn" not in name


def test_it_can_be_read_by_those_who_build_an_image_of_it(made: Path) -> None:
    assert {oct(path.stat().st_mode & 0o777) for path in made.rglob("*.py")} == {"0o644"}
    assert (made / "images" / "steps").stat().st_mode & 0o777 == 0o755


def test_it_is_well_formed_under_its_name(made: Path) -> None:
    config = ("--config", str(KIT / "pyproject.toml"), "--no-cache", "--ignore", "S101,I001")
    command = [sys.executable, "-m", "ruff", "check", *config, str(made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", ["staging", "production"])
def test_its_environments_have_names_that_aws_can_have(made: Path, name: str) -> None:
    given = tomllib.loads((made / "eks" / "environments" / f"{name}.toml").read_text())
    for key in ("bucket", "cluster", "branch", "account", "region"):
        assert environment.RULES[key].fullmatch(given[key]), given[key]
        assert key not in ("bucket", "cluster") or LONGEST in given[key]
    assert given["dataset"] == read_project(made).data["orders"].path


def test_an_empty_folder_becomes_the_project(
    here: Path, wheel: wheels.Wheel, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "churn").mkdir()
    said = create_project(Path("churn"), wheel=wheel.file)
    assert said.splitlines()[1].split() == ["next", "cd", "churn"]
    assert [line.split("#")[0].strip() for line in said.splitlines()[2:]] == [
        "nox -s lab",
        "nox -s e2e",
    ]
    assert read_project(here / "churn").name == "churn"
    assert [path.name for path in here.iterdir()] == ["churn"]
    assert "not committed" not in capsys.readouterr().out
    refuse(Path("churn"), "exists and is no empty folder")


@pytest.mark.parametrize("fault", ["nobody", "hook"])
def test_what_git_does_not_commit_is_staged(
    here: Path, wheel: wheels.Wheel, person: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without an identity, or where the person's own hook refuses it. `*.whl` may be ignored."""
    hooks = here / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\necho 'error: not today' >&2\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    (here / "ignored").write_text("*.whl\n")
    identity = "" if fault == "nobody" else person.read_text()
    person.write_text(
        f'{identity}[core]\nhooksPath = "{hooks}"\nexcludesFile = "{here / "ignored"}"\n'
    )
    create_project(Path("churn"), wheel=wheel.file)
    (said,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("not committed"))
    assert ("who you are" if fault == "nobody" else "not today") in said
    assert f"A  kit/{wheel.file.name}" in git(here / "churn", "status", "--short")


def test_a_kill_leaves_no_half_project_and_the_next_one_clears_up(
    here: Path, wheel: wheels.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = here / "bin" / "git"
    shim.parent.mkdir()
    shim.write_text(
        f'#!/bin/sh\ncase "$*" in *commit*) kill -9 $PPID; exit 1;; esac\nexec {which_git()} "$@"\n'
    )
    shim.chmod(0o755)
    code = "import sys; from pathlib import Path; from lab.init.creation import create_project\n"
    code += "create_project(Path('churn'), wheel=Path(sys.argv[1]))"
    path = os.pathsep.join([str(shim.parent), os.environ["PATH"]])
    killed = subprocess.run(
        [sys.executable, "-c", code, wheel.file], env={**os.environ, "PATH": path}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (here / "churn").exists()
    assert (here / ".churn.init").is_dir()
    create_project(Path("churn"), wheel=wheel.file)
    assert sorted(path.name for path in here.iterdir()) == ["bin", "churn"]


def which_git() -> str:
    found = shutil.which("git")
    assert found
    return found


def test_a_failure_leaves_nothing(here: Path) -> None:
    (here / "mine.whl").write_bytes(b"")
    with pytest.raises(LabError, match="is no wheel"):
        create_project(Path("churn"), wheel=here / "mine.whl")
    assert [path.name for path in here.iterdir()] == ["mine.whl"]


# --- Where the wheel comes from -------------------------------------------------------------------


def test_a_checkout_builds_a_wheel_with_the_whole_template(wheel: wheels.Wheel) -> None:
    assert wheels.is_checkout()
    with zipfile.ZipFile(wheel.file) as packed:
        held = set(packed.namelist())
    for template in TEMPLATES:
        folder = template.relative_to(KIT).as_posix()
        assert {f"{folder}/{name}" for name in writing.list_files(template)} <= held
    assert not [name for name in held if "__pycache__" in name]
    assert (
        wheel.version == tomllib.loads((KIT / "pyproject.toml").read_text())["project"]["version"]
    )


@pytest.fixture
def installed(wheel: wheels.Wheel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install the wheel as an installer does; return the file that it was installed from."""
    site, source = tmp_path / "site-packages", tmp_path / "downloads" / wheel.file.name
    source.parent.mkdir()
    shutil.copyfile(wheel.file, source)
    with zipfile.ZipFile(source) as packed:
        packed.extractall(site)
    (about,) = site.glob("*.dist-info")
    (about / "direct_url.json").write_text(json.dumps({"url": source.as_uri(), "archive_info": {}}))
    with (about / "RECORD").open("a") as file:
        file.write("../bin/lab,sha256=abc,1\n")
    monkeypatch.setattr(wheels, "CHECKOUT", None)
    monkeypatch.setattr(metadata, "distribution", lambda _: metadata.Distribution.at(about))
    return source


def test_an_installed_kit_takes_the_wheel_it_came_from(
    installed: Path, wheel: wheels.Wheel, here: Path
) -> None:
    assert wheels.provide_wheel(None, here) == wheels.Wheel(installed, wheel.version)


@pytest.mark.parametrize("fate", ["gone", "other"])
def test_a_wheel_that_is_not_there_any_more_is_looked_for_in_the_project(
    installed: Path, wheel: wheels.Wheel, here: Path, fate: str
) -> None:
    installed.unlink()
    if fate == "other":
        repack(wheel.file, installed, "lab/errors.py", b"# other\n")
    with pytest.raises(LabError, match="is gone") as caught:
        wheels.provide_wheel(None, here)
    assert "--wheel PATH" in caught.value.fix
    kept = here / "kit" / wheel.file.name
    kept.parent.mkdir()
    shutil.copyfile(wheel.file, kept)
    assert wheels.provide_wheel(None, here).file == kept


def repack(source: Path, target: Path, name: str, content: bytes) -> None:
    """Write a wheel that differs from another one in one file."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.namelist():
            new.writestr(entry, content if entry == name else old.read(entry))


@pytest.mark.parametrize(
    ("name", "files", "why"),
    [
        ("kit.whl", None, "is no wheel:"),
        ("mlops_lab-0.2.0-py3-none-any.whl", None, "is no wheel:"),
        ("mlops_lab-0.2.0-py3-none-any.whl", ["lab/errors.py"], "that a project can use"),
        ("other-0.2.0-py3-none-any.whl", ["lab/sessions.py"], "that a project can use"),
        ("nothing", None, "there is no file"),
    ],
)
def test_what_is_no_wheel_of_the_kit(
    here: Path, name: str, files: list[str] | None, why: str
) -> None:
    if files is not None:
        with zipfile.ZipFile(here / name, "w") as packed:
            for file in files:
                packed.writestr(file, "")
    elif name != "nothing":
        (here / name).write_bytes(b"no zip")
    with pytest.raises(LabError, match=why):
        wheels.provide_wheel(Path(name), here)


# --- An origin ------------------------------------------------------------------------------------


def taken_in(data: dict[str, str]) -> Origin:
    lists: Any = dict.fromkeys(("branches", "tags", "missing", "unread", "remotes", "named"), ())
    return Origin(
        url='ssh://host/a"b',
        branch="main",
        commits=3,
        data=data,
        refused={},
        objects=2,
        size=9,
        **lists,
    )


def test_a_project_with_an_origin_declares_what_that_has(
    here: Path,
    wheel: wheels.Wheel,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    origin = taken_in({"photos": 'raw/a "photo"', "model": "model.bin"})
    monkeypatch.setattr("lab.init.creation.fetch_origin", lambda *_: origin)
    create_project(Path("churn"), origin="ssh://host/ab", wheel=wheel.file)
    project = read_project(here / "churn")
    assert list(project.paths.items()) == [("photos", 'raw/a "photo"'), ("model", "model.bin")]
    assert project.origin == origin.url
    assert not any(each.first for each in project.data.values())
    assert "data set photos" in capsys.readouterr().out
    text = (here / "churn" / "dags" / "churn_pipeline.py").read_text()
    assert 'pull("photos")' in text
    assert "measurements" not in text
    assert not (here / "churn" / "data").exists()
    staging = tomllib.loads((here / "churn/eks/environments/staging.toml").read_text())
    assert staging["dataset"] == 'raw/a "photo"'


def test_an_origin_without_a_data_set_is_none(
    here: Path, wheel: wheels.Wheel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lab.init.creation.fetch_origin", lambda *_: taken_in({}))
    with pytest.raises(LabError, match="has no data set on its branch main"):
        create_project(Path("churn"), origin="ssh://host/ab", wheel=wheel.file)
    assert not list(here.iterdir())


@pytest.mark.parametrize("url", ["", "https://jane:secret@host/x", "--upload-pack=x"])
def test_an_address_that_may_be_in_no_file_is_refused_at_once(here: Path, url: str) -> None:
    with pytest.raises(LabError) as caught:
        create_project(Path("churn"), origin=url)
    assert "secret" not in caught.value.what + caught.value.fix
    assert not list(here.iterdir())


# --- The template ---------------------------------------------------------------------------------


@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_a_template_is_a_project_as_it_is(template: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    writing.write_files(whole, "churn", {}, takes_in=template == writing.TEMPLATE_ORIGIN)
    project = read_project(whole)
    assert (project.name, project.dag) == ("churn", "churn_pipeline")
    assert not project.samples
    for each in project.data.values():
        assert each.first is None or (whole / each.first).exists()
    for name in writing.list_files(template):
        assert (whole / name).read_bytes() == (template / name).read_bytes()


# Each project is parsed in its own process, as Airflow parses each bundle.
PARSER = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag

bag = BundleDagBag(dag_folder=sys.argv[1], bundle_path=sys.argv[1], bundle_name="any")
found = {name: [list(task.downstream_task_ids) for task in dag.topological_sort()]
         for name, dag in bag.dags.items()}
scheduled = [dag.timetable.expression for dag in bag.dags.values()]
print(json.dumps([found, scheduled, bag.import_errors]))
"""


@pytest.mark.parametrize(
    ("takes_in", "runtime", "tasks"),
    [(False, "pod", 4), (True, "process", 3)],
)
def test_airflow_reads_the_pipeline(
    takes_in: bool, runtime: str, tasks: int, tmp_path: Path
) -> None:
    writing.write_files(tmp_path / "churn", "churn", {}, takes_in=takes_in)
    dags = tmp_path / "bundle" / "dags"
    bundle.write_bundle(Config(home=tmp_path, root=tmp_path / "churn"), dags)
    found, scheduled, errors = run_parser(PARSER, dags, home=tmp_path, runtime=runtime)
    assert not errors
    assert list(found) == ["churn_pipeline"]
    assert len(found["churn_pipeline"]) == tasks
    assert scheduled == ["0 4 * * *"]


def run_step(template: Path, *words: str, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the template's step as the embedded backend does: its folder on the path, and no kit."""
    env = {name: str(value) for name, value in variables.items()}
    env |= {"PATH": os.environ["PATH"], "PYTHONPATH": str(template / "images" / "steps")}
    env |= {"PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "churn_steps", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_the_steps_change_what_they_should_and_a_rerun_changes_no_byte(tmp_path: Path) -> None:
    orders, summary = tmp_path / "orders", tmp_path / "summary.parquet"
    shutil.copytree(writing.TEMPLATE / "data" / "orders", orders)
    dirty = pl.read_parquet(orders)
    versions = [read_tree(tmp_path)]
    for _ in range(2):
        for step in ("clean", "summarise"):
            done = run_step(writing.TEMPLATE, step, DATA_ORDERS=orders, DATA_SUMMARY=summary)
            assert done.returncode == 0, done.stderr
        versions.append(read_tree(tmp_path))
    assert versions[0] != versions[1] == versions[2]
    kept = pl.read_parquet(orders)
    wanted = {row["order_id"] for row in dirty.iter_rows(named=True) if row["customer"]}
    assert sorted(kept["order_id"]) == sorted(wanted)
    assert kept.height < dirty.height
    for said in pl.read_parquet(summary).iter_rows(named=True):
        of_month = [
            r for r in kept.iter_rows(named=True) if f"{r['ordered']:%Y-%m}" == said["month"]
        ]
        assert said["orders"] == len(of_month)
        assert said["customers"] == len({row["customer"] for row in of_month})
        assert said["cents"] == sum(row["cents"] for row in of_month)


def test_data_that_are_wrong_are_not_tried_again(tmp_path: Path) -> None:
    orders = tmp_path / "orders"
    orders.mkdir()
    for content in (None, b"no Parquet"):
        if content:
            (orders / "2026-01.parquet").write_bytes(content)
        done = run_step(writing.TEMPLATE, "clean", DATA_ORDERS=orders)
        assert done.returncode == 65
        assert done.stderr.startswith("error: ")


def test_the_report_is_of_any_data(tmp_path: Path) -> None:
    folder, report = tmp_path / "things", tmp_path / "metrics" / "things.json"
    (folder / "deep").mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"\0\1\2")
    (folder / "deep" / "t.csv").write_bytes(b'x,y\r\n1,"\n"\r\n2,\xff\r\n')
    pl.DataFrame({"x": [1, 2, 3]}).write_parquet(folder / "t.parquet")

    def ask(data: Path) -> dict[str, int]:
        done = run_step(writing.TEMPLATE_ORIGIN, "things", str(report), DATA_THINGS=data)
        assert done.returncode == 0, done.stderr
        found: dict[str, int] = json.loads(report.read_text())
        return found

    size = sum(len(content) for content in read_tree(folder).values())
    assert ask(folder) == {"files": 3, "bytes": size, "rows": 5}
    assert ask(folder / "a.bin") == {"files": 1, "bytes": 3}
    (folder / "t.parquet").write_bytes(b"no Parquet")
    broken = run_step(writing.TEMPLATE_ORIGIN, "things", str(report), DATA_THINGS=folder)
    assert broken.returncode == 65


def test_the_steps_have_the_kits_versions() -> None:
    """On embedded they see the lab's packages, too: chance would decide between two versions."""
    lock = (KIT / "requirements" / "lab.txt").read_text()
    held = (writing.TEMPLATE / "images" / "steps" / "requirements.txt").read_text()
    blocks = re.findall(r"^[a-z].*(?:\n +--hash.*)+", held, re.MULTILINE)
    assert len(blocks) == 2
    assert all(block in lock for block in blocks)
    (asked,) = (writing.TEMPLATE / "images" / "steps" / "requirements.in").read_text().split()
    assert asked in held


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_one_that_github_takes(file: Path) -> None:
    words = ("-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows")
    done = subprocess.run(
        [sys.executable, *words, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def read_steps(file: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(file.read_text("utf-8"))["jobs"].values()
    return [step for job in jobs for step in job["steps"]]


def test_the_workflows_pin_the_same_actions() -> None:
    ours, theirs = ({s["uses"] for s in read_steps(file) if "uses" in s} for file in WORKFLOWS)
    assert theirs
    assert theirs <= ours
    assert all(re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", name) for name in ours)


SHOWN = re.compile(r"nox -s (\w+)(?: -- (\w[\w-]*))?")


@pytest.mark.parametrize("file", ["README.md", ".github/workflows/lab.yml"])
@pytest.mark.parametrize("template", TEMPLATES, ids=lambda path: path.name)
def test_the_commands_that_a_project_tells_of_are_there(template: Path, file: str) -> None:
    place = template if (template / file).exists() else writing.TEMPLATE
    shown = SHOWN.findall((place / file).read_text("utf-8"))
    assert shown
    assert {session for session, _ in shown} <= SESSIONS.keys()
    commands = {command for session, command in shown if session == "lab" and command}
    assert commands <= {*COMMANDS}


# --- lab.toml -------------------------------------------------------------------------------------


ODD = """# mine
title = 1

[kit] # the kit
  sha256 = 'a' # one
version="0.1.0" # two

[lab]
version = "stays"
"""


def test_only_the_kit_is_replaced_in_a_lab_toml() -> None:
    assert declaration.name_kit(ODD, "0.2.0", "b") == ODD.replace("'a'", '"b"').replace(
        "0.1.0", "0.2.0"
    )


@pytest.mark.parametrize(
    "text", ["", '[lab]\nversion = "1"\n', '[kit]\nversion = "1"\n', "kit = {version = '1'}\n"]
)
def test_a_form_in_which_the_kit_can_not_be_replaced_is_said(text: str) -> None:
    with pytest.raises(ProjectError, match="can't be replaced") as caught:
        declaration.name_kit(text, "0.2.0", "b")
    assert 'version = "0.2.0"' in caught.value.fix


# --- Versions of the kit --------------------------------------------------------------------------


def project_of(version: str) -> Project:
    return Project(Path("churn"), "churn", "x", False, version, None, {}, {})


@pytest.mark.parametrize("version", ["0.2.0", "0.2.9"])
def test_a_kit_of_the_same_minor_version_will_do(version: str) -> None:
    changes.check_kit_version(project_of(version), "0.2.3")


def test_an_older_project_is_told_what_changed() -> None:
    with pytest.raises(ProjectError, match=r"kit 0\.1\.0, .*0\.2\.0: .*Its data stay") as caught:
        changes.check_kit_version(project_of("0.1.0"), "0.2.0")
    assert "lab init --upgrade" in caught.value.fix


def test_a_newer_project_is_told_which_kit_it_has() -> None:
    with pytest.raises(ProjectError, match=r"needs kit 0\.10\.0, and 0\.9\.1 runs"):
        changes.check_kit_version(project_of("0.10.0"), "0.9.1")


def test_a_version_that_is_none_is_said() -> None:
    with pytest.raises(ProjectError, match="'newest' is no version"):
        changes.check_kit_version(project_of("newest"), "0.2.0")


def test_changes_are_in_the_changelog_and_in_order() -> None:
    versions = [changes.read_version(each.version) for each in changes.CHANGES]
    assert versions == sorted(set(versions))
    log = (KIT / "CHANGELOG.md").read_text("utf-8")
    assert not [each.version for each in changes.CHANGES if f"## [{each.version}]" not in log]


def test_changes_are_known_without_the_rest_of_the_kit() -> None:
    code = "import sys, lab.changes; print(*(n for n in sys.modules if n.startswith('lab')))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lab", "lab.errors", "lab.changes"]


# --- Another kit ----------------------------------------------------------------------------------


@pytest.fixture
def old(here: Path, wheel: wheels.Wheel) -> Path:
    """Return a project of kit 0.1.0, all of which is committed."""
    folder = here / "churn"
    create_project(folder, wheel=wheel.file)
    (folder / "kit" / wheel.file.name).rename(folder / "kit" / "mlops_lab-0.1.0-py3-none-any.whl")
    declared = (folder / "lab.toml").read_text()
    (folder / "lab.toml").write_text(declaration.name_kit(declared, "0.1.0", "0" * 64) + "# mine\n")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "be old")
    return folder


def test_an_upgrade_replaces_the_kit_and_nothing_else(old: Path, wheel: wheels.Wheel) -> None:
    said = upgrading.upgrade_project(old, wheel.file)
    assert said.startswith(f"kit 0.1.0 → {wheel.version}\n0.2.0  ")
    assert "do: " in said
    assert [file.name for file in (old / "kit").iterdir()] == [wheel.file.name]
    assert read_project(old).wheel_sha256 == sha256(wheel.file)
    assert set(git(old, "status", "--short").split()[1::2]) == {
        *("kit/mlops_lab-0.1.0-py3-none-any.whl", f"kit/{wheel.file.name}", "lab.toml")
    }
    changed = git(old, "diff", "--unified=0", "--", "lab.toml").splitlines()
    assert len([line for line in changed if re.match(r"[+-](?![+-])", line)]) == 4
    again = upgrading.upgrade_project(old, wheel.file)
    assert (
        again == f"kit {wheel.version} → {wheel.version}\nnothing to do: no change needs your hand"
    )


def test_an_upgrade_that_is_refused_changes_nothing(old: Path, wheel: wheels.Wheel) -> None:
    (old / "lab.toml").write_text("[kit]\n")
    before = read_tree(old)
    with pytest.raises(ProjectError, match="can't be replaced"):
        upgrading.upgrade_project(old, wheel.file)
    assert read_tree(old) == before


def test_the_kits_own_checkout_is_not_upgraded() -> None:
    with pytest.raises(ProjectError, match="the kit's own checkout"):
        upgrading.upgrade_project(KIT)
