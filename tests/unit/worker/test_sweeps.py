"""What an engine does not remove, or not yet: nothing waits for it for good, and nobody forgets it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
import requests
from docker.errors import APIError, NotFound

from shared.model.language import TaskDefinition
from tests.unit.worker.engines import assignment, context
from tests.unit.worker.sinks import NoLog
from worker.runtime.docker import engine as engines
from worker.runtime.docker import labels
from worker.runtime.docker.resources import Maker
from worker.runtime.docker.sweep import sweep

HANGS = requests.ReadTimeout("Read timed out.")
GONE = requests.ConnectionError("connection refused")


class Api:
    """An engine with containers, of which it removes none for which there is a fault."""

    def __init__(self) -> None:
        self.made: dict[str, dict[str, str]] = {}
        self.faults: dict[str, list[Exception]] = {}

    def containers(self, **_: Any) -> list[dict[str, Any]]:
        return [
            {"Names": [f"/{name}"], "Id": name, "Labels": marks}
            for name, marks in self.made.items()
        ]

    def volumes(self, **_: Any) -> dict[str, Any]:
        return {"Volumes": []}

    def networks(self, **_: Any) -> list[Any]:
        return []

    def remove_container(self, name: str, **_: Any) -> None:
        if faults := self.faults.get(name):
            raise faults.pop(0) if len(faults) > 1 else faults[0]
        if self.made.pop(name, None) is None:
            raise NotFound("no such container")

    def add(self, name: str, node: str, *faults: Exception) -> None:
        self.made[name] = {labels.NODE: node}
        self.faults[name] = list(faults)


async def all_dead(nodes: Collection[str]) -> Collection[str]:
    return nodes


async def test_what_the_engine_does_not_remove_in_time_keeps_nothing_else(tmp_path: Path) -> None:
    api = Api()
    api.add("haulier-stuck", "dead", HANGS)
    api.add("haulier-other", "dead")
    services = context(tmp_path, api)
    left = services.folders.top / "dead"
    left.mkdir()
    assert await sweep(services, all_dead, "node") == 2
    assert list(api.made) == ["haulier-stuck"]
    assert not left.exists()


async def test_an_engine_that_goes_away_ends_a_sweep(tmp_path: Path) -> None:
    api = Api()
    api.add("haulier-one", "dead", GONE)
    with pytest.raises(engines.EngineGoneError):
        await sweep(context(tmp_path, api), all_dead, "node")


REFUSED = APIError("refused", explanation="device or resource busy")


@pytest.mark.parametrize("fault", [REFUSED, GONE])
async def test_what_a_living_worker_could_not_remove_its_sweep_removes(
    tmp_path: Path, fault: Exception
) -> None:
    api = Api()
    services = context(tmp_path, api)
    maker = Maker(assignment(TaskDefinition(image="x")), NoLog(), services)
    maker._containers += ["haulier-run-main", "haulier-run-never-made"]
    api.add("haulier-run-main", "node", fault)
    await maker.remove()
    assert list(api.made) == ["haulier-run-main"]
    api.faults["haulier-run-main"] = [REFUSED, HANGS]
    for _ in range(2):
        assert await sweep(services, all_dead, "node") == 0
    api.faults.clear()
    assert await sweep(services, all_dead, "node") == 1
    assert not api.made
    assert await sweep(services, all_dead, "node") == 0
    assert not services.left
