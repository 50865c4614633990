"""Worlds for the engine's tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.unit.engine.world", "tests.unit.engine.audit")

from tests.unit.engine.world import World, world_at  # noqa: E402 - assertions in it are to be rewritten


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place in memory where there is one: what a disk needs for a sync is not what is tested here."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="haulier-test-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def world(folder: Path) -> AsyncIterator[World]:
    async with world_at(folder) as made:
        yield made
