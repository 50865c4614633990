"""Webhooks: what is stored to be delivered, once for each event, with what it must say."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from coordinator.engine import webhooks
from shared.model.documents import DeliveryDocument
from tests.unit.engine.world import World, step

URL = "http://receiver.example/"


async def told(world: World, **fields: Any) -> list[tuple[str, dict[str, Any]]]:
    """Run a job of two tasks, one skipped, with this webhook; return (URL, body) of what is to be delivered."""
    await world.worker()
    await world.submit(
        step("a", var="x"),
        step("s", **{"if": "false"}),
        webhooks=[{"url": URL, **fields}],
        secrets={"token": "hush-hush"},
        inputs={"who": "me"},
    )
    await world.run()
    await world.check_at_rest()
    found = await world.store.find(DeliveryDocument, {}, ("created_at",))
    return [(each.url, msgspec.json.decode(each.body)) for each in found]


@pytest.mark.parametrize(
    ("event", "states"),
    [
        ("", {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1}),
        ("job.StateChange", {"PENDING": 1, "RUNNING": 1, "COMPLETED": 1}),
        ("task.StateChange", {"SCHEDULED": 1, "RUNNING": 1, "COMPLETED": 1, "SKIPPED": 1}),
        ("job.Progress", {"RUNNING": 1, "COMPLETED": 1}),
        ("task.Progress", {}),
    ],
)
async def test_each_event_is_told_once(world: World, event: str, states: dict[str, int]) -> None:
    found = await told(world, event=event)
    assert Counter(body["state"] for _, body in found) == states


async def test_a_failure_and_a_restart_are_told(world: World) -> None:
    await world.worker()
    job_id = await world.submit(step("a"), webhooks=[{"url": URL}])
    await world.run(lambda _: "no")
    world.clock.advance(1)
    await world.restart(job_id)
    await world.settle()
    await world.cancel(job_id)
    await world.settle()
    found = await world.store.find(DeliveryDocument, {"job_id": job_id})
    states = Counter(msgspec.json.decode(each.body)["state"] for each in found)
    assert states == {"PENDING": 1, "RUNNING": 2, "FAILED": 1, "CANCELLED": 1}


async def test_progress_is_told(world: World) -> None:
    worker = await world.worker()
    await world.submit(
        step("a"),
        webhooks=[{"url": URL, "event": "task.Progress"}, {"url": URL, "event": "job.Progress"}],
    )
    await world.settle()
    await worker.take()
    await world.settle()
    await worker.progress(worker.running[0], 40.0)
    await world.settle()
    bodies = [
        msgspec.json.decode(each.body) for each in await world.store.find(DeliveryDocument, {})
    ]
    assert [body["progress"] for body in bodies] == [40.0, 40.0]


@pytest.mark.parametrize(
    ("condition", "states"),
    [
        ("job.state == 'COMPLETED'", {"COMPLETED"}),
        ("{{ job.State == 'RUNNING' }}", {"RUNNING"}),
        ("job.ID == job.id", {"PENDING", "RUNNING", "COMPLETED"}),
        ("false", set()),
        ("'true'", set()),
        ("nothing.at.all", set()),
        ("job.state ==", set()),
    ],
)
async def test_a_condition_says_which_are_told(
    world: World, condition: str, states: set[str]
) -> None:
    found = await told(world, **{"if": condition})
    assert {body["state"] for _, body in found} == states


async def test_a_condition_of_a_task_event_sees_job_and_task(world: World) -> None:
    condition = "task.state == 'COMPLETED' && task.jobId == job.id && task.JobID == job.ID"
    found = await told(world, event="task.StateChange", **{"if": condition})
    assert [body["state"] for _, body in found] == ["COMPLETED"]


async def test_url_and_headers_are_templates_with_the_real_values(world: World) -> None:
    await told(
        world,
        url=f"{URL}{{{{ inputs.who }}}}",
        headers={"Authorization": "Bearer {{ secrets.token }}", "X-Var": "{{ tasks.x }}"},
        **{"if": "job.state == 'COMPLETED'"},
    )
    (delivery,) = await world.store.find(DeliveryDocument, {})
    assert delivery.url == f"{URL}me"
    assert delivery.headers == {"Authorization": "Bearer hush-hush", "X-Var": "a"}


async def test_a_url_that_can_not_be_evaluated_sends_nothing_and_is_counted(world: World) -> None:
    assert await told(world, url=f"{URL}{{{{ nothing.at.all }}}}") == []
    assert world.counts()["webhook_not_evaluated"] == 3


async def test_no_body_holds_a_secret(world: World) -> None:
    await world.worker()
    await world.submit(
        step("a", env={"T": "{{ secrets.token }}"}),
        webhooks=[{"url": URL, "event": "task.StateChange"}, {"url": URL}],
        secrets={"token": "hush-hush"},
    )
    await world.run(lambda _: "it said hush-hush")
    found = await world.store.find(DeliveryDocument, {})
    assert found
    assert not any("hush-hush" in each.body for each in found)


async def test_two_webhooks_of_one_event_are_two_deliveries(world: World) -> None:
    await world.submit(step("a"), webhooks=[{"url": URL}, {"url": URL}])
    await world.settle()
    assert len({each.id for each in await world.store.find(DeliveryDocument, {})}) == 2


def test_nobody_is_told_where_nobody_listens() -> None:
    assert webhooks.state_hook(None, webhooks.JOB_STATE, "RUNNING", 1) == ()
