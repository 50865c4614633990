"""How often a message goes out again, and how often a channel is opened for that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiormq.exceptions import ChannelAccessRefused, DeliveryError
from pamqp.commands import Basic

from shared.broker.rabbitmq.publisher import Letter, Publisher
from shared.errors import BrokerUnavailable
from shared.model.queues import CLAIMS_QUEUE, COMPLETED_QUEUE, queue_kind
from tests.simulation.loop import VirtualLoop

Answer = Callable[["Channel"], Awaitable[None]]


class Channel:
    """Answers what is published as its link says."""

    def __init__(self, link: Link) -> None:
        self.is_closed = False
        self._link = link

    async def basic_publish(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0.001)
        await self._link.answer(self)


class Link:
    """A connection that is there, and its session in one."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.opened: list[float] = []
        self.present = self

    async def session(self) -> Link:
        return self

    async def channel(self, *, confirms: bool) -> Channel:
        del confirms
        self.opened.append(asyncio.get_running_loop().time())
        return Channel(self)

    async def declare(self, queue: str) -> None: ...

    async def unblocked(self) -> None: ...


async def _taken(_: Channel) -> None: ...


async def _forbidden(channel: Channel) -> None:
    channel.is_closed = True
    raise ChannelAccessRefused("write access refused")


async def _forbidden_soon(channel: Channel) -> None:
    """Who waits for no confirm hears of it after the message has gone."""
    channel.is_closed = True


def _letter(queue: str = COMPLETED_QUEUE) -> Letter:
    return Letter(queue, queue_kind(queue, node_expiry=60), b"", 0, {})


def _publisher(link: Link) -> Publisher:
    return Publisher(link)  # type: ignore[arg-type]  # it has what is used of one


def _play(work: Awaitable[None]) -> None:
    async def played() -> None:
        await work

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(played())


async def _send_for_a_minute(link: Link, queue: str) -> None:
    """100 messages, which all wait at once, and another 10 each second."""
    publisher = _publisher(link)

    async def send(after: float) -> None:
        await asyncio.sleep(after)
        try:
            await publisher.publish(_letter(queue))
        except BrokerUnavailable as error:
            assert "write access refused" in str(error)  # noqa: PT017  # some come through

    await asyncio.gather(*(send(0) for _ in range(100)), *(send(n / 10) for n in range(600)))


@pytest.mark.parametrize(
    ("queue", "answer"), [(COMPLETED_QUEUE, _forbidden), (CLAIMS_QUEUE, _forbidden_soon)]
)
def test_who_may_not_write_opens_few_channels(queue: str, answer: Answer) -> None:
    link = Link(answer)
    _play(_send_for_a_minute(link, queue))
    assert 20 < len(link.opened) < 60


def test_a_right_that_is_given_back_is_used_at_once() -> None:
    """Also while ever new messages come, each of which waits but for a while."""

    async def work() -> None:
        link = Link(_forbidden)
        sending = asyncio.create_task(_send_for_a_minute(link, COMPLETED_QUEUE))
        await asyncio.sleep(30)
        link.answer = _taken
        before = len(link.opened)
        await sending
        assert len(link.opened) == before + 1
        assert link.opened[-1] < 33

    _play(work())


def test_a_channel_that_is_lost_once_delays_its_message_by_a_moment() -> None:
    async def work() -> None:
        link = Link(_taken)
        publisher, now = _publisher(link), asyncio.get_running_loop().time

        async def forbidden_once(channel: Channel) -> None:
            link.answer = _taken
            await _forbidden(channel)

        for _ in range(20):
            link.answer, before = forbidden_once, now()
            await publisher.publish(_letter())
            assert now() - before < 0.1

    _play(work())


def test_a_message_that_its_queue_refuses_goes_again_ever_more_rarely() -> None:
    tries = 0

    async def refused(_: Channel) -> None:
        nonlocal tries
        tries += 1
        raise DeliveryError(None, Basic.Nack())

    async def work() -> None:
        with pytest.raises(BrokerUnavailable):
            await _publisher(Link(refused)).publish(_letter())

    _play(work())
    assert 5 < tries < 12
