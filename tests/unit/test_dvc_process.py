"""What DVC writes to stderr when it fails, as one line that says why."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

import pytest

from lab.client import dvc_process

CLONE = Path("/clones/of mine/datasets")
SKIPPING = "WARNING: failed to collect 'workspace', skipping\n"
PULL = "ERROR: failed to pull data from the cloud - "
CHECKOUT = (
    f"{PULL}Checkout failed for following targets:\na.csv\nIs your cache up to date?\n<https:"
)
MISSING = (
    "WARNING: Some of the cache files do not exist neither locally nor on remote. "
    "Missing cache files:\n"
)
SUPPORT = (
    "Having any troubles? Hit us up at https://dvc.org/support, we are always happy to help!\n"
)
S3 = "failed to connect to s3 (bucket/store/files/md5) - "
# As DVC 3.67 has written it.
SAID = [
    (
        f"{SKIPPING}{PULL}Path '{CLONE}/a.csv' is ignored by .dvcignore:1:*.csv\n",
        "Path 'a.csv' is ignored by .dvcignore:1:*.csv",
    ),
    (f"{SKIPPING}{PULL}'{CLONE}/a.csv.dvc' is dvc-ignored\n", "'a.csv.dvc' is dvc-ignored"),
    (
        f"No remote provided and no default remote set.\n{CHECKOUT}\n",
        ".dvc/config names no default remote",
    ),
    (
        f"{SKIPPING}{PULL}config file error: remote 'x' doesn't exist\n",
        "config file error: remote 'x' doesn't exist",
    ),
    (
        "ERROR: configuration error - config file error: extra keys not allowed @ data['a']\n",
        "config file error: extra keys not allowed @ data['a']",
    ),
    (
        f"{MISSING}md5: 7126271a7820e3a1bf99c6f0d59c4cd3\n{CHECKOUT}\n",
        "the remote has no object of md5 7126271a7820e3a1bf99c6f0d59c4cd3",
    ),
    (
        f"ERROR: {S3}The config profile (work) could not be found\n{PULL}1 files failed to\n",
        f"{S3}The config profile (work) could not be found",
    ),
    (
        f"ERROR: {S3}Unable to locate credentials\n{PULL}1 files failed to download\n",
        f"{S3}Unable to locate credentials",
    ),
    (
        f"{SKIPPING}ERROR: unexpected error - gs is supported, but requires 'dvc-gs'\n\n{SUPPORT}",
        "gs is supported, but requires 'dvc-gs'",
    ),
    (
        f"{SKIPPING}'./a.csv.dvc' is invalid (possible merge conflicts).\n\nMapping values, line 2",
        "'./a.csv.dvc' is invalid (possible merge conflicts). Mapping values, line 2",
    ),
    (
        "ERROR: you are not inside of a DVC repository (checked up to mount point '/')\n",
        "you are not inside of a DVC repository (checked up to mount point '/')",
    ),
    (
        "Traceback (most recent call last):\n  File\nModuleNotFoundError: No module named 'x'\n",
        "ModuleNotFoundError: No module named 'x'",
    ),
    ("", "it does not say why"),
]


@pytest.mark.parametrize(("said", "reason"), SAID, ids=[reason for _, reason in SAID])
def test_the_reason_is_one_line(said: str, reason: str) -> None:
    assert dvc_process.find_dvc_reason(said, CLONE) == reason


@pytest.mark.parametrize("own", ["", "[cache]\ndir = /mine\n['remote \"s3\"']\nurl = s3://100%\n"])
def test_a_clones_cache_is_its_own_and_other_settings_stay(own: str, tmp_path: Path) -> None:
    settings = tmp_path / ".dvc" / "config.local"
    settings.parent.mkdir()
    settings.write_text(own, "utf-8")
    dvc_process.write_settings(tmp_path)
    found = ConfigParser(interpolation=None)
    found.read(settings, "utf-8")
    assert (found["cache"]["dir"], found["cache"]["local"]) == ("cache", "")
    assert found.get("'remote \"s3\"'", "url", fallback="") == ("s3://100%" if own else "")


def test_settings_that_are_none_are_left_for_dvc_to_tell_of(tmp_path: Path) -> None:
    dvc_process.write_settings(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / ".dvc").mkdir()
    settings = tmp_path / ".dvc" / "config.local"
    settings.write_text("nonsense", "utf-8")
    dvc_process.write_settings(tmp_path)
    assert settings.read_text("utf-8") == "nonsense"


def test_the_project_is_the_nearest_one_above(tmp_path: Path) -> None:
    assert dvc_process.find_project(tmp_path, "a/b/c.csv") == tmp_path
    (tmp_path / ".dvc").mkdir()
    assert dvc_process.find_project(tmp_path, "a/b/c.csv") == tmp_path
    (tmp_path / "a" / ".dvc").mkdir(parents=True)
    assert dvc_process.find_project(tmp_path, "a/b/c.csv") == tmp_path / "a"
    assert dvc_process.find_project(tmp_path, "b/c.csv") == tmp_path
