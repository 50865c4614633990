"""Carries out the evaluation of templates: on the loop while it is short, else in processes of its own.

A process keeps an evaluation from the loop, which would else wait for the interpreter's lock at each step, and keeps
its memory apart. There are few, each takes one evaluation at a time, and users take turns.
"""

from __future__ import annotations

import asyncio
import pickle
import struct
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from coordinator.engine.flow import Evaluate
from coordinator.turns import Turns
from shared.errors import ApplicationError
from shared.expressions import Budget, ExpressionError, OutOfTurn
from shared.supervision import waiting

log = structlog.get_logger(__name__)

FIRST_STEPS = 40_000
"""Steps that an evaluation may take on the loop: about 20 ms."""

LEAST_STEPS = 1_000
"""What is left of that for somebody who has many evaluations waiting."""

_TURN = 0.005
"""Seconds of evaluations after which the loop is to have a turn."""

PROCESSES = 2
"""Evaluations beside the loop at a time."""

_WAITING = 24
"""Evaluations of one user that wait or go on beside the loop; what is beyond is tried later."""

_LONGEST = 60.0
"""Seconds after which an evaluation is given up, whatever its budget."""

LENGTH = struct.Struct("!Q")
"""What goes before each message of a process."""

_ROOT = Path(__file__).parents[2]


class EvaluationBusy(ApplicationError):
    """An evaluation or a fan-out cannot be taken on now, or is under way already: what it belongs to is followed again
    later."""


class Evaluations:
    """Evaluates, out of a budget of so many steps and bytes for each evaluation."""

    def __init__(self, steps: int, bytes: int, waits: Callable[[], None] = lambda: None) -> None:
        self._steps, self._bytes = steps, bytes
        self._waits = waits
        """Called by whoever has to wait for an evaluation beside the loop."""
        self._turns = Turns(PROCESSES)
        self._about: dict[str, str] = {}
        """The user of each evaluation that waits or goes on beside the loop, by what it is about."""
        self._idle: list[_Process] = []
        self._busy: set[_Process] = set()
        self._spent = 0.0
        """Seconds that evaluations took in this turn of the loop."""
        self._next_turn = asyncio.Event()
        self._closed = False

    async def evaluate(self, effect: Evaluate) -> Any:
        """Return what the work gives, or the `ExpressionError` that it raises. Raises `EvaluationBusy`."""
        await self._room()
        others = self._waiting(effect.user)
        if self._closed or effect.about in self._about or others >= _WAITING:
            raise EvaluationBusy(f"the evaluation of {effect.about} has to wait")
        first = max(LEAST_STEPS, FIRST_STEPS // (1 + others))
        began = time.monotonic()
        try:
            return effect.work(Budget(self._steps, self._bytes, first=first))
        except ExpressionError as error:
            return error
        except OutOfTurn:
            pass
        finally:
            self._spend(time.monotonic() - began)
        return await self._beside(effect)

    def has_room_for(self, user: str) -> bool:
        """Return whether an evaluation of this user's is taken on now."""
        return self._waiting(user) < _WAITING

    def _waiting(self, user: str) -> int:
        return sum(each == user for each in self._about.values())

    async def _room(self) -> None:
        """Wait for a turn of the loop that has room for an evaluation: others come in between, however many there are
        in a row, and whoever has them. What else a turn is busy with does not count."""
        while self._spent > _TURN:
            await self._next_turn.wait()

    def _spend(self, seconds: float) -> None:
        if not self._spent:
            asyncio.get_running_loop().call_soon(self._begin_turn)
        self._spent += seconds

    def _begin_turn(self) -> None:
        self._spent = 0.0
        self._next_turn.set()
        self._next_turn = asyncio.Event()

    async def close(self) -> None:
        """Give up what waits and what goes on, and end the processes."""
        self._closed = True
        processes = {*self._idle, *self._busy}
        for process in processes:
            process.kill()
        for process in processes:
            await process.end()
        self._idle.clear()

    async def _beside(self, effect: Evaluate) -> Any:
        self._about[effect.about] = effect.user
        self._waits()
        try:
            async with self._turns.turn(effect.user):
                with waiting():
                    return await self._answer(effect)
        finally:
            del self._about[effect.about]

    async def _answer(self, effect: Evaluate) -> Any:
        asked = pickle.dumps((effect.work, Budget(self._steps, self._bytes)))
        for _ in range(2):
            if self._closed:
                break
            try:
                async with self._process() as process, asyncio.timeout(_LONGEST):
                    return await process.ask(asked)
            except TimeoutError:
                return ExpressionError(f"this takes more than {_LONGEST:.0f} s", kind="limit")
            except (OSError, EOFError) as error:
                if not self._closed:
                    log.warning("a process died", about=effect.about, error=str(error))
        if self._closed:
            raise EvaluationBusy("this coordinator stops")
        return ExpressionError("the process that evaluated this died twice", kind="limit")

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[_Process]:
        """Have a process to oneself. It is ended where it was not heard to the end."""
        process = self._idle.pop() if self._idle else _Process()
        self._busy.add(process)
        try:
            yield process
        except BaseException:
            await process.end()
            raise
        else:
            self._idle.append(process)
        finally:
            self._busy.discard(process)


class _Process:
    """A process that evaluates, one thing at a time. It ends with its standard input."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._asked = asyncio.Lock()
        self._ended = False

    async def ask(self, asked: bytes) -> Any:
        """Return the answer to a pickled question. Raises `OSError` or `EOFError` where the process dies, and
        `EvaluationBusy` where none can be started."""
        async with self._asked:
            if self._process is None:
                self._process = await self._started()
            if self._ended:
                self.kill()
            to, back = self._process.stdin, self._process.stdout
            assert to is not None
            assert back is not None
            to.write(LENGTH.pack(len(asked)) + asked)
            await to.drain()
            (length,) = LENGTH.unpack(await back.readexactly(LENGTH.size))
            return pickle.loads(await back.readexactly(length))  # noqa: S301 - of our own process

    async def _started(self) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "coordinator.effects.evaluation_process",
                cwd=_ROOT,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            # No descriptors, no memory: nothing that the expression is at fault for.
            raise EvaluationBusy(f"a process for evaluations can't be started: {error}") from None

    async def end(self) -> None:
        """End it now, and leave nothing of it; who asks it something hears of that first."""
        self.kill()
        async with self._asked:
            if self._process is not None:
                assert self._process.stdin is not None
                self._process.stdin.close()
                await self._process.communicate()

    def kill(self) -> None:
        """End it now: who asks it something hears of that."""
        self._ended = True
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
