"""What is the same in every runtime: the stages of a run (pre, main, post), its timeout, how it is stopped; what its
processes are given, and the end of what they write."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
)
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from shared.durations import NANOS_PER_SECOND, duration_seconds, format_duration
from shared.model.documents import RunUsage
from shared.model.language import SmallTask
from shared.model.quantities import amount
from shared.supervision import Backoff, Loop, beside, done_first, start_task
from shared.threads import in_thread_of
from worker.runtime.port import (
    Assignment,
    Outcome,
    PathHangsError,
    RunLostError,
    RunStoppedError,
    ScarceError,
    Sink,
    TaskError,
)
from worker.runtime.task_folder import LEAST_SIZE, MEASURING, size_of

_T = TypeVar("_T")

ENDING = 5.0
"""Seconds for the rest of a run whose processes have been ended: the last of the log."""

LEFT_AFTER = 10.0
"""Seconds that what was cut short may take to end; it is left to end by itself then: its engine hangs."""

MEASURE_INTERVAL = 1.0
"""Seconds between two looks at how much is in a task's folder: ten times what one takes, but at least these."""

LONGEST_MEASURE_PAUSE = 60.0
"""Seconds between two such looks at most, however long each takes."""

PROGRESS_INTERVAL = 0.5
"""Seconds between two looks at a task's progress file."""


SCARCE_FOR = 300.0
"""Seconds that a run which has begun waits for what its worker lacks, before it is given up."""


LINES = 10
BYTES = 16 * 1024
"""Shown at most: a line of 100 MiB must not become an error of 100 MiB."""
KEPT = 128 * 1024
"""Bytes of the end that are kept, and searched for secrets before anything of them is shown: all secrets of a job, in
base64 of many lines, are shorter."""


class Tail:
    """Keeps the end of what was written, in bounded memory."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._cut = False

    def add(self, data: bytes) -> None:
        """Take what was written next."""
        self._kept += data
        if len(self._kept) > 2 * KEPT:
            del self._kept[:-KEPT]
            self._cut = True

    def text(self) -> str:
        """Return what is kept; undecodable bytes are replaced. A line that was cut is dropped: in the rest of a secret
        nobody could recognise it."""
        text = self._kept.decode("utf-8", "replace").replace("\0", "\ufffd")
        return re.sub(r"\A[^\r\n]*", "", text) if self._cut else text


def last_lines(text: str) -> str:
    """Return the last 10 lines, or the end of them; of each what a terminal shows after its carriage returns."""
    lines = text.rstrip("\r\n").split("\n")[-LINES:]
    shown = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    return shown.encode("utf-8", "replace")[-BYTES:].decode("utf-8", "ignore")


async def failure(what: str, tail: Tail, sink: Sink) -> str:
    """Return `what`, followed by the last lines where there are any, as the log shows them."""
    lines = last_lines(await sink.redacted(tail.text()))
    return f"{what}\n{lines}" if lines.strip() else what


class Exit(msgspec.Struct):
    """How a process or container ended."""

    code: int
    tail: Tail = msgspec.field(default_factory=Tail)
    out_of_memory: bool = False
    memory_limit: int = 0
    """Bytes that it could use; 0 for no limit."""


class Live(Protocol):
    """Something that runs and can be ended."""

    async def terminate(self, grace: float) -> None:
        """End it: SIGTERM, `grace` seconds, SIGKILL; return when it has. May be called twice."""


class StageLog:
    """The log of a run's stages: what one of them writes never stands in a line of another's."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._last = b"\n"
        self.progress = sink.progress
        self.redacted = sink.redacted

    async def write(self, data: bytes) -> None:
        """Take bytes of the log."""
        self._last = data[-1:] or self._last
        await self._sink.write(data)

    async def begin_stage(self) -> None:
        """End the line of the stage before, where it did not."""
        if self._last != b"\n":
            await self.write(b"\n")


