"""What answers cost: documents of which a few fields are wanted are read without what is large in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from shared.model.documents import DeliveryDocument, Document, JobDocument, TaskDocument
from tests.unit.api.served import Served

LARGE = (JobDocument, TaskDocument, DeliveryDocument)


@pytest.fixture
def whole(api: Served, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is read whole in lists: the kinds."""
    found: list[str] = []
    find, get_many = api.store.find, api.store.get_many

    async def finding(kind: type[Document], *args: Any, **more: Any) -> list[Any]:
        if kind in LARGE and not set(kind.heavy) <= set(more.get("without", ())):
            found.append(kind.noun())
        return await find(kind, *args, **more)

    async def getting(kind: type[Document], ids: Sequence[str]) -> list[Any]:
        if kind in LARGE and len(ids) > 1:
            found.append(kind.noun())
        return await get_many(kind, ids)

    monkeypatch.setattr(api.store, "find", finding)
    monkeypatch.setattr(api.store, "get_many", getting)
    return found


async def test_a_shortened_id_is_looked_for_in_small_documents(
    api: Served, whole: list[str]
) -> None:
    job = await api.submit()
    await api.task(job["id"], id="c" * 32)
    for path in (f"/jobs/{job['id'][:8]}/deliveries", "/tasks/cccccc/log"):
        assert (await api.get(path)).status == 200
    assert (await api.get("/jobs/000000")).status in (200, 404)
    assert whole == []


async def test_tasks_of_a_node_and_a_stream_that_goes_on_read_small_documents(
    api: Served, whole: list[str]
) -> None:
    jobs = [await api.submit() for _ in range(3)]
    for job in jobs:
        await api.task(job["id"], id=f"t{job['id']}", state="RUNNING", node_id="n", run=1)
    assert (await api.get("/tasks?nodeId=n&size=1")).json["totalItems"] == 3
    over = (await api.submit())["id"]
    await api.commands.become(over, "COMPLETED")
    cursor = "1-a~a.1.1.1~b.1.1.1"
    await api.events(f"/jobs/{over}/log/stream", **{"Last-Event-ID": cursor})
    assert whole == []


@pytest.mark.parametrize("what", ["log", "log?q=x", "deliveries"])
async def test_lists_of_a_job_read_small_documents(
    api: Served, whole: list[str], what: str
) -> None:
    job = await api.submit()
    at = api.store.now()
    ended = {"state": "COMPLETED", "run": 1, "log_parts": 1, "started_at": at, "ended_at": at}
    for id in ("a", "b"):
        await api.log(await api.task(job["id"], id=id, **ended), "x\n")
        await api.store.insert(DeliveryDocument(id=id, job_id=job["id"], url="http://h"))
    answer = await api.get(f"/jobs/{job['id']}/{what}")
    assert answer.json["totalItems"] == 2
    assert whole == []
