"""The plugin in suites of its own: options, backends, reasons, what is kept, and whom it leaves be.

The labs here are stubs; `tests/e2e` has real ones, by the same plugin.
"""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from eks import attestation
from lab import backends
from lab.backends import NAMES
from lab.config import Config
from lab.errors import MachineError, NotRunningError, ServiceError

pytest_plugins = ["pytester"]

PLUGIN = "lab.pytest_plugin"
TEST = "def test_it(lab): assert lab.backend in ('embedded', 'kind')\n"
CLASS = "class TestTwo:\n    def test_two(self, lab): pass\n"
FAILING = "def test_it(lab): assert lab.backend == 'none'\n"
# What importing the kit's own modules, or what they stand on, would cost each suite.
HEAVY = ("eks", "airflow", "boto3", "kubernetes", "typer", "requests", "tenacity", "rich", "yaml")


@dataclass
class Running:
    """A lab that a stub of a backend has brought up."""

    backend: str

    def verify(self) -> str:
        return "the proof"


@dataclass
class Stub:
    """A backend without a lab: it notes what is asked of it."""

    NAME: str
    lacks: str = ""
    breaks: str = ""
    said: list[str] = field(default_factory=list)
    homes: list[Path] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)

    def check(self, _: Config) -> None:
        if self.lacks:
            raise MachineError(self.lacks, "install it")

    def up(self, config: Config) -> Running:
        self.said.append("up")
        self.homes.append(config.home)
        self.variables = dict(os.environ)
        if self.breaks:
            raise ServiceError(self.breaks, "read the log")
        return Running(self.NAME)

    def down(self, _: Config, *, purge: bool = False) -> int:
        self.said.append(f"down, purge={purge}")
        return 0

    def list_services(self, _: Config) -> list[tuple[object, bool]]:
        raise NotRunningError("nothing runs", "lab up starts it")

    def collect_evidence(self, _: Config, folder: Path) -> None:
        (folder / "service.log").write_text("why it failed")


