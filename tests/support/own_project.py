"""A project of somebody's own, outside of the kit's checkout: two data sets, an image, a DAG."""

from __future__ import annotations

import shutil
from pathlib import Path

from lab.config import KIT, Config

LAB_TOML = """
[kit]
version = "0.2.0"

[lab]
name = "churn"
dag = "churn_pipeline"

[data.orders]
path = "orders"

[data.summary]
path = "summary.parquet"

[images.steps]
folder = "images/steps"
memory = "128Mi"
cpu = "1"
"""
DAG = "from airflow.sdk import DAG\n\nwith DAG('churn_pipeline'):\n    pass\n"


def make_project(root: Path) -> Config:
    """Make the project in a new folder, with an environment; return a lab's configuration."""
    write(root / "lab.toml", LAB_TOML)
    write(root / "dags" / "churn_pipeline.py", DAG)
    write(root / "images" / "steps" / "churn_steps.py", "print('churn')\n")
    staging = (KIT / "eks" / "environments" / "staging.toml").read_text("utf-8")
    kept = [line for line in staging.splitlines() if not line.startswith("dataset =")]
    changed = "\n".join(kept).replace("mlops-lab-staging", "churn-staging")
    write(root / "eks" / "environments" / "staging.toml", changed)
    return Config(home=root / ".lab", root=root)


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")


def install_kit(folder: Path) -> Path:
    """Copy the kit's own resources into a folder, as an installed wheel has them; return it."""
    for part in ("manifests", "images", "eks"):
        ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(KIT / part, folder / part, ignore=ignored)
    return folder
