"""Subscribes to the coordinators' queues, has each message handled by its kind, and settles its delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from coordinator.consumers.log_parts import LogPartWriter
from coordinator.due.pulse_probes import PulseProbes
from coordinator.effects import FlowDriver
from coordinator.engine import beats, progress, task_runs
from shared.broker.deliveries import Tries
from shared.broker.port import Broker, Delivery, DeliveryHandler, Subscription
from shared.errors import ApplicationError, StoreUnavailable, UnknownKind, Unreadable
from shared.model import messages, queues
from shared.model.documents import JobDocument, NodeDocument
from shared.model.messages import (
    Beat,
    Claim,
    DeadNodes,
    HandedBack,
    JobChanged,
    LogWritten,
    Message,
    MessageCodec,
    Progressed,
    PulseProbe,
    RunEnded,
    WhoIsDead,
)
from shared.supervision import Backoff, Loop, waiting

log = structlog.get_logger(__name__)


HANDLER_DEADLINE = 10.0
"""Seconds that a handler may take (engine spec, Queues)."""

HANDLER_TRIES = 3
"""How often a message that its handler fails on is tried before it is buried."""

DEAD_LETTER: Final = "dead_letter"
"""What is counted of each message that is buried."""

FIRST_DELAY, LONGEST_DELAY = 0.2, 10.0
"""Seconds before consumers that were closed are opened again; the delay grows each time."""

WENT_WELL = 30.0
"""Seconds that consumers must have been open for the delays to begin anew."""

_PREFETCH: Mapping[str, int] = {
    queues.JOBS_QUEUE: 50,
    queues.CLAIMS_QUEUE: 100,
    queues.COMPLETED_QUEUE: 100,
    queues.ERROR_QUEUE: 100,
    queues.PROGRESS_QUEUE: 100,
    queues.LOGS_QUEUE: 200,
    queues.HEARTBEAT_QUEUE: 1,
}
"""How many deliveries of a queue are handled side by side; of `heartbeat` one, so that a coordinator that freezes
holds one beat and not every node's."""


