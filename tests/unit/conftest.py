"""Places for unit tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place in memory where there is one: what a disk needs for a sync is not what is tested here."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="haulier-test-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made)
