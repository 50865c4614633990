"""Evaluations of templates: out of one budget for each task, short ones on the loop, others beside it."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time
from collections.abc import AsyncIterator, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coordinator.effects import evaluations
from coordinator.effects.evaluations import EvaluationBusy, Evaluations
from coordinator.engine import evaluation
from coordinator.engine.flow import Evaluate
from shared.expressions import Budget, Evaluation, ExpressionError
from shared.model.documents import DeliveryDocument
from tests.unit.engine.world import World, step, world_at

LONG = "sum(map(1..40000, # * 2))"
"""More than the steps that may be taken on the loop."""
LONG_IS = 40_000 * 40_001
ENDLESS = "reduce(1..900000, reduce(1..900000, #acc + 1))"
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


@pytest.mark.slow
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


async def turns_during(work: Coroutine[Any, Any, Any]) -> int:
    """Return how many turns the loop has while `work` is done."""
    turns = 0
    task = asyncio.ensure_future(work)
    while not task.done():
        turns += 1
        await asyncio.sleep(0)
    task.result()
    return turns


SOME_MS = "len(map(1..5000, # * 2))"


@pytest.mark.parametrize("at_once", [False, True])
async def test_short_ones_leave_the_loop_turns_however_many_there_are(
    made: Evaluations, at_once: bool
) -> None:
    async def in_a_row() -> None:
        for number in range(20):
            assert await made.evaluate(about(str(number), SOME_MS)) == 5_000

    async def beside_one_another() -> None:
        await asyncio.gather(*(made.evaluate(about(str(n), SOME_MS)) for n in range(20)))

    assert await turns_during(beside_one_another() if at_once else in_a_row()) > 15


async def test_very_short_ones_need_no_turns(made: Evaluations) -> None:
    async def in_a_row() -> None:
        for number in range(20):
            await made.evaluate(about(str(number), "1 + 1"))

    assert await turns_during(in_a_row()) < 15


async def test_what_else_the_loop_is_busy_with_keeps_no_evaluation_waiting(
    made: Evaluations,
) -> None:
    over = False

    async def busy() -> None:
        while not over:
            time.sleep(0.006)  # noqa: ASYNC251 - it is busy
            await asyncio.sleep(0)

    async def some(name: str) -> None:
        for number in range(3):
            await made.evaluate(about(f"{name}.{number}", "1 + 1"))

    beside = asyncio.create_task(busy())
    await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(some(str(number)) for number in range(100)))

    turns = await turns_during(all_of_them())
    over = True
    await beside
    assert turns < 30


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
async def test_a_process_that_dies_of_an_evaluation_fails_it_and_no_other(
    made: Evaluations,
) -> None:
    fault = await made.evaluate(about("bad", work=killed_after))
    assert isinstance(fault, ExpressionError)
    assert "died twice" in str(fault)
    assert await made.evaluate(about("good")) == LONG_IS


async def test_a_process_that_can_not_be_started_fails_nothing(
    made: Evaluations, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as scarce:
        scarce.setattr(asyncio, "create_subprocess_exec", refuse)
        with pytest.raises(EvaluationBusy, match="Too many open files"):
            await made.evaluate(about("first"))
    assert await made.evaluate(about("second")) == LONG_IS


@pytest.mark.slow
async def test_one_that_nobody_waits_for_any_more_leaves_its_turn_to_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluations, "PROCESSES", 1)
    made = Evaluations(10**12, 16 * 2**20)
    asked = [asyncio.ensure_future(made.evaluate(about(n, ENDLESS))) for n in ("on", "waits")]
    await asyncio.sleep(0.2)
    for one in asked:
        one.cancel()
    async with asyncio.timeout(20):
        await asyncio.wait(asked)
        assert await made.evaluate(about("waits")) == LONG_IS
        assert await made.evaluate(about("on")) == LONG_IS
    await made.close()


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    ("task", "field"),
    [
        (step("a", queue="q-{{ secrets.a }}"), "queue"),
        (step("a", var="v{{ secrets.a }}"), "var"),
        (step("a", queue="q-{{ inputs.API_TOKEN }}"), "queue"),
        ({"name": "a", "parallel": {"tasks": [step("b")]}, "var": "v{{ secrets.a }}"}, "var"),
        (
            {"name": "e", "each": {"list": "[1]", "task": step("a", queue="{{ secrets.a }}")}},
            "queue",
        ),
    ],
)
async def test_a_secret_can_not_be_a_part_of_what_is_never_hidden(
    world: World, task: dict[str, Any], field: str
) -> None:
    """The name of a queue, and of a result."""
    job_id = await world.submit(
        task, secrets={"a": "hunter2_and_more"}, inputs={"API_TOKEN": "hunter2_by_key"}
    )
    await world.run()
    job, failed = await world.job(job_id), await world.task(job_id, "a")
    assert (job.state, failed.state) == ("FAILED", "FAILED")
    assert f"task 'a': {field}: the value of a secret can't be a part of it" in (failed.error or "")
    assert (failed.queue, failed.var or None) == (None, task.get("var"))
    assert "hunter2" not in f"{failed.error} {job.error} {await world.broker.queues()}"
    await world.check_at_rest()


async def test_a_queue_and_a_var_from_templates_without_secrets_are_as_ever(world: World) -> None:
    await world.worker(q_eu=1)
    job_id = await world.submit(
        step("a", queue="q_{{ inputs.region }}", var="v{{ secrets.n }}"),
        inputs={"region": "eu"},
        secrets={"n": "1", "a": "hunter2"},
        output="{{ tasks.v1 }}",
    )
    await world.run()
    assert (await world.job(job_id)).result == "a"


@pytest.mark.parametrize(
    ("after", "error"),
    [
        ({**step("b"), "env": {"X": "{{ len(tasks) }}"}}, "task 'b': env.X: "),
        ({**step("b"), "env": {"X": "{{ tasks.v1 + tasks.v2 + tasks.v3 }}"}}, "task 'b': env.X: "),
        (
            {"name": "b", "each": {"list": "keys(tasks)", "task": step("i")}},
            "task 'b': each.list: ",
        ),
        ({**step("b"), "env": {"X": "{{ len(tasks.v1) }}"}}, None),
    ],
)
async def test_results_are_read_up_to_the_budget_and_the_error_names_the_field(
    folder: Path, after: dict[str, Any], error: str | None
) -> None:
    async with world_at(folder, expression_bytes=10_000) as world:
        worker = await world.worker()
        steps = [step(f"v{n}", var=f"v{n}") for n in (1, 2, 3)]
        job_id = await world.submit(*steps, after)
        for n in (1, 2, 3):
            await world.settle()
            await worker.take()
            await world.settle()
            await worker.end(worker.run_named(f"v{n}"), result="x" * 4_000)
        await world.run()
        found = (await world.job(job_id)).error
        assert (found is None) == (error is None)
        if error is not None:
            assert f"{error}this names more than 10,000 bytes of results" in (found or "")


async def test_a_file_from_a_template_reaches_the_worker_as_text_and_counts_in_the_size(
    world: World,
) -> None:
    worker = await world.worker()
    files = {"files": {"b": "{{ 1 + 1 }}"}, "fileTemplates": {"a": "{{ 1 + 1 }}"}}
    await world.submit(step("t") | files)
    await world.settle()
    (run,) = await worker.take()
    task = run.message.task
    assert (task.files, task.file_templates) == ({"a": "2", "b": "{{ 1 + 1 }}"}, {})
    big = {"a.yml": "{{ repeat('x', 900000) }}" * 3}
    job_id = await world.submit(step("big") | {"fileTemplates": big})
    wrong = await world.submit(step("wrong") | {"fileTemplates": {"a.yml": "{{ 1 / 0 % 0 }}"}})
    await world.run()
    assert "bytes after evaluation" in ((await world.job(job_id)).error or "")
    assert "files.a.yml.template: " in ((await world.job(wrong)).error or "")


async def test_loop_variables_count_in_the_size_of_a_task(world: World) -> None:
    """They stand in each child, and its result has to fit beside them."""
    await world.worker()
    big = {"name": "e", "each": {"list": "[map(1..3, repeat('x', 900000))]", "task": step("i")}}
    job_id = await world.submit(big)
    await world.run()
    error = (await world.job(job_id)).error or ""
    assert "bytes after evaluation, with its loop variables" in error


@pytest.mark.parametrize(
    ("inner", "field"),
    [
        ({"each": {"list": "1..20", "var": "n", "task": step("i")}}, "each.list"),
        ({"parallel": {"tasks": [step(f"i{n}") for n in range(20)]}}, "parallel"),
    ],
)
@pytest.mark.parametrize(("most", "state"), [(20_000, "COMPLETED"), (19_000, "FAILED")])
async def test_copies_of_loop_variables_are_bounded_together(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    inner: dict[str, Any],
    field: str,
    most: int,
    state: str,
) -> None:
    """Each child has a copy of the variables of all loops around it."""
    monkeypatch.setattr(evaluation, "MAX_COPIES", most)
    await world.worker(slots=20)
    outer = {"list": "[repeat('x', 967)]", "task": {"name": "inner", **inner}}
    job_id = await world.submit({"name": "outer", "each": outer})
    await world.run()
    job = await world.job(job_id)
    assert job.state == state
    if state == "FAILED":
        assert job.error == (
            f"task 'inner': {field}: 20 tasks, each with a copy of 1,000 bytes of loop variables, "
            "would take more than 19,000 bytes"
        )
        assert len(await world.tasks(job_id)) == 2


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
