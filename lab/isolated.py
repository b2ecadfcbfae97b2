"""Leaves PYTHONPATH out, once it is imported: a command line imports it before all else.

A module there is imported in place of the environment's own: somebody's `yaml.py` instead of
PyYAML, in this process and in each Python that it starts. So only what Python has imported already
is imported here.
"""

import os
import sys

# These say how a terminal is written to and where byte code goes, not what is imported.
HARMLESS = (
    *("PYTHONUTF8", "PYTHONIOENCODING", "PYTHONCOERCECLOCALE", "PYTHONUNBUFFERED"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX"),
)


def leave_pythonpath() -> None:
    """Take what PYTHONPATH names off the search path, and Python's variables off the environment.

    This checkout and this environment stay: a folder that is named twice is on the path once.
    """
    absolute, parent = os.path.abspath, os.path.dirname
    own = (f"{parent(parent(absolute(__file__)))}{os.sep}", f"{sys.prefix}{os.sep}")
    value = os.environ.get("PYTHONPATH")
    named = {absolute(folder) for folder in value.split(os.pathsep)} if value else set()
    foreign = {folder for folder in named if not f"{folder}{os.sep}".startswith(own)}
    first = 0 if sys.flags.safe_path else 1  # before it is the place of the script
    sys.path[first:] = [folder for folder in sys.path[first:] if folder not in foreign]
    for name in list(os.environ):
        if name.startswith("PYTHON") and name not in HARMLESS:
            del os.environ[name]


leave_pythonpath()
