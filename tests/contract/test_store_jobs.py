"""What every datastore promises of searches, logs, results and whole jobs."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.store import port
from coordinator.store.port import ResultsTooLarge, Store, Viewer
from shared.model import language
from shared.model.documents import (
    JobDocument,
    ScheduleRef,
    TaskDocument,
)
from shared.model.queries import Change
from tests.contract.documents import job, log_part, task


async def found(store: Store, *terms: str, **question: Any) -> str:
    asked: dict[str, Any] = {
        "tags_any": [],
        "state": None,
        "viewer": None,
        "skip": 0,
        "limit": 100,
        "cap": 1000,
    }
    page = await store.search_jobs(terms=terms, **(asked | question))
    assert page.total == len(page.items)
    assert not page.capped
    return "".join(each.id for each in page.items)


@pytest.fixture
async def jobs(store: Store) -> Store:
    await store.insert(job("a", name="Nightly Export", created_at=1, tags=["etl", "big data"]))
    await store.insert(
        job("b", name="export", description="of the Straße, déjà-vu", created_at=2, state="FAILED")
    )
    await store.insert(
        job(
            "c",
            name="ПРИВЕТ мир 🚀",
            description="日本語のジョブ",
            created_at=3,
            tags=["ETL", "x.y"],
        )
    )
    await store.insert(job("d", name="under_score AND or NOT", created_at=4, state="RUNNING"))
    return store


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        ((), "dcba"),
        (("export",), "ba"),
        (("EXPORT",), "ba"),
        (("nightly", "export"), "a"),
        (("export", "nothing"), ""),
        (("exp",), ""),
        (("exports",), ""),
        (("STRASSE",), "b"),
        (("straße",), "b"),
        (("déjà",), "b"),
        (("de\u0301ja\u0300-vu",), "b"),
        (("deja",), ""),
        (("привет",), "c"),
        (("🚀",), "c"),
        (("🚀", "привет"), "c"),
        (("🚀", "export"), ""),
        (("🛑",), ""),
        (("日本語のジョブ",), "c"),
        (("語のジ",), "c"),
        (("語",), "c"),
        (("語本",), ""),
        (("日ジ",), ""),
        (("failed",), "b"),
        (("running", "score"), "d"),
        (("pending", "export"), "a"),
        (("etl",), "ca"),
        (("data",), "a"),
        (("under_score",), "d"),
        (("AND",), "d"),
        (("NOT",), "d"),
        (("export", "AND"), ""),
        (('"export"',), "ba"),
        (("export*",), "ba"),
        (("exp*",), ""),
        (("*",), ""),
        (('"',), ""),
        (("$",), ""),
        (("-export",), "ba"),
        (("export", "&"), "ba"),
        (("export OR nightly",), ""),
        (("name:export",), ""),
        (("{$where", "1}"), ""),
        (("a" * 10_000,), ""),
        (("\ud800",), ""),
        (("\x00",), ""),
        (("export\x00",), "ba"),
    ],
)
async def test_terms(jobs: Store, terms: tuple[str, ...], expected: str) -> None:
    assert await found(jobs, *terms) == expected


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({"tags_any": [["etl"]]}, "a"),
        ({"tags_any": [["etl", "ETL"]]}, "ca"),
        ({"tags_any": [["etl"], ["big data"]]}, "a"),
        ({"tags_any": [["etl"], ["ETL"]]}, ""),
        ({"tags_any": [["x.y"]]}, "c"),
        ({"tags_any": [['"', "*", "$x", ""]]}, ""),
        ({"tags_any": [[]]}, ""),
        ({"state": "FAILED"}, "b"),
        ({"state": "PENDING", "tags_any": [["etl"]]}, "a"),
        ({"state": "NO SUCH"}, ""),
        ({"state": ""}, ""),
        ({"state": '"'}, ""),
    ],
)
async def test_filters(jobs: Store, question: dict[str, Any], expected: str) -> None:
    assert await found(jobs, **question) == expected


async def test_a_search_follows_the_state(jobs: Store) -> None:
    await jobs.change(Change(kind=JobDocument, id="d", set={"state": "COMPLETED"}))
    assert await found(jobs, "running") == ""
    assert await found(jobs, "completed") == "d"
    assert await found(jobs, state="COMPLETED") == "d"
    await jobs.delete(JobDocument, {"id": "d"})
    assert await found(jobs, "completed") == ""
    assert await found(jobs) == "cba"


async def test_pages_are_newest_first_with_a_capped_total(store: Store) -> None:
    await store.insert_many([job(f"{n:03}", created_at=n // 3, tags=["t"]) for n in range(60)])
    seen: list[str] = []
    for skip in range(0, 60, 7):
        page = await store.search_jobs(
            terms=[], tags_any=[["t"]], state=None, viewer=None, skip=skip, limit=7, cap=50
        )
        assert (page.total, page.capped) == (50, True)
        assert [each.created_at for each in page.items] == sorted(
            (each.created_at for each in page.items), reverse=True
        )
        seen += [each.id for each in page.items]
    assert sorted(seen) == [f"{n:03}" for n in range(60)]
    whole = await store.search_jobs(
        terms=[], tags_any=[], state=None, viewer=None, skip=0, limit=5, cap=50
    )
    assert (whole.total, whole.capped) == (60, False)
    exact = await store.search_jobs(
        terms=["t"], tags_any=[], state=None, viewer=None, skip=0, limit=5, cap=60
    )
    assert (exact.total, exact.capped) == (60, False)


async def test_a_search_need_not_read_what_is_large(jobs: Store) -> None:
    await jobs.change(Change(kind=JobDocument, id="c", set={"result": "x"}))
    for terms in ([], ["ПРИВЕТ"]):
        page = await jobs.search_jobs(
            terms=terms, tags_any=[], state=None, viewer=None, skip=0, limit=9, cap=9,
            without=("definition", "result"),
        )  # fmt: skip
        (found,) = [each for each in page.items if each.id == "c"]
        assert found.result is None
        assert found.tags == ["ETL", "x.y"]


async def test_many_jobs_of_one_moment(store: Store) -> None:
    made = [job(f"{n:05}", created_at=7, tags=["t"]) for n in range(2500)]
    assert await store.insert_many(made) == 2500
    await store.insert(job("later", created_at=8))
    page = await store.search_jobs(
        terms=["job"], tags_any=[], state=None, viewer=None, skip=0, limit=3000, cap=9999
    )
    assert len({each.id for each in page.items}) == page.total == 2501


async def test_viewers_see_what_they_may(store: Store) -> None:
    who = {
        "a": [],
        "b": [language.Permission(user="alice")],
        "c": [language.Permission(role="ops"), language.Permission(user="bob")],
        "d": [language.Permission(role="alice")],
    }
    for number, (id, permissions) in enumerate(who.items()):
        await store.insert(job(id, permissions=permissions, created_at=number))
    assert await found(store, viewer=Viewer("alice")) == "ba"
    assert await found(store, viewer=Viewer("bob", ("dev",))) == "ca"
    assert await found(store, viewer=Viewer("carl", ("dev", "ops"))) == "ca"
    assert await found(store, viewer=Viewer("")) == "a"
    assert await found(store, "job", viewer=Viewer("alice")) == "ba"
    assert await found(store) == "dcba"


async def log(store: Store, **question: Any) -> str:
    asked: dict[str, Any] = {"job_id": None, "task_ids": None, "terms": [], "skip": 0, "limit": 100}
    page = await store.log_page(**(asked | question))
    assert page.total == len(page.items)
    return " ".join(f"{each.task_id}{each.number}" for each in page.items)


async def test_log_pages(store: Store) -> None:
    parts = [log_part("t", n, contents=f"Line {n} of $x.*\n", created_at=n) for n in (1, 2, 3)]
    parts += [log_part("u", 1, contents="ÄRGER (x\n", created_at=2, job_id="k")]
    await store.append_log(parts)
    await store.append_log([log_part("t", 3, contents="changed"), log_part("t", 4)])
    assert await log(store, job_id="j") == "t4 t3 t2 t1"
    assert await log(store, task_ids=["t", "u"]) in ("t4 t3 t2 u1 t1", "t4 t3 u1 t2 t1")
    assert await log(store, task_ids=[]) == ""
    assert await log(store, job_id="j", terms=["LINE"]) == "t3 t2 t1"
    assert await log(store, job_id="j", terms=["line", "2"]) == "t2"
    assert await log(store, job_id="j", terms=["$X.*"]) == "t3 t2 t1"
    assert await log(store, job_id="j", terms=[".*"]) == "t3 t2 t1"
    assert await log(store, job_id="j", terms=["("]) == ""
    assert await log(store, task_ids=["u"], terms=["ärger", "(x"]) == "u1"
    page = await store.log_page(job_id="j", task_ids=None, terms=[], skip=1, limit=2)
    assert ([each.number for each in page.items], page.total) == ([3, 2], 4)


async def test_vars_are_of_the_latest_that_completed(store: Store) -> None:
    def ended(id: str, var: str, at: int, result: str | None, **fields: Any) -> TaskDocument:
        state = fields.pop("state", "COMPLETED")
        return task(id, var=var, completed_at=at, result=result, state=state, **fields)

    await store.insert_many(
        [
            ended("1", "a", 1, "old"),
            ended("2", "a", 2, "new"),
            ended("3", "a", 3, "failed", state="FAILED"),
            ended("4", "a", 4, "later restart", restarts=1),
            ended("5", "b.$x", 1, "dotted"),
            ended("6", "empty", 1, None),
            ended("7", "a", 9, "of another job", job_id="other"),
            task("8", state="COMPLETED", result="no var"),
        ]
    )
    everything = {"a": "new", "b.$x": "dotted", "empty": ""}
    assert await store.vars("j", None, 0) == everything
    assert await store.vars("j", None, 1) == everything | {"a": "later restart"}
    assert await store.vars("j", ["a", "none"], 0) == {"a": "new"}
    assert await store.vars("j", [], 0) == {}


async def test_vars_are_read_up_to_so_many_bytes(store: Store) -> None:
    ended = [
        task(name, var=name, completed_at=1, result="x" * 1000, state="COMPLETED") for name in "abc"
    ]
    await store.insert_many([*ended, task("old", var="a", completed_at=0, result="x" * 9000)])
    assert set(await store.vars("j", None, 0, most=4000)) == {"a", "b", "c"}
    assert set(await store.vars("j", ["a", "b"], 0, most=2100)) == {"a", "b"}
    for names in (None, ["a", "b", "c"]):
        with pytest.raises(ResultsTooLarge):
            await store.vars("j", names, 0, most=2900)


async def test_vars_are_read_up_to_so_many_names(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs a look: a job of 100,000 vars and 1,000 tasks that name them all would cost as many millions."""
    monkeypatch.setattr(port, "MOST_VARS", 2)
    await store.insert_many(
        [task(name, var=name, completed_at=1, result="x", state="COMPLETED") for name in "abc"]
    )
    assert set(await store.vars("j", ["a", "b"], 0, most=100)) == {"a", "b"}
    assert set(await store.vars("j", None, 0)) == {"a", "b", "c"}
    for names in (None, ["a", "b", "c"]):
        with pytest.raises(ResultsTooLarge, match="more than 2 results"):
            await store.vars("j", names, 0, most=100)


