"""What an earlier process left holds up no start of a standalone one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from haulier import standalone
from haulier.standalone import remove_leftovers
from shared.errors import RuntimeUnavailable
from tests.unit.worker.plant import NODE, HeldRuntime, Plant
from worker import daemon

Dead = Callable[[Collection[str]], Awaitable[Collection[str]]]


class Failing(HeldRuntime):
    """An engine that can't remove what is left."""

    async def sweep(self, dead: Dead, mine: str) -> int:  # noqa: ARG002
        raise RuntimeUnavailable("the Docker engine: it hangs")


class Hanging(HeldRuntime):
    """An engine that takes for ever to remove what is left."""

    ended = False

    async def sweep(self, dead: Dead, mine: str) -> int:  # noqa: ARG002
        try:
            await asyncio.Event().wait()
        finally:
            self.ended = True
        return 0


class Slow(HeldRuntime):
    """An engine that takes a while to remove what is left."""

    removed = False

    async def sweep(self, dead: Dead, mine: str) -> int:  # noqa: ARG002
        await asyncio.sleep(0.2)
        self.removed = True
        return 1


async def start(tmp_path: Path, runtime: HeldRuntime) -> Plant:
    """Have a worker remove what is left, before it is started."""
    plant = Plant(tmp_path)
    plant.runtime = plant.daemon._runtime = runtime
    store: Any = None
    worker: Any = SimpleNamespace(daemon=plant.daemon, runtime=runtime, node_id=NODE)
    await asyncio.wait_for(remove_leftovers(worker, store), 5)
    return plant


async def test_what_cannot_be_removed_is_left(tmp_path: Path) -> None:
    plant = await start(tmp_path, Failing())
    await plant.daemon.close()


async def test_leases_wait_longer_for_a_killed_runs_end_than_a_worker_of_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemon, "REMOVED_WITHIN", 0.01)
    runtime = Slow()
    plant = await start(tmp_path, runtime)
    assert runtime.removed
    await plant.daemon.close()


async def test_what_takes_long_goes_on_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standalone, "LEFTOVERS_WITHIN", 0.1)
    runtime = Hanging()
    plant = await start(tmp_path, runtime)
    assert not runtime.ended
    await plant.daemon.close()
    assert runtime.ended
