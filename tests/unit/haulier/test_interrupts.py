"""Ctrl-C while an event loop runs: it is heard once, between two steps of the loop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from haulier.cli import interrupts
from haulier.cli.interrupts import Interruption


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(times: int) -> tuple[list[str], list[str]]:
    """Press Ctrl-C in a running loop; return what the loop still did, and whether the process was to be left."""
    done: list[str] = []
    left: list[str] = []
    interruption = Interruption(lambda: left.append("left"))

    async def pressed() -> None:
        interruption.cancels(asyncio.current_task())
        for _ in range(times):
            signal.raise_signal(signal.SIGINT)
        done.append("its step")
        try:
            await asyncio.sleep(30)
        finally:
            done.append("its end")

    with interruption.watched(), pytest.raises(asyncio.CancelledError):
        asyncio.run(pressed())
    assert interruption.came
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    return done, left


@pytest.mark.parametrize("times", [1, 2, 5])
def test_however_often_it_is_pressed_the_loop_ends_in_order(times: int) -> None:
    assert press(times) == (["its step", "its end"], [])


def test_one_that_comes_later_waits_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_AGAIN_AFTER", -1.0)
    assert press(2)[1] == ["left"]


def test_one_that_comes_before_the_loop_is_heard_by_it() -> None:
    interruption = Interruption(lambda: None)

    async def asked() -> None:
        interruption.cancels(asyncio.current_task())
        await asyncio.sleep(30)

    with interruption.watched():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(asked())


def test_without_it_the_handler_is_what_it_was() -> None:
    with Interruption(lambda: None).watched():
        asyncio.run(asyncio.sleep(0))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
