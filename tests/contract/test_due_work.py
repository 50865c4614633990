"""What nobody did is taken up once, by whichever coordinator, and what can't be done keeps nothing else from it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import msgspec
import pytest

from coordinator.due import overdue_intents
from coordinator.due.overdue_intents import OVERDUE, OverdueIntents
from coordinator.effects import FlowDriver, evaluations, fan_outs, flow_driver
from coordinator.engine import given_up, intents, new_documents
from coordinator.engine.flow import Evaluate, Flow, GrowthOver, GrowthTurn, change_job, change_task
from coordinator.engine.new_documents import ENDED_INTENT
from coordinator.engine.withdrawal import again
from coordinator.store.port import Change, Store
from shared.broker.memory import MemoryBroker
from shared.encryption import Vault
from shared.errors import StoreUnavailable
from shared.expressions import Budget, OutOfTurn
from shared.model.documents import Actor, Document, Intent, JobDocument, TaskDocument
from shared.model.language import JobDefinition
from shared.model.messages import MessageCodec
from tests.contract.conftest import StorePlace
from tests.contract.documents import job, task
from tests.settings import default_bounds

MANY = overdue_intents.INTENTS_A_LOOK + 20


def due_work(store: Store) -> OverdueIntents:
    broker = MemoryBroker(node_expiry=60.0)
    return OverdueIntents(FlowDriver(store, broker, default_bounds(), MessageCodec()))


def forgotten(do: str, **more: object) -> Intent:
    return Intent(id=do, do=do, at=0, **more)  # type: ignore[arg-type]


class Followed:
    """What the follow-up of `probe` was called for, and what it then does."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.at_once = 0
        self.raises: dict[str, Exception] = {}

    def __call__(self, document: Document, what: Intent) -> Flow[list[Document]]:
        self.ids.append(document.id)
        if error := self.raises.get(document.id):
            raise error
        assert isinstance(document, JobDocument)
        yield from change_job(document.id, {}, {}, drop=(what.id,))
        return []


@pytest.fixture
def followed(monkeypatch: pytest.MonkeyPatch) -> Followed:
    made = Followed()
    monkeypatch.setitem(intents.FOLLOW_UPS, (JobDocument, "probe"), made)  # type: ignore[misc]
    return made


async def due_now(store: Store, id: str) -> None:
    """Let the time come at which what a job holds is tried next."""
    found = await store.get(JobDocument, id)
    assert found is not None
    await store.change_many([Change(kind=JobDocument, id=id, put_off=sooner(found))])


def sooner(document: Document) -> tuple[Intent, ...]:
    return tuple(msgspec.structs.replace(each, at=0) for each in document.then)


async def look(*works: OverdueIntents) -> None:
    """Look until all that has begun is done, and nothing waits for room."""
    while True:
        for work in works:
            work.more.clear()
        await asyncio.gather(*(work.look() for work in works))
        await asyncio.gather(*(work.finish() for work in works))
        if not any(work.more.is_set() for work in works):
            return


async def test_coordinators_share_what_is_overdue(store: Store, followed: Followed) -> None:
    names = {f"j{number:03}" for number in range(MANY)}
    await store.insert_many([job(name, then=[forgotten("probe")]) for name in sorted(names)])
    first, second = due_work(store), due_work(store)
    await look(first, second)
    assert sorted(followed.ids) == sorted(names)


async def test_what_fails_is_put_off_and_others_have_their_turn(
    store: Store, followed: Followed
) -> None:
    names = [f"bad{number:03}" for number in range(MANY)]
    followed.raises = dict.fromkeys(names, ValueError("no"))
    await store.insert_many([job(name, then=[forgotten("probe")]) for name in names])
    await store.insert(job("good", then=[Intent(id="probe", do="probe", at=1)]))
    await look(due_work(store))
    assert "good" in followed.ids
    assert len(followed.ids) == MANY + 1, "each once: they wait for their next try"


async def test_a_failing_work_ends_its_job_with_the_reason(
    store: Store, followed: Followed
) -> None:
    followed.raises = {"bad": StoreUnavailable("away")}
    await store.insert(job("bad", state="PENDING", then=[forgotten("probe")]))
    work = due_work(store)
    for _ in range(given_up.TRIES + 3):
        await look(work)
        await due_now(store, "bad")
    assert len(followed.ids) == given_up.TRIES + 3, "a store that is away costs no try"
    followed.raises = {"bad": ValueError("secret words")}
    for _ in range(given_up.TRIES + 1):
        await look(work)
        await due_now(store, "bad")
    assert len(followed.ids) == 2 * given_up.TRIES + 3
    bad = await store.get(JobDocument, "bad")
    assert bad is not None
    assert bad.state == "FAILED"
    assert bad.error == f"probe, tried {given_up.TRIES} times: ValueError"
    assert "probe" not in {each.id for each in bad.then}


