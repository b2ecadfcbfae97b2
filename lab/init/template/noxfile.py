"""The commands of this project; `nox -l` lists them. They are the kit's own, from its wheel."""

import sys
from pathlib import Path

wheels = sorted(Path(__file__).resolve().parent.glob("kit/mlops_lab-*.whl"))
if len(wheels) != 1:
    sys.exit(f"kit/ has {len(wheels)} wheels of the kit: keep the one that lab.toml names")
sys.path.insert(0, str(wheels[0]))  # a wheel is a zip, which Python imports from

from lab.sessions import e2e, eks, lab, lock  # noqa: E402

__all__ = ["e2e", "eks", "lab", "lock"]