async def test_vars_of_earlier_restarts_are_those_of_positions_before(store: Store) -> None:
    def ended(id: str, var: str, position: int, restarts: int, at: int) -> TaskDocument:
        return task(
            id,
            var=var,
            position=position,
            restarts=restarts,
            completed_at=at,
            result=id,
            state="COMPLETED",
        )

    await store.insert_many(
        [
            ended("1", "a", 1, 0, 1),
            ended("2", "b", 2, 0, 9),
            ended("3", "b", 2, 1, 3),
            ended("4", "c", 2, 0, 4),
            ended("5", "d", 3, 2, 5),
        ]
    )
    assert await store.vars("j", None, 1, 2) == {"a": "1", "b": "3"}
    assert await store.vars("j", ["b", "c", "d"], 1, 2) == {"b": "3"}
    assert await store.vars("j", None, 0, None) == {"a": "1", "b": "2", "c": "4"}


async def test_questions_of_any_length(jobs: Store) -> None:
    words = [f"w{number}" for number in range(4000)]
    assert await found(jobs, *words) == ""
    assert await found(jobs, "export", tags_any=[["etl", *words]]) == "a"
    assert await found(jobs, tags_any=[[word] for word in words]) == ""
    await jobs.insert(job("e", description=" ".join(words), created_at=9, tags=words))
    assert await found(jobs, *words) == "e"
    assert await found(jobs, tags_any=[[word] for word in words]) == "e"
    assert await found(jobs, viewer=Viewer("x", tuple(words))) == "edcba"
    assert await log(jobs, task_ids=words, terms=words) == ""
    assert await log(jobs, job_id="j", terms=["x" * 40_000, "(" * 5000, "\x00\n\ud800"]) == ""


