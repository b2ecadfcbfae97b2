"""What the code promises of itself: small functions, one reader of choices, one exit, no strangers.

Strings that no tracked file may hold are put together here, so that this file does not hold them.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

TREE = Path(__file__).resolve().parents[2]
CODE = (
    "lab",
    "eks",
    "dags",
    "images/worker/dataset_steps",
    "images/trainer/model_steps",
    "images/trainer/reading_steps",
    "images/pod-identity/pod_identity",
)
MEDIAN_LINES, MOST_LINES = 8, 50
NAMELESS = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}
CHOICE = re.compile(r"LAB_[A-Z_]*")
# These run before the kit is installed; LAB_PROJECT and LAB_REQUIRE they set.
SESSIONS = ("noxfile.py", "lab/sessions.py", "lab/installing.py")
SESSIONS_READ = {"LAB_HOME", "LAB_DATABASE", "LAB_PROJECT", "LAB_REQUIRE", "LAB_JUDGES"}
LOCKS = sorted((TREE / "requirements").glob("*.txt"))
HOSTS = (
    "py" + "pi.org",
    "pythonhosted" + ".org",
    "npm" + "js.org",
    "npm" + "js.com",
    "yarn" + "pkg.com",
    "crates" + ".io",
    "ruby" + "gems.org",
    "proxy.golang" + ".org",
    "conda" + ".anaconda.org",
)
PLACES = (
    "/work" + "/main",
    "/work" + "/shared",
    "/work" + "/.",
    "/tmp" + "/lk",
    "/opt" + "/wheels",
)
# Somebody's own folder; `you` is everybody, in examples.
PRIVATE = re.compile(r"(?<![\w.}])/(root|(home|Users)/(?!you/)[a-z]\w*)/")


def list_modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (TREE / folder).rglob("*.py"))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def name_of(path: Path) -> str:
    return path.relative_to(TREE).as_posix()


def measure_functions() -> Iterator[tuple[str, int]]:
    """Yield each function of the code, and the lines of its body without the docstring."""
    for path in list_modules(*CODE):
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{name_of(path)}:{node.lineno} {node.name}", count_lines(node)


def count_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def find_strings(path: Path) -> set[str]:
    """Return every string of a module, those inside of f-strings too."""
    nodes = ast.walk(parse(path))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def list_tracked_files() -> list[Path]:
    """Return the files that git tracks."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=TREE, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("this is no git checkout: nothing says which files belong to it")
    paths = [TREE / name for name in listed.stdout.split("\0") if name]
    return [path for path in paths if path.is_file()]


# --- Functions and modules ----------------------------------------------------------------------


def test_functions_are_small() -> None:
    sizes = dict(measure_functions())
    assert len(sizes) > 200
    assert median(sizes.values()) <= MEDIAN_LINES
    assert not {name: size for name, size in sizes.items() if size > MOST_LINES}


def test_the_measure_leaves_out_the_docstring_and_nothing_else() -> None:
    source = """def f(
        a: int,
    ) -> int:
        'One.'

        a += 1

        # why
        return a
    """
    (function,) = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert count_lines(function) == 4


def test_modules_are_called_after_what_they_do() -> None:
    names = {part for path in list_modules(*CODE, "tests") for part in path.relative_to(TREE).parts}
    assert not NAMELESS & {name.removesuffix(".py") for name in names}


def test_every_module_says_what_it_is_for() -> None:
    silent = [name_of(p) for p in list_modules(*CODE, "tests") if not ast.get_docstring(parse(p))]
    assert not [name for name in silent if (TREE / name).read_text("utf-8").strip()]


