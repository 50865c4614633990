"""Worlds for the engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.unit.engine.world", "tests.unit.engine.audit")

from tests.unit.engine.world import World, world_at  # noqa: E402 - assertions in it are to be rewritten


@pytest.fixture
async def world(folder: Path) -> AsyncIterator[World]:
    async with world_at(folder) as made:
        yield made
