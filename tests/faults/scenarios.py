"""What happens in worlds with bad luck, and how it must end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shared.model.documents import DeliveryDocument, JobDocument, TaskDocument
from tests.unit.engine.hands import Run
from tests.unit.engine.world import HOLD, Outcome, World, step


class Scenario(msgspec.Struct, frozen=True):
    """Tasks of a job, what becomes of its runs, and how it ends. `states` by path, where they are certain."""

    name: str
    tasks: list[dict[str, Any]]
    end: str
    states: dict[str, str] = {}
    outcome: Callable[[World, Run], str | Awaitable[str | None] | None] = lambda _world, _run: None
    fields: dict[str, Any] = {}
    window: int = 1000
    webhooks: dict[str, int] = {}
    """How many deliveries there must be of each state."""


def each(list_: str, task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "each", "each": {"list": list_, "task": task, **fields}}


def parallel(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {"name": "parallel", "parallel": {"tasks": list(tasks)}}


def sub(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "sub", "subjob": {"name": "child", "tasks": list(tasks), **fields}}


def skipped(name: str) -> dict[str, Any]:
    return step(name, **{"if": "false"})


def retried(name: str) -> dict[str, Any]:
    return step(name, retry={"limit": 2, "initialDelay": "1s"})


def first_fails(_world: World, run: Run) -> str | None:
    return "no" if run.message.attempt == 1 and run.name in ("flaky", "c") else None


def bad_fails(_world: World, run: Run) -> str | None:
    return "no" if run.name == "bad" else None


async def cancel_at_stop(world: World, run: Run) -> str | None:
    """When `stop` runs, the user cancels the root job."""
    if run.name != "stop":
        return None
    await world.cancel(world.root)
    return HOLD


async def delete_at_stop(world: World, run: Run) -> str | None:
    """When `stop` runs, the user cancels the root job, and deletes it at once.

    A worker that was not told to stop still runs the other `stop` when the job is gone: until its next beat."""
    if run.name != "stop":
        return None
    if await state_of_root(world) != DELETED:
        await world.cancel(world.root)
        await world.delete(world.root)
    return HOLD


async def bad_fails_once(world: World, run: Run) -> str | None:
    """`bad` fails in the first life of its job; the user restarts the job as soon as it has failed."""
    return "no" if run.name == "bad" and run.message.restarts == 0 else None


async def cancelled_once(world: World, run: Run) -> str | None:
    """When `stop` runs for the first time, the user cancels the root job."""
    if run.name != "stop" or (await world.job(world.root)).restarts:
        return None
    await world.cancel(world.root)
    return HOLD


DELETED = "DELETED"
"""The end of a job that is not there any more."""

HOOKS = [
    {"url": "http://receiver/"},
    {"url": "http://receiver/", "event": "task.StateChange"},
]

SCENARIOS = [
    Scenario(
        "chain",
        [step("a", var="x"), skipped("s"), step("b", env={"X": "{{ tasks.x }}"}), skipped("t")],
        "COMPLETED",
        {"1": "COMPLETED", "2": "SKIPPED", "3": "COMPLETED", "4": "SKIPPED"},
        fields={"output": "{{ tasks.x }}"},
    ),
    Scenario("retry", [retried("flaky"), step("b")], "COMPLETED", outcome=first_fails),
    Scenario("nothing but skipped", [skipped("s"), skipped("t")], "COMPLETED"),
    Scenario("failure", [step("a"), step("bad"), step("never")], "FAILED", outcome=bad_fails),
    Scenario(
        "hooks",
        [step("a"), skipped("s")],
        "COMPLETED",
        fields={"webhooks": HOOKS},
        webhooks={"PENDING": 1, "RUNNING": 2, "COMPLETED": 2, "SKIPPED": 1},
    ),
    Scenario(
        "parallel",
        [parallel(step("a"), retried("flaky"), skipped("s")), step("z")],
        "COMPLETED",
        outcome=first_fails,
    ),
    Scenario("parallel fails", [parallel(step("bad"), step("o")), step("z")], "FAILED", outcome=bad_fails),
    Scenario(
        "each",
        [each("1..3", retried("c"), concurrency=1), step("z")],
        "COMPLETED",
        {"1": "COMPLETED", "1/0": "COMPLETED", "1/1": "COMPLETED", "1/2": "COMPLETED", "2": "COMPLETED"},
        outcome=first_fails,
    ),
    Scenario("window", [each("1..5", step("c")), step("z")], "COMPLETED", window=2),
    Scenario(
        "nested",
        [each("1..2", parallel(step("a"), each("1..2", step("c"), concurrency=1))), step("z")],
        "COMPLETED",
        window=2,
    ),
    Scenario("sub-job", [sub(step("a", var="x"), skipped("s"), output="{{ tasks.x }}"), step("z")], "COMPLETED"),
    Scenario("sub-jobs", [each("1..3", sub(step("a"), step("b")), concurrency=2)], "COMPLETED", window=2),
    Scenario("sub-job fails", [parallel(sub(step("bad")), step("o"))], "FAILED", outcome=bad_fails),
    Scenario("detached", [sub(step("a"), step("b"), detached=True), step("z")], "COMPLETED"),
    Scenario(
        "cancel",
        [parallel(step("stop"), sub(step("a"), step("stop")), each("1..3", step("stop"), concurrency=1))],
        "CANCELLED",
        outcome=cancel_at_stop,
    ),
    Scenario(
        "delete",
        [parallel(step("stop"), sub(step("a"), sub(step("stop"))), each("1..3", sub(step("b"))))],
        DELETED,
        outcome=delete_at_stop,
    ),
    Scenario(
        "restart of failed",
        [step("a"), parallel(step("bad"), sub(step("o"), step("p"))), step("z")],
        "COMPLETED",
        outcome=bad_fails_once,
    ),
    Scenario(
        "restart of cancelled",
        [skipped("s"), parallel(step("stop"), sub(step("stop"))), step("z")],
        "COMPLETED",
        outcome=cancelled_once,
    ),
]  # fmt: skip


async def played(world: World, scenario: Scenario) -> None:
    """Play a scenario to its end, whatever goes wrong, and check that it ends as it must."""

    def outcome(run: Run) -> str | Awaitable[str | None] | None:
        return scenario.outcome(world, run)

    await world.worker(slots=3)
    world.root = await world.submit(*scenario.tasks, **scenario.fields)
    await lived(world, scenario, outcome)
    await world.rest(100, outcome)
    await check(world, scenario)


async def lived(world: World, scenario: Scenario, outcome: Outcome) -> None:
    """Let it go on for as long as it may take to heal; the user restarts what is to be restarted."""
    for _ in range(20):
        await world.run(outcome)
        state = await state_of_root(world)
        if state == scenario.end:
            return
        if state == "CANCELLED" and scenario.end == DELETED:
            if not await world.delete(world.root):
                await world.tick()
        elif state in ("FAILED", "CANCELLED"):
            await world.restart(world.root)
        else:
            await world.tick()
    raise AssertionError(f"the job is still {state} after 100 s")


async def state_of_root(world: World) -> str:
    job = await world.store.get(JobDocument, world.root)
    return DELETED if job is None else job.state


async def check(world: World, scenario: Scenario) -> None:
    if scenario.end == DELETED:
        for kind in (JobDocument, TaskDocument):
            assert await world.store.find(kind, {}) == []
        return
    job = await world.job(world.root)
    assert job.state == scenario.end
    found = await world.states(world.root)
    assert {path: found.get(path) for path in scenario.states} == scenario.states
    if scenario.fields.get("output"):
        assert job.result == "a"
    if scenario.webhooks:
        told: dict[str, int] = {}
        for delivery in await world.store.find(DeliveryDocument, {}):
            state = msgspec.json.decode(delivery.body)["state"]
            told[state] = told.get(state, 0) + 1
        assert (
            told.pop("SCHEDULED", 0) <= 2
        )  # the grant may come before the mark, or it is sent again,
        assert 1 <= told["RUNNING"] <= 2  # and the end before anybody said that the job runs
        told["RUNNING"] = 2
        assert told == scenario.webhooks
