"""Evaluations of templates: out of one budget for each task, short ones on the loop, others beside it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.effects import evaluations
from coordinator.effects.evaluations import EvaluationBusy, Evaluations
from coordinator.engine.flow import Evaluate
from shared.expressions import Budget, Evaluation, ExpressionError
from shared.model.documents import DeliveryDocument
from tests.unit.engine.world import World, step, world_at

LONG = "sum(map(1..40000, # * 2))"
"""More than the steps that may be taken on the loop."""
LONG_IS = 40_000 * 40_001
TOO_LONG = "{{ reduce(1..50000, #acc + # + # + # + # + # + # + #) }}"
TOO_BIG = "{{replace(repeat('a',100000),'a',repeat('b',160))}}"


def value(text: str, budget: Budget) -> object:
    return Evaluation({}, budget=budget).value(text)


def pid_and_value(text: str, budget: Budget) -> tuple[int, object]:
    return os.getpid(), value(text, budget)


def killed_after(text: str, budget: Budget) -> None:
    value(text, budget)
    os.kill(os.getpid(), signal.SIGKILL)


def about(name: str, text: str = LONG, user: str = "u", work: Any = value) -> Evaluate:
    return Evaluate(partial(work, text), name, user)


@pytest.fixture
async def made() -> AsyncIterator[Evaluations]:
    made = Evaluations(5_000_000, 16 * 2**20)
    yield made
    await made.close()


async def test_short_ones_are_evaluated_here_and_long_ones_in_another_process(
    made: Evaluations,
) -> None:
    assert await made.evaluate(about("a", "1 + 1", work=pid_and_value)) == (os.getpid(), 2)
    pid, found = await made.evaluate(about("b", work=pid_and_value))
    assert found == LONG_IS
    assert pid != os.getpid()
    fault = await made.evaluate(about("c", "reduce(1..900000, #acc + # + # + # + # + #)"))
    assert isinstance(fault, ExpressionError)
    assert "more than 5,000,000 steps" in str(fault)


async def test_users_take_turns(made: Evaluations) -> None:
    ended: list[str] = []

    async def one(name: str, user: str) -> None:
        assert await made.evaluate(about(name, user=user)) == LONG_IS
        ended.append(name)

    async with asyncio.TaskGroup() as group:
        for index in range(12):
            group.create_task(one(f"many{index}", "many"))
        group.create_task(one("few", "few"))
    assert ended.index("few") < 8


async def test_nothing_is_evaluated_twice_at_a_time_and_the_queue_of_a_user_has_an_end(
    made: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluations, "_WAITING", 2)
    first, second = (asyncio.ensure_future(made.evaluate(about(name))) for name in ("one", "other"))
    await asyncio.sleep(0)
    with pytest.raises(EvaluationBusy):
        await made.evaluate(about("one", user="else"))
    with pytest.raises(EvaluationBusy):
        await made.evaluate(about("third", "1"))
    assert await made.evaluate(about("third", user="else")) == LONG_IS
    assert await first == await second == LONG_IS
    assert await made.evaluate(about("one", "1")) == 1


async def test_a_process_that_dies_of_an_evaluation_fails_it_and_no_other(
    made: Evaluations,
) -> None:
    fault = await made.evaluate(about("bad", work=killed_after))
    assert isinstance(fault, ExpressionError)
    assert "died twice" in str(fault)
    assert await made.evaluate(about("good")) == LONG_IS


async def test_what_takes_for_ever_is_given_up(
    made: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluations, "_LONGEST", 0.01)
    fault = await made.evaluate(about("slow"))
    assert isinstance(fault, ExpressionError)
    assert "takes more than" in str(fault)


async def test_closing_gives_up_what_waits_and_what_goes_on(made: Evaluations) -> None:
    asked = [asyncio.ensure_future(made.evaluate(about(str(n)))) for n in range(5)]
    await asyncio.sleep(0)
    await made.close()
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(answer) for answer in answers] == [EvaluationBusy] * 5
    with pytest.raises(EvaluationBusy):
        await made.evaluate(about("new", "1"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [(TOO_LONG, "more than 5,000,000 steps"), (TOO_BIG, "more than 16,777,216 bytes")],
)
async def test_all_templates_of_a_task_share_one_budget_and_the_error_names_the_field(
    world: World, template: str, reason: str
) -> None:
    await world.worker()
    env = {f"X{n}": template for n in range(60)}
    job_id = await world.submit(step("a", env=env))
    await world.run()
    await world.driver._following.finish()
    await world.run()
    job = await world.job(job_id)
    assert job.state == "FAILED"
    assert job.error is not None
    assert "env.X" in job.error
    assert reason in job.error


async def test_long_evaluations_give_what_short_ones_give(world: World) -> None:
    await world.worker()
    job_id = await world.submit(
        step("a", env={"X": f"{{{{ {LONG} }}}}"}, **{"if": f"{LONG} > 1"}),
        {"name": "e", "each": {"list": f"1..({LONG} - {LONG_IS} + 3)", "task": step("i")}},
        output=f"{{{{ {LONG} }}}}",
    )
    seen: list[str] = []
    await world.run(lambda run: seen.append(run.message.task.env.get("X", "")))
    job = await world.job(job_id)
    assert (job.state, job.result) == ("COMPLETED", str(LONG_IS))
    assert seen == [str(LONG_IS), "", "", ""]
    await world.check_at_rest()


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (step("a", **{"if": "1 + 'x'"}), "if: "),
        (step("a", image="{{ nothing }}"), "image: "),
        ({"name": "a", "each": {"list": "3", "task": step("b")}}, "each.list must produce"),
        ({"name": "a", "each": {"list": "nothing", "task": step("b")}}, "each.list: "),
        (
            {
                "name": "a",
                "subjob": {"name": "s", "inputs": {"i": "{{ nothing }}"}, "tasks": [step("b")]},
            },
            "subjob.inputs.i: ",
        ),
    ],
)
async def test_each_field_is_named(world: World, task: dict[str, Any], field: str) -> None:
    job_id = await world.submit(task)
    await world.run()
    job = await world.job(job_id)
    assert job.error is not None
    assert f"task 'a': {field}" in job.error


async def test_all_webhooks_of_an_event_share_one_budget(folder: Path) -> None:
    hook = {"url": "http://example.com/{{ len(map(1..3000, #)) }}", "event": "job.StateChange"}
    async with world_at(folder, expression_steps=20_000) as world:
        await world.worker()
        job_id = await world.submit(step("a"), webhooks=[hook] * 5)
        await world.run()
        assert await world.state(job_id) == "COMPLETED"
        found = await world.driver.store.find(DeliveryDocument, {"job_id": job_id})
        assert 0 < len(found) < 3 * 5
        assert {one.url for one in found} == {"http://example.com/3000"}
