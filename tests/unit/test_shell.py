"""Commands: their output, and errors that quote it."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from lab.errors import LabError
from lab.shell import TAIL_LINES, name_command, run, tail

PYTHON = sys.executable


def python_command(code: str) -> list[str]:
    return [PYTHON, "-c", code]


def test_what_it_printed_is_returned(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    assert run(python_command(code), timeout=30) == "out\n"
    assert capfd.readouterr() == ("", "")


def test_words_go_through_no_shell(tmp_path: Path) -> None:
    assert run(["printf", "%s", "$HOME; touch x `id`"], timeout=30, cwd=tmp_path) == (
        "$HOME; touch x `id`"
    )
    assert not list(tmp_path.iterdir())


def test_it_reads_what_it_is_given_and_never_the_terminal() -> None:
    assert run(["cat"], timeout=30, stdin="größer\n") == "größer\n"
    assert run(["cat"], timeout=30) == ""


def test_it_runs_in_a_folder_with_an_environment(tmp_path: Path) -> None:
    code = "import os; print(os.getcwd(), sorted(n for n in os.environ if n != 'LC_CTYPE'))"
    assert (
        run(python_command(code), timeout=30, cwd=tmp_path, env={"A": "1"}) == f"{tmp_path} ['A']\n"
    )


def test_a_failure_says_why_in_one_line_and_holds_all_output() -> None:
    code = """import sys
print('{"data": 1}')
print("one", "fatal: two", sep="\\n", file=sys.stderr)
sys.exit(7)"""
    with pytest.raises(LabError) as caught:
        run(python_command(code), timeout=30, fix="try harder")
    error = caught.value
    assert error.what == f"{Path(PYTHON).name} failed: two"
    assert error.fix == "try harder"
    assert error.program == Path(PYTHON).name
    assert error.output.startswith(f"+ {PYTHON} -c ")
    assert error.output.splitlines()[-3:] == ['{"data": 1}', "one", "fatal: two"]


def test_what_went_to_stdout_says_why_if_nothing_else_does() -> None:
    with pytest.raises(LabError, match=r"^python\S* failed: no room"):
        run(python_command("print('no room'); exit(1)"), timeout=30)


def test_a_silent_failure_has_its_code() -> None:
    with pytest.raises(LabError, match=r"^python\S* exited with code 7, saying nothing"):
        run(python_command("exit(7)"), timeout=30)


def test_a_traceback_shows_the_last_lines() -> None:
    with pytest.raises(LabError) as caught:
        run(python_command("print(*range(100), sep='\\n'); exit(1)"), timeout=30)
    (note,) = caught.value.__notes__
    assert note.splitlines() == [f"    {number}" for number in range(100 - TAIL_LINES, 100)]


def test_a_killed_command_is_a_failure() -> None:
    with pytest.raises(LabError, match=r"^python\S* was ended by signal 9 \(Killed"):
        run(python_command("import os; os.kill(os.getpid(), 9)"), timeout=30)


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/bin/docker image inspect --format {{.Id}} x", "docker image inspect"),
        ("git clone --quiet http://127.0.0.1/x", "git clone"),
        ("kubectl --kubeconfig /x get pods", "kubectl"),
        ("/x/bin/python3.13 -P -m dataset_steps import /x.csv", "dataset_steps import"),
        ("/x/bin/python /x/bin/airflow db migrate", "airflow db migrate"),
        ("/x/bin/python -I -c pass", "python"),
        ("/x/initdb -D /x", "initdb"),
        ("python", "python"),
    ],
)
def test_a_command_is_called_by_its_name(command: str, name: str) -> None:
    assert name_command(command.split()) == name


def test_a_command_that_takes_too_long_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(LabError, match="sh took more than 1 s") as caught:
        run(["sh", "-c", "echo begun; exec sleep 60"], timeout=0.6)
    assert time.monotonic() - began < 10
    assert caught.value.output.endswith("\nbegun")


def test_a_missing_command_is_named() -> None:
    with pytest.raises(LabError) as caught:
        run(["no-such-command", "x"], timeout=30)
    assert caught.value.what == "there is no command 'no-such-command'"
    assert caught.value.fix == "install no-such-command"


def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert run(python_command("import os; os.write(1, b'a\\xffb')"), timeout=30) == "a\ufffdb"


def test_text_is_utf_8_whatever_the_locale() -> None:
    code = (
        "from lab.shell import run; print(ascii(run(['cat'], timeout=30, stdin='gr\\xf6\\xdfer')))"
    )
    plain = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    tree = Path(__file__).resolve().parents[2]
    assert run(python_command(code), timeout=30, cwd=tree, env=plain) == "'gr\\xf6\\xdfer'\n"


def test_the_tail_of_nothing_is_nothing() -> None:
    assert tail("") == tail("\n\n") == ""
    assert tail("a\nb\nc\n", lines=2) == "    b\n    c"
