"""How queues are declared, by type and by version."""

from __future__ import annotations

import pytest
from aiormq.exceptions import ChannelPreconditionFailed

from shared.broker.rabbitmq.declarations import (
    Declarations,
    declaration_refused,
    only_limit_differs,
)
from shared.errors import QueueMismatch
from shared.model.queues import CLAIMS_QUEUE, COMPLETED_QUEUE
from tests.integration.rabbitmq.conftest import Brokers
from tests.integration.rabbitmq.server import Server
from tests.integration.rabbitmq.waiting import within
from tests.services.fixtures import Vhost

CLASSIC = {"x-queue-type": "classic"}


@pytest.mark.parametrize(
    ("queue_type", "version", "queue", "arguments"),
    [
        ("classic", (3, 10), "work", {**CLASSIC, "x-max-priority": 9}),
        ("classic", (4, 3), "work", {**CLASSIC, "x-max-priority": 9}),
        ("classic", (4, 3), COMPLETED_QUEUE, CLASSIC),
        ("classic", (4, 3), CLAIMS_QUEUE, {**CLASSIC, "x-message-ttl": 15_000}),
        ("classic", (4, 3), "x-node", {**CLASSIC, "x-expires": 60_000}),
        ("quorum", (3, 13), "work", {"x-queue-type": "quorum"}),
        ("quorum", (4, 0), "work", {"x-queue-type": "quorum", "x-delivery-limit": -1}),
        ("quorum", (4, 0), COMPLETED_QUEUE, {"x-queue-type": "quorum", "x-delivery-limit": -1}),
        ("quorum", (4, 0), CLAIMS_QUEUE, {**CLASSIC, "x-message-ttl": 15_000}),
        ("quorum", (4, 0), "x-node", {**CLASSIC, "x-expires": 60_000}),
    ],
)
def test_arguments(
    queue_type: str, version: tuple[int, ...], queue: str, arguments: dict[str, object]
) -> None:
    assert Declarations(queue_type, 60.0).arguments(queue, version) == arguments


@pytest.mark.parametrize(
    ("argument", "tolerated"), [("x-delivery-limit", True), ("x-max-priority", False)]
)
def test_a_queue_made_before_an_upgrade_is_used_as_it_is(argument: str, tolerated: bool) -> None:
    said = ChannelPreconditionFailed(
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for queue 'work' in vhost '/': "
        "received the value '-1' of type 'signedint' but current is none"
    )
    refused = declaration_refused(said, "work")
    assert isinstance(refused, QueueMismatch)
    refused.__cause__ = said
    assert only_limit_differs(refused) is tolerated


async def test_quorum_queues_by_configuration(
    brokers: Brokers, rabbitmq_vhost: Vhost, server: Server
) -> None:
    broker = await brokers.start(rabbitmq_vhost, queue_type="quorum")
    await within(broker.publish("work", b"x", priority=9))
    slot = await broker.slot("work")
    for _ in range(30):
        delivery = await within(slot.take())
        await delivery.requeue()
    assert (await within(slot.take())).body == b"x"
    assert (await server.queue("work"))["type"] == "quorum"
    assert (await server.queue(CLAIMS_QUEUE))["type"] == "classic"
