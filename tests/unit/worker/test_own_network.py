"""The network that all workers of an engine share, when several make it at once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from docker.errors import APIError, NotFound

from worker.runtime.docker import networks
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.networks import OWN_NETWORK, OwnNetwork
from worker.runtime.port import RunLostError


class Api:
    """An engine in which another worker is making the network: its interface is taken, it cannot be seen yet."""

    def __init__(self, seen_after: float) -> None:
        self.looks = 0
        self.seen_after = seen_after

    def inspect_network(self, name: str) -> None:
        if name != OWN_NETWORK:
            return
        self.looks += 1
        if self.looks <= self.seen_after:
            raise NotFound("no such network")

    def create_network(self, *_: Any, **__: Any) -> None:
        raise APIError("refused", explanation="networks have same bridge name")


def network_on(api: Api) -> OwnNetwork:
    engine = Engine("", "")
    engine._api = api  # type: ignore[assignment]
    return OwnNetwork(engine, wanted=True)


async def test_what_another_worker_is_making_is_waited_for() -> None:
    assert await network_on(Api(seen_after=3)).ready() == OWN_NETWORK


async def test_what_never_comes_is_the_hosts_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks, "_MADE_WITHIN", 0.2)
    with pytest.raises(RunLostError, match="same bridge name"):
        await network_on(Api(seen_after=float("inf"))).ready()


async def test_an_engine_without_bridges_has_its_own_default() -> None:
    api = SimpleNamespace(inspect_network=_nothing)
    engine = Engine("", "")
    engine._api = api  # type: ignore[assignment]
    assert await OwnNetwork(engine, wanted=True).ready() == networks.DEFAULT_NETWORK


def _nothing(_name: str) -> None:
    raise NotFound("no such network")