class QueueConsumers:
    """Hears the coordinators' queues. While the store is away, or after a handler that missed its deadline, it hears
    nothing, so that others get its messages."""

    def __init__(
        self,
        driver: FlowDriver,
        broker: Broker,
        codec: MessageCodec,
        probes: PulseProbes,
        prefetch: Mapping[str, int] = _PREFETCH,
    ) -> None:
        self._driver = driver
        self._broker = broker
        self._codec = codec
        self._handlers = MessageHandlers(driver, probes)
        self._logs = LogPartWriter(driver)
        self._prefetch = {**_PREFETCH, **prefetch, queues.HEARTBEAT_QUEUE: 1}
        self._subscriptions: list[Subscription] = []
        self._tries = Tries()
        self._in_trouble = asyncio.Event()
        self._delays = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._opened_at = 0.0
        self._keeper = Loop("queue consumers", self._keep)

    async def start(self) -> None:
        """Start hearing the coordinators' queues."""
        self._logs.start()
        await self._open()
        self._opened_at = _time()
        self._keeper.start()

    async def close(self) -> None:
        """Hear no more; finish what is being handled."""
        await self._keeper.close()
        await self._shut()
        await self._logs.close()

    async def _open(self) -> None:
        for queue in READ_BY:
            handler = self._settler(queue)
            subscription = await self._broker.subscribe(
                queue, handler, prefetch=self._prefetch[queue]
            )
            self._subscriptions.append(subscription)

    async def _shut(self) -> None:
        """Hear no more, and wait for what is being handled."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.close() for subscription in subscriptions))

    async def _abandon(self) -> None:
        """Hear no more, and give all that is held back at once, that of stuck handlers too."""
        subscriptions, self._subscriptions = self._subscriptions, []
        await asyncio.gather(*(subscription.abandon() for subscription in subscriptions))

    async def _keep(self) -> None:
        """Close the consumers when there is trouble, and open them again when the store works: later each time that
        the trouble comes back soon."""
        while True:
            with waiting():
                await self._in_trouble.wait()
            await self._abandon()
            if _time() - self._opened_at > WENT_WELL:
                self._delays.reset()
            with waiting():
                await asyncio.sleep(self._delays.next())
            await self._open_again()

    async def _open_again(self) -> None:
        try:
            await self._driver.store.ping()
            self._in_trouble.clear()
            with waiting():  # for a broker that is away, as long as that takes
                await self._open()
        except ApplicationError as error:
            self._in_trouble.set()
            log.warning("the coordinator queues can't be consumed yet", reason=str(error))
        except BaseException:
            self._in_trouble.set()  # begun again, this loop goes on from there
            raise
        else:
            self._opened_at = _time()
            log.info("consuming the coordinator queues again")

    # --- one delivery ---------------------------------------------------------------------------------------------

    def _settler(self, queue: str) -> DeliveryHandler:
        async def settle(delivery: Delivery) -> None:
            await self._settle(queue, delivery)

        return settle

    async def _settle(self, queue: str, delivery: Delivery) -> None:
        if await self._is_buried(queue, delivery):
            self._driver.counts[DEAD_LETTER] += 1

    async def _is_buried(self, queue: str, delivery: Delivery) -> bool:
        """Have a delivery handled, and settle it; tell whether it was buried."""
        try:
            async with asyncio.timeout(HANDLER_DEADLINE):
                await self._handle(queue, delivery.body)
        except UnknownKind as error:
            return await self._unknown(queue, delivery, error)
        except Unreadable as error:
            log.warning("a message was moved to the queue dead", queue=queue, reason=str(error))
            await delivery.bury(str(error))
            return True
        except (StoreUnavailable, TimeoutError) as error:
            self._pause(queue, str(error) or "the handler took too long")
            await delivery.requeue()
        except Exception as error:
            return await self._failed(queue, delivery, error)
        else:
            await delivery.ack()
        return False

    def _pause(self, queue: str, reason: str) -> None:
        log.warning("a message was returned to its queue", queue=queue, reason=reason)
        if not self._in_trouble.is_set():
            log.warning("consuming is paused until the datastore answers", reason=reason)
            self._in_trouble.set()

    async def _handle(self, queue: str, body: bytes) -> None:
        message = self._codec.decode(body)
        if queue == queues.LOGS_QUEUE and isinstance(message, LogWritten):
            await self._logs.take(message)
        else:
            await self._handlers.handle(queue, message)

    async def _unknown(self, queue: str, delivery: Delivery, error: UnknownKind) -> bool:
        """Pass over what a newer version sends again anyway, and leave the rest to a newer coordinator for a while."""
        if queue in queues.TRANSIENT_QUEUES:
            await delivery.ack()
            return False
        return await self._tries.unknown(delivery, str(error))

    async def _failed(self, queue: str, delivery: Delivery, error: Exception) -> bool:
        """Try the message of a failed handler a few times, then bury it, so that nothing loops for ever."""
        log.error("a message could not be handled", queue=queue, exc_info=error)
        reason = f"could not be handled: {type(error).__name__}: {error}"
        return await self._tries.give_back(delivery, reason, limit=HANDLER_TRIES, pause=0.2)


def _time() -> float:
    return asyncio.get_running_loop().time()


READ_BY: dict[str, tuple[type[Message], ...]] = {
    queues.JOBS_QUEUE: (JobChanged,),
    queues.CLAIMS_QUEUE: (Claim, WhoIsDead),
    queues.COMPLETED_QUEUE: (RunEnded, HandedBack, PulseProbe),
    queues.ERROR_QUEUE: (RunEnded, HandedBack, PulseProbe),
    queues.PROGRESS_QUEUE: (Progressed,),
    queues.HEARTBEAT_QUEUE: (Beat, PulseProbe),
    queues.LOGS_QUEUE: (messages.LogWritten, PulseProbe),
}
"""What each queue may carry. Anything else in it is buried."""


class MessageHandlers:
    """Handles messages by kind. A message can arrive twice, late, or in the wrong order."""

    def __init__(self, driver: FlowDriver, probes: PulseProbes) -> None:
        self._driver = driver
        self._probes = probes
        self._answering: set[str] = set()
        self._by_kind: dict[type[Message], Callable[[Any], Awaitable[None]]] = {
            JobChanged: self._job_changed,
            Claim: self._claim,
            WhoIsDead: self._who_is_dead,
            RunEnded: self._run_ended,
            HandedBack: self._handed_back,
            PulseProbe: self._probe,
            Progressed: self._progressed,
            Beat: self._beat,
        }

    async def handle(self, queue: str, message: Message) -> None:
        """Handle a message of `queue`; `Unreadable` where that is none that the queue may carry."""
        if not isinstance(message, READ_BY.get(queue, ())):
            raise Unreadable(
                f"a message of kind {type(message).__name__} is not expected in queue {queue!r}"
            )
        await self._by_kind[type(message)](message)

    async def _job_changed(self, message: JobChanged) -> None:
        job = await self._driver.store.get(JobDocument, message.job_id)
        if job is not None:
            await self._driver.follow_for_a_while([job])

    async def _claim(self, message: Claim) -> None:
        """Answer a claim. One that is asked again meanwhile has its answer on the way: a coordinator that is slow
        must not get slower by being asked twice."""
        if message.nonce in self._answering:
            return
        self._answering.add(message.nonce)
        try:
            await self._driver.handle(task_runs.on_claim(message))
        finally:
            self._answering.discard(message.nonce)

    async def _who_is_dead(self, message: WhoIsDead) -> None:
        nodes = await self._driver.store.get_many(NodeDocument, message.nodes)
        dead = [node.id for node in nodes if node.closed]
        await self._driver.outbox.send(message.node_id, DeadNodes(asked=message.nodes, nodes=dead))

    async def _run_ended(self, message: RunEnded) -> None:
        await self._driver.handle(task_runs.on_run_ended(message))

    async def _handed_back(self, message: HandedBack) -> None:
        await self._driver.handle(task_runs.on_handed_back(message))

    async def _probe(self, message: PulseProbe) -> None:
        self._probes.taken(message)

    async def _progressed(self, message: Progressed) -> None:
        await self._driver.handle(progress.on_progress(message))

    async def _beat(self, message: Beat) -> None:
        await self._driver.handle(beats.on_beat(message))
