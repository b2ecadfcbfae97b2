"""What the pages say is so: links lead somewhere, commands and options exist, no row is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

from eks.__main__ import app as eks_app
from lab.__main__ import app as lab_app
from lab.console import COMMANDS, INTERRUPTED, USAGE
from lab.delivery.bundle import list_dag_files
from lab.errors import LabError, PromotionError
from lab.layout import REPOSITORIES

TREE = Path(__file__).resolve().parents[2]
README = TREE / "README.md"
REFERENCE = TREE / "docs" / "reference.md"
PROMOTION = TREE / "eks" / "README.md"
PAGES = [README, TREE / "CONTRIBUTING.md", PROMOTION, *sorted((TREE / "docs").glob("*.md"))]
README_LINES = 150

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
LINK = re.compile(r"\[[^]]+\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"[a-z]+:")  # a scheme: the address is not of this checkout
SHELL = {"sh", "console"}
# What is between two commands of one line. A bar without blanks is between two values of an option.
BETWEEN = re.compile(r"\n|&&|\|\||;|\s[|&](?=\s|$)|\$\(|\"\$\(")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
FOLDERS = ("lab", "dags", "manifests", "images", "eks", "tests", "docs", "requirements", ".ci")
FILE = re.compile(rf"(?:{'|'.join(map(re.escape, FOLDERS))})/\S*")
PLACEHOLDER = re.compile(r"[<>*]")
CHOICE = re.compile(r"LAB_[A-Z_]*")
CODE = re.compile(r"^\| (\d+) \|", re.MULTILINE)


def page_name(page: Path) -> str:
    return page.relative_to(TREE).as_posix()


def read(page: Path) -> str:
    return page.read_text("utf-8")


def strip_fences(text: str) -> str:
    """Return the text without its fenced blocks."""
    return FENCE.sub("", text)


def find_inline_code(text: str) -> list[str]:
    """Return each piece of code in the prose; in a table a bar is written with a backslash."""
    return [found.replace("\\|", "|") for found in INLINE.findall(strip_fences(text))]


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def find_anchors(page: Path) -> set[str]:
    return {anchor_of(heading) for heading in HEADING.findall(strip_fences(read(page)))}


def read_first_cells(page: Path) -> set[str]:
    """Return the code that begins each row of the page's tables."""
    rows = re.findall(r"^\| \[?`([^`]+)`", read(page), re.MULTILINE)
    return set(rows)


on_each_page = pytest.mark.parametrize("page", PAGES, ids=page_name)


# --- Length and links ---------------------------------------------------------------------------


def test_the_readme_is_one_page() -> None:
    assert len(read(README).splitlines()) <= README_LINES


def find_broken_links(page: Path, text: str) -> Iterator[str]:
    """Yield each link of the text that leads to no file or to no heading."""
    for link in LINK.findall(INLINE.sub("", strip_fences(text))):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in find_anchors(target)):
            yield link


@on_each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    assert not list(find_broken_links(page, read(page)))


def test_a_link_that_leads_nowhere_is_found() -> None:
    text = "[a](docs/nowhere.md) [b](docs/reference.md#nothing) [c](docs/reference.md#ports)"
    assert list(find_broken_links(README, text)) == ["docs/nowhere.md", "docs/reference.md#nothing"]


def test_each_page_is_reached_from_the_readme() -> None:
    links = {(TREE / link.partition("#")[0]).resolve() for link in LINK.findall(read(README))}
    assert not [page_name(page) for page in PAGES if page not in {README, *links}]


# --- Commands -----------------------------------------------------------------------------------


class Tool(NamedTuple):
    """A command line: how a page names it, its commands, and the options of each."""

    begins: tuple[str, ...]
    options: dict[str, set[str]]  # by command; those without a command by ""


def read_options(app: typer.Typer) -> dict[str, set[str]]:
    """Return the options of each command, and of the app itself by "", as Typer has them."""
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    found = {"": group, **group.commands}
    return {
        name: {"--help", *(o for one in command.params for o in [*one.opts, *one.secondary_opts])}
        for name, command in found.items()
    }


