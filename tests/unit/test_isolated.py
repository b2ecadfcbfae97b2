"""What PYTHONPATH names is left out, before a command line imports anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[2]
CODE = """
import lab.isolated, json, os, sys
import yaml, rich
print(json.dumps({"path": sys.path, "env": dict(os.environ), "yaml": yaml.__file__}))
"""


def run_isolated(folder: Path, *flags: str, **variables: str) -> dict[str, Any]:
    """Return what a new Python says of itself once it has imported the module."""
    done = subprocess.run(
        [sys.executable, *flags, "-c", CODE],
        cwd=folder,
        env={"PATH": os.defpath, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_a_module_on_pythonpath_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemError\n")
    own = sysconfig.get_path("purelib")
    named = os.pathsep.join([f"{tmp_path}/", str(TREE), own, "."])
    for flags in ([], ["-P"]):
        said = run_isolated(tmp_path.parent, *flags, PYTHONPATH=named)
        assert said["yaml"].startswith(own)
        assert {str(TREE), own} <= set(said["path"])
        assert {str(tmp_path), str(tmp_path.parent)}.isdisjoint(said["path"])


def test_children_see_none_of_pythons_variables(tmp_path: Path) -> None:
    """But how a terminal is written to, and where byte code goes."""
    kept = {"PYTHONUTF8": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    said = run_isolated(
        tmp_path,
        PYTHONPATH="/x",
        PYTHONSAFEPATH="1",
        PYTHONSTARTUP="/x",
        PYTHONOPTIMIZE="2",
        **kept,
    )
    names = {name for name in said["env"] if name.startswith("PYTHON")}
    assert names == set(kept)
