"""Worlds for the engine's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.unit.engine.world", "tests.unit.engine.audit")

from tests.unit.engine.world import World, world_at  # noqa: E402 - assertions in it are to be rewritten


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
def place(request: pytest.FixtureRequest, folder: Path) -> Path | None:
    """Where a store lies: in memory; and where there is time, as it takes four times as long, in a folder too."""
    return folder if request.param == "sqlite" else None


@pytest.fixture
async def world(place: Path | None) -> AsyncIterator[World]:
    async with world_at(place) as made:
        yield made
