"""Starting: servers that are away, users that are refused, queues that are others'."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aio_pika
import pytest
from aiormq.channel import Channel
from yarl import URL

from shared.broker.rabbitmq.connection import Session
from shared.broker.rabbitmq.declarations import Declarations
from shared.errors import BrokerMisconfigured, BrokerUnavailable, QueueMismatch
from shared.model.queues import ALWAYS_THERE
from tests.integration.rabbitmq.conftest import Brokers
from tests.integration.rabbitmq.forwarder import Forwarder
from tests.integration.rabbitmq.server import Server
from tests.integration.rabbitmq.waiting import eventually, within
from tests.services.fixtures import Vhost
from tests.settings import rabbitmq_broker


async def test_it_waits_for_a_server_that_is_away(brokers: Brokers, rabbitmq_vhost: Vhost) -> None:
    forwarder = Forwarder(rabbitmq_vhost.url)
    away = Vhost(rabbitmq_vhost.name, forwarder.url, rabbitmq_vhost.management_url)
    broker = brokers.make(away, chance=lambda: 0.0)
    starting = asyncio.create_task(broker.start())
    with pytest.raises(BrokerUnavailable):
        await broker.ping()
    assert not starting.done()
    async with forwarder:
        await within(starting)
        await within(broker.ping())


async def test_a_start_that_is_cancelled_leaves_nothing(rabbitmq_vhost: Vhost) -> None:
    before = asyncio.all_tasks()
    broker = rabbitmq_broker(Forwarder(rabbitmq_vhost.url).url)
    with pytest.raises(TimeoutError):
        await within(broker.start(), 0.5)

    async def left() -> set[asyncio.Task[Any]]:
        return asyncio.all_tasks() - before

    await eventually(left, lambda tasks: not tasks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda vhost: vhost.url.replace("guest:guest", "guest:wrong"), "user or the password"),
        (lambda vhost: vhost.url + "-not-there", "virtual host"),
        (lambda vhost: vhost.url.replace("amqp://", "http://"), "amqp://"),
        (lambda _: "amqp://[", "not a URL"),
    ],
    ids=["password", "vhost", "scheme", "nonsense"],
)
async def test_what_waiting_does_not_help_stops_the_start(
    rabbitmq_vhost: Vhost, change: Any, message: str
) -> None:
    began = time.monotonic()
    with pytest.raises(BrokerMisconfigured, match=message) as refused:
        await within(rabbitmq_broker(change(rabbitmq_vhost)).start())
    assert time.monotonic() - began < 5
    assert "wrong" not in str(refused.value)


@pytest.mark.parametrize(
    "declaration",
    [
        {"durable": False},
        {"durable": True},
        {"durable": True, "arguments": {"x-queue-type": "quorum"}},
    ],
    ids=["transient", "plain", "quorum"],
)
async def test_a_queue_of_another_program(
    brokers: Brokers, rabbitmq_vhost: Vhost, server: Server, declaration: dict[str, Any]
) -> None:
    broker = await brokers.start(rabbitmq_vhost)
    await server.declare_queue("theirs", **declaration)
    for call in (
        lambda: broker.publish("theirs", b"x"),
        lambda: broker.slot("theirs"),
        lambda: broker.subscribe("theirs", _never, prefetch=1),
    ):
        with pytest.raises(QueueMismatch, match=r"'theirs'.*delete it"):
            await within(call())
    await broker.publish("ours", b"x")
    found = await broker.queue("theirs")
    assert found is not None
    assert found.size == 0


@pytest.mark.parametrize("queue", sorted(ALWAYS_THERE)[::3])
async def test_a_coordinators_queue_of_another_program_stops_the_start(
    rabbitmq_vhost: Vhost, server: Server, queue: str
) -> None:
    """Case 19: and nothing of ours is left there."""
    await server.declare_queue(queue, durable=False)
    with pytest.raises(QueueMismatch, match=queue):
        await within(rabbitmq_broker(rabbitmq_vhost.url).start())
    assert await server.queues() == [queue]


async def test_an_exchange_of_another_program_stops_the_start(
    rabbitmq_vhost: Vhost, server: Server
) -> None:
    """Case 19: a coordinator waited for it for ever."""
    await server.declare_exchange("events", "direct")
    with pytest.raises(QueueMismatch, match="exchange 'events' exists with other properties"):
        await within(rabbitmq_broker(rabbitmq_vhost.url).start())
    assert await server.queues() == []


async def test_a_workers_queue_of_another_program_stops_its_start(
    rabbitmq_vhost: Vhost, server: Server
) -> None:
    """Case 19: and nothing of ours is left there."""
    await server.declare_queue("video", durable=False)
    with pytest.raises(QueueMismatch, match="video"):
        await within(rabbitmq_broker(rabbitmq_vhost.url, queues=("video",)).start())
    assert await server.queues() == ["video"]


async def test_two_brokers_of_one_name_start_at_once(
    brokers: Brokers, rabbitmq_vhost: Vhost
) -> None:
    started = await within(
        asyncio.gather(*(brokers.start(rabbitmq_vhost, name="same") for _ in range(4)))
    )
    await started[0].publish("work", b"x")
    assert (await within((await started[3].slot("work")).take())).body == b"x"


async def _never(_: object) -> None:
    raise AssertionError("nothing was published")


async def test_a_question_without_an_answer_takes_its_channel_with_it(
    rabbitmq_vhost: Vhost,
) -> None:
    session = await Session.open(URL(rabbitmq_vhost.url), Declarations("classic", 60.0))
    asked: list[Channel] = []

    async def silent(channel: Channel) -> None:
        asked.append(channel)
        await asyncio.Event().wait()

    async def answered(channel: Channel) -> None:
        asked.append(channel)

    with pytest.raises(TimeoutError):
        await within(session.ask(silent), 0.2)
    await session.ask(answered)
    await session.ask(answered)
    await session.close()
    assert asked[0].is_closed
    assert asked[1] is not asked[0]
    assert asked[2] is asked[1]


async def test_a_connection_that_cannot_say_goodbye_is_closed(
    rabbitmq_vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the driver begins to close it when the garbage is collected, and nobody awaits that."""
    made: list[aio_pika.Connection] = []

    async def gone(_transport: object, _error: object) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(
        aio_pika.Connection, "__init__", _noting(aio_pika.Connection.__init__, made)
    )
    session = await Session.open(URL(rabbitmq_vhost.url), Declarations("classic", 60.0))
    with monkeypatch.context() as patch:
        patch.setattr(type(made[0].transport), "close", gone)
        transport = made[0].transport
        await session.close()
    assert made[0].is_closed
    assert transport is not None
    await transport.close(None)


def _noting(init: Any, made: list[aio_pika.Connection]) -> Any:
    def noted(connection: aio_pika.Connection, *args: Any, **options: Any) -> None:
        init(connection, *args, **options)
        made.append(connection)

    return noted