@pytest.mark.parametrize("do", sorted(given_up.NEVER_GIVEN_UP))
def test_what_withdraws_or_removes_is_never_given_up(do: str) -> None:
    assert not given_up.is_given_up(forgotten(do, tries=1_000, error="why"))
    assert given_up.is_given_up(forgotten("begin", tries=given_up.TRIES + 1))


async def test_what_its_process_died_of_is_tried_alone(
    store: Store, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    running: set[str] = set()
    beside: dict[str, set[str]] = {}
    follow = OverdueIntents._follow

    async def seen(self: OverdueIntents, document: Document, what: Intent) -> None:
        beside[document.id] = set(running)
        running.add(document.id)
        await asyncio.sleep(0.02)
        await follow(self, document, what)
        running.remove(document.id)

    monkeypatch.setattr(OverdueIntents, "_follow", seen)
    died = [job(f"died{number}", then=[forgotten("probe", tries=1)]) for number in range(3)]
    failed = [job(f"f{number}", then=[forgotten("probe", tries=1, error="why")]) for number in "123"]  # fmt: skip
    await store.insert_many([*died, *failed])
    await look(due_work(store))
    assert len(beside) == 6
    assert all(not beside[each.id] for each in died)
    assert any(beside[each.id] for each in failed)


async def test_what_takes_long_is_left_to_who_is_at_it(
    store: Store, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overdue_intents, "OVERDUE", 1_500_000)
    await store.insert(job("slow", then=[forgotten("probe")]))
    first, second = due_work(store), due_work(store)
    done = asyncio.Event()

    async def slowly(_: Document, __: Intent) -> None:
        await done.wait()

    monkeypatch.setattr(first, "_follow", slowly)
    await first.look()
    for _ in range(20):
        await asyncio.sleep(0.1)
        await look(second)
    assert followed.ids == []
    done.set()
    await first.finish()
    while not followed.ids:
        await look(second)
    assert followed.ids == ["slow"]


LATER = Intent(id="ended", do="ended", at=1)


async def test_one_jobs_work_leaves_room_for_anothers(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long that of the one takes."""
    held, seen = asyncio.Event(), asyncio.Event()

    async def hang(_: OverdueIntents, document: Document, _what: Intent) -> None:
        if document.id == "plain":
            seen.set()
        else:
            await held.wait()

    monkeypatch.setattr(OverdueIntents, "_follow", hang)
    big = [
        task(f"t{number:03}", root_id="big", then=[forgotten("ended")]) for number in range(MANY)
    ]
    await store.insert_many(big)
    work = due_work(store)
    await work.look()
    await store.insert(task("plain", root_id="small", then=[LATER]))
    await work.look()
    await work.look()
    async with asyncio.timeout(10):
        await seen.wait()
    held.set()
    await work.finish()


def too_long(_: Budget) -> None:
    raise OutOfTurn


async def test_one_users_evaluations_leave_room_for_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many, and of however many jobs."""
    ann, bob = (Actor(id=name, username=name, name=name) for name in ("ann", "bob"))
    seen: list[str] = []
    plain = asyncio.Event()

    async def evaluate(self: OverdueIntents, document: Document, _: Intent) -> None:
        seen.append(document.id)
        if document.id == "plain":
            plain.set()
        else:
            await self._driver.evaluations.evaluate(Evaluate(too_long, document.id, ann.id))

    monkeypatch.setattr(OverdueIntents, "_follow", evaluate)
    monkeypatch.setattr(evaluations, "PROCESSES", 1)
    names = [f"a{number:04}" for number in range(3 * MANY)]
    await store.insert_many([job(name, created_by=ann) for name in names])
    await store.insert_many(
        [
            task(f"t{name}", job_id=name, root_id=name, then=[forgotten("evaluate")])
            for name in names
        ]
    )
    work = due_work(store)
    waiting = work._driver.evaluations
    await waiting._turns.take("somebody")
    await work.look()
    async with asyncio.timeout(
        30
    ):  # until as many wait as may, and those that were one too many are put off
        while waiting.has_room_for(ann.id) or len(work._under_way) > evaluations._WAITING:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    begun = len(seen)
    await store.insert(job("b", created_by=bob))
    await store.insert(task("plain", job_id="b", root_id="b", then=[LATER]))
    await work.look()
    async with asyncio.timeout(10):
        await plain.wait()
    assert len(seen) == begun + 1, "what has no room is not begun to find that out"
    await waiting.close()
    waiting._turns.give_back()
    await work.finish()


async def test_fan_outs_that_wait_for_their_turn_leave_room_for_others(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many, and of however many jobs."""
    ann = Actor(id="ann", username="ann", name="ann")
    begun: list[str] = []
    grown: list[str] = []
    plain = asyncio.Event()

    def expand(document: Document, what: Intent) -> Flow[list[Document]]:
        begun.append(document.id)
        yield GrowthTurn(ann.id)
        grown.append(document.id)
        yield GrowthOver()
        yield from change_task(document.id, {}, {}, drop=(what.id,))
        return []

    def small(_: Document, __: Intent) -> Flow[list[Document]]:
        plain.set()
        yield from ()
        return []

    monkeypatch.setitem(intents.FOLLOW_UPS, (TaskDocument, "expand"), expand)  # type: ignore[misc]
    monkeypatch.setitem(intents.FOLLOW_UPS, (TaskDocument, "ended"), small)  # type: ignore[misc]
    monkeypatch.setattr(fan_outs, "GROWING_AT_ONCE", 1)
    names = [f"a{number:04}" for number in range(MANY)]
    await store.insert_many([job(name, created_by=ann) for name in names])
    await store.insert_many(
        [task(f"t{name}", job_id=name, root_id=name, then=[forgotten("expand")]) for name in names]
    )
    work = due_work(store)
    turns = work._driver.fan_outs._turns
    await turns.take("somebody")
    async with asyncio.timeout(30):
        while work._driver.fan_outs.has_room_for(ann.id) or work._places:
            await work.look()
            await asyncio.sleep(0.01)
    begun_before = len(begun)
    await store.insert(job("b"))
    await store.insert(task("plain", job_id="b", root_id="b", then=[LATER]))
    await work.look()
    async with asyncio.timeout(10):
        await plain.wait()
    assert len(begun) == begun_before, "what has no room is not begun to find that out"
    turns.give_back()
    await work.finish()
    assert len(grown) == fan_outs.MOST_WAITING


async def test_users_take_turns_and_then_their_jobs(
    store: Store, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = (Actor(id=name, username=name, name=name) for name in ("ann", "bob"))
    names = {"a0": ann, "a1": ann, "a2": ann, "b0": bob, "b1": bob, "c0": ann}
    for at, (name, user) in enumerate(names.items()):
        probe = Intent(id="probe", do="probe", at=at)
        await store.insert(job(name, root_id=name[0], created_by=user, then=[probe]))
    begun: list[str] = []
    begin = OverdueIntents._begin

    def noted(self: OverdueIntents, document: Document, *more: Any) -> None:
        begun.append(document.id)
        begin(self, document, *more)

    monkeypatch.setattr(OverdueIntents, "_begin", noted)
    await look(due_work(store))
    assert begun == ["a0", "b0", "c0", "b1", "a1", "a2"]
    assert sorted(followed.ids) == sorted(names)


async def test_what_takes_many_steps_gives_its_place_to_what_waits(
    store: Store, followed: Followed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever's it is: one user may have more of such than there are places."""
    monkeypatch.setattr(overdue_intents, "PLACE_KEPT_FOR", 0.0)
    ann, bob = (Actor(id=name, username=name, name=name) for name in ("ann", "bob"))
    steps: Counter[str] = Counter()

    def chain(document: Document, what: Intent) -> Flow[list[Document]]:
        assert isinstance(document, JobDocument)
        steps[document.id] += 1
        if steps[document.id] < 10:
            return (yield from again(document, what))
        yield from change_job(document.id, {}, {}, drop=(what.id,))
        return []

    monkeypatch.setitem(intents.FOLLOW_UPS, (JobDocument, "chain"), chain)  # type: ignore[misc]
    for number in range(overdue_intents.AT_ONCE + 8):
        await store.insert(job(f"a{number}", created_by=ann, then=[forgotten("chain")]))
    await store.insert(job("b", created_by=bob, then=[Intent(id="probe", do="probe", at=1)]))
    work = due_work(store)
    for _ in range(2):
        await work.look()
        await work.finish()
    assert followed.ids == ["b"]
    assert steps.total() < 5 * len(steps), "nobody's has come to its end"
    await look(work)
    assert set(steps.values()) == {10}


async def test_a_key_that_is_gone_ends_only_what_was_sealed_with_it(
    store_place: StorePlace, followed: Followed
) -> None:
    store = await store_place.open(Vault("first"))
    await store.insert(job("sealed", state="RUNNING", task_count=1))
    await store.insert(task("t", job_id="sealed", state="CREATED", then=[forgotten("evaluate")]))
    await store.close()
    await (await store_place.open(Vault("second", ["first"]))).close()
    store = await store_place.open(Vault("second"))
    await store.insert(job("plain", then=[Intent(id="probe", do="probe", at=1)]))
    work = due_work(store)
    await look(work)
    assert followed.ids == ["plain"]
    light = ("definition", "evaluated", "scope", "result")
    for _ in range(given_up.TRIES):
        (found,) = await store.find(TaskDocument, {"id": "t"}, without=light)
        await store.change_many([Change(kind=TaskDocument, id="t", put_off=sooner(found))])
        await look(work)
    (found,) = await store.find(TaskDocument, {"id": "t"}, without=light)
    assert found.state == "FAILED"
    assert found.error is not None
    assert "encryption.old_keys" in found.error
    assert [each.do for each in found.then] == ["ended"]


async def test_jobs_are_kept_at_hand_by_their_size(store: Store) -> None:
    """As each store gives them."""
    await store.insert_many([job("small"), *(job(f"j{n}", result="x" * 50_000) for n in range(8))])
    driver = FlowDriver(store, MemoryBroker(node_expiry=60.0), default_bounds(), MessageCodec())
    for id in ("small", *(f"j{n}" for n in range(8))):
        assert await driver.job(id) is not None
    assert driver._jobs.currsize > 8 * 50_000
    assert driver._jobs.currsize <= flow_driver.REMEMBERED_BYTES
    huge = job("huge", result="x" * (flow_driver.REMEMBERED_BYTES // 4))
    driver._jobs[huge.id] = huge
    assert list(driver._jobs) == ["huge"]


STEP = {"name": "step", "image": "any", "run": "true"}
SUB_JOB = {
    "name": "big",
    "subjob": {
        "name": "s",
        "inputs": {f"i{number:02}": "{{ repeat('x', 900000) }}" for number in range(19)},
        "tasks": [STEP],
    },
}
"""Its inputs come to 17.1 MB: more than a document of MongoDB may have."""
EACH = {"name": "big", "each": {"list": "[map(1..19, repeat('x', 900000))]", "task": STEP}}
"""So does its one item."""


@pytest.mark.parametrize(
    ("big", "budget", "error"),
    [
        (SUB_JOB, 16 << 20, r"subjob\.inputs\.i\d+: this builds more than 16,777,216 bytes"),
        (SUB_JOB, 64 << 20, r"subjob: job \w+ is larger than 16711680 bytes"),
        (EACH, 64 << 20, r"each\.list: items \w+ is larger than 16711680 bytes"),
    ],
)
async def test_what_no_store_keeps_fails_its_task_at_once(
    store: Store, big: dict[str, Any], budget: int, error: str
) -> None:
    broker, bounds = MemoryBroker(node_expiry=60.0), default_bounds(expression_bytes=budget)
    await broker.start()
    work = OverdueIntents(FlowDriver(store, broker, bounds, MessageCodec()))
    for id, step in (("bad", big), ("good", STEP)):
        definition = msgspec.convert({"name": id, "tasks": [step]}, JobDefinition)
        await store.insert(new_documents.new_job(definition, id, at=0))
    await look(work)
    bad, good = await store.get(JobDocument, "bad"), await store.get(JobDocument, "good")
    assert bad is not None
    assert (bad.state, [each.do for each in bad.then]) == ("FAILED", ["finish"])
    assert re.match(f"task 'big': {error}", bad.error or "")
    assert good is not None
    assert good.state == "SCHEDULED"
    left = await store.overdue(TaskDocument, store.now() + OVERDUE, 10)
    assert {what.do for each in left for what in each.then} <= {ENDED_INTENT}
    await broker.close()
