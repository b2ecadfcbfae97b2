"""What a test of kind needs of this machine. It skips without that, or fails under LAB_REQUIRE."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from lab.cluster import cache, chart, docker, images, tools
from lab.config import Config
from lab.errors import LabError

ABSENT = "no kind here: "  # how each skip for want of kind's tools begins


def absent(why: str) -> None:
    """Skips, and fails instead where the lab on kind is required."""
    if Config.from_environment().require == "kind":
        pytest.fail(f"LAB_REQUIRE=kind, but: {why}")
    pytest.skip(f"{ABSENT}{why}")


def need_tool(name: str) -> None:
    if not tools.here(name):
        absent(f"there is no {name} on this machine, and no test downloads one")


def need_image(key: str) -> str:
    """The name of an image that Docker holds. Skips where it does not, or there is no Docker."""
    name = images.locked()[key].name
    try:
        docker.engine()
        if not docker.image_id(name):
            absent(f"Docker has no image {name}")
    except LabError as error:
        absent(error.what)
    return name


def built_image(key: str) -> str:
    """Return the name of an image of the lock, which Docker holds: it is built where it was not.

    Skips where there is no Docker, or it lacks what the image is built from.
    """
    known = images.locked()
    image = known[key]
    try:
        docker.engine()
        with builder():
            lacking = [base.name for base in images.needed(known, image) if not base.folder]
            if lacking:
                absent(f"Docker has neither {image.name} nor {', '.join(lacking)}")
            images.provide(known, image)
    except LabError as error:
        absent(error.what)
    return image.name


def build_images(config: Config) -> None:
    """Have Docker hold all images of a lab on kind; other labs need none."""
    if config.backend == "kind":
        with builder():
            images.collect()


def builder() -> FileLock:
    """Return a lock that one worker has at a time: two would build the same image side by side."""
    return FileLock(Path(tempfile.gettempdir(), f"mlops-lab-{os.getuid()}-images.lock"))


def need_renderers() -> None:
    """Skips where kubectl, helm or the chart is missing."""
    for tool in ("kubectl", "helm"):
        need_tool(tool)
    chart_file()


def chart_file() -> Path:
    """The chart's file, which is on this machine; the test skips where it is not."""
    config, pin = Config.from_environment(), chart.pinned()
    held = config.chart or cache.held(pin["sha256"], chart.file_name(pin))
    if held is None:
        absent("Airflow's chart is not in the cache, and no test downloads it")
        raise AssertionError
    return held
