"""Images on their way into the node, while the cluster is made and its servers start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TypeVar

from lab.backends.kind import node
from lab.cluster import images
from lab.cluster.images import Image
from lab.config import Config

T = TypeVar("T")
SLOW = 2.0  # seconds; what takes longer has a line of its own


class Loading:
    """Brings images to this machine and into the node, one after the other, in the background.

    While one is loaded, the next is pulled or built, and saved. The order is that of need.
    """

    def __init__(self, config: Config, known: Mapping[str, Image], keys: Iterable[str]) -> None:
        """Prepare to bring the images of these keys; nothing happens before `start`."""
        self.config, self.known = config, known
        self.brought: dict[str, Future[Path]] = {key: Future() for key in keys}
        self.loaded: dict[str, Future[None]] = {key: Future() for key in self.brought}

    def start(self) -> None:
        """Start both. What is under way when this process ends is ended by the next command."""
        for work in (self.bring_all, self.load_all):
            Thread(target=work, name=work.__name__, daemon=True).start()

    def wait_for(self, keys: Iterable[str]) -> None:
        """Wait until the node has the images of these keys. Raises what kept one from it."""
        for key in keys:
            self.loaded[key].result()

    def wait_for_all(self) -> None:
        """Wait until the node has all of the images. Raises what kept one from it."""
        self.wait_for(self.loaded)

    def bring_all(self) -> None:
        for key, done in self.brought.items():
            settle(done, partial(self.bring, key))

    def bring(self, key: str) -> Path:
        """Pull or build an image, unless Docker has it, and save it to an archive."""
        images.ensure_image(self.known, self.known[key])
        return images.ensure_archive(self.known, images.choose_one(self.known[key]))

    def load_all(self) -> None:
        for key, done in self.loaded.items():
            settle(done, partial(self.load, key))

    def load(self, key: str) -> None:
        """Load an image into the node, once it was brought; print how long it took."""
        archive = self.brought[key].result()
        node.wait_for_containerd(self.config)
        image, began = images.choose_one(self.known[key]), time.monotonic()
        node.load_image(self.config, image, archive)
        if (seconds := time.monotonic() - began) > SLOW:
            size = images.to_megabytes(archive.stat().st_size)
            print(f"  loaded {image.name} into the node: {size}, {seconds:.0f} s", flush=True)


def settle(done: Future[T], work: Callable[[], T]) -> None:
    """Do the work, and have whoever waits for it get its result or its error."""
    try:
        done.set_result(work())
    except BaseException as error:  # it is raised again where somebody waits for it
        done.set_exception(error)
