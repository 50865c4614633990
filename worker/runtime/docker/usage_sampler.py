"""Usage where no cgroup can be read: the engine's figures, asked for now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from docker.errors import APIError

from worker.runtime.docker.engine import Engine, EngineGoneError
from worker.runtime.docker.usage import NANO, Used

_FIRST, _LONGEST = 0.5, 5.0


class Sampler:
    """Sums up what the containers of a run have used, as far as it was seen."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ended = 0.0
        self._cpu = 0.0
        self._peak = 0

    def used(self) -> Used:
        """Return what was seen; less than what was used."""
        return Used(self._ended + self._cpu, self._peak)

    @contextlib.asynccontextmanager
    async def sampling(self, container_id: str) -> AsyncIterator[None]:
        """Sample a container while the body runs."""
        task = asyncio.create_task(self._sample(container_id), name="usage")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})
            self._ended, self._cpu = self._ended + self._cpu, 0.0

    async def _sample(self, container_id: str) -> None:
        interval = _FIRST
        while True:
            await asyncio.sleep(interval)
            interval = min(interval * 2, _LONGEST)
            with contextlib.suppress(APIError, EngineGoneError):
                stats = self._engine.api.stats
                self._add(await self._engine.call(stats, container_id, stream=False, one_shot=True))

    def _add(self, stats: dict[str, Any]) -> None:
        cpu = (stats.get("cpu_stats") or {}).get("cpu_usage") or {}
        memory = stats.get("memory_stats") or {}
        self._cpu = max(self._cpu, int(cpu.get("total_usage") or 0) / NANO)
        peak = int(memory.get("max_usage") or memory.get("usage") or 0)
        self._peak = max(self._peak, peak)
