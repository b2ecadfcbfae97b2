"""Images on their way into the node, while the cluster is made and its servers start."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from functools import cached_property, partial
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
        self.brought: dict[str, Future[tuple[Image, Path]]] = {key: Future() for key in keys}
        self.loaded: dict[str, Future[None]] = {key: Future() for key in self.brought}

    def start(self) -> None:
        """Start bringing and loading. The next command ends what this one leaves under way."""
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

    def bring(self, key: str) -> tuple[Image, Path]:
        """Pull or build an image, unless Docker has it; return what Docker has, and its archive."""
        images.ensure_image(self.known, self.known[key])
        image = images.choose_one(self.known[key])
        return image, images.ensure_archive(self.known, image)

    def load_all(self) -> None:
        for key, done in self.loaded.items():
            settle(done, partial(self.load, key))

    @cached_property
    def held(self) -> set[str]:
        """The images that the node has had from the beginning, by containerd's names."""
        node.wait_for_containerd(self.config)
        return node.list_images(self.config)

    def load(self, key: str) -> None:
        """Load an image into the node, once it was brought; print how long it took."""
        image, archive = self.brought[key].result()
        held, began = self.held, time.monotonic()
        node.load_image(self.config, image, archive, held)
        if (seconds := time.monotonic() - began) > SLOW:
            size = images.to_megabytes(archive.stat().st_size)
            print(f"  loaded {image.name} into the node: {size}, {seconds:.0f} s", flush=True)


def settle(done: Future[T], work: Callable[[], T]) -> None:
    """Do the work, and have whoever waits for it get its result or its error."""
    try:
        done.set_result(work())
    except BaseException as error:  # it is raised again where somebody waits for it
        done.set_exception(error)
