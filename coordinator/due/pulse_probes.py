"""Measures the pulse: sends probes through the queues that nodes write to, and stores how far these are handled."""

from __future__ import annotations

import asyncio

from coordinator.effects import FlowDriver
from coordinator.engine import pulse
from shared.broker.port import Broker
from shared.errors import BrokerUnavailable
from shared.model.documents import Micros
from shared.model.messages import MessageCodec, PulseProbe
from shared.supervision import Loop, Tasks

INTERVAL = 3.0
"""Seconds between probes of a queue."""


class PulseProbes:
    """Sends probes, one outstanding a queue, and handles those that come in, whoever sent them."""

    def __init__(self, driver: FlowDriver, broker: Broker, codec: MessageCodec, name: str) -> None:
        self._driver = driver
        self._broker = broker
        self._codec = codec
        self._name = name
        self._outstanding: dict[str, Micros] = {}
        self._loop = Loop("probes", self.send, every=INTERVAL)
        self._moving = Tasks()

    def start(self) -> None:
        """Start sending probes, in the background."""
        self._loop.start()

    async def close(self) -> None:
        """Send no more probes."""
        await self._loop.close()
        await self._moving.cancel()

    async def send(self) -> None:
        """Send a probe through each queue in which none of ours is outstanding."""
        await asyncio.gather(*(self._probe(queue) for queue in pulse.PROBED))

    async def _probe(self, queue: str) -> None:
        at = self._driver.store.now()
        before = self._outstanding.get(queue)
        if before is not None and at - before < 2 * pulse.STALE:
            return
        self._outstanding[queue] = at
        body = self._codec.encode(PulseProbe(queue=queue, sent_at=at, sender=self._name))
        try:
            await self._broker.publish(queue, body)
        except BrokerUnavailable:
            self._outstanding.pop(queue, None)

    def taken(self, probe: PulseProbe) -> None:
        """Move the stamp of the queue that a probe was taken from, a handler's deadline later."""
        ours = self._outstanding.get(probe.queue)
        if ours is not None and ours <= probe.sent_at:
            # A queue gives first what was put in first: whoever had ours, it was taken before this one.
            del self._outstanding[probe.queue]
        self._moving.start(self._move(probe, self._driver.store.now()), "move a stamp")

    async def _move(self, probe: PulseProbe, taken_at: Micros) -> None:
        await asyncio.sleep(self._driver.bounds.handler_deadline / 1_000_000)
        self._driver.soon(
            self._driver.carry_out(pulse.probe_taken(probe.queue, probe.sent_at, taken_at))
        )
