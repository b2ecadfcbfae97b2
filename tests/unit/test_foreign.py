"""A person's settings for other programs: removed, and not looked for elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab.foreign import NO_AWS, leave_foreign_settings

if TYPE_CHECKING:
    import pytest


def test_settings_of_others_are_removed() -> None:
    foreign = ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "BOTO_CONFIG", "BOTOCORE_TCP_KEEPALIVE")
    kept = {"PATH": "/bin", "DOCKER_HOST": "unix:///x", "LAWS_OF": "x", "HTTPS_PROXY": "http://p"}
    env = {**dict.fromkeys(foreign, "x"), "HELM_DRIVER": "sql", "AWS_CONFIG_FILE": "/mine", **kept}
    leave_foreign_settings(env)
    assert env == {**kept, **NO_AWS}


def test_dvc_takes_that_there_is_nothing_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """DVC says of a device that it is no configuration, and reads no remote on S3."""
    from dvc_s3 import S3FileSystem

    for name, value in NO_AWS.items():
        monkeypatch.setenv(name, value)
    assert S3FileSystem(url="s3://bucket/store").fs_args