async def test_a_search_takes_other_conditions(store: Store) -> None:
    ref = ScheduleRef(id="s1", cron="* * * * *")
    await store.insert(job("a", created_at=1, schedule=ref))
    await store.insert(job("b", created_at=2, parent_id="t", name="deep"))
    await store.insert(job("c", created_at=3, schedule=ref, state="FAILED", name="deep"))
    assert await found(store, where={"schedule.id": "s1"}) == "ca"
    assert await found(store, where={"schedule.id": "s1"}, state="FAILED") == "c"
    assert await found(store, "deep", where={"schedule.id": "s1"}) == "c"
    assert await found(store, where={"parent_id": None}) == "ca"
    assert await found(store, "deep", where={"parent_id": "t"}) == "b"
    assert await found(store, "deep", where={"parent_id": None}) == "c"
    page = await store.search_jobs(
        terms=[], tags_any=[], state=None, viewer=None, skip=0, limit=1, cap=1,
        where={"parent_id": None},
    )  # fmt: skip
    assert (page.total, page.capped) == (1, True)


async def test_who_looks_at_a_schedules_jobs_finds_those_that_they_may_see(store: Store) -> None:
    ref = ScheduleRef(id="s1", cron="* * * * *")
    for number, who in enumerate((None, "ann", "bob")):
        may_see = [language.Permission(user=who)] if who else []
        await store.insert(
            job(str(number), created_at=number + 1, schedule=ref, permissions=may_see)
        )
    where = {"schedule.id": "s1"}
    assert await found(store, where=where, viewer=Viewer("ann")) == "10"
    assert await found(store, where=where, viewer=Viewer("ann"), state="PENDING") == "10"
    assert await found(store, where=where, viewer=Viewer("ann"), state="FAILED") == ""
    roles = tuple(f"role {number}" for number in range(4_000))
    assert await found(store, where=where, viewer=Viewer("bob", roles)) == "20"