LAB = Tool(("lab", "nox -s lab --"), read_options(lab_app))
EKS = Tool(("nox -s eks --",), read_options(eks_app))


def read_sessions() -> set[str]:
    """Return the names of noxfile.py's sessions."""
    tree = ast.parse(read(TREE / "noxfile.py"))
    own = {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(one).partition("(")[0] == "nox.session" for one in node.decorator_list)
    }
    imports = [one for one in tree.body if isinstance(one, ast.ImportFrom)]
    return own | {a.name for one in imports if one.module == "lab.sessions" for a in one.names}


def find_commands(text: str) -> Iterator[str]:
    """Yield each command that the text shows, in a block for a shell or within the prose."""
    blocks = [code.replace("\\\n", " ") for name, code in FENCE.findall(text) if name in SHELL]
    for code in [*blocks, *find_inline_code(text)]:
        for part in BETWEEN.split(re.sub(r"(^|\s)#.*", "", code, flags=re.MULTILINE)):
            yield re.sub(r"^\s*(\$ )?\s*((?:\w+=\S*|eval|if|!)\s+)*", "", part).strip()


def judge_command(line: str) -> str | None:
    """Return what is wrong with a command that a page shows, or None."""
    if (session := re.match(r"nox -s (\S+)", line)) and session[1] not in read_sessions():
        return f"{line}: there is no session {session[1]}"
    for tool in (LAB, EKS):
        for begins in tool.begins:
            if line.startswith(f"{begins} "):
                return judge_words(line, line.removeprefix(begins), tool.options)
    return None


def judge_words(line: str, words: str, known: dict[str, set[str]]) -> str | None:
    """Return what is wrong with the words after a tool's name: a command, or an option of it."""
    command = re.match(r" ([\w-]+)", words)
    name = command[1] if command and not command[1].startswith("-") else ""
    if name == "COMMAND":  # stands for each
        return None
    if name not in known:
        return f"{line}: there is no command {name}"
    strange = [option for option in OPTION.findall(words) if option not in known[name]]
    return f"{line}: {name or 'it'} has no {', '.join(strange)}" if strange else None


@on_each_page
def test_every_command_is_one_that_there_is(page: Path) -> None:
    assert not list(filter(None, map(judge_command, find_commands(read(page)))))


def test_commands_are_found_and_judged() -> None:
    assert {"tests", "quick", "lab"} <= read_sessions()
    assert LAB.options.keys() == {"", *COMMANDS}
    shown = """
`nox -s no-such` and `lab frobnicate`, `lab down [--prune]`, `lab up [--backend a\\|b] [--base x]`

```sh
pip install nox && nox -s nothing   # lab comment
eval "$(lab environ | sed s/a/b/)"
lab verify --yaml || echo "exit code $?"
nox -s lab -- --backend kind
X=1 nox -s eks -- verify --yes
```

```text
lab status shows what runs
```
"""
    wrong = [why.rpartition(": ")[2] for why in map(judge_command, find_commands(shown)) if why]
    assert wrong == [
        "there is no session nothing",
        "there is no command environ",
        "verify has no --yaml",
        "verify has no --yes",
        "there is no session no-such",
        "there is no command frobnicate",
        "down has no --prune",
        "up has no --base",
    ]


def test_the_reference_has_every_command_and_option() -> None:
    rows = read_first_cells(REFERENCE)
    for name, options in LAB.options.items():
        (row,) = (row for row in rows if re.match(rf"lab {name}(?![\w-])", row))
        assert not [o for o in options - {"--help"} if o.startswith("-") and o not in row], name


def test_the_reference_has_every_session() -> None:
    rows = {row.removeprefix("nox -s ") for row in read_first_cells(REFERENCE) if "nox -s " in row}
    assert rows == read_sessions()


# --- Files --------------------------------------------------------------------------------------


