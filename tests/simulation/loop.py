"""An event loop whose time is virtual: when nothing is ready, it jumps to the next timer. No thread, no socket.

A context variable says to which simulated process each callback belongs. Those of a dead process are dropped, so that
no `finally` of it runs, as after `kill -9`; those of a frozen one are kept until it thaws.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextvars import Context, ContextVar, copy_context
from typing import Any, Final, TypeVar

_T = TypeVar("_T")

EPOCH: Final = 1_900_000_000.0
"""The wall clock at virtual second 0."""

TURNS: Final = 20_000
"""So many turns without time passing are a livelock."""


NO_LONGER: Final = 3_600.0
"""No simulation lasts longer, in virtual seconds."""


class Livelock(Exception):
    """Something goes round for ever."""


class Process:
    """A simulated process: alive, frozen or dead."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.frozen = False
        self.died_at = 0.0
        self.held: list[Call] = []
        self.hushed = False
        """Whether its beats are lost."""
        self.deprived = False
        """Whether it alone has no store."""
        self.ahead = 0.0
        """Seconds by which its own clock is wrong."""
        self._away = 0.0
        self._away_since: float | None = None
        self.context = copy_context()
        self.context.run(of.set, self)

    def run(self, function: Callable[..., _T], *args: Any) -> _T:
        """Call something as this process."""
        return self.context.run(function, *args)

    def goes_away(self, now: float) -> None:
        """Note that nothing is heard of it from now on."""
        if self._away_since is None:
            self._away_since = now

    def is_back(self, now: float) -> None:
        """Note that it is heard of again."""
        if self._away_since is not None:
            self._away += now - self._away_since
            self._away_since = None

    def away(self, now: float) -> float:
        """Return how long nothing was heard of it, in all."""
        return self._away + (0.0 if self._away_since is None else now - self._away_since)


of: Final[ContextVar[Process | None]] = ContextVar("process", default=None)


def current_process() -> Process:
    """Return the process that this is called in."""
    found = of.get()
    assert found is not None, "no simulated process"
    return found


class _NoSelector(selectors.BaseSelector):
    """Selects nothing: time passes instead."""

    def select(self, timeout: float | None = None) -> list[Any]:
        del timeout
        return []

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, -1, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return selectors.SelectorKey(fileobj, -1, 0, None)

    def get_map(self) -> Mapping[Any, Any]:
        return {}

    def get_key(self, fileobj: Any) -> selectors.SelectorKey:
        raise KeyError(fileobj)


class _NumberedTask(asyncio.Task[Any]):
    """A task whose place in a set depends on no address."""

    def __init__(self, *args: Any, number: int, **fields: Any) -> None:
        self._number = number
        super().__init__(*args, **fields)

    def __hash__(self) -> int:
        return self._number