# How docstrings of functions begin, in code and in tests alike. Another verb is as good: add it.
VERBS = set(
    re.findall(
        r"\w+",
        """
        Accept Add Admit Advance Agree Allow Answer Append Apply Ask Assume Await Bind Block Bring
        Build
        Call Cancel Check Choose Clone Close Collect Commit Compare Compute Configure Confirm Copy
        Count Create Cut Decode Delete Describe Direct Do Download Draw Drop Empty Encode End Exit
        Export Extract Fail Fetch Find Forget Fork Format Forward Freeze Generate Get Give Hash
        Have Hide Hold Import Install Keep Kill Leave Let Limit List Listen Load Lock Log Look Make
        Mark Match Measure Merge Migrate Move Name Notify Open Parse Pass Pause Play Post Prepare
        Press Print Promote Protect Prove Provide Publish Pull Push Put Raise Read Record Refuse
        Register Relay Remember Remove Render Replace Replay Request Require Reset Resolve Restore
        Return Run Save Say Seal Select Send Serve Set Shorten Show Sign Skip Sleep Split Start Stop
        Store Stream Strip Sum Take Tell Terminate Test Thaw Train Translate Try Turn Undo Unpack
        Update Upgrade Upload Use Validate Wait Wipe Wrap Write Yield
        """,
    )
)


def find_first_words() -> Iterator[tuple[str, str]]:
    """Yield each function that has a docstring, and its first word.

    Properties are named like what they hold, and tests state what is true.
    """
    for path in list_modules(*CODE, "manifests/base/plugins", "tests"):
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            decorators = " ".join(map(ast.unparse, node.decorator_list))
            text = ast.get_docstring(node)
            if text and "property" not in decorators and not node.name.startswith("test_"):
                yield f"{name_of(path)}:{node.lineno} {node.name}", text.split()[0]


def test_a_docstring_begins_with_a_verb() -> None:
    found = {name: word.rstrip(",:;") for name, word in find_first_words()}
    assert len(found) > 1000
    strange = {name: word for name, word in found.items() if word not in VERBS}
    assert not strange, "begin with a verb; if it is one, add it to VERBS"


def find_imports(path: Path) -> Iterator[str]:
    """Yield the names of the modules that a module imports, and of what it takes from them."""
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_what_tests_share_is_in_support() -> None:
    """A test module, and a conftest, is imported by pytest alone."""
    shared = ("tests.support.", "tests.bench.")
    assert not [
        f"{name_of(path)} imports {name}"
        for path in list_modules("tests")
        for name in find_imports(path)
        if name.startswith("tests.") and not name.startswith(shared)
    ]


# What end-to-end tests may use of the kit: a running lab, what it returns and raises, a wait.
LAB = {"lab.lab", "lab.model", "lab.errors", "lab.wait", "lab.config"}


def test_end_to_end_tests_touch_only_lab() -> None:
    """They can't know the backend. `Config` says where the lab's home is, for the command line."""
    assert not [
        f"{name_of(path)} imports {name}"
        for path in list_modules("tests/e2e", "tests/faults")
        for name in find_imports(path)
        if name.split(".")[0] in {"lab", "eks"} and name.rpartition(".")[0] not in LAB
    ]


# --- Choices and exits --------------------------------------------------------------------------


PACKAGES = sorted(
    name_of(path.parent) for path in list_modules("lab", "eks") if path.name == "__init__.py"
)


@pytest.mark.parametrize("folder", PACKAGES)
def test_a_package_names_all_its_parts(folder: str) -> None:
    told = re.findall(r"\w+", ast.get_docstring(parse(TREE / folder / "__init__.py")) or "")
    modules_here = {path.stem for path in (TREE / folder).glob("*.py")} - {"__init__", "__main__"}
    packages = {path.parent.name for path in (TREE / folder).glob("*/__init__.py")}
    assert sorted((modules_here | packages) - set(told)) == []


def test_one_module_reads_choices() -> None:
    readers = {
        name_of(path): found
        for path in list_modules(*CODE)
        if (found := sorted(s for s in find_strings(path) if CHOICE.fullmatch(s)))
    }
    assert set(readers) - set(SESSIONS) == {"lab/config.py"}, readers