class StagedRun(ABC):
    """The port's Run, over what a runtime does for each stage."""

    def __init__(
        self,
        assignment: Assignment,
        sink: Sink,
        *,
        timeout: float,
        stop_timeout: float,
        scratch: int = 0,
    ) -> None:
        """`timeout` in seconds, for a task that sets none; `scratch`: bytes in its folder. 0: no limit."""
        self._scratch = scratch
        self.assignment = assignment
        self.sink = StageLog(sink)
        self._stop_timeout = stop_timeout
        self._error: TaskError | RunLostError | None = None
        try:
            self._timeout = seconds_of(assignment.task.timeout) or timeout
        except TaskError as error:
            self._timeout, self._error = timeout, error
        self._preparing_took = 0.0
        self._reason: str | None = None
        self._exit_code: int | None = None
        self._has_run = False
        self._live: set[Live] = set()
        self._work: asyncio.Task[str] | None = None
        self._making: asyncio.Task[None] | None = None
        self._left_alone = asyncio.Event()
        self._over = asyncio.Event()

    # --- what a runtime does ---

    @abstractmethod
    async def _prepare(self) -> None:
        """Make what can be made without starting anything. Raises TaskError, RunLostError."""

    @abstractmethod
    async def _stage(self, index: int, small: SmallTask) -> Exit:
        """Run a pre or post task; `index` is unique in this run."""

    @abstractmethod
    async def _main(self) -> Exit:
        """Run the main process or container, with all that belongs beside it."""

    @abstractmethod
    async def _result(self) -> str:
        """Return the output of the main one. Raises TaskError, RunLostError."""

    @abstractmethod
    async def _settle(self) -> RunUsage | None:
        """Give up what only a run that goes on needs, and return what was used."""

    @abstractmethod
    def _own_folder(self) -> Path | None:
        """Return the folder in which the task's files are; None where that is not on this machine."""

    # --- the port ---

    async def prepare(self) -> None:
        """Make ready; a fault is kept for `run`."""
        if self._error is not None:
            return
        began = time.monotonic()
        self._making = start_task(self._prepare(), f"make {self.assignment.task_id}")
        try:
            await asyncio.wait({self._making}, timeout=self._left())
            self._preparing_took = time.monotonic() - began
        except asyncio.CancelledError:
            self._making.cancel()
            await asyncio.wait({self._making})
            raise
        if not self._making.done():
            await _cut_short(self._making)
            self._error = TaskError(self._timed_out())
            return
        try:
            self._making.result()
        except (TaskError, RunLostError) as error:
            self._error = error

    async def wait_over(self) -> None:
        """Return when nothing of it goes on, not even what was left to end by itself."""
        going_on = [task for task in (self._making, self._work) if task is not None]
        await asyncio.gather(*map(asyncio.shield, going_on), return_exceptions=True)

    async def run(self) -> Outcome:
        """Run pre, main and post tasks, one after the other; return how that ended."""
        try:
            return await self._run()
        finally:
            self._over.set()

    async def stop(self, reason: str) -> None:
        """End the stage that runs, begin no other, and wait for the end of `run`."""
        if self._reason is None:
            self._reason = reason
        if self._work is not None:
            await self._end(self._work)
            await self._over.wait()

    # --- inside ---

    async def _run(self) -> Outcome:
        if self._reason is not None or self._error is not None:
            outcome = await self._outcome(self._error or RunStoppedError())
            # No check of this host looks at a path that a task named: to wait for one would only hold up all others.
            unprepared = outcome.lost and not isinstance(self._error, PathHangsError)
            return msgspec.structs.replace(outcome, unprepared=unprepared)
        self._work = start_task(self._stages(), f"stages of {self.assignment.task_id}")
        try:
            ends = [self._left_alone.wait(), *([self._overfull()] if self._scratch else [])]
            await done_first(self._work, *ends, timeout=self._left())
            if not self._work.done() and not self._left_alone.is_set():
                self._reason = self._reason or self._timed_out()
                await self._end(self._work)
        except asyncio.CancelledError:
            self._reason = self._reason or "cancelled"
            await asyncio.shield(self._end(self._work))
            raise
        if not self._work.done():
            return await self._outcome(RunStoppedError())
        try:
            return await self._outcome(None, self._work.result())
        except (TaskError, RunLostError, RunStoppedError, asyncio.CancelledError) as error:
            return await self._outcome(error)

    async def _overfull(self) -> None:
        """Return when there is more in the task's folder than may be; that is then the reason of its end."""
        pause = MEASURE_INTERVAL
        while folder := self._own_folder():
            await asyncio.sleep(pause)
            too_much, took = await in_thread_of(MEASURING, self._look_into, folder)
            if too_much:
                self._reason = self._reason or too_much
                return
            pause = min(max(MEASURE_INTERVAL, 10 * took), LONGEST_MEASURE_PAUSE)
        await asyncio.Event().wait()

    def _look_into(self, folder: Path) -> tuple[str, float]:
        """Say what is too much in the task's folder, and how many seconds it took to see."""
        began = time.monotonic()
        return self._too_much_in(folder), time.monotonic() - began

    def _too_much_in(self, folder: Path) -> str:
        """Say what is too much in the task's folder; empty where nothing is."""
        try:
            size, files = size_of(folder, self._scratch)
        except TaskError as error:
            return str(error)
        if size <= self._scratch:
            return ""
        said = f"/tork holds more than the {amount(self._scratch)} that this worker allows (worker.limits.scratch)"
        if files * LEAST_SIZE > size // 2:
            said += f": {files:,} files, of which each counts as {amount(LEAST_SIZE)} at least"
        return said

    async def _outcome(self, error: BaseException | None, result: str | None = None) -> Outcome:
        usage = await self._settle()
        if isinstance(error, TaskError) and error.exit_code is not None:
            self._exit_code = error.exit_code
        if self._reason is not None:
            return Outcome(error=self._reason, exit_code=self._exit_code, usage=usage)
        if isinstance(error, RunLostError):
            return Outcome(lost=True, error=str(error), usage=usage)
        if error is not None:
            return Outcome(error=str(error), exit_code=self._exit_code, usage=usage)
        return Outcome(result=result, exit_code=self._exit_code, usage=usage)

    async def _end(self, work: asyncio.Task[str]) -> None:
        """End what runs, and hear how it ended; then what waits for something else. What an engine that hangs keeps
        from ending is left alone."""
        if self._live:
            await self._terminate()
            await asyncio.wait({work}, timeout=ENDING)
        if not await _cut_short(work):
            self._left_alone.set()

    async def _terminate(self) -> None:
        await asyncio.gather(*(live.terminate(self._stop_timeout) for live in self._live))

    async def _stages(self) -> str:
        task = self.assignment.task
        for number, small in enumerate(task.pre, 1):
            await self._small("pre", number, small, number - 1)
        self._go_on()
        await self.sink.begin_stage()
        ended = await self._main()
        self._has_run = True
        self._exit_code = ended.code
        await check(ended, self.sink)
        result = await self._patiently(self._result)
        for number, small in enumerate(task.post, 1):
            await self._small("post", number, small, len(task.pre) + number - 1)
        return result

    async def _patiently(self, step: Callable[[], Awaitable[_T]]) -> _T:
        """Return what a step gives that may be taken again. What this worker lacks for a while is waited for once
        something has run: that is not to run again for it."""
        until = time.monotonic() + SCARCE_FOR
        delays = Backoff(0.1, 2.0)
        while True:
            try:
                return await step()
            except ScarceError:
                if not self._has_run or time.monotonic() > until:
                    raise
            await asyncio.sleep(delays.next())

    async def _small(self, when: str, number: int, small: SmallTask, index: int) -> None:
        self._go_on()
        await self.sink.begin_stage()
        name = f"{when} task {small.name or number!r}"
        late = f"timed out after {small.timeout}"
        try:
            ended = await self._within(seconds_of(small.timeout), self._stage(index, small), late)
            self._has_run = True
            await check(ended, self.sink)
        except TaskError as error:
            raise TaskError(f"{name}: {error}", error.exit_code) from None

    async def _within(self, seconds: float, running: Coroutine[Any, Any, Exit], late: str) -> Exit:
        """Return how something ended; past `seconds` (0: no limit) end it and raise TaskError."""
        async with beside(running, f"part of {self.assignment.task_id}") as work:
            await asyncio.wait({work}, timeout=seconds or None)
            if work.done():
                return work.result()
            await self._terminate()
            await asyncio.wait({work}, timeout=ENDING)
            heard = work.done() and not work.cancelled() and work.exception() is None
            raise TaskError(late, work.result().code if heard else None)

    @contextlib.contextmanager
    def _running(self, live: Live) -> Iterator[None]:
        """Let `live` be ended by `stop` while the body runs. Raises RunStoppedError."""
        self._go_on()
        self._live.add(live)
        try:
            yield
        finally:
            self._live.discard(live)

    def _go_on(self) -> None:
        """Begin nothing more of a run that is to stop. Raises RunStoppedError."""
        if self._reason is not None:
            raise RunStoppedError

    def _left(self) -> float | None:
        """Return the seconds that the run has; what it waits for its grant counts against nobody."""
        if not self._timeout:
            return None
        return max(0.0, self._timeout - self._preparing_took)

    def _timed_out(self) -> str:
        return f"timed out after {format_duration(round(self._timeout * NANOS_PER_SECOND))}"


