"""Worlds for the engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.unit.engine.world", "tests.unit.engine.audit")

from tests.unit.engine.world import World, world_at  # noqa: E402 - assertions in it are to be rewritten


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
async def world(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[World]:
    """Over SQLite too, where there is time for that: it takes four times as long."""
    async with world_at(folder if request.param == "sqlite" else None) as made:
        yield made
