"""Folders of nodes that single tests make for themselves, to break and to restart."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from devservices import places
from devservices.processes import send_signal
from devservices.rabbitmq_node import end_node

FOLDER = "nodes"


@contextmanager
def node_folder(kind: str) -> Iterator[Path]:
    """A fresh folder; what was launched in it is ended and its data removed on the way out."""
    folder = places.folder(FOLDER) / f"{kind}-{uuid4().hex[:12]}"
    folder.mkdir()
    try:
        yield folder
    finally:
        _end(folder)


def end_all() -> None:
    """End what tests that were killed left running."""
    for folder in (places.SERVICES / FOLDER).glob("*"):
        _end(folder)
    places.forget(FOLDER)


def _end(folder: Path) -> None:
    """Killed at once: nobody wants its data any more."""
    send_signal(folder, signal.SIGKILL)
    end_node(folder)
    shutil.rmtree(folder, ignore_errors=True)
