"""While one user's templates do their worst, everybody else gets on (engine spec, promise 13)."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared.supervision import end_tasks
from tests.faults.whole import configured, system

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

JOBS = 20
WORST = (
    "{{ reduce(1..330000, #acc + #) }}",
    "{{ reduce(1..50000, #acc + # + # + # + # + # + #) }}",
    "{{replace(repeat('a',100000),'a',repeat('b',160))}}",
)


class Client:
    """Somebody who uses the API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def run(self, **task: Any) -> dict[str, Any]:
        """Run a job of one step; return it once it has ended."""
        step = {"name": "a", "image": "any", "run": "true", **task}
        job = {"name": "job", "wait": {"timeout": "150s"}, "tasks": [step]}
        async with self._session.post(f"{self._url}/jobs", json=job) as answer:
            assert answer.status == 200, await answer.text()
            ended: dict[str, Any] = await answer.json()
            return ended

    async def health(self) -> float:
        """Return how many seconds `GET /health` takes."""
        began = time.monotonic()
        async with self._session.get(f"{self._url}/health") as answer:
            assert answer.status == 200
        return time.monotonic() - began


@pytest.mark.parametrize("template", WORST)
async def test_costly_templates_stop_nobody(tmp_path: Path, template: str) -> None:
    env = {f"X{n}": template for n in range(100)}
    async with system(configured(tmp_path, {})) as whole, aiohttp.ClientSession() as session:
        client = Client(session, whole.processes[0].url)
        costly = [asyncio.ensure_future(client.run(env=env)) for _ in range(JOBS)]
        for _ in range(5):
            began = time.monotonic()
            neighbour = asyncio.ensure_future(client.run())
            while not neighbour.done():
                assert await client.health() < 5  # some milliseconds on a quiet machine
                await asyncio.wait({neighbour}, timeout=0.05)
            assert (await neighbour)["state"] == "COMPLETED"
            assert time.monotonic() - began < 20  # a second or two on a quiet machine
        failed = await next(asyncio.as_completed(costly))
        assert failed["state"] == "FAILED"
        assert "env.X" in failed["error"]
        await end_tasks(*costly)
