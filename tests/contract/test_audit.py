"""The audit finds what should not be there, in every datastore, and nothing where all is well."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.engine import states
from coordinator.store.port import Store
from haulier.audit import Finding, audit_engine, audit_queues, audit_store
from shared.broker.port import QueueInfo
from shared.model.documents import (
    MICROS_PER_SECOND,
    DeliveryDocument,
    Intent,
    JobDocument,
    NodeDocument,
    TaskDocument,
)

LONG = 1000 * MICROS_PER_SECOND


def a_job(store: Store, id: str = "job", **fields: object) -> JobDocument:
    made = {"name": "j", "state": "RUNNING", "created_at": store.now() - LONG, "task_count": 1}
    return JobDocument(id=id, **{**made, **fields})  # type: ignore[arg-type]


def a_task(store: Store, id: str = "task", **fields: object) -> TaskDocument:
    made = {
        "job_id": "job",
        "root_id": "job",
        "path": "1",
        "position": 1,
        "kind": "container",
        "name": "t",
        "created_at": store.now() - LONG,
        "published_at": store.now() - LONG,
    }
    return TaskDocument(id=id, **{**made, **fields})  # type: ignore[arg-type]


def a_node(store: Store, id: str = "node", **fields: object) -> NodeDocument:
    now = store.now()
    made = {"lease_until": now + LONG, "started_at": now, "last_heartbeat_at": now}
    return NodeDocument(
        id=id,
        kind="worker",
        name="w",
        hostname="h",
        version="1",
        **{**made, **fields},  # type: ignore[arg-type]
    )


async def found_by(store: Store) -> set[str]:
    return {finding.what for finding in await audit_store(store)}


async def test_what_is_under_way_is_no_finding(store: Store) -> None:
    await store.insert(a_job(store))
    await store.insert(a_task(store, state=states.RUNNING, node_id="node"))
    await store.insert(a_node(store))
    await store.insert(a_job(store, "new", created_at=store.now()))
    assert await audit_store(store) == []


async def test_a_finished_job_is_no_finding(store: Store) -> None:
    ended = store.now() - LONG
    await store.insert(a_job(store, state="COMPLETED", position=2, ended_at=ended))
    await store.insert(a_task(store, state="COMPLETED", open=False, active=False, ended_at=ended))
    assert await audit_store(store) == []


async def test_an_overdue_intent(store: Store) -> None:
    overdue = Intent(id="begin", do="begin", at=store.now() - LONG)
    await store.insert(a_job(store, state="PENDING", then=[overdue]))
    assert await audit_store(store) == [Finding("intent overdue", "job", "begin")]


async def test_a_job_in_which_nothing_is_open(store: Store) -> None:
    await store.insert(a_job(store))
    await store.insert(a_task(store, state="COMPLETED", open=False, active=False))
    assert await found_by(store) == {"job stuck"}


@pytest.mark.parametrize("node", [None, {"closed": True}, {"lease_until": 1}])
async def test_a_run_of_a_dead_node(store: Store, node: dict[str, Any] | None) -> None:
    await store.insert(a_job(store))
    await store.insert(a_task(store, state=states.RUNNING, node_id="node"))
    if node is not None:
        await store.insert(a_node(store, **node))
    assert await found_by(store) == {"run of a dead node"}


async def test_a_task_that_was_never_sent(store: Store) -> None:
    await store.insert(a_job(store))
    await store.insert(a_task(store, state=states.PENDING))
    assert await found_by(store) == {"task not sent"}


async def test_a_composite_with_nothing_open_below(store: Store) -> None:
    await store.insert(a_job(store))
    began = store.now() - LONG
    await store.insert(
        a_task(store, kind="parallel", state=states.RUNNING, started_at=began, published_at=None)
    )
    assert await found_by(store) == {"composite stuck"}


async def test_a_task_that_goes_on_below_an_ended_job(store: Store) -> None:
    await store.insert(a_job(store, state="CANCELLED", ended_at=store.now() - LONG))
    await store.insert(a_task(store, state=states.RUNNING, node_id="node"))
    await store.insert(a_node(store))
    assert await found_by(store) == {"open under what has ended"}


async def test_a_position_that_moved_twice(store: Store) -> None:
    await store.insert(a_job(store, state="COMPLETED", position=3, ended_at=store.now() - LONG))
    assert await found_by(store) == {"applied twice"}


async def test_a_task_that_completed_twice(store: Store) -> None:
    ended = store.now() - LONG
    await store.insert(a_job(store, state="COMPLETED", position=2, ended_at=ended))
    for attempt in (1, 2):
        await store.insert(
            a_task(
                store,
                f"task-{attempt}",
                attempt=attempt,
                state="COMPLETED",
                open=False,
                active=False,
                ended_at=ended,
            )
        )
    assert await found_by(store) == {"applied twice"}


async def test_a_webhook_that_nobody_delivers(store: Store) -> None:
    await store.insert(
        DeliveryDocument(id="d", job_id="job", url="http://a/", due_at=store.now() - LONG)
    )
    assert await found_by(store) == {"webhook overdue"}


async def test_queues_of_nobody_and_messages_in_dead(store: Store) -> None:
    await store.insert(a_node(store, "gone", closed=True, lease_until=1))
    await store.insert(a_node(store, "there"))
    queues = [
        QueueInfo("x-gone", 0, 0, 0),
        QueueInfo("x-there", 0, 1, 0),
        QueueInfo("x-a-stranger", 0, 0, 0),
        QueueInfo("dead", 2, 0, 0),
        QueueInfo("video", 3, 0, 0),
        QueueInfo("default", 3, 2, 2),
        QueueInfo("completed", 3, 0, 0),
    ]
    found = {(finding.what, finding.subject) for finding in await audit_queues(store, queues)}
    assert found == {
        ("queue of nobody", "x-gone"),
        ("message nobody could handle", "dead"),
        ("queue without workers", "video"),
    }


async def test_a_task_that_was_sent_and_is_nowhere(store: Store) -> None:
    await store.insert(a_task(store, state=states.SCHEDULED))
    quiet = [QueueInfo("default", 0, 4, 0)]
    assert [found.what for found in await audit_queues(store, quiet)] == ["task sent and lost"]
    assert await audit_queues(store, [QueueInfo("default", 1, 4, 0)]) == []


async def test_what_a_dead_node_left_in_an_engine(store: Store) -> None:
    await store.insert(a_node(store, "gone", closed=True, lease_until=1))
    await store.insert(a_node(store, "there"))
    things = [("haulier-a", "gone"), ("haulier-b", "there"), ("haulier-c", "a-stranger")]
    assert [found.subject for found in await audit_engine(store, things)] == ["haulier-a"]
