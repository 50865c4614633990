"""What every datastore promises of single documents: the same bodies over SQLite, a real MongoDB and the
store in memory that other tests use."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import msgspec
import pytest

from coordinator.store import checkup
from coordinator.store.port import SlotTaken, Store, Unstorable
from shared.errors import StoreUnavailable
from shared.model import language
from shared.model.documents import (
    DOCUMENTS,
    Actor,
    Intent,
    ItemsDocument,
    JobDocument,
    NodeDocument,
    Pulse,
    RoleDocument,
    RunUsage,
    ScheduleRef,
    TaskDocument,
    UserDocument,
)
from shared.model.queries import Above, Below, Between, Change, Has, In, Not, Where
from tests.contract.conftest import StorePlace
from tests.contract.documents import delivery, intent, items, job, log_part, node, task, user

HOSTILE = [
    "",
    ".",
    "$",
    "a.b",
    "$set",
    "a.$.b",
    "%2E",
    "%",
    '"',
    "'",
    "\\",
    "[0]",
    "\x01",
    "é",
    "0",
]
TEXTS = ["", "plain", "ünï-çødé 🚚 \u202e", "nul\x00inside", '"; DROP TABLE jobs; --', "$literal"]


async def ids(store: Store, kind: Any, where: Where, order: tuple[str, ...] = ("id",)) -> list[str]:
    return [document.id for document in await store.find(kind, where, order)]


async def test_a_document_comes_back_as_it_was(store: Store) -> None:
    full = job(
        "j",
        definition=language.JobDefinition(
            name="n",
            inputs=dict.fromkeys(HOSTILE, "v"),
            tasks=[language.TaskDefinition(name="t", var="v")],
        ),
        description="d",
        tags=["b", "a", ""],
        parent_id="p",
        progress=33.33,
        created_by=Actor(id="u", username="alice", created_at=7),
        permissions=[language.Permission(user="alice"), language.Permission(role="ops")],
        schedule=ScheduleRef(id="s", cron="* * * * *"),
        created_at=1_760_000_000_000_001,
        result="done",
        then=[Intent(id="i", do="follow", at=1, args={"a.b": {"$c": [1, None, 1.5]}})],
    )
    assert await store.insert(full)
    assert await store.get(JobDocument, "j") == full
    ran = task("t", usage=RunUsage(1.5, 0.5, 2**40, sampled=True), seed=2**60, scope={"x": [1]})
    assert await store.insert(ran)
    assert await store.get(TaskDocument, "t") == ran


async def test_every_kind_can_be_stored(store: Store) -> None:
    made = [job("1"), task("1"), log_part("t", 1), node("1"), Pulse(id="1"), user("1", "u")]
    made += [
        items("1", []),
        delivery("1"),
        RoleDocument(id="1", name="r"),
    ]
    for document in made:
        assert await store.insert(document)
        assert await store.get(type(document), document.id) == document
    for kind in DOCUMENTS:
        assert await store.get(kind, "none") is None


@pytest.mark.parametrize("text", TEXTS)
async def test_any_text_comes_back_and_is_found(store: Store, text: str) -> None:
    await store.insert(job("j", body_hash=text, result=text, error=text))
    await store.insert(job("other", body_hash=f"{text}x"))
    found = await store.find(JobDocument, {"body_hash": text})
    assert [(one.id, one.body_hash, one.result, one.error) for one in found] == [
        ("j", text, text, text)
    ]


async def test_any_id_can_be_asked_for(store: Store) -> None:
    for id in TEXTS[1:]:
        assert await store.get(JobDocument, id) is None
        assert await store.insert(job(id))
        assert (await store.get_many(JobDocument, [id]))[0].id == id


async def test_free_values_keep_their_types(store: Store) -> None:
    values: list[Any] = [
        1,
        -1,
        2**63,
        2**64 - 1,
        1.0,
        -0.0,
        math.inf,
        True,
        None,
        "x",
        [],
        {},
        {"a.$b": [1]},
    ]
    await store.insert(items("i", [*values, math.nan]))
    found = await store.get(ItemsDocument, "i")
    assert found is not None
    assert repr(found.values) == repr([*values, math.nan])


async def test_hostile_keys_of_a_map(store: Store) -> None:
    queues = {key: number for number, key in enumerate(HOSTILE)}
    await store.insert(node("n", queues=queues))
    found = await store.get(NodeDocument, "n")
    assert found is not None
    assert found.queues == queues
    for key in HOSTILE:
        assert await ids(store, NodeDocument, {"queues": Has((key,))}) == ["n"]
        assert await ids(store, NodeDocument, {f"queues.{key}": queues[key]}) == ["n"]
        changed = await store.change(Change(kind=NodeDocument, id="n", set={f"queues.{key}": 99}))
        assert changed is not None
        assert changed.queues == queues | {key: 99}
        changed = await store.change(Change(kind=NodeDocument, id="n", set={f"queues.{key}": None}))
        assert changed is not None
        assert key not in changed.queues
        assert await ids(store, NodeDocument, {"queues": Has((key,))}) == []
        await store.change(Change(kind=NodeDocument, id="n", set={"queues": queues}))


async def test_an_entry_can_be_set_beside_others(store: Store) -> None:
    await store.insert(Pulse(id="p"))
    for name, stamp in (("a", 1), ("b", 2), ("a", 3)):
        await store.change(
            Change(
                kind=Pulse, id="p", set={f"stamps.{name}": stamp, f"forced.{name}": 5, "rev": stamp}
            )
        )
    found = await store.get(Pulse, "p")
    assert found == Pulse(id="p", stamps={"a": 3, "b": 2}, forced={"a": 5, "b": 5}, rev=3)


@pytest.mark.parametrize(
    "document",
    [
        job("j", progress=math.nan),
        job("j", depth=2**63),
        job("j", error="\ud800"),
        job("j", result="\ud800"),
        job("j", tags=["\ud800"]),
        job("j", result="x" * (17 << 20)),
        task("t", scope={"x": 2**70}),
        node("n", queues={"q": 2**70}),
    ],
)
async def test_what_no_store_keeps_is_refused(store: Store, document: Any) -> None:
    with pytest.raises(Unstorable):
        await store.insert(document)
    assert await store.get(type(document), document.id) is None
    await store.insert(job("after"))


async def test_a_change_to_what_no_store_keeps_is_refused(store: Store) -> None:
    await store.insert(job("j", error="x" * (9 << 20)))
    with pytest.raises(Unstorable):
        await store.change(Change(kind=JobDocument, id="j", set={"result": "x" * (9 << 20)}))
    with pytest.raises(Unstorable):
        await store.change(Change(kind=JobDocument, id="j", set={"progress": math.inf}))
    found = await store.get(JobDocument, "j")
    assert found is not None
    assert found.result is None


async def test_big_documents(store: Store) -> None:
    big = items("i", ["x" * 1000] * 15_000)
    assert await store.insert(big)
    assert await store.get(ItemsDocument, "i") == big


async def test_insert_leaves_what_is_there(store: Store) -> None:
    assert await store.insert(job("j", error="first"))
    assert not await store.insert(job("j", error="second"))
    found = await store.get(JobDocument, "j")
    assert found is not None
    assert found.error == "first"


async def test_insert_many_makes_the_rest(store: Store) -> None:
    await store.insert(task("3", error="kept"))
    made = [task(str(number)) for number in range(1200)]
    assert await store.insert_many(made) == 1199
    assert await store.insert_many(made) == 0
    assert await store.insert_many([]) == 0
    assert await store.count(TaskDocument, {}) == 1200
    kept = await store.get(TaskDocument, "3")
    assert kept is not None
    assert kept.error == "kept"


async def test_insert_many_of_several_kinds(store: Store) -> None:
    assert await store.insert_many([job("1"), task("1"), job("2"), task("1")]) == 3


async def test_a_slot_is_taken_once(store: Store) -> None:
    assert await store.insert(task("a", slot_of="e", slot=1))
    with pytest.raises(SlotTaken):
        await store.insert(task("b", slot_of="e", slot=1))
    assert not await store.insert(task("a", slot_of="e", slot=1))
    assert await store.insert(task("b", slot_of="e", slot=2))
    assert await store.insert(task("c", slot_of="f", slot=1))
    assert await store.insert(task("d", slot_of="e"))
    assert await store.insert_many([task("e", slot_of="e", slot=2), task("f", slot_of="e")]) == 1
    give = Change(kind=TaskDocument, id="d", set={"slot": 1})
    assert await store.change(give) is None
    assert await store.change_many([give]) == 0
    assert await store.change_first(TaskDocument, {"id": "d"}, (), {"slot": 1}) is None
    assert await store.change(Change(kind=TaskDocument, id="a", set={"active": False})) is not None
    given = await store.change(give)
    assert given is not None
    assert given.slot == 1


async def test_a_user_name_is_taken_once(store: Store) -> None:
    assert await store.insert(user("1", "alice"))
    with pytest.raises(SlotTaken):
        await store.insert(user("2", "alice"))
    assert await store.find(UserDocument, {"username": "alice"}) == [user("1", "alice")]


async def test_a_change_is_made_where_it_matches(store: Store) -> None:
    await store.insert(job("j", state="RUNNING", result="r"))
    lost = Change(kind=JobDocument, id="j", where={"state": "PENDING"}, set={"state": "FAILED"})
    assert await store.change(lost) is None
    assert await store.change(Change(kind=JobDocument, id="none", set={"state": "FAILED"})) is None
    won = Change(
        kind=JobDocument,
        id="j",
        where={"state": In(("RUNNING", "PENDING")), "restarts": Below(1), "error": None},
        set={"state": "FAILED", "result": None, "error": "$oops", "failed_at": 5},
    )
    after = await store.change(won)
    assert after == job("j", state="FAILED", error="$oops", failed_at=5)
    assert await store.get(JobDocument, "j") == after
    assert await store.change(won) is None


async def test_a_change_of_nothing_says_whether_it_matches(store: Store) -> None:
    await store.insert(job("j"))
    assert await store.change(Change(kind=JobDocument, id="j", where={"state": "PENDING"})) == job(
        "j"
    )
    assert await store.change(Change(kind=JobDocument, id="j", where={"state": "FAILED"})) is None


async def test_structs_and_closed_fields_can_be_set(store: Store) -> None:
    await store.insert(task("t"))
    evaluated = language.TaskDefinition(name="t", env={"A.B": "$x"})
    changed = await store.change(
        Change(
            kind=TaskDocument,
            id="t",
            set={
                "evaluated": evaluated,
                "usage": RunUsage(wall_seconds=2.0),
                "scope": {"$i": {"v": 1}},
            },
        )
    )
    assert changed is not None
    assert (changed.evaluated, changed.usage, changed.scope) == (
        evaluated,
        RunUsage(wall_seconds=2.0),
        {"$i": {"v": 1}},
    )
    changed = await store.change(
        Change(kind=TaskDocument, id="t", set={"usage": RunUsage(cpu_seconds=1.0)})
    )
    assert changed is not None
    assert changed.usage == RunUsage(cpu_seconds=1.0)
    again = await store.change(
        Change(kind=TaskDocument, id="t", set={"evaluated": None, "usage": None})
    )
    assert again == task("t", scope={"$i": {"v": 1}})


async def test_intents_are_added_once_and_dropped(store: Store) -> None:
    await store.insert(job("j"))

    async def then(**change: Any) -> list[str]:
        after = await store.change(Change(kind=JobDocument, id="j", **change))
        assert after is not None
        assert await store.get(JobDocument, "j") == after
        return [f"{each.id}{each.at}" for each in after.then]

    assert await then(add_then=(intent("a", 5), intent("b", 3), intent("a", 9))) == ["a5", "b3"]
    assert await then(add_then=(intent("a", 9), intent("c", 1))) == ["a5", "b3", "c1"]
    assert await then(drop_then=("b", "none")) == ["a5", "c1"]
    assert await then(drop_then=("a",), add_then=(intent("a", 7),), set={"depth": 1}) == [
        "c1",
        "a7",
    ]
    assert await then(drop_then=("a", "c")) == []
    assert await store.overdue(JobDocument, 100, 10) == []


async def test_overdue_finds_the_longest_overdue_first(store: Store) -> None:
    await store.insert(job("a", then=[intent("1", 50), intent("2", 10)]))
    await store.insert(job("b", then=[intent("1", 20)]))
    await store.insert(job("c"))
    await store.insert(task("d", then=[intent("1", 1)]))
    await store.change(Change(kind=JobDocument, id="c", add_then=(intent("1", 5),)))
    assert [each.id for each in await store.overdue(JobDocument, 100, 10)] == ["c", "a", "b"]
    assert [each.id for each in await store.overdue(JobDocument, 20, 10)] == ["c", "a"]
    assert [each.id for each in await store.overdue(JobDocument, 100, 1)] == ["c"]
    await store.change_many([Change(kind=JobDocument, id="a", drop_then=("2",))])
    assert [each.id for each in await store.overdue(JobDocument, 100, 10)] == ["c", "b", "a"]


async def test_numbers_come_back_as_plain_ones(store: Store) -> None:
    """Whatever a driver makes of them: they go on into other documents and messages."""
    big = 1 << 50
    await store.insert(job("a", created_at=big, then=[intent("1", big)]))
    await store.insert(Pulse(id="p", stamps={"q": big}, moved_at=big))
    found, pulse = await store.get(JobDocument, "a"), await store.get(Pulse, "p")
    assert found is not None
    assert pulse is not None
    numbers = [found.created_at, found.then[0].at, pulse.moved_at, pulse.stamps["q"]]
    assert [(type(number), number) for number in numbers] == [(int, big)] * 4


async def test_an_intent_is_put_off_only_while_it_is_there(store: Store) -> None:
    await store.insert(job("a", then=[intent("1", 10), intent("2", 20)]))
    later = tuple(msgspec.structs.replace(intent(id, 90), tries=2, error="why") for id in "13")
    change = Change(kind=JobDocument, id="a", put_off=later, overdue_before=50)
    image = await store.change(change)
    assert image is not None
    assert image.then == [later[0], intent("2", 20)]
    assert await store.change_many([change]) == 1
    assert await store.change_many([msgspec.structs.replace(change, overdue_before=20)]) == 0
    await store.change_many([Change(kind=JobDocument, id="a", drop_then=("2",))])
    assert await store.change(change) is None
    found = await store.get(JobDocument, "a")
    assert found is not None
    assert found.then == [later[0]]


async def test_overdue_leaves_out_what_need_not_be_read(store: Store) -> None:
    await store.insert(job("a", result="r", then=[intent("1", 1)]))
    (found,) = await store.overdue(JobDocument, 100, 10, ("result",))
    assert (found.result, found.then) == (None, [intent("1", 1)])


async def test_change_many_counts_what_matched(store: Store) -> None:
    await store.insert_many([task(str(number), state="PENDING") for number in range(700)])
    await store.change(Change(kind=TaskDocument, id="5", set={"state": "RUNNING"}))
    marks = [
        Change(
            kind=TaskDocument,
            id=str(number),
            where={"state": "PENDING"},
            set={"state": "SCHEDULED", "scheduled_at": number},
            add_then=(intent("x"),),
        )
        for number in range(701)
    ]
    assert await store.change_many(marks) == 699
    assert await store.change_many(marks) == 0
    assert await store.change_many([]) == 0
    assert await store.count(TaskDocument, {"state": "SCHEDULED"}) == 699


async def test_change_first_takes_the_first_that_matches(store: Store) -> None:
    await store.insert(task("a", parent_id="p", hold="concurrency", index=2))
    await store.insert(task("b", parent_id="p", hold="concurrency", index=1))
    await store.insert(task("c", parent_id="p", index=0))
    where = {"parent_id": "p", "hold": "concurrency"}
    taken = [
        await store.change_first(TaskDocument, where, ("index",), {"hold": None}, (intent("go"),))
        for _ in range(3)
    ]
    assert [each and (each.id, each.hold, len(each.then)) for each in taken] == [
        ("b", None, 1),
        ("a", None, 1),
        None,
    ]


async def test_delete_says_how_many(store: Store) -> None:
    await store.insert_many([task(str(number), position=number) for number in range(10)])
    assert await store.delete(TaskDocument, {"position": Below(6)}, limit=4) == 4
    assert await store.delete(TaskDocument, {"position": Below(6)}) == 2
    assert await store.delete(TaskDocument, {"position": Below(6)}) == 0
    assert await store.delete(TaskDocument, {}, limit=0) == 0
    assert await store.count(TaskDocument, {}) == 4


async def test_get_many_keeps_the_order_asked_for(store: Store) -> None:
    await store.insert_many([task(str(number)) for number in range(1500)])
    wanted = [str(number) for number in range(1499, -1, -1)]
    found = await store.get_many(TaskDocument, ["none", *wanted])
    assert [each.id for each in found] == wanted
    assert await store.get_many(TaskDocument, []) == []


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({}, "abcd"),
        ({"state": "RUNNING"}, "ab"),
        ({"hold": None}, "ad"),
        ({"hold": Not(None)}, "bc"),
        ({"hold": Not("x")}, "acd"),
        ({"hold": In(("x", None))}, "abd"),
        ({"hold": In(())}, ""),
        ({"position": Below(3)}, "ab"),
        ({"position": Above(3)}, "d"),
        ({"position": Between(2, 3)}, "bc"),
        ({"due_at": Between(0, 2**62)}, "c"),
        ({"due_at": Below(100)}, "c"),
        ({"due_at": Above(0)}, "c"),
        ({"open": True}, "ac"),
        ({"open": Not(True)}, "bd"),
        ({"open": In((True, False))}, "abcd"),
        ({"result": None}, "bcd"),
        ({"result": Not(None)}, "a"),
        ({"usage": Not(None)}, "b"),
        ({"usage.wall_seconds": Above(1)}, "b"),
        ({"progress": 50}, "c"),
        ({"id": In(("a", "d", "zz"))}, "ad"),
        ({"id": "c", "state": "PENDING"}, "c"),
        ({"id": "c", "state": "RUNNING"}, ""),
        ({"position": In(tuple(range(2, 1000)))}, "bcd"),
    ],
)
async def test_matchers(store: Store, where: Where, found: str) -> None:
    await store.insert(task("a", state="RUNNING", position=1, result="r"))
    await store.insert(
        task(
            "b", state="RUNNING", position=2, hold="x", open=False, usage=RunUsage(wall_seconds=2.0)
        )
    )
    await store.insert(task("c", state="PENDING", position=3, hold="y", due_at=5, progress=50.0))
    await store.insert(task("d", state="CREATED", position=4, open=False))
    assert "".join(await ids(store, TaskDocument, where)) == found
    assert await store.count(TaskDocument, where) == len(found)
    matches: dict[str, Any] = {"where": where, "set": {"error": "hit"}}
    if "id" not in where:
        changed = [await store.change(Change(kind=TaskDocument, id=id, **matches)) for id in "abcd"]
        assert "".join(each.id for each in changed if each) == found
    assert await store.delete(TaskDocument, where) == len(found)


async def test_has_looks_into_lists_and_maps(store: Store) -> None:
    await store.insert(job("a", tags=["x", "y"]))
    await store.insert(job("b", tags=["y"]))
    await store.insert(job("c"))
    assert await ids(store, JobDocument, {"tags": Has(("x", "z"))}) == ["a"]
    assert await ids(store, JobDocument, {"tags": Has(("y",))}) == ["a", "b"]
    assert await ids(store, JobDocument, {"tags": Has(())}) == []
    assert await ids(
        store, JobDocument, {"created_by.username": "guest", "tags": Has(("y", "x"))}
    ) == [
        "a",
        "b",
    ]


async def test_order_and_pages(store: Store) -> None:
    for id, position, due in (("a", 2, None), ("b", 1, 5), ("c", 2, 3), ("d", 1, None)):
        await store.insert(task(id, position=position, due_at=due))
    assert await ids(store, TaskDocument, {}, ("position", "-id")) == ["d", "b", "c", "a"]
    assert await ids(store, TaskDocument, {}, ("due_at", "id")) == ["a", "d", "c", "b"]
    assert await ids(store, TaskDocument, {}, ("-due_at", "id")) == ["b", "c", "a", "d"]
    page = await store.find(TaskDocument, {}, ("id",), limit=2, skip=1)
    assert [each.id for each in page] == ["b", "c"]
    assert await store.find(TaskDocument, {}, ("id",), limit=2, skip=9) == []
    assert await store.find(TaskDocument, {}, ("id",), limit=0) == []


async def test_fields_that_are_not_read(store: Store) -> None:
    await store.insert(task("t", result="r", scope={"a": 1}))
    found = await store.find(TaskDocument, {}, without=("result", "scope"))
    assert found == [task("t")]


async def test_counts(store: Store) -> None:
    for number in range(6):
        state = "RUNNING" if number < 4 else "FAILED"
        await store.insert(task(str(number), state=state, queue="q" if number else None))
    assert await store.count(TaskDocument, {}, cap=4) == 4
    assert await store.count(TaskDocument, {}, cap=9) == 6
    assert await store.group_count(TaskDocument, {}, "state") == {"RUNNING": 4, "FAILED": 2}
    assert await store.group_count(TaskDocument, {"state": "RUNNING"}, "queue") == {"q": 3}
    assert await store.group_count(TaskDocument, {"state": "NONE"}, "queue") == {}


async def test_wrong_names_are_refused(store: Store) -> None:
    await store.insert(job("j"))
    for where in ({"nothing": 1}, {"definition": 1}, {"state.x": 1}, {"state": Has(("x",))}):
        with pytest.raises(ValueError, match=r"job\b"):
            await store.find(JobDocument, where)
    for fixed in ("id", "name", "tags", "then", "definition.name"):
        with pytest.raises(ValueError, match=r"job\b"):
            await store.change(Change(kind=JobDocument, id="j", set={fixed: "x"}))


async def test_documents_of_other_versions_are_read(store: Store) -> None:
    await store.insert(node("n", queue="q"))
    found = await store.find(NodeDocument, {}, without=("queue", "queues", "draining"))
    assert msgspec.structs.asdict(found[0]) == msgspec.structs.asdict(node("n"))


async def test_the_clock_never_runs_backwards(store: Store) -> None:
    times = [store.now() for _ in range(1000)]
    assert times == sorted(times)
    assert times[0] > 1_700_000_000_000_000


async def test_ping(store: Store) -> None:
    await store.ping()


async def test_a_ping_fails_where_nothing_can_be_written(
    store: Store, store_place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "HOLDS", 0.0)
    store_place.refuse_writes()
    with pytest.raises(StoreUnavailable):
        await store.ping()
    assert await store.get(JobDocument, "j") is None
    store_place.take_writes()
    await store.ping()


async def test_many_pings_are_one_question(
    store: Store, store_place: StorePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "HOLDS", 600.0)
    await asyncio.gather(*(store.ping() for _ in range(50)))
    store_place.refuse_writes()
    await store.ping()
    store_place.take_writes()