@contextlib.asynccontextmanager
async def following(
    read: Callable[[], Awaitable[float | None]], sink: Sink, interval: float = PROGRESS_INTERVAL
) -> AsyncIterator[None]:
    """Pass on new values of progress while the body runs."""

    last: float | None = None

    async def look() -> None:
        nonlocal last
        value = await read()
        if value is not None and value != last:
            last = value
            await sink.progress(value)

    async with Loop("progress of a task", look, every=interval):
        yield


async def _cut_short(task: asyncio.Task[Any]) -> bool:
    """Cancel a task; return whether it ended soon."""
    task.cancel()
    await asyncio.wait({task}, timeout=LEFT_AFTER)
    return task.done()


def seconds_of(duration: str) -> float:
    """Return the seconds of a duration; 0 where there is none. Raises TaskError for what is no duration."""
    try:
        return duration_seconds(duration) if duration else 0.0
    except ValueError as error:
        raise TaskError(f"timeout: {error}") from None


async def check(ended: Exit, sink: Sink) -> None:
    """Raise TaskError, with the code and the last lines, unless the exit code is 0."""
    if ended.code == 0:
        return
    what = f"exit code {ended.code}"
    if ended.out_of_memory:
        limit = f": {amount(ended.memory_limit)}" if ended.memory_limit else ""
        what += f": killed: out of memory (see limits.memory{limit})"
    elif ended.code > 128 and ended.code - 128 in signal.valid_signals():
        with contextlib.suppress(ValueError):
            what += f" ({signal.Signals(ended.code - 128).name})"
    raise TaskError(await failure(what, ended.tail, sink), ended.code)