@dataclass
class Suite:
    """A person's project, and the backends that its tests meet."""

    pytester: pytest.Pytester
    backends: dict[str, Stub]

    def run(
        self, *arguments: str, test: str = TEST, before: Sequence[str] = ()
    ) -> pytest.RunResult:
        """Run pytest with the plugin, after the plugins `before` it."""
        folder = self.pytester.path / "tests" / "e2e"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "test_pipeline.py").write_text(test)
        plugins = [word for name in (*before, PLUGIN, "no:cacheprovider") for word in ("-p", name)]
        return self.pytester.runpytest_inprocess(*plugins, "--strict-markers", "-rs", *arguments)


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Suite:
    """Return a project in a folder of its own, for which both backends are here."""
    for name in [each for each in os.environ if each.startswith("LAB_")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NOX_CURRENT_SESSION", raising=False)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    stubs = {name: Stub(name) for name in NAMES}
    monkeypatch.setattr(backends, "load_backends", lambda: stubs)
    monkeypatch.setattr(attestation, "compute_digests", lambda _: {"dags/a.py": "0" * 64})
    monkeypatch.setattr(attestation, "build_statement", build_statement)
    (pytester.path / "lab.toml").write_text("")
    return Suite(pytester, stubs)


def build_statement(
    config: Config, subjects: dict[str, str], proof: str, tests: list[str], *, variations: bool
) -> attestation.Statement:
    """Return a statement about a lab of nobody's."""
    told = {"when": "now", "commit": "c", "dirty": False, "proof": {"ok": True, "said": proof}}
    return attestation.Statement(subjects, {**told, "tests": tests, "variations": variations})


# --- Which backends -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--backend=auto",)])
@pytest.mark.parametrize(("lacks", "expected"), [("", "kind"), ("there is no Docker", "embedded")])
def test_one_test_runs_where_lab_up_would_make_a_lab(
    suite: Suite, arguments: tuple[str, ...], lacks: str, expected: str
) -> None:
    suite.backends["kind"].lacks = lacks
    result = suite.run("-v", *arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(f"*::test_it?{expected}? PASSED*")
    assert suite.backends[expected].said == ["up", "down, purge=True"]


def test_each_is_a_test_per_backend_with_its_marker(suite: Suite) -> None:
    suite.run("--backend=each").assert_outcomes(passed=2)
    suite.run("--backend=each", "-m", "kind").assert_outcomes(passed=1, deselected=1)
    assert [len(stub.homes) for stub in suite.backends.values()] == [1, 2]
    assert len({home for stub in suite.backends.values() for home in stub.homes}) == 3


@pytest.mark.parametrize("option", ["--backend", "--lab-backend"])
@pytest.mark.parametrize("name", NAMES)
def test_a_backend_by_its_name(suite: Suite, name: str, option: str) -> None:
    suite.run(option, name).assert_outcomes(passed=1)
    assert [stub.NAME for stub in suite.backends.values() if stub.said] == [name]


def test_a_backend_that_does_not_exist(suite: Suite) -> None:
    result = suite.run("--backend=docker")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*unknown backend 'docker'", "*try: choose auto, embedded, kind"])


def test_a_test_may_say_itself_where_it_runs(suite: Suite) -> None:
    own = "import pytest\n@pytest.mark.parametrize('lab_backend', ['kind'], indirect=True)\n" + TEST
    suite.run("--backend=each", test=own).assert_outcomes(passed=1)
    assert suite.backends["embedded"].said == []


def test_a_test_case_has_the_only_backend(suite: Suite) -> None:
    """No parameter reaches a method of unittest's."""
    case = (
        "import pytest, unittest\n"
        "@pytest.mark.usefixtures('lab')\n"
        "class TestIt(unittest.TestCase):\n"
        "    def test_it(self): pass\n"
    )
    suite.run(test=case).assert_outcomes(passed=1)
    result = suite.run("--backend=each", test=case)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines("*with --backend=each a test names `lab` among its arguments*")


# --- Where a backend is not here ------------------------------------------------------------------


def test_a_backend_that_is_not_here_is_skipped_with_its_reason(suite: Suite) -> None:
    suite.backends["kind"].lacks = "there is no Docker"
    result = suite.run("--backend=each")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines("SKIPPED*kind: there is no Docker")


@pytest.mark.parametrize("arguments", [(), ("--backend=each",)])
def test_a_backend_that_is_required_fails(
    suite: Suite, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_REQUIRE", "kind")
    suite.backends["kind"].lacks = "there is no Docker"
    result = suite.run(*arguments)
    result.assert_outcomes(errors=1, passed=len(arguments))
    result.stdout.fnmatch_lines("*LAB_REQUIRE=kind, but: there is no Docker*")


def test_a_backend_that_the_person_has_set(suite: Suite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_BACKEND", "embedded")
    result = suite.run("--backend=each")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines("SKIPPED*LAB_BACKEND=embedded")
    suite.run("-k", "embedded").assert_outcomes(passed=1)


# --- What a session leaves ------------------------------------------------------------------------


def test_a_lab_and_its_folder_are_gone_afterwards(suite: Suite) -> None:
    suite.run("--backend=embedded").assert_outcomes(passed=1)
    (home,) = suite.backends["embedded"].homes
    assert not home.parent.exists()
    assert not list(suite.pytester.path.glob("failure-*"))


@pytest.mark.parametrize(
    ("option", "session", "command"),
    [
        ("--keep-lab", "", "lab"),
        ("--keep-lab", "e2e", "nox -s lab --"),
        ("--keep-cluster", "", "lab"),
    ],
)
def test_a_lab_stays_if_the_person_wants_it(
    suite: Suite, option: str, session: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if session:
        monkeypatch.setenv("NOX_CURRENT_SESSION", session)
    suite.pytester.makeconftest(
        "def pytest_addoption(parser): parser.addoption('--keep-cluster', action='store_true')"
    )
    result = suite.run("--backend=embedded", option)
    stub = suite.backends["embedded"]
    assert stub.said == ["up"]
    result.stdout.fnmatch_lines(f"kept; ends with: LAB_HOME={stub.homes[0]} {command} down --purge")


@pytest.mark.parametrize("broken", ["", "airflow has died"])
def test_a_failure_keeps_what_the_lab_has_to_say(suite: Suite, broken: str) -> None:
    stub = suite.backends["embedded"]
    stub.breaks = broken
    result = suite.run("--backend=embedded", test=FAILING)
    archive = suite.pytester.path / "failure-embedded.tar.gz"
    result.stdout.fnmatch_lines(f"what the failed lab has to say is in {archive}")
    with tarfile.open(archive) as opened:
        assert "./service.log" in opened.getnames()
    assert stub.said == ["up", "down, purge=True"]
    result.stdout.fnmatch_lines(["*failed, in short*", "tests/e2e/test_pipeline.py::test_it*"])
    if broken:
        result.stdout.fnmatch_lines(["*airflow has died", "*try: read the log"])


def test_what_is_set_for_aws_is_left_out_while_a_lab_is_there(
    suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.setenv("no_proxy", "intranet")
    suite.run("--backend=embedded", "--keep-lab").assert_outcomes(passed=1)
    seen = suite.backends["embedded"].variables
    assert "AWS_PROFILE" not in seen
    assert seen["no_proxy"] == "intranet,127.0.0.1,localhost"
    assert os.environ["AWS_PROFILE"] == "work"
    assert os.environ["no_proxy"] == "intranet"


# --- The attestation ------------------------------------------------------------------------------


def has_attested(suite: Suite) -> bool:
    """Return whether a session has attested the project."""
    return (suite.pytester.path / attestation.NAME).exists()


def test_a_green_session_on_kind_attests(suite: Suite) -> None:
    result = suite.run("--backend=kind")
    result.stdout.fnmatch_lines("attested, for a promotion to AWS: *attestation.json")
    told = attestation.read(suite.pytester.path / attestation.NAME).predicate
    assert (told["tests"], told["variations"]) == (["tests/e2e/test_pipeline.py"], True)
    assert told["proof"]["said"] == "the proof"


@pytest.mark.parametrize(
    ("arguments", "test"),
    [
        (("--backend=embedded",), TEST),
        (("--backend=kind",), FAILING),
        (("--backend=kind", "-k", "it"), TEST + "def test_two(lab): pass\n"),
        (
            ("--backend=kind", "-k", "it"),
            TEST + CLASS,
        ),
        (("--backend=kind",), TEST + "def test_two(lab): __import__('pytest').skip('no')\n"),
        (("--backend=kind", "tests/e2e/test_pipeline.py::test_it"), TEST + "def test_two(): 1\n"),
    ],
    ids=["embedded", "failed", "deselected", "a class", "skipped", "by its id"],
)
def test_no_other_session_attests(suite: Suite, arguments: tuple[str, ...], test: str) -> None:
    suite.run(*arguments, test=test)
    assert not has_attested(suite)


@pytest.mark.parametrize("name", ["test_other.py", "other_test.py", "deep/test_other.py"])
def test_a_file_that_is_left_out_attests_nothing(suite: Suite, name: str) -> None:
    other = suite.pytester.path / "tests" / "e2e" / name
    other.parent.mkdir(parents=True)
    other.write_text("def test_other(lab): pass\n")
    suite.run("--backend=kind", "tests/e2e/test_pipeline.py")
    assert not has_attested(suite)
    suite.run("--backend=kind")
    assert has_attested(suite)


def test_a_marker_of_the_kit_s_own_tests_means_nothing_elsewhere(suite: Suite) -> None:
    marked = f"import pytest\n{TEST}@pytest.mark.long\ndef test_two(lab): pytest.skip('too long')\n"
    (suite.pytester.path / "pytest.ini").write_text("[pytest]\nmarkers =\n    long: of a test\n")
    suite.run("--backend=kind", test=marked)
    assert not has_attested(suite)
    suite.pytester.makeconftest(
        "from lab.testing.witness import LEFT_OUT\n"
        "def pytest_configure(config): config.stash[LEFT_OUT] = frozenset({'long'})\n"
    )
    suite.run("--backend=kind", test=marked)
    assert has_attested(suite), "the project's conftest.py answers for it"


# --- Other people's suites ------------------------------------------------------------------------


def test_a_suite_elsewhere_may_have_such_an_option_and_such_fixtures(suite: Suite) -> None:
    (suite.pytester.path / "lab.toml").unlink()
    suite.pytester.makeconftest(
        "import pytest\n"
        "def pytest_addoption(parser): parser.addoption('--backend', default='numpy')\n"
        "@pytest.fixture\n"
        "def lab(request): return request.config.getoption('--backend')\n"
        "@pytest.fixture\n"
        "def lab_config(): return 'dark'\n"
    )
    test = "def test_it(lab, lab_config): assert (lab, lab_config) == ('jax', 'dark')\n"
    result = suite.run("--backend=jax", test=test)
    result.assert_outcomes(passed=1)
    assert not any(stub.said for stub in suite.backends.values())


def test_another_plugin_may_have_the_short_option(suite: Suite) -> None:
    suite.pytester.makepyfile(
        other="def pytest_addoption(parser): parser.addoption('--backend', default='numpy')\n"
    )
    suite.pytester.syspathinsert()
    suite.run("--lab-backend=embedded", before=["other"]).assert_outcomes(passed=1)
    assert suite.backends["embedded"].said[0] == "up"


def test_a_failure_without_a_lab_is_pytest_s_own(suite: Suite) -> None:
    result = suite.run(test="def test_it(): assert False\n")
    result.assert_outcomes(failed=1)
    result.stdout.no_fnmatch_line("*in short*")
    assert sorted(path.name for path in suite.pytester.path.iterdir()) == ["lab.toml", "tests"]


LOOK = """
import sys

def pytest_unconfigure(config):
    seen = {name.partition(".")[0] for name in sys.modules}
    print("seen:", *sorted(seen & {*HEAVY}), *sorted(n for n in sys.modules if n[:4] == "lab."))
"""
CHEAP = "lab.pytest_plugin lab.testing lab.testing.failures lab.testing.witness"


def test_a_suite_without_a_lab_imports_nothing_of_the_kit(suite: Suite) -> None:
    suite.pytester.makepyfile(test_it="def test_it(): pass")
    suite.pytester.makeconftest(f"HEAVY = {HEAVY}\n{LOOK}")
    words = (sys.executable, "-m", "pytest", "-p", PLUGIN, "-p", "no:cacheprovider")
    env = [str(Path(backends.__file__).parents[2]), *sys.path]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, env)))
        result = suite.pytester.run(*words)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(f"seen: {CHEAP}")
