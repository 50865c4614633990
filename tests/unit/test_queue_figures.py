"""Figures of queues from a RabbitMQ that is away, or does not answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import pytest

from shared.broker.rabbitmq import queue_stats
from shared.broker.rabbitmq.publisher import PublishChannel
from shared.broker.rabbitmq.queue_stats import Figures
from shared.errors import BrokerUnavailable
from shared.supervision import Loop

PATIENCE = 0.2


class SilentLink:
    """Stands for a connection, and for a channel on it: what is asked is never answered."""

    def __init__(self, present: object) -> None:
        self.present = present
        self.link = self

    async def channel(self) -> tuple[Any, Any]:
        await asyncio.Event().wait()
        raise AssertionError


def figures(*, connected: bool) -> Figures:
    return Figures(cast("PublishChannel", SilentLink(object() if connected else None)), None)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_stats, "_PATIENCE", PATIENCE)


async def test_nobody_waits_for_a_connection_that_is_not_there() -> None:
    asked = figures(connected=False)
    began = time.monotonic()
    for call in (asked.ready("a"), asked.queue("a"), asked.queues(["a"]), asked.delete("a")):
        with pytest.raises(BrokerUnavailable, match="there is no connection to it now"):
            await call
    assert time.monotonic() - began < PATIENCE / 2


async def test_all_questions_have_one_time_whoever_is_before_them() -> None:
    asked = figures(connected=True)
    began = time.monotonic()
    others = [asked.ready(f"q{number}") for number in range(20)]
    found = await asyncio.gather(*others, asked.queues(["a", "b"]), return_exceptions=True)
    assert all(isinstance(each, BrokerUnavailable) for each in found)
    assert time.monotonic() - began < 2 * PATIENCE


async def test_a_loop_that_waits_for_figures_is_not_stuck() -> None:
    asked = figures(connected=True)
    told: list[str] = []

    async def look() -> None:
        for number in range(3):
            with pytest.raises(BrokerUnavailable) as error:
                await asked.ready(f"q{number}")
            told.append(str(error.value))

    async with Loop("sweeper", look, patience=PATIENCE / 2) as loop:
        await loop.wait()
    assert len(told) == 3
