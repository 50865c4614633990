"""Sends a worker's messages: until confirmed if they matter, once if the next message repeats them."""

from __future__ import annotations

import asyncio

import structlog

from shared.broker.port import Broker
from shared.errors import BrokerUnavailable
from shared.model.messages import (
    Beat,
    Claim,
    HandedBack,
    LogWritten,
    Message,
    MessageCodec,
    Progressed,
    RunEnded,
    WhoIsDead,
)
from shared.model.queues import (
    CLAIMS_QUEUE,
    COMPLETED_QUEUE,
    ERROR_QUEUE,
    HEARTBEAT_QUEUE,
    LOGS_QUEUE,
    PROGRESS_QUEUE,
)
from shared.supervision import Backoff, waiting

log = structlog.get_logger(__name__)

_FIRST_DELAY, _LONGEST_DELAY = 0.5, 10.0
"""Seconds between tries to send what must arrive."""


LOGS_WAITING = 400
"""Messages in the queue of logs from which on those wait who have much to send: about 100 MiB, as they are large."""


class Sender:
    """Sends a worker's messages to the queues where they belong."""

    def __init__(self, broker: Broker, codec: MessageCodec) -> None:
        self._broker = broker
        self._codec = codec

    async def claim(self, claim: Claim | WhoIsDead) -> None:
        """Ask; a question that is lost is asked again."""
        await self._once(CLAIMS_QUEUE, claim)

    async def beat(self, beat: Beat) -> None:
        """Beat; the next one says it again."""
        await self._once(HEARTBEAT_QUEUE, beat)

    async def progress(self, message: Progressed) -> None:
        """Tell of progress; the next message says it again."""
        await self._once(PROGRESS_QUEUE, message)

    async def end(self, message: RunEnded | HandedBack) -> None:
        """Send the end of a run, or a run handed back, until the broker has it."""
        ok = isinstance(message, RunEnded) and message.ok
        await self._until_confirmed(COMPLETED_QUEUE if ok else ERROR_QUEUE, message)

    async def log(self, message: LogWritten) -> None:
        """Send parts of a log until the broker has them."""
        await self._until_confirmed(LOGS_QUEUE, message)

    async def room_for_logs(self) -> None:
        """Wait while coordinators have not taken what is in the queue of logs: it would fill the broker's memory or
        disk, and so stop everybody."""
        backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        while await self._logs_wait():
            with waiting():
                await asyncio.sleep(backoff.next())

    async def _logs_wait(self) -> bool:
        try:
            with waiting():
                return (await self._broker.ready(LOGS_QUEUE) or 0) >= LOGS_WAITING
        except BrokerUnavailable as error:
            log.debug("a log waits for the broker", reason=str(error))
            return True

    async def _once(self, queue: str, message: Message) -> None:
        try:
            await self._broker.publish(queue, self._codec.encode(message))
        except BrokerUnavailable as error:
            log.debug("a message was not sent", queue=queue, reason=str(error))

    async def _until_confirmed(self, queue: str, message: Message) -> None:
        body = self._codec.encode(message)
        backoff = Backoff(_FIRST_DELAY, _LONGEST_DELAY)
        while True:
            try:
                with waiting():
                    await self._broker.publish(queue, body)
            except BrokerUnavailable as error:
                log.warning("a message waits for the broker", queue=queue, reason=str(error))
                with waiting():
                    await asyncio.sleep(backoff.next())
            else:
                return
