"""Who owns asyncio tasks, so that none ends or hangs unnoticed (engine spec, Supervision).

- A `Loop` goes on as long as its owner wants it: it begins again when it fails or hangs. `stuck_loops` names those
  that do not get on, and `GET /health/live` answers with that.
- `Tasks` holds short works that nobody waits for: one that fails is logged, and all end with their owner.
- `beside` has a task run as long as a block does; `start_task` is for a task that its caller awaits.

No other module makes a task: `make lint` sees to it. What threads do for loops is in `shared/threads.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, Self, TypeVar

import structlog

from shared.errors import (
    BrokerMisconfigured,
    BrokerUnavailable,
    CannotGoOn,
    RuntimeUnavailable,
    StoreMisconfigured,
    StoreUnavailable,
)


class Backoff:
    """Delays in seconds: `first`, then each `factor` times the one before, never above `longest`.

    Each is spread by up to ±`jitter` of itself (0 to 1), so that those who wait for the same thing
    don't all ask at once. `chance` gives numbers from 0 to 1; a simulation passes a seeded one."""

    def __init__(
        self,
        first: float,
        longest: float,
        *,
        factor: float = 2.0,
        jitter: float = 0.2,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first = min(first, longest)
        self._longest = longest
        self._factor = factor
        self._jitter = jitter
        self._chance = chance
        self._next = self._first

    def next(self) -> float:
        """Return the next delay, in seconds."""
        delay = self._next
        self._next = min(delay * self._factor, self._longest)
        return min(delay * (1 + self._jitter * (2 * self._chance() - 1)), self._longest)

    def reset(self) -> None:
        """Start over with the first delay."""
        self._next = self._first


log = structlog.get_logger(__name__)

_T = TypeVar("_T")

PATIENCE: Final = 15.0
"""Seconds that a loop may be at work without a sign of life before it is cut short and begun again, or a thread before
that is logged."""

LIVE_WITHIN: Final = 25.0
"""Seconds that a loop may go on failing, take to end once it is cut short, or wait for a thread that gives no sign of
life, before its process counts as dead."""

FIRST_DELAY: Final = 0.2
LONGEST_DELAY: Final = 10.0
"""Seconds before a loop that failed begins again."""

_OUTAGES: Final = (
    StoreUnavailable,
    StoreMisconfigured,
    BrokerUnavailable,
    BrokerMisconfigured,
    RuntimeUnavailable,
)
"""What a loop may fail of without being at fault: `GET /health` tells of these. Rights that were taken from a user are
given back."""


class LoopCutError(Exception):
    """A loop's work was cut short because it hung, or by a cancellation that nobody asked for; the cause says where it
    stood."""


class Supervision:
    """The loops of one process, and whether it can go on."""

    def __init__(self) -> None:
        self.loops: set[Loop] = set()
        self.restarts: Counter[str] = Counter()
        """How often loops of each name were begun again after a failure of their own."""
        self._fatal: CannotGoOn | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    def fail(self, error: CannotGoOn) -> None:
        """Have the process end with `error`; the first one counts."""
        if self._fatal is None:
            self._fatal = error
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(self._fatal)

    async def wait_failed(self) -> None:
        """Wait until the process cannot go on, and raise why."""
        if self._fatal is not None:
            raise self._fatal
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)


_process: Final = Supervision()
present: Final[ContextVar[Supervision]] = ContextVar("supervision", default=_process)
"""This process's. Whoever runs several processes in one sets it for each."""

current_loop: Final[ContextVar[Loop | None]] = ContextVar("loop", default=None)
signs: Final[ContextVar[Callable[[], None] | None]] = ContextVar("signs", default=None)
"""In a thread: takes signs of life."""


