"""Loops and tasks that are looked after."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from shared import supervision
from shared.errors import BrokerMisconfigured, CannotGoOn, StoreUnavailable
from shared.metrics import LoopFigures
from shared.supervision import (
    Loop,
    Supervision,
    Tasks,
    beside,
    came_round,
    done_first,
    end_tasks,
    present,
    start_task,
    stuck_loops,
    waiting,
)

SOON = 5.0
"""Seconds within which anything here happens, on a busy machine too."""

Work = Callable[[], Awaitable[None]]


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervision]:
    """A process of its own, in which everything goes a hundred times as fast."""
    monkeypatch.setattr(supervision, "FIRST_DELAY", 0.002)
    monkeypatch.setattr(supervision, "LONGEST_DELAY", 0.1)
    monkeypatch.setattr(supervision, "LIVE_WITHIN", 0.25)
    made = Supervision()
    token = present.set(made)
    yield made
    present.reset(token)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


async def until(what: Callable[[], Any]) -> Any:
    """Return the first true thing that `what` gives."""
    async with asyncio.timeout(SOON):
        while not (found := what()):  # noqa: ASYNC110 - nobody tells of what is looked for here
            await asyncio.sleep(0.002)
    return found


class Rounds:
    """Work that does something else each time, and then waits for good."""

    def __init__(self, *works: Work) -> None:
        self._works = list(works)
        self.begun: list[float] = []

    async def __call__(self) -> None:
        self.begun.append(asyncio.get_running_loop().time())
        if len(self.begun) <= len(self._works):
            await self._works[len(self.begun) - 1]()
            return
        with waiting():
            await asyncio.Event().wait()

    @property
    def gaps(self) -> list[float]:
        return [after - before for before, after in zip(self.begun, self.begun[1:], strict=False)]


async def fail() -> None:
    raise ZeroDivisionError("no luck")


async def hang() -> None:
    await asyncio.Event().wait()


async def outage() -> None:
    raise StoreUnavailable("no store")


async def taken_rights() -> None:
    raise BrokerMisconfigured("not allowed")


async def cancelled_by_nobody() -> None:
    raise asyncio.CancelledError


async def swallow() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


async def test_a_loop_that_raises_is_begun_again(process: Supervision, logged: list[Any]) -> None:
    work = Rounds(fail, fail, fail, fail, fail)
    async with Loop("digging", work, about="a hole"):
        await until(lambda: len(work.begun) == 6)
    assert process.restarts == {"digging": 5}
    failed = [entry for entry in logged if entry["event"] == "a loop failed and begins again"]
    assert len(failed) == 5
    assert {(entry["loop"], entry["about"]) for entry in failed} == {("digging", "a hole")}
    assert all(isinstance(entry["exc_info"], ZeroDivisionError) for entry in failed)
    assert work.gaps[-1] > 4 * 0.002, "delays grow"
    assert not process.loops


@pytest.mark.parametrize("every", [None, 0.01])
async def test_a_loop_that_hangs_is_cut_short(
    process: Supervision, logged: list[Any], every: float | None
) -> None:
    work = Rounds(hang)
    async with Loop("digging", work, every=every, patience=0.05):
        await until(lambda: len(work.begun) >= 2)
    assert work.gaps[0] >= 0.05
    assert process.restarts["digging"] == 1
    assert [entry["event"] for entry in logged] == [
        "a loop hangs and is cut short",
        "a loop failed and begins again",
    ]


async def test_a_cancellation_that_nobody_asked_for_ends_no_loop(process: Supervision) -> None:
    work = Rounds(cancelled_by_nobody)
    async with Loop("digging", work):
        await until(lambda: len(work.begun) == 2)
    assert process.restarts["digging"] == 1


@pytest.mark.parametrize("how", ["waits", "comes round"])
async def test_what_shows_signs_of_life_is_left_alone(process: Supervision, how: str) -> None:
    over = asyncio.Event()

    async def work() -> None:
        for _ in range(40):
            if how == "waits":
                with waiting():
                    await asyncio.sleep(0.02)
            else:
                await asyncio.sleep(0.02)
                came_round()
        over.set()

    async with Loop("digging", work, patience=0.5) as loop, asyncio.timeout(SOON):
        await over.wait()
        await loop.wait()
    assert loop.over
    assert not process.restarts


async def test_a_wait_may_be_long_and_what_follows_it_may_not(process: Supervision) -> None:
    async def work() -> None:
        with waiting():
            await asyncio.sleep(0.2)
        await hang()

    async with Loop("digging", work, patience=0.05):
        began = asyncio.get_running_loop().time()
        await until(lambda: process.restarts["digging"])
        assert asyncio.get_running_loop().time() - began >= 0.25


@pytest.mark.parametrize("trouble", [outage, taken_rights])
async def test_an_outage_is_no_fault_of_the_loop(
    process: Supervision, logged: list[Any], trouble: Work
) -> None:
    work = Rounds(*[trouble] * 8)
    async with Loop("digging", work):
        await until(lambda: len(work.begun) == 9)
        assert work.begun[-1] - work.begun[0] > 0.25
        assert stuck_loops() == []
    assert not process.restarts
    assert {entry["log_level"] for entry in logged} == {"info"}


@pytest.mark.parametrize("every", [None, 0.01])
async def test_a_loop_that_fails_on_and_on_is_named_until_it_gets_on(every: float | None) -> None:
    mended = asyncio.Event()

    async def work() -> None:
        if not mended.is_set():
            await fail()
        if every is None:
            with waiting():
                await hang()

    async with Loop("digging", work, every=every, about="a hole"):
        assert stuck_loops() == []
        (said,) = await until(stuck_loops)
        assert said.startswith("digging (a hole) has been failing for")
        mended.set()
        await until(lambda: not stuck_loops())


async def test_a_loop_that_fails_at_all_that_it_waited_for_is_named() -> None:
    async def work() -> None:
        with waiting():
            await asyncio.sleep(0)
        await fail()

    async with Loop("digging", work):
        (said,) = await until(stuck_loops)
    assert said.startswith("digging has been failing for")


async def test_one_failure_now_and_then_does_not_add_up(process: Supervision) -> None:
    said: list[list[str]] = []

    async def work() -> None:
        for _ in range(3):
            with waiting():
                await asyncio.sleep(0.01)
        said.append(stuck_loops())
        await fail()

    began = asyncio.get_running_loop().time()
    async with Loop("digging", work):
        await until(
            lambda: (
                asyncio.get_running_loop().time() > began + 0.6 and process.restarts["digging"] > 1
            )
        )
    assert process.restarts["digging"] > 1
    assert not any(said)


async def test_a_loop_that_swallows_its_cancellation_is_named(logged: list[Any]) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SOON):
                while not ended.is_set():
                    with contextlib.suppress(asyncio.CancelledError):
                        await ended.wait()

    loop = Loop("digging", work, patience=0.05)
    loop.start()
    assert await until(stuck_loops) == ["digging hangs and can't be cut short"]
    assert logged[0]["event"] == "a loop hangs and is cut short"
    ended.set()
    await loop.wait()
    assert stuck_loops() == []


async def test_a_loop_that_swallows_it_and_gets_on_is_named_no_longer(
    process: Supervision,
) -> None:
    async def work() -> None:
        for _ in range(8):
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(hang(), SOON)
        while True:
            came_round()
            await asyncio.sleep(0.01)

    async with Loop("digging", work, patience=0.05):
        await until(stuck_loops)
        await until(lambda: not stuck_loops())
    assert not process.restarts
    assert not process.loops, "and it can be closed"


async def test_close_ends_a_loop_that_swallows_it_once() -> None:
    async def work() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await hang()

    loop = Loop("digging", work, every=0.01)
    loop.start()
    await asyncio.sleep(0)
    async with asyncio.timeout(SOON):
        await loop.close()
    assert loop.over


async def test_a_periodic_loop_is_woken_before_its_time() -> None:
    woken = asyncio.Event()
    rounds = asyncio.Queue[None]()

    async def work() -> None:
        rounds.put_nowait(None)

    async with Loop("digging", work, every=600, woken_by=woken), asyncio.timeout(SOON):
        for _ in range(3):
            await rounds.get()
            woken.set()


async def test_a_loop_may_close_itself_from_inside() -> None:
    async def work() -> None:
        await loop.close()
        await hang()

    loop = Loop("digging", work, every=0.01)
    loop.start()
    async with asyncio.timeout(SOON):
        await loop.wait()
    assert loop.over


async def test_a_loop_without_rounds_is_over_when_its_work_is() -> None:
    async def work() -> None:
        return

    async with Loop("digging", work) as loop, asyncio.timeout(SOON):
        await loop.wait()
        assert loop.over


async def test_what_cannot_go_on_ends_the_loop_and_the_process(
    process: Supervision, logged: list[Any]
) -> None:
    async def work() -> None:
        raise CannotGoOn("somebody else has the lock")

    async with (
        beside(process.wait_failed(), "failure") as failed,
        Loop("digging", work, every=1) as loop,
    ):
        with pytest.raises(CannotGoOn, match="lock"):
            await asyncio.wait_for(asyncio.shield(failed), SOON)
        await asyncio.wait_for(loop.wait(), SOON)
    with pytest.raises(CannotGoOn, match="lock"):
        await process.wait_failed()
    assert logged == []  # the process says it as it ends


async def test_loops_belong_to_the_process_that_started_them(process: Supervision) -> None:
    other = Supervision()

    async def of_another() -> Loop:
        present.set(other)
        loop = Loop("theirs", hang)
        loop.start()
        return loop

    theirs = await start_task(of_another(), "another process")
    async with Loop("ours", hang):
        assert {loop.name for loop in process.loops} == {"ours"}
        assert {loop.name for loop in other.loops} == {"theirs"}
    await theirs.close()


async def test_prometheus_is_told_of_loops_by_name(process: Supervision) -> None:
    registry = CollectorRegistry()
    registry.register(LoopFigures(process))

    def told(figure: str, name: str) -> float | None:
        return registry.get_sample_value(f"haulier_loop_{figure}", {"loop": name})

    async with Loop("rest", hang):
        async with Loop("dig", fail, about="a hole"), Loop("dig", fail, about="another"):
            await until(lambda: told("stuck", "dig") == 2)
            assert told("stuck", "rest") == told("restarts_total", "rest") == 0
        assert told("stuck", "dig") == 0
        assert told("restarts_total", "dig") == process.restarts["dig"] > 2, "they outlive the loop"


async def test_a_task_that_fails_is_logged_and_an_outage_is_no_error(logged: list[Any]) -> None:
    tasks = Tasks()
    tasks.start(fail(), "dig")
    tasks.start(outage(), "store")
    assert len(tasks) == 2
    await tasks.finish()
    assert {(entry["task"], entry["log_level"]) for entry in logged} == {
        ("dig", "error"),
        ("store", "info"),
    }
    assert len(tasks) == 0


async def test_tasks_wait_for_those_too_that_theirs_start() -> None:
    tasks, done = Tasks(), []

    async def second() -> None:
        await asyncio.sleep(0.01)
        done.append(2)

    async def first() -> None:
        await asyncio.sleep(0.01)
        tasks.start(second(), "second")
        done.append(1)

    tasks.start(first(), "first")
    await tasks.finish()
    assert done == [1, 2]


async def test_tasks_end_with_their_owner(logged: list[Any]) -> None:
    tasks = Tasks()
    task = tasks.start(hang(), "hang")
    tasks.adopt(start_task(hang(), "adopted"))
    await asyncio.sleep(0)
    await tasks.cancel()
    assert task.cancelled()
    assert len(tasks) == 0
    assert logged == []


async def test_a_task_of_tasks_says_nothing_for_the_loop_that_started_it(
    process: Supervision,
) -> None:
    tasks = Tasks()

    async def lively() -> None:
        while True:
            came_round()
            with waiting():
                await asyncio.sleep(0.005)

    async def work() -> None:
        tasks.start(lively(), "lively")
        await hang()

    async with Loop("digging", work, patience=0.05):
        await until(lambda: process.restarts["digging"])
    await tasks.cancel()


async def test_beside_ends_with_the_block() -> None:
    async with beside(hang(), "hang") as task:
        await asyncio.sleep(0)
        assert not task.done()
    assert task.cancelled()
    with pytest.raises(RuntimeError, match="block"):
        async with beside(hang(), "hang") as task:
            raise RuntimeError("the block fails")
    assert task.cancelled()


async def test_which_is_done_first() -> None:
    task = start_task(hang(), "hang")
    event = asyncio.Event()
    event.set()
    assert not await done_first(task, event.wait())
    assert not await done_first(task, timeout=0.01)
    assert not task.cancelled(), "the others are cut short, not the task"
    await end_tasks(task)
    assert await done_first(task, hang())


async def test_whoever_waits_for_what_is_done_first_is_not_stuck(process: Supervision) -> None:
    over = asyncio.Event()

    async def work() -> None:
        await done_first(start_task(asyncio.sleep(0.2), "sleep"))
        over.set()

    async with Loop("digging", work, patience=0.05), asyncio.timeout(SOON):
        await over.wait()
    assert not process.restarts