def test_the_sessions_read_no_other_choices() -> None:
    strings = {text for name in SESSIONS for text in find_strings(TREE / name)}
    assert {text for text in strings if CHOICE.fullmatch(text)} <= SESSIONS_READ


ENDS = {"sys.exit", "os._exit", "os.abort", "os.exit"}


def find_exits(tree: ast.Module) -> Iterator[str]:
    """Yield what ends the whole process in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ENDS:
            yield ast.unparse(node)
        if isinstance(node, ast.Name) and node.id in {"exit", "quit", "SystemExit"}:
            yield node.id


def test_one_module_exits() -> None:
    # What is delivered, and the template, run in processes of their own.
    others = ("lab/delivery/library/", "lab/init/template")
    kit = [path for path in list_modules("lab") if not name_of(path).startswith(others)]
    found = {name_of(path): sorted(find_exits(parse(path))) for path in kit}
    assert set(found.pop("lab/console.py")) == {"sys.exit"}
    assert not {name: how for name, how in found.items() if how}


# --- Locks --------------------------------------------------------------------------------------


def test_there_is_a_lock_for_each_set_of_packages() -> None:
    assert {"lab", "check", "build", "uv", "postgresql"} <= {lock.stem for lock in LOCKS}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_has_an_exact_version_and_a_hash_of_each_package(lock: Path) -> None:
    text = re.sub(r"^ *#.*\n", "", lock.read_text("utf-8"), flags=re.MULTILINE)
    pins = [pin for pin in text.replace("\\\n", " ").splitlines() if pin.strip()]
    assert pins
    exact = re.compile(
        r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,-]+\])?==\S+( ; [^#]+?)?( +--hash=sha256:[0-9a-f]{64})+"
    )
    assert not [pin for pin in pins if not exact.fullmatch(pin.strip())]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_a_lock_names_no_address(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert not re.findall(r"\S*(?:://|--index-url|--extra-index|--find-links|-f |@ )\S*", text)


def test_the_locks_agree_on_each_version() -> None:
    """A session with more packages is the same session with more packages.

    The judges are alone in their environment: checkov asks for old versions of much.
    """
    pins: dict[str, set[str]] = {}
    pin = re.compile(r"^([a-z0-9._-]+)==(\S+) *\\?$", re.MULTILINE)
    for lock in (lock for lock in LOCKS if lock.name != "judges.txt"):
        for name, version in pin.findall(lock.read_text("utf-8")):
            pins.setdefault(name, set()).add(version)
    assert len(pins) > 100
    assert not {name: found for name, found in pins.items() if len(found) > 1}


# --- What is tracked ----------------------------------------------------------------------------


def test_no_tracked_file_names_a_registry() -> None:
    assert not [
        (name_of(path), host)
        for path in list_tracked_files()
        for host in HOSTS
        if host.encode() in path.read_bytes()
    ]


def test_no_tracked_file_names_a_place_of_one_machine() -> None:
    found = []
    for path in list_tracked_files():
        text = path.read_text("utf-8", "replace")
        found += [(name_of(path), place) for place in PLACES if place in text]
        found += [(name_of(path), hit.group()) for hit in PRIVATE.finditer(text)]
    assert not found


def test_a_place_of_one_machine_is_recognised() -> None:
    """The pattern is one thing only: a whole path that begins in somebody's own folder."""
    mine = "/ro" + "ot/x", "see /ho" + "me/jane/lab", "file:///Us" + "ers/jane/x"
    others = "s3://bucket/root/x", "{home}/root/", "/home/you/lab", "~/lab", "/path/to/folder"
    assert all(map(PRIVATE.search, mine))
    assert not any(map(PRIVATE.search, others))


def test_no_tracked_file_is_left_over() -> None:
    """Byte code, logs, labs and environments are made on each machine."""
    left = re.compile(r"(^|/)(__pycache__|\.lab|\.nox|\.venv)(/|$)|\.(pyc|log|pid|orig|rej|swp)$")
    assert not [name_of(path) for path in list_tracked_files() if left.search(name_of(path))]
