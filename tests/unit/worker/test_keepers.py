"""The keepers of local processes: one run after another, and nothing left of a run whose keeper is killed."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from worker.runtime.port import RunLostError
from worker.runtime.shell import supervisors
from worker.runtime.shell.supervisors import LocalOrder, LocalProcess, Supervisors


class Lines:
    """A sink that gives lines as they come."""

    def __init__(self) -> None:
        self.lines: asyncio.Queue[str] = asyncio.Queue()

    async def write(self, data: bytes) -> None:
        for line in data.decode().split():
            self.lines.put_nowait(line)

    async def progress(self, percent: float) -> None:
        raise AssertionError(percent)

    async def redacted(self, text: str) -> str:
        return text


@pytest.fixture
async def keepers() -> AsyncIterator[Supervisors]:
    made = Supervisors()
    made.start()
    yield made
    await asyncio.to_thread(made.close)


async def begun(keepers: Supervisors, script: str) -> LocalProcess:
    return await keepers.begin(
        LocalOrder(argv=["sh", "-c", script], env={"PATH": os.environ["PATH"]}, cwd="/")
    )


async def ran(keepers: Supervisors, script: str) -> tuple[int, list[str], LocalProcess]:
    """Run a script to its end; return its exit code and what it printed."""
    sink, process = Lines(), await begun(keepers, script)
    try:
        ended = await process.run(sink)
    finally:
        process.close()
    return ended.code, [sink.lines.get_nowait() for _ in range(sink.lines.qsize())], process


def alive(process: int) -> bool:
    """Whether a process runs: a zombie does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(process: int) -> None:
    deadline = time.monotonic() + 20
    while alive(process):
        assert time.monotonic() < deadline, f"process {process} is still there"
        await asyncio.sleep(0.01)


async def test_one_keeper_keeps_one_run_after_another(keepers: Supervisors) -> None:
    keeper = (await ran(keepers, "echo $PPID"))[1]
    assert (await ran(keepers, "exit 7"))[0] == 7
    assert (await ran(keepers, "no-such-program"))[0] == 127
    assert (await ran(keepers, "echo $PPID"))[1] == keeper


async def test_a_run_has_the_soft_limit_of_descriptors_that_the_worker_was_started_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisors, "FOUND_LIMIT", 200)
    keepers = Supervisors()
    keepers.start()
    try:
        code, lines, _ = await ran(keepers, "ulimit -Sn; ulimit -Hn")
    finally:
        await asyncio.to_thread(keepers.close)
    assert code == 0
    assert lines == ["200", str(resource.getrlimit(resource.RLIMIT_NOFILE)[1])]


async def test_what_one_run_used_is_not_counted_for_the_next(keepers: Supervisors) -> None:
    _, _, greedy = await ran(keepers, "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
    _, _, modest = await ran(keepers, "true")
    assert greedy.ending is not None
    assert modest.ending is not None
    assert greedy.ending.cpu > 0.05
    assert modest.ending.cpu < greedy.ending.cpu / 2


async def test_runs_at_the_same_time_have_keepers_of_their_own(keepers: Supervisors) -> None:
    script = "echo $PPID; sleep 0.3"
    printed = await asyncio.gather(*(ran(keepers, script) for _ in range(3)))
    assert len({tuple(lines) for _, lines, _ in printed}) == 3


async def test_a_keeper_that_is_killed_leaves_nothing_and_loses_the_run(
    keepers: Supervisors,
) -> None:
    sink = Lines()
    process = await begun(keepers, "echo $PPID; echo $$; (sleep 600) & echo $!; sleep 600")
    running = asyncio.create_task(process.run(sink))
    keeper, main, child = [int(await sink.lines.get()) for _ in range(3)]
    os.kill(keeper, signal.SIGKILL)
    with pytest.raises(RunLostError):
        await asyncio.wait_for(running, 20)
    process.close()
    for each in (main, child):
        await until_gone(each)
    assert (await ran(keepers, "echo on"))[1] == ["on"]


@pytest.fixture
async def powerless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisors]:
    """Keepers whose signals change nothing, as for processes that hang in the kernel."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import socket, sys
sys.path.insert(0, {str(supervisors._PROGRAM.parent)!r})
import process_supervisor as program
program._signal = lambda *_: None
program.KILLED_WITHIN = 0.3
program.main(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
""")
    monkeypatch.setattr(supervisors, "_PROGRAM", program)
    monkeypatch.setattr(supervisors, "KEEPER_ENDS_WITHIN", 0.5)
    made = Supervisors()
    made.start()
    yield made
    await asyncio.to_thread(made.close)


async def test_what_cannot_be_killed_is_not_waited_for(powerless: Supervisors) -> None:
    sink = Lines()
    process = await begun(powerless, "echo $PPID; echo $$; exec sleep 60")
    running = asyncio.create_task(process.run(sink))
    keeper, main = [int(await sink.lines.get()) for _ in range(2)]
    try:
        async with asyncio.timeout(10):
            await process.terminate(0.1)
        running.cancel()
        await asyncio.wait({running})
        process.close()
        await until_gone(keeper)
        assert alive(main)
    finally:
        os.kill(main, signal.SIGKILL)


async def test_a_run_of_which_something_cannot_be_killed_ends_and_its_keeper_too(
    powerless: Supervisors,
) -> None:
    async with asyncio.timeout(10):
        code, lines, process = await ran(
            powerless, "sleep 60 >/dev/null 2>&1 & echo $PPID; echo $!; exit 3"
        )
    keeper, left = map(int, lines)
    try:
        assert code == 3
        assert not process.nothing_left
        assert (await ran(powerless, "echo $PPID"))[1] != [str(keeper)]
        await until_gone(keeper)
    finally:
        os.kill(left, signal.SIGKILL)


async def test_an_idle_keeper_that_was_killed_is_replaced(keepers: Supervisors) -> None:
    keeper = int((await ran(keepers, "echo $PPID"))[1][0])
    os.kill(keeper, signal.SIGKILL)
    await until_gone(keeper)
    code, lines, _ = await ran(keepers, "echo $PPID")
    assert code == 0
    assert lines != [str(keeper)]


async def test_the_program_that_was_killed_is_started_again(keepers: Supervisors) -> None:
    await ran(keepers, "true")
    program = keepers._program
    assert program is not None
    program.kill()
    program.wait()
    codes = await asyncio.gather(*(ran(keepers, "true") for _ in range(3)))
    assert [code for code, _, _ in codes] == [0, 0, 0]