class Loop:
    """Work that goes on, under a name, until it is closed.

    Without `every`, `work` is one long coroutine: when it returns, the loop is over. With `every`, it is a round that
    is called again each `every` seconds, give or take a tenth, or as soon as `woken_by` is set.

    Names are few, and fit for a metric; `about` says what this loop is for, where there are many of a name.

    Where it raises, that is logged, and it begins again, with growing delays; `CannotGoOn` ends it, and the process.
    Where it hangs, it is cut short first: it hangs when it spends `patience` seconds outside of `waiting` without
    `came_round`.

    A context manager too: it goes on as long as the block does."""

    def __init__(
        self,
        name: str,
        work: Callable[[], Awaitable[None]],
        *,
        every: float | None = None,
        woken_by: asyncio.Event | None = None,
        about: str = "",
        patience: float = PATIENCE,
    ) -> None:
        self.name = name
        self.about = about
        self.last_round: float | None = None
        """When its last round ended well, in seconds since 1970; None before that, and where it has no rounds."""
        self.threads: set[Callable[[], str | None]] = set()
        """Says what a thread is at that hangs, of each that does something for it (`shared/threads.py`)."""
        self._work = work
        self._every = every
        self._woken_by = woken_by
        self._patience = patience
        self._delays = Backoff(FIRST_DELAY, LONGEST_DELAY)
        self._task: asyncio.Task[None] | None = None
        self._sign_at = 0.0
        self._waits = 0
        self._waited = False
        self._cut_at: float | None = None
        self._failing_since: float | None = None
        self._well = False
        self._watcher: asyncio.TimerHandle

    def start(self) -> None:
        """Begin."""
        present.get().loops.add(self)
        self._task = start_task(self._run(), self.name)

    async def close(self) -> None:
        """End, cutting short what is under way: the work of a loop may be cut anywhere."""
        if self._task is not None:
            await end_tasks(self._task)

    @property
    def over(self) -> bool:
        """Whether its work has returned, or it was closed."""
        return self._task is not None and self._task.done()

    async def wait(self) -> None:
        """Wait until its work has returned."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def stuck(self) -> str | None:
        """Return what keeps it from getting on, None where it does; an outage of store, broker or engine is none."""
        now = _time()
        if self._cut_at is not None and now - self._cut_at > LIVE_WITHIN - self._patience:
            return f"{self} hangs and can't be cut short"
        failing = 0.0 if self._waits or self._failing_since is None else now - self._failing_since
        if failing > LIVE_WITHIN:
            return f"{self} has been failing for {failing:.0f} s"
        if hanging := sorted(filter(None, (hangs() for hangs in self.threads))):
            return f"{self} waits for a thread that hangs in {hanging[0]}"
        return None

    def __str__(self) -> str:
        return f"{self.name} ({self.about})" if self.about else self.name

    def sign(self) -> None:
        """Take a sign of life."""
        self._sign_at = _time()

    @contextlib.contextmanager
    def excused(self) -> Iterator[None]:
        """Let it wait, however long, while the block runs. Work that is not a round gets on when it comes to wait a
        second time: what it did after the first went well."""
        if self._every is None and self._waited:
            self._got_on()
        self._waits += 1
        began = _time()
        try:
            yield
        finally:
            self._waits = max(0, self._waits - 1)
            self._sign_at = _time()
            self._waited = True
            if self._every is None and self._sign_at - began > LONGEST_DELAY:
                self._got_on()

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        current_loop.set(self)
        try:
            while not await self._try() or self._every is not None:
                if _asked_to_end():
                    return  # its work has swallowed that
                await self._pause()
        except CannotGoOn as error:
            present.get().fail(error)
        finally:
            present.get().loops.discard(self)

    async def _pause(self) -> None:
        if self._every is not None and self._well:
            delay = self._every * random.uniform(0.9, 1.1)
        else:
            delay = self._delays.next()
        if self._woken_by is None:
            await asyncio.sleep(delay)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._woken_by.wait()
        self._woken_by.clear()

    async def _try(self) -> bool:
        """Work until that returns; False where it fails or hangs."""
        self._well = False
        try:
            await self._cut_where_it_hangs()
        except CannotGoOn:
            raise
        except _OUTAGES as error:
            self._failing_since = None
            log.info("a loop waits for its next turn", **self._named(), reason=str(error))
        except Exception as error:
            self._failed(error)
        else:
            self._well = True
            if self._every is not None:
                self.last_round = time.time()
            self._got_on()
        return self._well

    async def _cut_where_it_hangs(self) -> None:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        self._sign_at, self._waits, self._waited = _time(), 0, False
        self._watch(task)
        try:
            await self._work()
        except asyncio.CancelledError as error:
            if self._cut_at is None:
                if task.cancelling():
                    raise
                raise LoopCutError("an await of its was cancelled by nobody") from error
            if task.cancelling() > 1:
                raise
            raise LoopCutError(f"no sign of life for {self._patience:g} s") from error
        finally:
            self._watcher.cancel()
            self._forget_cut(task)

    def _watch(self, task: asyncio.Task[Any]) -> None:
        left = self._patience if self._waits else self._sign_at + self._patience - _time()
        if left > 0:
            self._forget_cut(task)  # it has swallowed that, and gets on
        else:
            self._cut(task)
            left = self._patience
        self._watcher = asyncio.get_running_loop().call_later(left, self._watch, task)

    def _cut(self, task: asyncio.Task[Any]) -> None:
        if self._cut_at is None:
            self._cut_at = _time()
            log.error("a loop hangs and is cut short", **self._named())
        else:
            task.uncancel()
        task.cancel()

    def _forget_cut(self, task: asyncio.Task[Any]) -> None:
        if self._cut_at is not None:
            self._cut_at = None
            task.uncancel()

    def _got_on(self) -> None:
        self._failing_since = None
        self._delays.reset()

    def _failed(self, error: Exception) -> None:
        present.get().restarts[self.name] += 1
        if self._failing_since is None:
            self._failing_since = self._sign_at
        log.error("a loop failed and begins again", **self._named(), exc_info=error)

    def _named(self) -> dict[str, str]:
        return {"loop": self.name, "about": self.about} if self.about else {"loop": self.name}


def stuck_loops() -> list[str]:
    """Return what is wrong with each loop of this process that does not get on."""
    return sorted(filter(None, (loop.stuck() for loop in present.get().loops)))


def came_round() -> None:
    """Say that the loop, or the thread, which calls this gets on, where its rounds may be long."""
    sign = signs.get()
    if sign is not None:
        sign()
    elif (loop := current_loop.get()) is not None:
        loop.sign()


@contextlib.contextmanager
def waiting() -> Iterator[None]:
    """Let the calling loop wait in the block for something that may take as long as it likes: an event, a task of a
    user's, an answer of the store, the broker or the engine. A thread of `in_thread` that hangs is named all the
    same."""
    loop = current_loop.get()
    if loop is None:
        yield
        return
    with loop.excused():
        yield


class Tasks:
    """Short works that nobody waits for."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def start(
        self, work: Coroutine[Any, Any, _T], name: str, context: Context | None = None
    ) -> asyncio.Task[_T]:
        """Begin `work`, beside whoever calls; in a copy of `context`, where that is not the caller's."""
        context = copy_context() if context is None else context.copy()
        context.run(current_loop.set, None)
        task = asyncio.create_task(work, name=name, context=context)
        self.adopt(task, context)
        return task

    def adopt(self, task: asyncio.Task[Any], context: Context | None = None) -> None:
        """Own a task from now on that its caller waits for no longer; note its end in `context`, or the caller's."""
        self._tasks.add(task)
        task.add_done_callback(self._ended, context=context)

    async def finish(self) -> None:
        """Wait until all have ended, those too that they start."""
        while others := self._tasks - {asyncio.current_task()}:
            await asyncio.wait(others)

    async def cancel(self) -> None:
        """End them all now."""
        await end_tasks(*(self._tasks - {asyncio.current_task()}))

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, _OUTAGES):
            log.info("a task gave up", task=task.get_name(), reason=str(error))
        elif error is not None:
            log.error("a task failed", task=task.get_name(), exc_info=error)


