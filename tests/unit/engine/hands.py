"""A worker in a test's hands: it speaks the protocol, and does each thing only when it is told to."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from shared.broker.port import Broker, Delivery, Slot
from shared.model.messages import (
    Beat,
    BeatFirst,
    Claim,
    EndStored,
    Granted,
    HandedBack,
    Held,
    Message,
    MessageCodec,
    Progressed,
    Refused,
    RunEnded,
    SendEnd,
    Stop,
    TaskMessage,
)
from shared.model.queues import (
    CLAIMS_QUEUE,
    COMPLETED_QUEUE,
    ERROR_QUEUE,
    HEARTBEAT_QUEUE,
    PROGRESS_QUEUE,
    node_queue,
)
from shared.model.states import NodeKind, RunRole


class Run:
    """One nonce of a worker."""

    def __init__(self, message: TaskMessage, nonce: str, beat: int, delivery: Delivery) -> None:
        self.message = message
        self.nonce = nonce
        self.beat = beat
        self.delivery = delivery
        self.role = RunRole.ASKED
        self.run = 0
        self.end: RunEnded | HandedBack | None = None
        self.ended_beat = 0

    @property
    def task_id(self) -> str:
        return self.message.task_id

    @property
    def name(self) -> str:
        return self.message.task.name

    def held(self) -> Held:
        return Held(
            task_id=self.task_id,
            nonce=self.nonce,
            role=self.role,
            run=self.run,
            beat=self.beat,
            ended_beat=self.ended_beat,
        )


class Worker:
    """A worker with a few slots on each of its queues."""

    _numbers = itertools.count(1)

    def __init__(
        self, broker: Broker, codec: MessageCodec, node_id: str, queues: dict[str, int]
    ) -> None:
        self.broker = broker
        self.codec = codec
        self.node_id = node_id
        self.queues = queues
        self.beats = 0
        self.draining = False
        self.answers_ends = True
        """Whether an end that it is asked for gets through."""
        self.runs: dict[str, Run] = {}
        self.heard: list[Message] = []
        self.started: list[tuple[str, int]] = []
        """(nonce, run) of each run that was begun."""
        self.alive = True
        self._slots: list[tuple[str, Slot]] = []
        self._using: dict[str, Slot] = {}
        self._own: Slot | None = None

    async def start(self) -> None:
        self._own = await self.broker.slot(node_queue(self.node_id))
        await self._own.pause()
        for queue, count in self.queues.items():
            self._slots += [(queue, await self.broker.slot(queue)) for _ in range(count)]
        await self.hear()
        await self.beat()

    async def send(self, queue: str, message: Message) -> None:
        await self.broker.publish(queue, self.codec.encode(message))

    # --- beats ----------------------------------------------------------------------------------------------------

    def next_beat(self) -> Beat:
        """Return the next beat without sending it."""
        self.beats += 1
        return Beat(
            node_id=self.node_id,
            node_kind=NodeKind.WORKER,
            number=self.beats,
            name=self.node_id,
            queues=self.queues,
            draining=self.draining,
            held=[run.held() for run in self.runs.values()],
            held_deliveries=[run.task_id for run in self.runs.values() if run.nonce in self._using],
        )

    async def beat(self) -> None:
        await self.send(HEARTBEAT_QUEUE, self.next_beat())

    # --- taking ---------------------------------------------------------------------------------------------------

    async def take(self, *, ask: bool = True) -> list[Run]:
        """Take what its free slots can have now, and claim it."""
        taken = []
        busy = list(self._using.values())
        for queue, slot in self._slots:
            if slot in busy:
                continue
            figures = await self.broker.queue(queue)
            if figures is None or not figures.size:
                continue
            delivery = await slot.take()
            message = self.codec.decode(delivery.body)
            assert isinstance(message, TaskMessage)
            nonce = f"{self.node_id}-nonce-{next(self._numbers)}"
            run = self.runs[nonce] = Run(message, nonce, self.beats, delivery)
            self._using[nonce] = slot
            taken.append(run)
            if ask:
                await self.claim(run)
        return taken

    def claim_of(self, run: Run) -> Claim:
        return Claim(
            task_id=run.task_id,
            job_id=run.message.job_id,
            nonce=run.nonce,
            node_id=self.node_id,
            beat=run.beat,
            run=run.message.run,
        )

    async def claim(self, run: Run) -> None:
        await self.send(CLAIMS_QUEUE, self.claim_of(run))

    async def ask_again(self, nonce: str | None = None) -> None:
        """Claim again what was not answered: one nonce, or all."""
        for run in self.asked:
            if nonce in (None, run.nonce):
                await self.claim(run)

    def lose_channel(self, run: Run) -> None:
        """The slot's channel is lost: before its grant it forgets the nonce."""
        self._using.pop(run.nonce, None)
        if run.role == RunRole.ASKED:
            del self.runs[run.nonce]

    # --- hearing --------------------------------------------------------------------------------------------------

    async def hear(self, *, lost: bool = False) -> int:
        """Obey what was said to it (or have that lost on the way); return how many messages that were."""
        assert self._own is not None
        count = 0
        while True:
            figures = await self.broker.queue(node_queue(self.node_id))
            if figures is None or not figures.size:
                return count
            delivery = await self._own.take()
            message = self.codec.decode(delivery.body)
            await delivery.ack()
            if not lost:
                self.heard.append(message)
                await self._obey(message)
            count += 1

    async def _obey(self, message: Message) -> None:
        match message:
            case Granted():
                await self._granted(message)
            case Refused(nonce=nonce):
                await self._forget([nonce], RunRole.ASKED)
            case BeatFirst(nonce=nonce):
                await self.beat()
                await self.ask_again(nonce)
            case Stop(nonces=nonces):
                await self._forget(nonces, RunRole.ASKED, RunRole.RUNNING, RunRole.ENDED)
            case EndStored(nonces=nonces):
                await self._forget(nonces, RunRole.ENDED)
            case SendEnd(nonces=nonces) if self.answers_ends:
                await self._send_ends(nonces)

    async def _send_ends(self, nonces: Sequence[str]) -> None:
        for nonce in nonces:
            if nonce in self.runs and self.runs[nonce].end is not None:
                await self._send_end(self.runs[nonce])

    async def _granted(self, message: Granted) -> None:
        run = self.runs.get(message.nonce)
        if run is None:
            back = HandedBack(
                task_id=message.task_id,
                job_id="",
                run=message.run,
                nonce=message.nonce,
                node_id=self.node_id,
            )
            await self.send(ERROR_QUEUE, back)
        elif run.role == RunRole.ASKED:
            run.role, run.run = RunRole.RUNNING, message.run
            self.started.append((run.nonce, run.run))

    async def _forget(self, nonces: Sequence[str], *roles: RunRole) -> None:
        for nonce in nonces:
            run = self.runs.get(nonce)
            if run is not None and run.role in roles:
                del self.runs[nonce]
                await self._release(run)

    async def _release(self, run: Run) -> None:
        if self._using.pop(run.nonce, None) is not None:
            await run.delivery.ack()

    # --- runs -----------------------------------------------------------------------------------------------------

    @property
    def asked(self) -> list[Run]:
        return [run for run in self.runs.values() if run.role == RunRole.ASKED]

    @property
    def running(self) -> list[Run]:
        return [run for run in self.runs.values() if run.role == RunRole.RUNNING]

    def run_named(self, name: str) -> Run:
        (run,) = [run for run in self.running if run.name == name]
        return run

    async def progress(self, run: Run, percent: float) -> None:
        await self.send(
            PROGRESS_QUEUE,
            Progressed(
                task_id=run.task_id,
                job_id=run.message.job_id,
                run=run.run,
                nonce=run.nonce,
                progress=percent,
            ),
        )

    async def end(
        self, run: Run, error: str | None = None, result: str | None = None, *, send: bool = True
    ) -> RunEnded:
        """End a run; with `send=False` the message is lost on the way."""
        end = RunEnded(
            task_id=run.task_id,
            job_id=run.message.job_id,
            run=run.run,
            nonce=run.nonce,
            node_id=self.node_id,
            ok=error is None,
            result=result,
            error=error,
            exit_code=0 if error is None else 1,
        )
        run.role, run.end, run.ended_beat = RunRole.ENDED, end, self.beats
        if send:
            await self._send_end(run)
        await self._release(run)
        return end

    async def _send_end(self, run: Run) -> None:
        assert run.end is not None
        ok = isinstance(run.end, RunEnded) and run.end.ok
        await self.send(COMPLETED_QUEUE if ok else ERROR_QUEUE, run.end)

    async def hand_back(self, run: Run, *, vanished: bool = False) -> None:
        run.role, run.ended_beat = RunRole.ENDED, self.beats
        run.end = HandedBack(
            task_id=run.task_id,
            job_id=run.message.job_id,
            run=run.run,
            nonce=run.nonce,
            node_id=self.node_id,
            vanished=vanished,
        )
        await self._send_end(run)
        await self._release(run)

    async def kill(self) -> None:
        """Die: deliveries go back, nothing is heard of it any more."""
        self.alive = False
        for _, slot in self._slots:
            await slot.close()
        assert self._own is not None
        await self._own.close()
        self.runs.clear()
