"""A sweep looks at so much at a time: much of one owner's keeps nobody else's from its turn."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.due.sweeper import Sweeper
from coordinator.effects import FlowDriver
from coordinator.engine import repairs
from coordinator.store.port import Store
from shared.broker.memory import MemoryBroker
from shared.errors import BrokerUnavailable
from shared.model import language
from shared.model.documents import TaskDocument
from shared.model.messages import MessageCodec
from tests.contract.documents import job, task
from tests.settings import default_bounds

MANY = repairs.REPAIRS_AT_ONCE + 20
STEP = language.TaskDefinition(name="c", run="true")


async def sweeper_of(store: Store) -> Sweeper:
    await store.insert(job("j", state="RUNNING", task_count=1))
    broker = MemoryBroker(node_expiry=60.0)
    bounds = default_bounds(job_window=1)
    return Sweeper(FlowDriver(store, broker, bounds, MessageCodec()), broker, 5.0)


def each(id: str) -> TaskDocument:
    child = language.TaskDefinition(name="c", run="true")
    definition = language.TaskDefinition(
        name="e", each=language.Each(list="1..1000", concurrency=1, task=child)
    )
    return task(id, kind="each", state="RUNNING", definition=definition)


def held(owner: str, number: int) -> TaskDocument:
    return task(
        f"{owner}-{number}",
        parent_id=owner,
        slot_of=owner,
        index=number,
        state="CREATED",
        hold="concurrency",
        window_of=f"{owner}-window",
    )


async def state_of(store: Store, id: str) -> str:
    found = await store.get(TaskDocument, id)
    assert found is not None
    return found.state


async def test_a_free_slot_is_found_behind_an_owner_with_very_many_held(store: Store) -> None:
    sweeper = await sweeper_of(store)
    await store.insert_many([each("a"), each("b")])
    await store.insert(task("a-busy", slot_of="a", slot=0, state="RUNNING"))
    await store.insert_many([held("a", number) for number in range(MANY)])
    await store.insert(held("b", 0))
    await sweeper.sweep()
    assert await state_of(store, "b-0") == "PENDING"
    assert await store.count(TaskDocument, {"hold": "concurrency"}) == MANY


async def test_a_free_window_is_found_behind_one_with_very_many_held(store: Store) -> None:
    sweeper = await sweeper_of(store)
    await store.insert(task("busy", window_of="a", window=0, state="RUNNING"))
    waiting = {"state": "CREATED", "hold": "window"}
    await store.insert_many(
        [task(f"a-{number}", window_of="a", **waiting) for number in range(MANY)]
    )
    await store.insert(task("b-0", window_of="b", **waiting))
    await sweeper.sweep()
    assert await state_of(store, "b-0") == "PENDING"
    assert await store.count(TaskDocument, {"hold": "window"}) == MANY


async def test_very_many_owners_have_their_turn_one_after_another(store: Store) -> None:
    sweeper = await sweeper_of(store)
    names = [f"w{number:04}" for number in range(MANY)]
    waiting = {"state": "CREATED", "hold": "window"}
    await store.insert_many(
        [task(f"{name}-busy", window_of=name, window=0, state="RUNNING") for name in names[:-1]]
        + [task(f"{name}-held", window_of=name, **waiting) for name in names]
    )
    await sweeper.sweep()
    assert await state_of(store, f"{names[-1]}-held") == "CREATED"
    await sweeper.sweep()
    assert await state_of(store, f"{names[-1]}-held") == "PENDING"
    freed = f"{names[0]}-busy"
    await store.delete(TaskDocument, {"id": freed})
    await sweeper.sweep()  # the round begins again
    assert await state_of(store, f"{names[0]}-held") == "PENDING"


async def test_a_composite_is_found_behind_very_many_that_go_on(store: Store) -> None:
    sweeper = await sweeper_of(store)
    names = [f"p{number:04}" for number in range(MANY)]
    await store.insert_many(
        [task(name, kind="parallel", state="RUNNING", started_at=1) for name in names]
        + [task(f"{name}-child", parent_id=name, state="RUNNING") for name in names[:-1]]
    )
    await sweeper.sweep()
    await sweeper.sweep()
    assert await state_of(store, names[-1]) == "COMPLETED"
    await store.delete(TaskDocument, {"id": f"{names[0]}-child"})
    await sweeper.sweep()
    assert await state_of(store, names[0]) == "COMPLETED"


async def test_what_a_queue_does_not_take_keeps_nothing_else_from_being_sent(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweeper = await sweeper_of(store)
    tried: list[str] = []
    publish = sweeper._broker.publish

    async def refusing(queue: str, body: bytes, *, priority: int = 0) -> None:
        tried.append(queue)
        if queue == "full":
            raise BrokerUnavailable("the queue takes nothing")
        await publish(queue, body, priority=priority)

    monkeypatch.setattr(sweeper._broker, "publish", refusing)
    fields: dict[str, Any] = {"state": "PENDING", "evaluated": STEP}
    await store.insert_many(
        [task(f"a{number}", queue="full", published_at=1, **fields) for number in range(3 * MANY)]
    )
    await store.insert(task("b", queue="default", published_at=2, **fields))
    await sweeper.sweep()
    assert tried == ["full", "default"]