# --- what a process is given ------------------------------------------------------------------------------------------


def own_names(assignment: Assignment, folder: str) -> dict[str, str]:
    """Return the variables that every task gets and cannot override; `folder`: as it sees it."""
    output, progress = f"{folder}/stdout", f"{folder}/progress"
    return {
        "TORK_OUTPUT": output,
        "TORK_PROGRESS": progress,
        "HAULIER_OUTPUT": output,
        "HAULIER_PROGRESS": progress,
        "HAULIER_JOB_ID": assignment.job_id,
        "HAULIER_TASK_ID": assignment.task_id,
        "HAULIER_ATTEMPT": str(assignment.attempt),
    }


def host_names(names: Iterable[str], trace: str = "") -> dict[str, str]:
    """Return the host's variables that are passed on: `NAME`, or `NAME:ALIAS`; only set ones. And where a task stands
    in a trace. A task may have others of these names."""
    passed = {"TRACEPARENT": trace} if trace else {}
    for entry in names:
        name, _, alias = entry.partition(":")
        if name in os.environ:
            passed[alias or name] = os.environ[name]
    return passed


LONGEST_TEXT = 128 * 1024 - 1
"""Bytes of one variable with its name, or one argument, that the kernel passes on to a process."""
LONGEST_TEXTS = 2 * 1024 * 1024 - 16 * 1024
"""Bytes of all of them together, with what the kernel itself adds."""


def check_texts(env: Mapping[str, str], arguments: Iterable[str]) -> None:
    """Refuse what no process can be given. Raises TaskError."""
    sizes = {}
    for name, value in env.items():
        if "\0" in name or "\0" in value:
            raise TaskError(
                f"the value of env.{name} contains a NUL character".replace("\0", "\\0")
            )
        sizes[f"env.{name}"] = len(f"{name}={value}".encode("utf-8", "replace"))
    for argument in arguments:
        if "\0" in argument:
            raise TaskError("an argument of the command contains a NUL character")
        size = len(argument.encode("utf-8", "replace"))
        sizes["an argument of the command"] = max(size, sizes.get("an argument of the command", 0))
    _check_sizes(sizes)


def _check_sizes(sizes: Mapping[str, int]) -> None:
    if not sizes:
        return
    largest = max(sizes, key=lambda name: sizes[name])
    way = "pass it in a file instead (files: {name: {template: …}})"
    if sizes[largest] > LONGEST_TEXT:
        raise TaskError(
            f"{largest} has {sizes[largest]:,} bytes, and a process can be given {LONGEST_TEXT:,} at most: {way}"
        )
    if sum(sizes.values()) + 9 * len(sizes) > LONGEST_TEXTS:
        raise TaskError(
            f"env and command have {sum(sizes.values()):,} bytes, and a process can be given {LONGEST_TEXTS:,} at most "
            f"({largest} is the largest, with {sizes[largest]:,}): {way}"
        )
