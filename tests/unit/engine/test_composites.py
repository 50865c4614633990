"""`parallel` and `each`: growing, slots and windows, nesting, ends."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from coordinator.engine import composites, intents, task_start
from coordinator.engine.flow import InsertMany
from coordinator.engine.new_documents import MAX_NAME
from shared.model.documents import ItemsDocument, JobDocument, TaskDocument, TaskReference
from shared.model.views import task_summary, task_view
from shared.redaction import Redactor
from tests.unit.engine.steps import Stepper, changes
from tests.unit.engine.world import World, step, world_at


def each(list_: str, task: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "each", "each": {"list": list_, "task": task, **fields}}


def parallel(*tasks: dict[str, Any], name: str = "parallel") -> dict[str, Any]:
    return {"name": name, "parallel": {"tasks": list(tasks)}}


async def test_all_tasks_of_a_parallel_run_at_once(world: World) -> None:
    worker = await world.worker()
    job_id = await world.submit(parallel(step("a"), step("b"), step("c")), step("d"))
    await world.settle()
    assert await world.state(job_id) == "RUNNING"
    await worker.take()
    await world.settle()
    assert sorted(run.name for run in worker.running) == ["a", "b", "c"]
    for name in ("c", "a", "b"):
        assert (await world.task(job_id, "parallel")).state == "RUNNING"
        await worker.end(worker.run_named(name))
        await world.settle()
    assert (await world.task(job_id, "parallel")).state == "COMPLETED"
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_an_each_makes_a_child_for_each_item(world: World) -> None:
    await world.worker()
    child = step("n", env={"I": "{{ item.index }}", "V": "{{ item.value }}"})
    job_id = await world.submit(each("[10, 'x', true]", child))
    seen: list[tuple[str, str]] = []

    def outcome(run: Any) -> None:
        seen.append((run.message.task.env["I"], run.message.task.env["V"]))

    await world.run(outcome)
    assert sorted(seen) == [("0", "10"), ("1", "x"), ("2", "true")]
    assert (await world.task(job_id, "each")).size == 3
    await world.check_at_rest()


async def test_an_each_goes_over_a_map_by_its_keys(world: World) -> None:
    await world.worker()
    job_id = await world.submit(each('{"b": 2, "a": 1}', step("{{ item.key }}{{ item.value }}")))
    await world.run()
    children = sorted((t.index, t.name) for t in await world.tasks(job_id) if t.parent_id)
    assert children == [(0, "a1"), (1, "b2")]
    await world.check_at_rest()


@pytest.mark.parametrize(
    ("child", "names"),
    [
        ({"parallel": {"tasks": [step("in {{ item.value }}")]}}, {"region 7", "in 7"}),
        ({"each": {"list": "[1]", "var": "z", "task": step("{{ z.value }}")}}, {"region 7", "1"}),
        ({"subjob": {"name": "s", "tasks": [step("x")]}}, {"region 7"}),
        ({"parallel": {"tasks": [step("x")]}, "if": "false"}, {"region 7"}),
        ({"run": "x", "if": "{{ item.value != 7 }}"}, {"region 7"}),
        ({"run": "x", "env": {"X": "{{ item.value.no.no }}"}}, {"region 7"}),
        ({"run": "x", "queue": "{{ '' + 'x-bad' }}"}, {"region 7"}),
    ],
)
async def test_the_name_of_every_kind_is_evaluated(
    world: World, child: dict[str, Any], names: set[str]
) -> None:
    """Case 8: of composites, and of what is skipped or fails before it runs."""
    await world.worker()
    job_id = await world.submit(each("[7]", {"name": "region {{ item.value }}", **child}))
    await world.run()
    inner = [task for task in await world.tasks(job_id) if task.parent_id]
    assert {task.name for task in inner} == names
    assert {task_summary(task, Redactor()).name for task in inner} == names
    assert {task_view(task, Redactor()).name for task in inner} == names
    await world.check_at_rest()


async def test_a_child_that_waits_for_its_turn_has_its_name(world: World) -> None:
    """Case 8: also where it waits for ever, for its job is cancelled."""
    child = step("region {{ item.value }} of {{ inputs.all }}")
    job_id = await world.submit(each("1..3", child, concurrency=1), inputs={"all": "three"})
    await world.settle()
    named = {f"region {number} of three" for number in (1, 2, 3)}
    assert {task.name for task in await world.tasks(job_id) if task.parent_id} == named
    await world.cancel(job_id)
    await world.settle()
    assert {task.name for task in await world.tasks(job_id) if task.parent_id} == named


async def test_an_attempt_that_waits_for_its_delay_has_its_name(world: World) -> None:
    await world.worker()
    child = {**step("region {{ item.value }}"), "retry": {"limit": 1, "initialDelay": "1h"}}
    job_id = await world.submit(each("[7]", child))
    await world.run(lambda _: "no")
    inner = [task for task in await world.tasks(job_id) if task.parent_id]
    assert [task.name for task in inner] == ["region 7", "region 7"]


LONG = "{{ repeat('xxxxx', 1000) }}"


@pytest.mark.parametrize(
    "child",
    [
        {"run": "x", "if": "{{ [1][5] }}"},
        {"run": "x", "if": "false"},
        {"run": "x", "queue": "{{ '' + 'x-bad' }}"},
        {"run": "x"},
        {"parallel": {"tasks": [step("x")]}},
        {"subjob": {"name": LONG, "tasks": [step("x")]}},
    ],
)
async def test_a_very_long_name_is_shown_by_its_beginning(
    world: World, child: dict[str, Any]
) -> None:
    """It goes into lists, webhooks, and the errors that quote it."""
    await world.worker()
    job_id = await world.submit({"name": LONG, **child})
    await world.run()
    jobs = await world.store.find(JobDocument, {})
    named: list[JobDocument | TaskDocument] = [*await world.tasks(job_id), *jobs]
    assert all(len(each.name) <= MAX_NAME for each in named)
    assert all(len(each.error or "") < 2 * MAX_NAME for each in named)
    failed = (await world.job(job_id)).error
    assert failed is None or "out of range" in failed or "x-bad" in failed or "queue" in failed


async def test_a_name_is_not_cut_within_a_secret(world: World) -> None:
    name = "{{ repeat('x', 1000) + secrets.s + repeat('y', 500) }}"
    secret = "hush" * 20
    job_id = await world.submit({**step(name), "if": "{{ [1][5] }}"}, secrets={"s": secret})
    await world.run()
    (task,) = await world.tasks(job_id)
    assert len(task.name) <= MAX_NAME
    assert "hush" not in task.name + (task.error or "")


@pytest.mark.parametrize("empty", ["[]", "{}"])
async def test_an_each_over_nothing_completes_at_once(world: World, empty: str) -> None:
    job_id = await world.submit(each(empty, step("c")))
    await world.settle()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


@pytest.mark.parametrize("wrong", ["7", "'text'", "nil", "1 / nothing", "[1,"])
async def test_an_each_over_what_is_no_list_fails(world: World, wrong: str) -> None:
    job_id = await world.submit(each(wrong, step("c")))
    await world.settle()
    job = await world.job(job_id)
    assert job.state == "FAILED"
    assert "'each'" in (job.error or "")
    await world.check_at_rest()


async def test_no_more_run_at_once_than_concurrency_allows(world: World) -> None:
    worker = await world.worker(slots=10)
    job_id = await world.submit(each("1..7", step("c"), concurrency=2))
    most = 0
    for _ in range(20):
        await world.settle()
        await worker.take()
        await world.settle()
        most = max(most, len(worker.running))
        if worker.running:
            await worker.end(worker.running[0])
    assert most == 2
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_children_start_in_the_order_of_their_items(world: World) -> None:
    await world.worker(slots=1)
    await world.submit(each("1..5", step("c{{ item.index }}"), concurrency=1))
    seen: list[str] = []
    await world.run(lambda run: seen.append(run.name))
    assert seen == [f"c{index}" for index in range(5)]
    await world.check_at_rest()


@pytest.fixture
async def small(folder: Path) -> Any:
    async with world_at(folder, job_window=2) as made:
        yield made


async def test_no_more_of_a_root_job_are_published_than_its_window_allows(small: World) -> None:
    job_id = await small.submit(each("1..7", step("c")))
    await small.settle()
    figures = await small.broker.queue("default")
    assert figures is not None
    assert figures.size == 2
    held = Counter(task.hold for task in await small.tasks(job_id) if task.parent_id)
    assert held == {None: 2, "window": 5}
    worker = await small.worker(slots=9)
    most = 0
    for _ in range(20):
        await small.settle()
        await worker.take()
        await small.settle()
        most = max(most, len(worker.running))
        if worker.running:
            await worker.end(worker.running[-1])
    assert most == 2
    assert await small.state(job_id) == "COMPLETED"
    await small.check_at_rest()


async def test_window_and_concurrency_hold_together(small: World) -> None:
    worker = await small.worker(slots=9)
    inner = each("1..4", step("c"), concurrency=3)
    job_id = await small.submit(parallel(inner, {**inner, "name": "other"}))
    most = 0
    for _ in range(60):
        await small.settle()
        await worker.take()
        await small.settle()
        most = max(most, len(worker.running))
        if worker.running:
            await worker.end(worker.running[-1])
    assert most == 2
    assert await small.state(job_id) == "COMPLETED"
    await small.check_at_rest()


async def test_nesting_can_not_lock_a_small_window_up(small: World) -> None:
    await small.worker(slots=9)
    deep = each("1..3", parallel(each("1..3", step("c"), concurrency=1), step("p")))
    job_id = await small.submit(deep, step("last"))
    await small.run()
    assert await small.state(job_id) == "COMPLETED"
    counts = Counter(task.kind for task in await small.tasks(job_id))
    assert counts == {"each": 4, "parallel": 3, "container": 9 + 3 + 1}
    await small.check_at_rest()


async def test_sub_jobs_share_their_roots_window_and_do_not_lock_it_up(small: World) -> None:
    await small.worker(slots=9)
    sub = {
        "name": "sub",
        "subjob": {"name": "s", "tasks": [step("a"), parallel(step("b"), step("c")), step("d")]},
    }
    job_id = await small.submit(each("1..5", sub))
    published = 0
    for _ in range(100):
        await small.settle()
        figures = await small.broker.queue("default")
        assert figures is not None
        published = max(published, figures.size)
        worker = small.workers[0]
        await worker.take()
        await small.settle()
        if not worker.running:
            break
        await worker.end(worker.running[0])
    assert published <= 2
    await small.run()
    assert await small.state(job_id) == "COMPLETED"
    await small.check_at_rest()


async def test_loop_variables_of_all_levels_are_in_scope(world: World) -> None:
    await world.worker(slots=9)
    inner = each("[1, 2]", step("{{ row.value }}.{{ item.value }}"))
    job_id = await world.submit(each("['a', 'b']", inner, var="row"))
    await world.run()
    names = {task.name for task in await world.tasks(job_id) if task.kind == "container"}
    assert names == {"a.1", "a.2", "b.1", "b.2"}
    await world.check_at_rest()


@pytest.mark.parametrize("depth", [1, 3])
async def test_a_child_that_fails_for_good_fails_all_above_it(world: World, depth: int) -> None:
    worker = await world.worker(slots=9)
    tree = parallel(step("bad"), step("other"), name="p1")
    for level in range(2, depth + 1):
        tree = parallel(tree, step(f"side{level}"), name=f"p{level}")
    job_id = await world.submit(tree, step("never"))
    await world.settle()
    await worker.take()
    await world.settle()
    await worker.end(worker.run_named("bad"), "broken")
    await world.settle()
    job = await world.job(job_id)
    assert (job.state, job.error) == ("FAILED", "broken")
    assert job.failed_task == TaskReference((await world.task(job_id, "bad")).id, "bad")
    assert worker.running == []
    for task in await world.tasks(job_id):
        expected = "FAILED" if task.kind == "parallel" or task.name == "bad" else "CANCELLED"
        assert task.state == expected, task.name
    await world.check_at_rest()


async def test_skipped_children_complete_their_parent(world: World) -> None:
    job_id = await world.submit(each("1..3", step("c", **{"if": "false"}), concurrency=1))
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    await world.check_at_rest()


async def test_a_child_that_can_not_be_evaluated_fails_its_parent(world: World) -> None:
    await world.worker()
    child = step("c", env={"X": "{{ item.value.nothing }}"})
    job_id = await world.submit(parallel(step("fine"), child))
    await world.run()
    assert await world.state(job_id) == "FAILED"
    await world.check_at_rest()


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(composites, "CHILD_BATCH", 20)
    monkeypatch.setattr(composites, "CHUNK_ITEMS", 30)


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("condition", ["true", "false"])
async def test_many_children_come_in_batches(world: World, condition: str) -> None:
    await world.worker(slots=50)
    job_id = await world.submit(each("1..45", step("c", **{"if": condition})))
    await world.run()
    assert await world.state(job_id) == "COMPLETED"
    assert len(await world.tasks(job_id)) == 46
    chunks = await world.store.find(ItemsDocument, {}, ("first",))
    assert [(chunk.first, len(chunk.values)) for chunk in chunks] == [(0, 30), (30, 15)]
    await world.check_at_rest()


@pytest.mark.parametrize("kind", ["each", "parallel"])
async def test_heavy_children_come_in_smaller_batches(
    world: World, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Children of 2 MB each: few are in memory, and in one write, at a time."""
    monkeypatch.setattr(task_start, "HEAVIEST", 50_000)
    await world.worker(slots=50)
    child = step("c", env={"A": "{{ repeat('xx', 10000) }}"})
    composite = each("1..10", child) if kind == "each" else parallel(*[child] * 10)
    (job, slow) = await _expanding(world, await world.submit(composite))
    inserted: list[int] = []

    def notes(effect: object) -> bool:
        if isinstance(effect, InsertMany):
            inserted.append(len(effect.documents))
        return sum(inserted) == 10

    await slow.until(notes)
    await slow.finish()
    assert inserted == [3, 3, 3, 1]
    await world.run()
    assert await world.state(job) == "COMPLETED"
    assert len(await world.tasks(job)) == 11
    await world.check_at_rest()