def find_missing_files(text: str) -> list[str]:
    """Return each path in the prose that leads to no file, but for those with a placeholder."""
    words = [
        word.partition("::")[0].rstrip(",;:")
        for code in find_inline_code(text)
        for word in code.split()
    ]
    paths = [word for word in words if FILE.fullmatch(word) and not PLACEHOLDER.search(word)]
    return [path for path in paths if path not in REPOSITORIES and not (TREE / path).exists()]


@on_each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    assert not find_missing_files(read(page))


def test_a_file_that_is_not_there_is_found() -> None:
    text = "`lab/errors.py`, `lab/pipelines`, `dags/<dag_id>.py`, `python tests/no.py`, `dags/no/`"
    assert find_missing_files(text) == ["tests/no.py", "dags/no/"]


# --- DAGs ---------------------------------------------------------------------------------------


def list_dag_ids() -> set[str]:
    """Return the ids of the checkout's DAGs, after which their files are called."""
    return {Path(name).stem for name in list_dag_files(TREE / "dags")}


def test_every_dag_has_a_row_in_the_readme() -> None:
    table = read(README).partition("## Pipelines\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| \[?`(\w+)`", table, re.MULTILINE)
    assert len(list_dag_ids()) > 5
    assert sorted(rows) == sorted(list_dag_ids())


def test_every_dag_has_an_end_to_end_test() -> None:
    folder = TREE / "tests" / "e2e"
    assert not [name for name in list_dag_ids() if not (folder / f"test_{name}.py").is_file()]


def find_constants(tree: ast.Module, name: str) -> Iterator[object]:
    """Yield each constant that a module calls `name`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(t) for t in node.targets] == [name]:
            yield ast.literal_eval(node.value)


def test_every_end_to_end_test_is_of_a_dag_that_there_is() -> None:
    paths = sorted((TREE / "tests" / "e2e").glob("test_*.py"))
    found = {name for path in paths for name in find_constants(ast.parse(read(path)), "DAG")}
    assert len(found) > 5
    assert found <= list_dag_ids()


# --- Variables, exit codes and options ----------------------------------------------------------


def find_choices(tree: ast.AST) -> set[str]:
    """Return the LAB_* variables, or their beginnings, that a module names."""
    nodes = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    return {value for value in nodes if isinstance(value, str) and CHOICE.fullmatch(value)}


def test_the_reference_has_every_variable() -> None:
    rows = (row for cell in read_variable_cells() for row in CHOICE.findall(cell))
    assert set(rows) == find_choices(ast.parse(read(TREE / "lab" / "config.py")))


def read_variable_cells() -> Iterator[str]:
    """Yield the first cell of each row of the reference that begins with a LAB_* variable."""
    for line in read(REFERENCE).splitlines():
        if line.startswith("| `LAB_"):
            yield line.split(" | ")[0]


def list_kinds(base: type[LabError]) -> Iterator[type[LabError]]:
    """Yield the error and all its children, but for those that a test has made."""
    if base.__module__.partition(".")[0] in {"lab", "eks"}:
        yield base
    for child in base.__subclasses__():
        yield from list_kinds(child)


def test_the_reference_has_every_exit_code_and_its_kind() -> None:
    rows = re.findall(r"^\| (\d+) \| `?(\w*)`? ?\|", read(REFERENCE), re.MULTILINE)
    assert {(int(code), name) for code, name in rows} == {
        *((kind.exit_code, kind.__name__) for kind in list_kinds(LabError)),
        *((code, "") for code in (0, USAGE, INTERRUPTED)),
    }


def test_the_page_of_eks_has_every_exit_code_of_a_promotion() -> None:
    rows = {int(code) for code in CODE.findall(read(PROMOTION))}
    assert rows == {kind.exit_code for kind in list_kinds(PromotionError)}


def test_the_page_of_eks_has_every_option() -> None:
    options = {folder.name for folder in (TREE / "manifests" / "options").glob("*/")}
    assert options
    assert not options - read_first_cells(PROMOTION)
