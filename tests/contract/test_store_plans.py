"""The questions of the hot paths are answered from indexes, without a look at everything or a sort.

They are asked of the server's own planner: MongoDB's `explain`, SQLite's `EXPLAIN QUERY PLAN`.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from typing import Any

import pymongo
import pytest

from coordinator.store.mongodb import queries
from coordinator.store.mongodb.schema import NEWEST_FIRST
from coordinator.store.port import Store, Viewer
from coordinator.store.search import understood
from coordinator.store.sqlite import reads
from coordinator.store.sqlite.sql import Clause, order_clause, where_clause
from shared.model.documents import (
    AuditDocument,
    AuditIntentDocument,
    DeliveryDocument,
    Document,
    ItemsDocument,
    JobDocument,
    LogPartDocument,
    ScheduleDocument,
    TaskDocument,
    TokenDocument,
    UserDocument,
)
from shared.model.queries import Above, Below, Between, In, Where
from tests.contract.conftest import OF_THE_PRODUCT, StorePlace
from tests.contract.documents import job

Question = tuple[type[Document], Where, tuple[str, ...]]

QUESTIONS: list[Question] = [
    (JobDocument, {"id": "j"}, ()),
    (JobDocument, {"parent_id": "t", "state": In(("RUNNING", "PENDING"))}, ()),
    (JobDocument, {"root_id": "j", "state": "RUNNING"}, ()),
    (JobDocument, {"ended_at": Above(5)}, ("-ended_at",)),
    (JobDocument, {"delete_at": Below(5)}, ("delete_at",)),
    (JobDocument, {}, ("-created_at", "-id")),
    (JobDocument, {"state": "RUNNING"}, ("-created_at", "-id")),
    (JobDocument, {"schedule.id": "s"}, ("-created_at", "-id")),
    (TaskDocument, {"job_id": "j"}, ("position", "created_at")),
    (TaskDocument, {"job_id": "j"}, ("-position", "-created_at")),
    (
        TaskDocument,
        {"job_id": "j", "kind": "container", "created_at": Above(5)},
        ("created_at", "id"),
    ),
    (TaskDocument, {"job_id": "j", "open": True, "active": True, "restarts": Below(2)}, ()),
    (TaskDocument, {"job_id": "j", "var": "v", "state": "COMPLETED"}, ("-completed_at",)),
    (TaskDocument, {"parent_id": "t", "open": True}, ()),
    (TaskDocument, {"parent_id": "t", "state": In(("COMPLETED", "SKIPPED"))}, ()),
    (TaskDocument, {"slot_of": "t", "hold": "concurrency", "state": "CREATED"}, ("index",)),
    (TaskDocument, {"window_of": "j", "hold": "window"}, ("created_at", "index")),
    (TaskDocument, {"slot_of": "t", "open": True}, ()),
    (TaskDocument, {"state": "PENDING", "published_at": Below(5)}, ("published_at",)),
    (
        TaskDocument,
        {"state": "SCHEDULED", "queue": "q", "published_at": Below(5)},
        ("published_at",),
    ),
    (
        TaskDocument,
        {"state": "SCHEDULED", "queue": In(("q", "r")), "published_at": Below(5)},
        ("published_at",),
    ),
    (TaskDocument, {"hold": "concurrency", "slot_of": Above("t")}, ("slot_of",)),
    (TaskDocument, {"hold": "window", "window_of": Above("j")}, ("window_of",)),
    (
        TaskDocument,
        {"state": "RUNNING", "kind": "container", "published_at": Above(5)},
        ("-published_at",),
    ),
    (TaskDocument, {"hold": "delay", "due_at": Below(5)}, ("due_at",)),
    (TaskDocument, {"node_id": "n", "state": "RUNNING", "epoch": Below(2)}, ()),
    (ItemsDocument, {"task_id": "t", "digest": "d", "first": Below(5)}, ("-first",)),
    (ItemsDocument, {"job_id": "j"}, ()),
    (LogPartDocument, {"task_id": "t", "run": 1, "number": Above(5)}, ("number",)),
    (LogPartDocument, {"id": In(("t.1.1", "u.1.1"))}, ()),
    (LogPartDocument, {"job_id": "j"}, ("-created_at", "-number")),
    (LogPartDocument, {"task_id": "t"}, ("-created_at", "-number")),
    (
        LogPartDocument,
        {"job_id": "j", "created_at": Between(5, 9)},
        ("-created_at", "-number"),
    ),
    (LogPartDocument, {"created_at": Below(5)}, ()),
    (DeliveryDocument, {"state": "PENDING", "due_at": Below(5)}, ("due_at",)),
    (DeliveryDocument, {"state": "PENDING"}, ("user", "due_at")),
    (DeliveryDocument, {"state": "PENDING", "user": Above("u")}, ("user", "due_at")),
    (DeliveryDocument, {"job_id": "j"}, ()),
    (ScheduleDocument, {"state": "ACTIVE", "next_at": Below(5)}, ("next_at",)),
    (UserDocument, {"username": "alice"}, ()),
    (TokenDocument, {"username": "alice", "session": False}, ("username", "created_at")),
    (TokenDocument, {"session": False}, ("username", "created_at")),
    (TokenDocument, {"expires_at": Below(5)}, ()),
    (AuditIntentDocument, {"at": Below(5)}, ("at",)),
    (AuditDocument, {}, ("-at", "-id")),
    (AuditDocument, {"at": Above(5)}, ("-at", "-id")),
    (AuditDocument, {"username": "ann"}, ("-at", "-id")),
    (AuditDocument, {"target": "j"}, ("-at", "-id")),
    (AuditDocument, {"action": "x"}, ("-at", "-id")),
    (AuditDocument, {"chain": "c", "number": Above(5)}, ("number",)),
    (AuditDocument, {"chain": Above("c")}, ("chain", "number")),
    (AuditDocument, {"sealed_at": Below(5)}, ()),
]


@pytest.mark.parametrize("store_place", OF_THE_PRODUCT, indirect=True)
@pytest.mark.parametrize(
    "question", QUESTIONS, ids=lambda asked: f"{asked[0].__name__}-{'-'.join(asked[1])}"
)
async def test_a_question_is_answered_from_an_index(
    store_place: StorePlace, store: Store, question: Question
) -> None:
    kind, where, order = question
    if store_place.name == "sqlite":
        plan = sqlite_plan(store_place, kind, where, order)
        assert not [step for step in plan if "SCAN" in step and "USING" not in step], plan
        assert not [step for step in plan if "TEMP B-TREE" in step], plan
    else:
        query, sort = queries.query_of(kind, where), queries.sort_of(kind, order)
        assert_indexed(store_place, kind, query, sort)


def sqlite_plan(
    place: StorePlace, kind: type[Document], where: Where, order: tuple[str, ...]
) -> list[str]:
    clause = where_clause(kind, where)
    asked = f"SELECT * FROM {kind.collection} WHERE {clause.sql}{order_clause(kind, order)}"
    return planned(place, Clause(asked, clause.values))


def planned(place: StorePlace, asked: Clause) -> list[str]:
    with closing(sqlite3.connect(place.path)) as connection:
        plan = connection.execute(f"EXPLAIN QUERY PLAN {asked.sql}", asked.values)
        return [str(row[3]) for row in plan]


def assert_indexed(
    place: StorePlace, kind: type[Document], query: dict[str, Any], sort: list[tuple[str, int]]
) -> None:
    with pymongo.MongoClient[dict[str, Any]](place.database.url) as client:
        found = client[place.database.name][kind.collection].find(query)
        plan = json.dumps(
            (found.sort(sort) if sort else found).explain()["queryPlanner"]["winningPlan"]
        )
    assert "COLLSCAN" not in plan, plan
    assert '"SORT"' not in plan, plan
    assert "IXSCAN" in plan or "IDHACK" in plan, plan


@pytest.mark.parametrize("store_place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("state", [None, "FAILED"])
@pytest.mark.parametrize("viewer", [None, Viewer("alice", ("ops",))])
async def test_the_jobs_of_a_schedule_are_looked_up(
    store_place: StorePlace, store: Store, state: str | None, viewer: Viewer | None
) -> None:
    """However many jobs others have made."""
    search = understood([], [], state, viewer, {"schedule.id": "s"})
    assert search is not None
    asked = reads._matching(search)
    first = planned(store_place, asked)[0]
    assert first.startswith("SEARCH jobs USING INDEX"), first


@pytest.mark.parametrize(
    "search",
    [
        understood(["alpha"], [], None, None),
        understood(["alpha", "beta"], [], None, None),
        understood(["failed"], [], None, None),
        understood([], [["a", "b"]], None, None),
        understood([], [], "FAILED", None),
        understood([], [], None, Viewer("alice", ("ops",))),
        understood(["alpha"], [["a"], ["b"]], "FAILED", Viewer("alice", ("ops",))),
    ],
)
@pytest.mark.mongodb
@pytest.mark.parametrize("store_place", ["mongodb"], indirect=True)
async def test_a_search_goes_along_an_index(
    store_place: StorePlace, store: Store, search: Any
) -> None:
    await store.insert_many([job(str(n), name="alpha beta", tags=["a"]) for n in range(50)])
    assert_indexed(store_place, JobDocument, queries.search_query(search), NEWEST_FIRST)