def start_task(work: Coroutine[Any, Any, _T], name: str) -> asyncio.Task[_T]:
    """Begin `work` as a task that the caller awaits, or gives to a `Tasks`."""
    return asyncio.create_task(work, name=name)


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, _T], name: str) -> AsyncIterator[asyncio.Task[_T]]:
    """Have `work` run beside the block; where it is not done by the block's end, it is cut short."""
    task = start_task(work, name)
    try:
        yield task
    finally:
        await end_tasks(task)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cut tasks short, and wait until they have ended, however that is. A task that ends itself so goes on to its next
    wait."""
    current = asyncio.current_task()
    for task in tasks:
        if task is current:
            asyncio.get_running_loop().call_soon(task.cancel)
        else:
            task.cancel()
    await asyncio.gather(*(task for task in tasks if task is not current), return_exceptions=True)


async def to_its_end(work: asyncio.Future[_T]) -> _T:
    """Return what `work` gives, however long it takes. Cancelled, it is done first: nothing is half made."""
    with waiting():
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait({work})
            if not work.cancelled():
                work.exception()  # nobody else will ask for it
            raise


async def done_first(
    task: asyncio.Task[Any], *others: Coroutine[Any, Any, Any], timeout: float | None = None
) -> bool:
    """Wait until `task` is done, or one of `others`, which are then cut short; tell whether `task` is.

    `timeout` in seconds. However long it takes, the loop that waits here is not stuck."""
    rivals = [start_task(other, f"{task.get_name()}: or else") for other in others]
    try:
        with waiting():
            await asyncio.wait(
                {task, *rivals}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
    finally:
        await end_tasks(*rivals)
    return task.done()


def _asked_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _time() -> float:
    return asyncio.get_running_loop().time()