async def test_tags_are_counted_among_the_newest_that_may_be_seen(store: Store) -> None:
    await store.insert(job("a", created_at=1, tags=["x", "old"]))
    hidden = [language.Permission(user="ann")]
    await store.insert(job("b", created_at=2, tags=["x", "a b"], permissions=hidden))
    await store.insert(job("c", created_at=3, tags=["x"]))
    await store.insert(job("d", created_at=4))
    assert await store.tag_counts(None, 100) == {"x": 3, "a b": 1, "old": 1}
    assert await store.tag_counts(None, 3) == {"x": 2, "a b": 1}
    assert await store.tag_counts(Viewer("bob"), 2) == {"x": 1}
    assert await store.tag_counts(Viewer("ann"), 100) == {"x": 3, "a b": 1, "old": 1}


async def test_log_pages_from_a_time_on_and_oldest_first(store: Store) -> None:
    for number in range(1, 5):
        await store.append_log([log_part("t", number, created_at=number * 10)])
    asked: dict[str, Any] = {"job_id": "j", "task_ids": None, "terms": [], "skip": 0, "limit": 9}
    late = await store.log_page(**asked, since=30)
    assert [part.number for part in late.items] == [4, 3]
    assert late.total == 2
    old = await store.log_page(**asked | {"skip": 1, "limit": 2}, oldest_first=True)
    assert [part.number for part in old.items] == [2, 3]


async def test_log_pages_up_to_a_time_and_uncounted(store: Store) -> None:
    parts = [log_part("t", number, created_at=number * 10) for number in range(1, 6)]
    await store.append_log(parts)
    asked: dict[str, Any] = {"job_id": "j", "task_ids": None, "skip": 0, "limit": 2}
    for terms in ([], ["text"]):
        some = await store.log_page(**asked, terms=terms, until=40)
        assert ([part.number for part in some.items], some.total) == ([4, 3], 4)
        some = await store.log_page(**asked, terms=terms, since=30, until=40)
        assert ([part.number for part in some.items], some.total) == ([4, 3], 2)
        some = await store.log_page(**asked, terms=terms, until=40, counted=False)
        assert ([part.number for part in some.items], some.total) == ([4, 3], 2)
        assert not some.capped
