"""What every broker promises: the same bodies over memory and over a real RabbitMQ."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from coordinator.dead_letters import DeadLetters
from shared.broker.memory import MemoryBroker
from shared.broker.port import LARGEST_MESSAGE, Broker, Delivery, QueueInfo
from shared.errors import BrokerUnavailable, NotAllowed
from shared.model.queues import (
    ALWAYS_THERE,
    CLAIMS_QUEUE,
    COMPLETED_QUEUE,
    DEAD_QUEUE,
    JOBS_QUEUE,
    TRANSIENT_TTL,
)
from tests.integration.rabbitmq.waiting import Inbox, eventually, within
from tests.settings import rabbitmq_broker

NODE_EXPIRY = 1.0


class Clock:
    """A monotonic clock that can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", pytest.param("rabbitmq", marks=pytest.mark.rabbitmq)])
async def broker(request: pytest.FixtureRequest, clock: Clock) -> AsyncIterator[Broker]:
    made: Broker
    if request.param == "memory":
        made = MemoryBroker(node_expiry=NODE_EXPIRY, clock=clock)
    else:
        vhost = request.getfixturevalue("rabbitmq_vhost")
        made = rabbitmq_broker(vhost.url, vhost.management_url, node_expiry=NODE_EXPIRY)
    await within(made.start())
    yield made
    await within(made.close())


async def figures(broker: Broker, name: str, size: int, subscribers: int, unacked: int) -> None:
    wanted = QueueInfo(name, size, subscribers, unacked)
    await eventually(lambda: broker.queue(name), lambda seen: seen == wanted)


class Holding:
    """A handler that holds each delivery until it is told to go on."""

    def __init__(self) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()
        self.go_on = asyncio.Event()
        self.ended = 0

    async def __call__(self, delivery: Delivery) -> None:
        self.deliveries.put_nowait(delivery)
        await self.go_on.wait()
        await delivery.ack()
        self.ended += 1


async def test_a_message_arrives_as_it_was_sent(broker: Broker) -> None:
    await broker.publish("work", b"\x00body", priority=3, headers={"name": "größe"})
    slot = await broker.slot("work")
    delivery = await within(slot.take())
    seen = (delivery.body, delivery.queue, delivery.priority, delivery.headers["name"])
    assert seen == (b"\x00body", "work", 3, "größe")
    await figures(broker, "work", 0, 1, 1)
    await delivery.ack()
    await figures(broker, "work", 0, 1, 0)
    await slot.close()
    await figures(broker, "work", 0, 0, 0)


@pytest.mark.parametrize("body", [b"", b"x" * 2_000_000], ids=["empty", "large"])
async def test_bodies_of_any_size(broker: Broker, body: bytes) -> None:
    await broker.publish(JOBS_QUEUE, body)
    slot = await broker.slot(JOBS_QUEUE)
    assert (await within(slot.take())).body == body


async def test_first_in_first_out_within_a_priority_and_higher_first(broker: Broker) -> None:
    for number, priority in enumerate([0, 5, 9, 5, 0, 1, 9]):
        await broker.publish("work", str(number).encode(), priority=priority)
    slot = await broker.slot("work")
    order = []
    for _ in range(7):
        delivery = await within(slot.take())
        order.append(int(delivery.body))
        await delivery.ack()
    assert order == [2, 6, 1, 3, 5, 0, 4]


async def test_a_coordinators_queue_is_first_in_first_out(broker: Broker) -> None:
    for number in range(5):
        await broker.publish(COMPLETED_QUEUE, str(number).encode(), priority=number)
    inbox = Inbox()
    await broker.subscribe(COMPLETED_QUEUE, inbox, prefetch=1)
    assert await inbox.bodies(5) == [b"0", b"1", b"2", b"3", b"4"]


@pytest.mark.parametrize("priority", [-1, 10])
async def test_a_priority_out_of_range_is_refused(broker: Broker, priority: int) -> None:
    with pytest.raises(ValueError, match="priority"):
        await broker.publish("work", b"x", priority=priority)


