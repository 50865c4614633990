"""The coordinator's own heartbeats, so that it appears in the list of nodes."""

from __future__ import annotations

import socket

import psutil

from coordinator.effects import FlowDriver
from coordinator.engine import beats
from shared.model.documents import Micros
from shared.model.messages import Beat
from shared.model.states import NodeKind
from shared.supervision import Loop


class CoordinatorBeats:
    """Writes this coordinator's node to the store at every heartbeat."""

    def __init__(
        self,
        driver: FlowDriver,
        node_id: str,
        name: str,
        version: str,
        port: int | None,
        interval: float,
    ) -> None:
        self._driver = driver
        self._node_id = node_id
        self._name = name
        self._version = version
        self.port = port
        self._number = 0
        self._started_at: Micros = driver.store.now()
        self._loop = Loop("beats", self.beat, every=interval)

    def start(self) -> None:
        """Start beating, as often as `engine.beat` says."""
        psutil.cpu_percent()
        self._loop.start()

    async def close(self) -> None:
        """Beat no more; the lease runs out by itself."""
        await self._loop.close()

    async def beat(self) -> None:
        """Beat once."""
        self._number += 1
        beat = Beat(
            node_id=self._node_id,
            node_kind=NodeKind.COORDINATOR,
            number=self._number,
            name=self._name,
            hostname=socket.gethostname(),
            version=self._version,
            started_at=self._started_at,
            cpu_percent=psutil.cpu_percent(),
            port=self.port,
        )
        await self._driver.handle(beats.on_beat(beat))
