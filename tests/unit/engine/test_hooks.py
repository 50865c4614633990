"""Webhooks: what is stored to be delivered, once for each event, with what it must say."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import msgspec
import pytest

from coordinator.engine import webhook_triggers
from shared import redaction
from shared.model import language
from shared.model.documents import DeliveryDocument, JobDocument
from shared.model.states import JobState
from shared.model.views.redacted import LARGEST_TOLD
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


@pytest.mark.parametrize(
    "fields",
    [
        {"url": URL + "{{ repeat('x', 8200) }}"},
        {"headers": dict.fromkeys("AB", "{{ repeat('x', 33000) }}")},
    ],
)
async def test_an_address_of_any_length_is_not_stored(world: World, fields: dict[str, Any]) -> None:
    assert await told(world, **fields) == []
    assert sum(each.driver.counts["webhook_not_evaluated"] for each in world.coordinators) == 3


async def test_the_address_of_a_sub_job_is_bounded_too(world: World) -> None:
    await world.worker()
    hook = {"url": URL + "{{ repeat('x', 8200) }}"}
    below = {"name": "s", "tasks": [step("x")], "webhooks": [hook]}
    job_id = await world.submit({"name": "up", "subjob": below})
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert await world.store.find(DeliveryDocument, {}) == []


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


async def told_in_order(world: World, event: str) -> list[tuple[str, str, int, str]]:
    """Return (line, state, sequence, time) of what is to be delivered, by sequence."""
    found = await world.store.find(DeliveryDocument, {}, ("line", "sequence"))
    bodies = [(each, msgspec.json.decode(each.body)) for each in found]
    assert all(body["sequence"] == each.sequence for each, body in bodies)
    chosen = [(each, body) for each, body in bodies if body.get("jobId") or event[0] == "j"]
    return [(e.line or "", b["state"], e.sequence, b["occurredAt"]) for e, b in chosen]


async def test_the_events_of_a_job_are_numbered_as_they_happened(world: World) -> None:
    """Case 7: also over a restart, and whoever tells them late."""
    await world.worker()
    job_id = await world.submit(step("a"), webhooks=[{"url": URL}])
    await world.run(lambda _: "no")
    world.clock.advance(1)
    await world.restart(job_id)
    await world.run()
    told = await told_in_order(world, "job")
    assert [state for _, state, *_ in told] == [
        "PENDING", "RUNNING", "FAILED", "RUNNING", "COMPLETED",
    ]  # fmt: skip
    assert len({line for line, *_ in told}) == 1
    assert [number for *_, number, _ in told] == sorted({number for *_, number, _ in told})
    assert [at for *_, at in told] == sorted(at for *_, at in told)


async def test_the_events_of_a_task_are_numbered_over_its_runs(world: World) -> None:
    worker = await world.worker()
    await world.submit(step("a"), webhooks=[{"url": URL, "event": "task.StateChange"}])
    await world.settle()
    await worker.take()
    await world.settle()
    await worker.hand_back(worker.running[0])
    await world.run()
    told = await told_in_order(world, "task")
    assert [state for _, state, *_ in told] == [
        "SCHEDULED", "RUNNING", "SCHEDULED", "RUNNING", "COMPLETED",
    ]  # fmt: skip
    assert len({line for line, *_ in told}) == 1


async def test_progress_is_numbered_too_and_the_end_comes_last(world: World) -> None:
    worker = await world.worker()
    await world.submit(step("a"), webhooks=[{"url": URL, "event": "job.Progress"}])
    await world.settle()
    await worker.take()
    await world.settle()
    for percent in (10.0, 40.0):
        world.clock.advance(1)
        await worker.progress(worker.running[0], percent)
        await world.settle()
    world.clock.advance(1)
    await worker.end(worker.running[0])
    await world.settle()
    found = await world.store.find(DeliveryDocument, {}, ("sequence",))
    bodies = [msgspec.json.decode(each.body) for each in found]
    assert [body["progress"] for body in bodies][-3:] == [10.0, 40.0, 100.0]
    assert [each.progress for each in found][-3:] == [True, True, False]


async def test_an_event_is_stored_behind_those_that_nobody_has_told_yet(world: World) -> None:
    """A process that tells the second of two events tells the first one too."""
    job = JobDocument(
        id="j",
        definition=language.JobDefinition(name="j", webhooks=[language.Webhook(url=URL)]),
        name="j",
        state=JobState.RUNNING,
        task_count=1,
        created_at=world.clock.now,
    )
    hooks = [
        webhook_triggers.state_hook(job, webhook_triggers.JOB_STATE, state, at)[0]
        for at, state in enumerate(("PENDING", "RUNNING"), start=1)
    ]
    job.then = hooks
    await world.store.insert(job)
    await world.driver.carry_out(webhook_triggers.deliver(job, hooks[1]))
    told = await told_in_order(world, "job")
    assert [(state, number) for _, state, number, _ in told] == [("PENDING", 1), ("RUNNING", 2)]


async def test_a_large_result_is_told_to_many_webhooks_in_one_small_body(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = [language.Webhook(url=URL, if_="len(job.result) > 1000") for _ in range(100)]
    job = JobDocument(
        id="j",
        definition=language.JobDefinition(name="j", webhooks=hooks, inputs={"who": "me"}),
        name="j",
        state=JobState.COMPLETED,
        result="x" * LARGEST_TOLD,
        created_at=world.clock.now,
    )
    job.then = list(webhook_triggers.state_hook(job, webhook_triggers.JOB_STATE, "COMPLETED", 1))
    await world.store.insert(job)
    made: list[DeliveryDocument] = []
    monkeypatch.setattr(world.driver.store, "insert_many", lambda found: _kept(made, found))
    await world.driver.carry_out(webhook_triggers.deliver(job, job.then[0]))
    assert len(made) == 100
    assert len({id(each.body) for each in made}) == 1, "encoded once"
    body = msgspec.json.decode(made[0].body)
    assert "result" not in body
    assert body["abridged"] is True
    assert body["inputs"] == {"who": "me"}
    assert body["sequence"] == made[0].sequence


async def _kept(made: list[DeliveryDocument], found: list[DeliveryDocument]) -> int:
    made += found
    return len(found)


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
    assert webhook_triggers.state_hook(None, webhook_triggers.JOB_STATE, "RUNNING", 1) == ()


async def test_a_long_result_is_never_searched_for_secrets_on_the_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread, searched_in, scanned = threading.get_ident(), list[int](), redaction._scanned

    def noted(automaton: Any, text: str) -> str:
        if len(text) > redaction.LONG_TEXT:
            searched_in.append(threading.get_ident())
        return scanned(automaton, text)

    redaction._of_long_text.cache_clear()
    monkeypatch.setattr(redaction, "_scanned", noted)
    await world.worker()
    await world.submit(
        step("a", var="x"),
        webhooks=[{"url": URL}],
        secrets={"token": "aaaa"},
        output="job {{ repeat('a', 70000) }}",
    )
    await world.run()
    found = await world.store.find(DeliveryDocument, {})
    results = [msgspec.json.decode(each.body).get("result") for each in found]
    assert list(filter(None, results)) == ["job [REDACTED]"]
    assert searched_in
    assert loop_thread not in searched_in