@pytest.mark.usefixtures("small_batches")
async def test_an_expansion_that_stopped_between_batches_goes_on(world: World) -> None:
    await world.worker(slots=50)
    job_id = await world.submit(each("1..45", step("c"), concurrency=30))
    (job, dying) = await _expanding(world, job_id)
    await dying.until(
        changes(TaskDocument, expanded_to=20)
    )  # children are there, the parent does not know
    await world.replace(world.coordinators[0])
    await world.heal(30)
    assert await world.state(job) == "COMPLETED"
    indexes = sorted(task.index for task in await world.tasks(job_id) if task.parent_id)
    assert indexes == list(range(45))
    await world.check_at_rest()


@pytest.mark.usefixtures("small_batches")
async def test_an_expansion_is_not_begun_twice_while_it_goes_on(world: World) -> None:
    """Each batch says that it is alive: no sweeper takes it for forgotten."""
    job_id = await world.submit(each("1..65", step("c"), concurrency=1))
    (_, slow) = await _expanding(world, job_id)
    await slow.until(changes(TaskDocument, expanded_to=20))
    world.clock.advance(4)
    await slow.until(changes(TaskDocument, expanded_to=60))
    world.clock.advance(4)
    await world.coordinators[0].due.overdue.look()
    assert world.counts().get("swept_overdue", 0) == 0
    await slow.finish()


async def test_children_inserted_below_a_parent_that_ended_do_not_stay(world: World) -> None:
    job_id = await world.submit(each("1..5", step("c", **{"if": "true"}), concurrency=2))
    (_, slow) = await _expanding(world, job_id)
    await slow.until(lambda effect: isinstance(effect, InsertMany))
    assert await world.cancel(job_id)
    await world.settle()
    await slow.finish()
    await world.settle()
    assert {task.state for task in await world.tasks(job_id)} == {"CANCELLED"}
    await world.heal(10)
    await world.check_at_rest()


async def _expanding(world: World, job_id: str) -> tuple[str, Stepper]:
    """Begin a job whose first task is a composite, and return who is about to expand it."""
    begin = Stepper(world.driver, intents.FOLLOW_UPS[type(await world.job(job_id)), "begin"](
        await world.job(job_id), (await world.job(job_id)).then[0]
    ))  # fmt: skip
    (composite,) = await begin.finish()
    return job_id, Stepper(world.driver, intents.follow([composite]))
