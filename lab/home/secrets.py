"""The lab's secrets: random, made once, kept in one file of mode 0600."""

from __future__ import annotations

import json
import secrets
import threading

from lab.config import Config
from lab.errors import HomeError
from lab.files import folder_lock, write_private_file
from lab.home.state import purge_hint


class Secrets:
    """Random secrets, created on first use, kept in one file of mode 0600."""

    def __init__(self, config: Config) -> None:
        self.path = config.secrets / "secrets.json"
        self.lock = threading.Lock()
        try:
            self.values = self.read()
        except (ValueError, TypeError) as error:
            raise HomeError(f"{self.path} is unreadable: {error}", purge_hint(config)) from error

    def read(self) -> dict[str, str]:
        """Read the secrets that the file holds now."""
        try:
            return dict(json.loads(self.path.read_text("utf-8")))
        except FileNotFoundError:
            return {}

    def get(self, name: str, length: int = 24) -> str:
        """Return the secret `name`, of `length` random bytes, the same at each call from now on."""
        with self.lock:
            if name not in self.values:
                # `lab status` may read while `lab up` creates some
                with folder_lock(self.path.parent):
                    self.values = {name: secrets.token_urlsafe(length), **self.read()}
                    write_private_file(self.path, json.dumps(self.values, indent=1))
            return self.values[name]
