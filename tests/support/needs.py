"""What a test of kind needs on this machine. It skips without it, or fails under LAB_REQUIRE."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock

from lab.cluster import cache, chart, docker, images, tools
from lab.config import Config
from lab.errors import LabError

ABSENT = "no kind here: "  # the beginning of each skip's reason


def skip_or_fail(why: str) -> None:
    """Skip the test, or fail it where LAB_REQUIRE names kind."""
    if Config.from_environment().require == "kind":
        pytest.fail(f"LAB_REQUIRE=kind, but: {why}")
    pytest.skip(f"{ABSENT}{why}")


def need_tool(name: str) -> None:
    """Skip unless this machine has the tool: no test downloads one."""
    if not tools.find_local(name):
        skip_or_fail(f"there is no {name} on this machine, and no test downloads one")


def need_image(key: str) -> str:
    """Return the name of a locked image; skip unless Docker has it."""
    name = images.read_lock(Config.from_environment())[key].name
    try:
        docker.inspect_engine()
        if not docker.image_id(name):
            skip_or_fail(f"Docker has no image {name}")
    except LabError as error:
        skip_or_fail(error.what)
    return name


def ensure_image(key: str) -> str:
    """Return the name of a locked image; build it unless Docker has it.

    Skips where there is no Docker, or it lacks what the image is built from.
    """
    known = images.read_lock(Config.from_environment())
    image = known[key]
    try:
        docker.inspect_engine()
        with build_lock():
            lacking = [base.name for base in images.walk_missing(known, image) if not base.folder]
            if lacking:
                skip_or_fail(f"Docker has neither {image.name} nor {', '.join(lacking)}")
            images.ensure_image(known, image)
    except LabError as error:
        skip_or_fail(error.what)
    return image.name


def build_images(config: Config) -> None:
    """Pull or build all images of a lab on kind; other labs need none."""
    if config.backend == "kind":
        with build_lock():
            images.ensure_images(config)


def build_lock() -> FileLock:
    """Return a lock for one worker at a time: two would build the same image side by side."""
    return FileLock(Path(tempfile.gettempdir(), f"mlops-lab-{os.getuid()}-images.lock"))


def need_renderers() -> None:
    """Skip unless this machine has kubectl, helm and the chart."""
    for tool in ("kubectl", "helm"):
        need_tool(tool)
    need_chart()


def need_chart() -> Path:
    """Return the chart's file; skip unless it is on this machine."""
    config, pin = Config.from_environment(), chart.read_pin()
    held = config.chart or cache.find_cached(pin["sha256"], chart.file_name(pin))
    if held is None:
        skip_or_fail("Airflow's chart is not in the cache, and no test downloads it")
        raise AssertionError
    return held