async def test_a_message_that_no_broker_takes_is_refused(broker: Broker) -> None:
    with pytest.raises(ValueError, match="at most 16711680 go"):
        await broker.publish("work", bytes(LARGEST_MESSAGE + 1))


async def test_a_requeued_message_is_delivered_again(broker: Broker) -> None:
    await broker.publish("work", b"first")
    await broker.publish("work", b"second")
    slot = await broker.slot("work")
    delivery = await within(slot.take())
    await delivery.requeue()
    again = await within(slot.take())
    assert again.body == b"first"


async def test_settling_twice_does_nothing(broker: Broker) -> None:
    await broker.publish("work", b"only")
    slot = await broker.slot("work")
    delivery = await within(slot.take())
    await delivery.ack()
    await delivery.ack()
    await delivery.requeue()
    await delivery.bury("too late")
    await broker.publish("work", b"next")
    assert (await within(slot.take())).body == b"next"
    await figures(broker, DEAD_QUEUE, 0, 0, 0)


async def test_bury_moves_to_dead_with_the_reason(broker: Broker) -> None:
    await broker.publish(COMPLETED_QUEUE, b"not JSON", headers={"trace": "1"})
    slot = await broker.slot(COMPLETED_QUEUE)
    delivery = await within(slot.take())
    await delivery.bury("r" * 100_000)
    await slot.close()
    await figures(broker, COMPLETED_QUEUE, 0, 0, 0)
    dead = await within((await broker.slot(DEAD_QUEUE)).take())
    assert dead.body == b"not JSON"
    assert dead.headers["x-queue"] == COMPLETED_QUEUE
    assert dead.headers["trace"] == "1"
    assert set(dead.headers["x-reason"]) == {"r"}


async def test_a_slot_holds_one_and_slots_share(broker: Broker) -> None:
    for number in range(3):
        await broker.publish("work", str(number).encode())
    one, two = await broker.slot("work"), await broker.slot("work")
    first, second = await within(one.take()), await within(two.take())
    assert {first.body, second.body} == {b"0", b"1"}
    await figures(broker, "work", 1, 2, 2)
    await first.ack()
    assert (await within(one.take())).body == b"2"


async def test_a_take_that_is_cancelled_loses_nothing(broker: Broker) -> None:
    slot = await broker.slot("work")
    for number in range(20):
        waiting = asyncio.create_task(slot.take())
        for _ in range(number):
            await asyncio.sleep(0)
        publishing = asyncio.create_task(broker.publish("work", str(number).encode()))
        await asyncio.sleep(0)
        waiting.cancel()
        await publishing
        [outcome] = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(outcome, BaseException):
            outcome = await within(slot.take())
        assert outcome.body == str(number).encode()
        await outcome.ack()