class Call:
    """Something to be called, in the place of asyncio's handles."""

    __slots__ = ("args", "at", "callback", "context")

    def __init__(self, at: float, callback: Any, args: tuple[Any, ...], context: Context) -> None:
        self.at = at
        self.callback: Any = callback
        self.args = args
        self.context = context

    def cancel(self) -> None:
        """Have nothing called."""
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        """Return whether nothing is called any more."""
        return self.callback is None

    def when(self) -> float:
        """Return the time of the call."""
        return self.at


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        super().__init__(_NoSelector())
        self._now = 0.0
        self._turns = 0
        self._tasks = 0
        self._ready: Any
        self._stopping: bool
        self._timers: list[tuple[float, int, Any]] = []
        self._timers_made = 0
        factory: Any = self._task
        self.set_task_factory(factory)

    def time(self) -> float:
        """Return the virtual seconds since the start."""
        return self._now

    def _task(self, loop: Any, work: Coroutine[Any, Any, Any], **fields: Any) -> Any:
        self._tasks += 1
        return _NumberedTask(work, loop=loop, number=self._tasks, **fields)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]
        """Call it at once: there are no threads."""
        del executor
        done = self.create_future()
        try:
            done.set_result(func(*args))
        except BaseException as error:  # whoever awaits it is to have it
            done.set_exception(error)
        return done

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Call something in the next turn."""
        call = Call(self._now, callback, args, copy_context() if context is None else context)
        self._ready.append(call)
        return call

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Call something after so many seconds."""
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        """Call something at a time; of what has one time, the first comes first."""
        call = Call(when, callback, args, copy_context() if context is None else context)
        self.add_timer(call)
        return call

    def add_timer(self, call: Call) -> None:
        """Have a call made when its time has come."""
        self._timers_made += 1
        heapq.heappush(self._timers, (call.at, self._timers_made, call))

    def _run_once(self) -> None:
        """Take turns until the loop is to stop."""
        ready, timers = self._ready, self._timers
        while not self._stopping:
            self._turns += 1
            if self._turns > TURNS:
                raise Livelock(f"{TURNS} turns at virtual second {self._now:g}")
            if not ready:
                self._jump()
            while timers and timers[0][0] <= self._now:
                ready.append(heapq.heappop(timers)[2])
            for _ in range(len(ready)):
                self._make(ready.popleft())

    def _make(self, call: Call) -> None:
        callback = call.callback
        if callback is None:
            return
        process = call.context.get(of)
        if process is not None and (process.dead or process.frozen):
            if not process.dead:
                process.held.append(call)
            return
        try:
            call.context.run(callback, *call.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": "a call failed", "exception": error})

    def _jump(self) -> None:
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not timers:
            raise Livelock("everything waits for something that never comes")
        when = timers[0][0]
        if when > NO_LONGER:
            raise Livelock(f"it is not over after {NO_LONGER:g} virtual seconds")
        if when > self._now:
            self._now += when - self._now
            self._turns = 0

    def kill(self, process: Process) -> None:
        """Have nothing of a process happen any more."""
        process.dead = True
        process.died_at = self._now
        process.held.clear()
        for call in self._ready:
            if call.context.get(of) is process:
                call.cancel()

    def thaw(self, process: Process) -> None:
        """Have everything happen that came while a process was frozen."""
        process.frozen = False
        held, process.held = process.held, []
        if not process.dead:
            self._ready.extend(held)


class Pause:
    """What passes after so many seconds: awaited, it is what `asyncio.sleep` is, with one call of the loop in place of
    three. Made within a task, and awaited once."""

    __slots__ = ("_asyncio_future_blocking", "_call", "_cancelled", "_loop", "_seconds")

    def __init__(self, seconds: float) -> None:
        self._loop: VirtualLoop = asyncio.events.get_running_loop()  # type: ignore[assignment]
        self._seconds = seconds
        self._asyncio_future_blocking = False
        self._cancelled = False
        self._call: Any = None

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._loop

    def add_done_callback(self, callback: Callable[[Pause], Any], *, context: Context) -> None:
        """Have the task go on when the time has passed."""
        loop = self._loop
        self._call = Call(loop.time() + self._seconds, callback, (self,), context)
        loop.add_timer(self._call)

    def cancel(self, msg: Any = None) -> bool:
        """Have the task go on at once, cancelled."""
        del msg
        if not self._cancelled:
            self._cancelled = True
            callback, context = self._call.callback, self._call.context
            self._call.cancel()
            self._loop.call_soon(callback, self, context=context)
        return True

    def result(self) -> None:
        """Return once the time has passed."""
        if self._cancelled:
            raise asyncio.CancelledError


async def sleep(delay: float, result: Any = None) -> Any:
    """Do what `asyncio.sleep` does."""
    await (_Turn() if delay <= 0 else Pause(delay))
    return result


class _Turn:
    """One turn of the loop."""

    def __await__(self) -> Generator[Any, None, None]:
        yield


def at_once(process: Process, work: Coroutine[Any, Any, _T]) -> _T:
    """Do something as another process that has not to wait for anything."""
    try:
        process.run(work.send, None)
    except StopIteration as end:
        done: _T = end.value
        return done
    raise AssertionError("it waits for something")
