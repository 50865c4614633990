"""A task's mounts hold up nothing else, however many they are and however long its paths take."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from shared.model.language import Mount, TaskDefinition
from tests.swapping import swapping
from tests.unit.worker.engines import assignment, context
from tests.unit.worker.sinks import NoLog
from worker.runtime.docker import container_spec
from worker.runtime.docker.binds import BindRules, BindSource, listed_source
from worker.runtime.docker.resources import Maker
from worker.runtime.port import TaskError

PATIENCE = 10.0


def test_many_mounts_take_time_in_proportion(tmp_path: Path) -> None:
    rules = BindRules(False, (), None, tmp_path, False)
    mounts = [Mount(type="volume", target=f"/v/{number}") for number in range(20_000)]
    began = time.monotonic()
    mounted = container_spec.Mounted()
    container_spec.add_mounts(mounted, enumerate(mounts), "run", rules)
    assert time.monotonic() - began < 4
    assert len(mounted.targets) == len(mounts)


@pytest.mark.parametrize("kind", ["volume", "tmpfs"])
def test_two_mounts_at_one_place_are_refused(tmp_path: Path, kind: str) -> None:
    rules = BindRules(False, (), None, tmp_path, False)
    mounts = [Mount(type="volume", target="/v"), Mount(type=kind, target="/v/")]
    with pytest.raises(TaskError, match=r"mounts\[1\]: another mount already uses /v"):
        container_spec.add_mounts(container_spec.Mounted(), enumerate(mounts), "run", rules)


@pytest.mark.slow
@pytest.mark.parametrize("below", ["", "/inner", "/inner/word"])
def test_nothing_outside_is_opened_while_a_neighbour_swaps_a_folder_and_a_link(
    tmp_path: Path, below: str
) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder in (allowed / "sub/inner", secret / "inner"):
        folder.mkdir(parents=True)
        (folder / "word").write_text("x")
    rules = BindRules(True, (listed_source(str(allowed)),), None, tmp_path / "worker", True, True)
    ours = Path(f"{allowed}/sub{below}").stat().st_ino
    opened: list[int] = []
    with swapping(allowed / "sub", secret):
        for _ in range(3_000):
            with contextlib.suppress(TaskError):
                descriptor = rules.source(f"{allowed}/sub{below}", "mounts[0]").descriptor
                opened.append(os.fstat(descriptor).st_ino)
                os.close(descriptor)
    assert 0 < len(opened) < 3_000
    assert set(opened) == {ours}


class SlowRules(BindRules, frozen=True):
    """Rules for paths on a disk that does not answer until the test says so."""

    asked: threading.Event = msgspec.field(default_factory=threading.Event)
    answers: threading.Event = msgspec.field(default_factory=threading.Event)
    opened: list[int] = msgspec.field(default_factory=list)

    def source(self, source: str, where: str, *, by_path: bool = False) -> BindSource:  # noqa: ARG002
        self.asked.set()
        assert self.answers.wait(PATIENCE)
        self.opened.append(os.open(source, os.O_PATH))
        return BindSource(source, self.opened[-1])


async def test_what_is_opened_for_a_cancelled_run_is_closed(tmp_path: Path) -> None:
    api = SimpleNamespace(create_volume=lambda *_: None)
    services = context(tmp_path, api)
    rules = SlowRules(True, (), None, tmp_path, True)
    services.bind_rules = rules
    task = TaskDefinition(mounts=[Mount(type="bind", source=str(tmp_path), target="/d")])
    maker = Maker(assignment(task), NoLog(), services)
    making = asyncio.create_task(maker.common())
    assert await asyncio.to_thread(rules.asked.wait, PATIENCE)
    making.cancel()
    with pytest.raises(asyncio.CancelledError):
        await making
    await maker.remove()
    assert not rules.opened, "nobody waits for what may hang"
    rules.answers.set()
    async with asyncio.timeout(PATIENCE):
        while not (rules.opened and is_closed(rules.opened[0])):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def is_closed(descriptor: int) -> bool:
    """Whether a descriptor stands for nothing."""
    try:
        os.fstat(descriptor)
    except OSError:
        return True
    return False
