"""What the RabbitMQ driver raises becomes one error of ours, and a cancellation stays one."""

from __future__ import annotations

import asyncio

import pytest

from shared.broker.rabbitmq.declarations import Interrupted, interruptible
from shared.errors import BrokerUnavailable


@pytest.mark.parametrize(
    "answer",
    [None, OSError("refused"), TimeoutError(), Interrupted("lost"), BrokerUnavailable("away")],
    ids=lambda answer: type(answer).__name__,
)
async def test_a_cancellation_that_comes_with_the_answer_is_kept(answer: Exception | None) -> None:
    """`asyncio.wait_for`, which the driver uses, loses it before Python 3.12."""

    async def ask() -> None:
        with interruptible():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                if answer is not None:
                    raise answer from None

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_cancellation_that_nobody_asked_for_is_a_lost_connection() -> None:
    with pytest.raises(Interrupted), interruptible():
        raise asyncio.CancelledError


async def test_an_error_of_ours_is_raised_as_it_is() -> None:
    with pytest.raises(BrokerUnavailable), interruptible():
        raise BrokerUnavailable("away")
