"""However large what changes is, the events of it take little: in messages, and while they wait."""

from __future__ import annotations

import asyncio

import pytest

from coordinator.effects.events import Events
from shared.broker import deliveries
from shared.broker.deliveries import EventBacklog
from shared.broker.memory import MemoryBroker
from shared.model.documents import JobDocument
from shared.model.messages import encode
from shared.model.states import JobState
from shared.model.views.redacted import LARGEST_TOLD


async def test_events_that_wait_are_bounded_by_their_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deliveries, "EVENT_BACKLOG_BYTES", 100)
    heard: list[bytes] = []
    last = asyncio.Event()

    async def take(body: bytes) -> None:
        heard.append(body)
        if body[:1] == b"9":
            last.set()

    backlog = EventBacklog(take, "a test's events")
    for number in range(10):
        backlog.offer(str(number).encode() * 30)
    async with asyncio.timeout(10):
        await last.wait()
    assert [body[:1] for body in heard] == [b"7", b"8", b"9"], "the newest"
    await backlog.close()


async def test_a_large_result_does_not_go_out_with_an_event() -> None:
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    events = Events(broker, lambda: 0, ())
    await events.start()
    heard = events.read()
    next_one = asyncio.ensure_future(anext(heard))
    await asyncio.sleep(0)  # it listens now
    assert events.wanted
    job = JobDocument(id="j", name="n", state=JobState.COMPLETED, result="\x01" * LARGEST_TOLD)
    events.tell(job, None)
    async with asyncio.timeout(10):
        event = await next_one
    assert event.summary["id"] == "j"
    assert "result" not in event.summary
    assert event.summary["abridged"] is True
    assert len(encode(event)) < 2_000
    await events.close()
    await broker.close()