async def test_a_paused_slot_takes_nothing_until_the_next_take(broker: Broker) -> None:
    paused, other = await broker.slot("work"), await broker.slot("work")
    waiting = asyncio.create_task(paused.take())
    await figures(broker, "work", 0, 1, 0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await paused.pause()
    await figures(broker, "work", 0, 0, 0)
    await broker.publish("work", b"one")
    await (await within(other.take())).ack()
    await other.close()
    await broker.publish("work", b"two")
    assert (await within(paused.take())).body == b"two"


async def test_pause_gives_back_what_nobody_took_and_keeps_what_is_held(broker: Broker) -> None:
    slot, other = await broker.slot("work"), await broker.slot("work")
    await broker.publish("work", b"held")
    held = await within(slot.take())
    await slot.pause()
    assert not held.lost
    await held.ack()
    await broker.publish("work", b"free")
    assert (await within(other.take())).body == b"free"


async def test_closing_a_slot_gives_back_what_it_held(broker: Broker) -> None:
    await broker.publish("work", b"held")
    slot, other = await broker.slot("work"), await broker.slot("work")
    held = await within(slot.take())
    lost = asyncio.create_task(held.wait_lost())
    await slot.close()
    await within(lost)
    assert held.lost
    await held.ack()
    assert (await within(other.take())).body == b"held"


async def test_a_subscription_handles_up_to_its_prefetch_side_by_side(broker: Broker) -> None:
    holding = Holding()
    await broker.subscribe(JOBS_QUEUE, holding, prefetch=3)
    for number in range(5):
        await broker.publish(JOBS_QUEUE, str(number).encode())
    for _ in range(3):
        await within(holding.deliveries.get())
    await figures(broker, JOBS_QUEUE, 2, 1, 3)
    assert holding.deliveries.empty()
    holding.go_on.set()
    for _ in range(2):
        await within(holding.deliveries.get())
    await figures(broker, JOBS_QUEUE, 0, 1, 0)


@pytest.mark.parametrize("fails", [True, False], ids=["raises", "leaves it"])
async def test_what_a_handler_does_not_settle_comes_again(broker: Broker, fails: bool) -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()

    async def handler(delivery: Delivery) -> None:
        seen.put_nowait(time.monotonic())
        if seen.qsize() == 2:
            await delivery.ack()
        elif fails:
            raise RuntimeError("on purpose")

    await broker.subscribe(JOBS_QUEUE, handler, prefetch=10)
    await broker.publish(JOBS_QUEUE, b"x")
    await figures(broker, JOBS_QUEUE, 0, 1, 0)
    await eventually(_count(seen), lambda count: count == 2)
    assert seen.get_nowait() + 0.9 < seen.get_nowait()


def _count(queue: asyncio.Queue[float]) -> Callable[[], Awaitable[int]]:
    async def look() -> int:
        return queue.qsize()

    return look


async def test_closing_a_subscription_lets_its_handlers_end(broker: Broker) -> None:
    holding = Holding()
    subscription = await broker.subscribe(JOBS_QUEUE, holding, prefetch=1)
    await broker.publish(JOBS_QUEUE, b"handled")
    await broker.publish(JOBS_QUEUE, b"left")
    delivery = await within(holding.deliveries.get())
    closing = asyncio.create_task(subscription.close())
    await figures(broker, JOBS_QUEUE, 1, 0, 1)
    assert not closing.done()
    holding.go_on.set()
    await within(closing)
    assert not delivery.lost
    assert holding.ended == 1
    await figures(broker, JOBS_QUEUE, 1, 0, 0)


async def test_abandoning_gives_back_at_once_what_a_handler_holds(broker: Broker) -> None:
    holding, inbox = Holding(), Inbox()
    subscription = await broker.subscribe(JOBS_QUEUE, holding, prefetch=5)
    await broker.publish(JOBS_QUEUE, b"stuck")
    stuck = await within(holding.deliveries.get())
    await within(subscription.abandon())
    assert stuck.lost
    await broker.subscribe(JOBS_QUEUE, inbox, prefetch=5)
    assert await inbox.bodies(1) == [b"stuck"]
    holding.go_on.set()
    await figures(broker, JOBS_QUEUE, 0, 1, 0)


async def test_a_nodes_queue_is_made_by_its_node_alone_and_goes_after_it(broker: Broker) -> None:
    await broker.publish("x-node", b"nobody there")
    assert await broker.queue("x-node") is None
    inbox = Inbox()
    subscription = await broker.subscribe("x-node", inbox, prefetch=10)
    await broker.publish("x-node", b"granted")
    assert await inbox.bodies(1) == [b"granted"]
    await figures(broker, "x-node", 0, 1, 0)
    await subscription.close()
    await eventually(lambda: broker.queue("x-node"), lambda seen: seen is None)


@pytest.mark.slow
async def test_a_transient_message_is_dropped_in_time(broker: Broker, clock: Clock) -> None:
    await broker.publish(CLAIMS_QUEUE, b"may I?")
    await broker.publish(JOBS_QUEUE, b"kept")
    await figures(broker, CLAIMS_QUEUE, 1, 0, 0)
    clock.ahead = TRANSIENT_TTL + 1
    await eventually(
        lambda: broker.queue(CLAIMS_QUEUE), lambda seen: seen is not None and seen.size == 0, 25
    )
    await figures(broker, JOBS_QUEUE, 1, 0, 0)


async def test_every_subscriber_hears_every_event_in_order(broker: Broker) -> None:
    one, two = Inbox(), Inbox()
    await broker.publish_event(b"before")
    first = await broker.subscribe_events(one)
    await broker.subscribe_events(two)
    sent = [str(number).encode() for number in range(100)]
    for body in sent:
        await broker.publish_event(body)
    assert await one.bodies(100) == sent
    assert await two.bodies(100) == sent
    await first.close()
    await broker.publish_event(b"after")
    assert await two.bodies(1) == [b"after"]
    assert one.deliveries.empty()


async def test_the_queues_that_are_always_there(broker: Broker) -> None:
    names = {info.name for info in await broker.queues()}
    assert names >= set(ALWAYS_THERE)
    assert await broker.queue("never heard of") is None


async def test_queues_lists_all_with_their_figures(broker: Broker) -> None:
    for name in ("b", "a"):
        await broker.publish(name, b"x")
    await eventually(
        broker.queues,
        lambda seen: {QueueInfo(name, 1, 0, 0) for name in "ab"} <= set(seen),
    )
    names = [info.name for info in await broker.queues()]
    assert names == sorted(names)


async def test_what_is_ready_is_known_at_once(broker: Broker) -> None:
    assert await broker.ready("work") is None
    for ready in (1, 2):
        await broker.publish("work", b"x")
        assert await broker.ready("work") == ready
    slot = await broker.slot("work")
    await within(slot.take())
    assert await broker.ready("work") == 1
    assert await broker.ready("\ud800") is None


async def test_only_an_unused_queue_is_deleted_where_that_is_asked(broker: Broker) -> None:
    assert not await broker.delete_queue("work", unused=True)
    await broker.publish("work", b"x")
    slot = await broker.slot("work")
    held = await within(slot.take())
    assert not await broker.delete_queue("work", unused=True)
    await held.ack()
    await figures(broker, "work", 0, 1, 0)
    assert not await broker.delete_queue("work", unused=True)
    await slot.close()
    await broker.publish("work", b"y")
    await figures(broker, "work", 1, 0, 0)
    assert await broker.delete_queue("work", unused=True), "what nobody takes goes with it"
    assert await broker.ready("work") is None


@pytest.mark.parametrize("name", ["a b/c?#%2F", "größe·漢字", "-" * 128])
async def test_any_name_of_a_queue(broker: Broker, name: str) -> None:
    await broker.publish(name, b"x")
    await figures(broker, name, 1, 0, 0)
    assert await broker.delete_queue(name)


async def test_deleting_a_queue(broker: Broker) -> None:
    await broker.publish("work", b"gone")
    assert await broker.delete_queue("work")
    assert not await broker.delete_queue("work")
    assert await broker.queue("work") is None
    await broker.publish("work", b"new")
    assert (await within((await broker.slot("work")).take())).body == b"new"


async def test_a_subscription_survives_the_deletion_of_its_queue(broker: Broker) -> None:
    inbox = Inbox()
    await broker.subscribe(JOBS_QUEUE, inbox, prefetch=5)
    await broker.publish(JOBS_QUEUE, b"one")
    assert await inbox.bodies(1) == [b"one"]
    assert await broker.delete_queue(JOBS_QUEUE)
    await figures(broker, JOBS_QUEUE, 0, 1, 0)
    await broker.publish(JOBS_QUEUE, b"two")
    assert await inbox.bodies(1) == [b"two"]


async def test_a_waiting_slot_survives_the_deletion_of_its_queue(broker: Broker) -> None:
    slot = await broker.slot("work")
    waiting = asyncio.create_task(slot.take())
    await figures(broker, "work", 0, 1, 0)
    assert await broker.delete_queue("work")
    await figures(broker, "work", 0, 1, 0)
    await broker.publish("work", b"two")
    assert (await within(waiting)).body == b"two"


async def test_what_was_on_loan_from_a_deleted_queue_can_be_settled(broker: Broker) -> None:
    await broker.publish("work", b"old")
    slot = await broker.slot("work")
    delivery = await within(slot.take())
    assert await broker.delete_queue("work")
    await delivery.ack()
    await broker.publish("work", b"new")
    assert (await within(slot.take())).body == b"new"


async def test_many_at_once_all_arrive_once(broker: Broker) -> None:
    inbox = Inbox()
    await broker.subscribe("work", inbox, prefetch=50)
    bodies = [str(number).encode() for number in range(1000)]
    await within(asyncio.gather(*(broker.publish("work", body) for body in bodies)))
    assert sorted(await inbox.bodies(1000)) == sorted(bodies)
    await figures(broker, "work", 0, 1, 0)


async def test_a_handler_may_close_its_own_subscription(broker: Broker) -> None:
    closed = asyncio.Event()

    async def handler(delivery: Delivery) -> None:
        await delivery.ack()
        await subscription.close()
        closed.set()

    subscription = await broker.subscribe(JOBS_QUEUE, handler, prefetch=1)
    await broker.publish(JOBS_QUEUE, b"x")
    await within(closed.wait())
    await figures(broker, JOBS_QUEUE, 0, 0, 0)


async def test_it_answers_until_it_is_closed(broker: Broker) -> None:
    await broker.ping()
    await broker.close()
    for call in (broker.ping, broker.queues, lambda: broker.publish("work", b"x")):
        with pytest.raises(BrokerUnavailable):
            await within(call())
    await broker.publish_event(b"nobody")


async def test_closing_gives_back_what_is_on_loan(broker: Broker) -> None:
    holding = Holding()
    await broker.subscribe(JOBS_QUEUE, holding, prefetch=1)
    await broker.publish(JOBS_QUEUE, b"x")
    delivery = await within(holding.deliveries.get())
    await within(broker.close())
    assert delivery.lost
    assert holding.ended == 0


async def test_who_asked_hears_of_the_first_connection() -> None:
    broker = MemoryBroker(node_expiry=60.0)
    heard: list[bool] = []
    broker.on_connected(heard.append)
    await broker.start()
    assert heard == [True]
    await broker.close()


async def test_dead_letters_are_listed_sent_again_and_discarded(broker: Broker) -> None:
    bodies = [b'{"kind":"job","jobId":"j1"}', b"no JSON at all", b'{"kind":"newer","taskId":"t1"}']
    again: asyncio.Queue[Delivery] = asyncio.Queue()

    async def bury_then_take(delivery: Delivery) -> None:
        if len(buried) < len(bodies):
            buried.append(delivery.body)
            await delivery.bury(f"nobody can handle {len(delivery.body)} bytes")
        else:
            again.put_nowait(delivery)
            await delivery.ack()

    buried: list[bytes] = []
    subscription = await broker.subscribe(JOBS_QUEUE, bury_then_take, prefetch=1)
    for body in bodies:
        await broker.publish(JOBS_QUEUE, body, headers={"mine": "1"})
    letters = DeadLetters(broker)
    await eventually(lambda: broker.ready(DEAD_QUEUE), lambda ready: ready == len(bodies))
    listed = await letters.all()
    assert listed == await letters.all(), "a look changes nothing"
    assert [(each.queue, each.size) for each in listed] == [(JOBS_QUEUE, len(b)) for b in bodies]
    assert [(each.kind, each.job_id, each.task_id) for each in listed] == [
        ("job", "j1", ""), ("", "", ""), ("newer", "", "t1"),
    ]  # fmt: skip
    assert listed[1].reason == "nobody can handle 14 bytes"
    assert await letters.resend(listed[0].id)
    sent = await within(again.get())
    assert (sent.body, dict(sent.headers)) == (bodies[0], {"mine": "1"})
    assert await letters.discard(listed[1].id)
    assert not await letters.discard(listed[1].id)
    assert not await letters.resend("nothing")
    assert [each.id for each in await letters.all()] == [listed[2].id]
    await subscription.close()


async def test_what_a_node_was_told_is_not_sent_again(broker: Broker) -> None:
    for origin, reason in (("x-n1", "node's own queue"), ("", "does not say which queue")):
        await broker.publish(DEAD_QUEUE, b"{}", headers={"x-queue": origin} if origin else {})
        letters = DeadLetters(broker)
        await eventually(lambda: broker.ready(DEAD_QUEUE), lambda ready: ready == 1)
        (letter,) = await letters.all()
        with pytest.raises(NotAllowed, match=reason):
            await letters.resend(letter.id)
        assert await letters.discard(letter.id)
