"""Nodes, queues, figures, scheduled jobs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from msgspec.structs import replace

from shared.broker.port import QueueInfo
from shared.model.documents import MICROS_PER_SECOND, JobDocument, NodeDocument
from tests.unit.api.served import HELLO, YAML, Served


async def node(api: Served, id: str, ago: float = 0, **fields: Any) -> None:
    now = api.store.now()
    await api.store.insert(
        NodeDocument(
            **{
                "id": id,
                "kind": "worker",
                "name": "Worker",
                "hostname": "some-host",
                "version": "0.1.0",
                "started_at": now - 1000 * MICROS_PER_SECOND,
                "last_heartbeat_at": now - round(ago * MICROS_PER_SECOND),
                "queue": f"x-{id}",
                **fields,
            }
        )
    )


async def test_nodes(api: Served) -> None:
    await node(api, "c", kind="coordinator", name="Coordinator", queue=None, cpu_percent=17.5)
    await node(api, "w", port=8001, task_count=2)
    await node(api, "late", ago=16)
    await node(api, "gone", ago=301)
    await node(api, "sick", status="DOWN")
    nodes = {found["id"]: found for found in (await api.get("/nodes")).json}
    assert set(nodes) == {"c", "w", "late", "sick"}
    assert "queue" not in nodes["c"]
    assert nodes["c"]["cpuPercent"] == 17.5
    assert (nodes["w"]["queue"], nodes["w"]["port"], nodes["w"]["taskCount"]) == ("x-w", 8001, 2)
    assert {id: found["status"] for id, found in nodes.items()} == {
        "c": "UP",
        "w": "UP",
        "late": "OFFLINE",
        "sick": "DOWN",
    }


async def test_draining(api: Served) -> None:
    await node(api, "w")
    await node(api, "c", kind="coordinator")
    assert (await api.ask("PUT", "/nodes/w/drain")).json == {"status": "OK"}
    statuses = {found["id"]: found["status"] for found in (await api.get("/nodes")).json}
    assert statuses == {"w": "DRAINING", "c": "UP"}
    assert (await api.ask("PUT", "/nodes/w/resume")).json == {"status": "OK"}
    assert (await api.ask("PUT", "/nodes/c/drain")).status == 400
    assert (await api.ask("PUT", "/nodes/x/drain")).status == 404


async def test_queues(api: Served) -> None:
    await api.broker.publish("default", b"x")
    await api.broker.publish("a b/c", b"x")
    queues = {queue["name"]: queue for queue in (await api.get("/queues")).json}
    assert queues["default"] == {"name": "default", "size": 1, "subscribers": 0, "unacked": 0}
    assert list(queues) == sorted(queues)
    assert (await api.get("/queues/default")).json == queues["default"]
    assert (await api.get("/queues/a%20b%2Fc")).json["size"] == 1
    for name in ("jobs", "dead", "heartbeat", "x-node"):
        assert (await api.ask("DELETE", f"/queues/{name}")).status == 400
    assert (await api.ask("DELETE", "/queues/a%20b%2Fc")).json == {"status": "OK"}
    assert (await api.ask("DELETE", "/queues/a%20b%2Fc")).status == 404


async def test_a_figure_that_is_not_known_is_left_out(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the broker cannot tell of a task queue is counted by the workers' beats; of others nobody knows it."""
    job = (await api.submit())["id"]
    await api.task(job, id="t1", queue="default", state="RUNNING")
    await node(api, "w", holding=["t1"])
    for name in ("default", "jobs"):
        await api.broker.publish(name, b"x")
    told = {queue.name: replace(queue, unacked=None) for queue in await api.broker.queues()}

    async def queues(names: Collection[str]) -> list[QueueInfo]:
        del names
        return list(told.values())

    async def queue(name: str) -> QueueInfo | None:
        return told.get(name)

    monkeypatch.setattr(api.broker, "queues", queues)
    monkeypatch.setattr(api.broker, "queue", queue)
    shown = {queue["name"]: queue for queue in (await api.get("/queues")).json}
    assert shown["default"] == {"name": "default", "size": 1, "subscribers": 0, "unacked": 1}
    assert shown["jobs"] == {"name": "jobs", "size": 1, "subscribers": 0}
    for name in ("default", "jobs"):
        assert (await api.get(f"/queues/{name}")).json == shown[name]


async def test_a_queue_that_tasks_wait_for_is_deleted_only_by_force(api: Served) -> None:
    job = (await api.submit())["id"]
    await api.broker.publish("gpu", b"x")
    await api.task(job, id="t1", queue="gpu", state="SCHEDULED")
    await api.task(job, id="t2", queue="gpu", state="PENDING")
    await api.task(job, id="t3", queue="gpu", state="RUNNING")
    await api.task(job, id="t4", queue="other", state="SCHEDULED")
    refused = await api.ask("DELETE", "/queues/gpu")
    assert refused.status == 400
    assert refused.json["message"].startswith("2 tasks wait in this queue")
    assert (await api.get("/queues/gpu")).json["size"] == 1
    for odd in ("force=maybe", "force=", "force"):
        assert (await api.ask("DELETE", f"/queues/gpu?{odd}")).status == 400
    assert (await api.ask("DELETE", "/queues/jobs?force=true")).status == 400
    assert (await api.ask("DELETE", "/queues/gpu?force=true")).json == {"status": "OK"}
    assert (await api.get("/queues/gpu")).status == 404


async def test_an_autoscaler_learns_how_many_slots_a_queue_has_use_for(api: Served) -> None:
    job = (await api.submit())["id"]
    await api.task(job, id="t1", queue="gpu", state="SCHEDULED")
    await api.task(job, id="t2", queue="gpu", state="PENDING")
    await api.task(job, id="t3", queue="gpu", state="RUNNING")
    await api.task(job, id="t4", queue="gpu", state="COMPLETED")
    await api.task(job, id="t5", queue="a b/c", state="SCHEDULED")
    assert (await api.get("/queues/gpu/scale")).json == {"desired": 3, "busy": 1, "ready": 2}
    assert (await api.get("/queues/a%20b%2Fc/scale")).json["ready"] == 1
    await api.broker.publish("events-x", b"x")
    assert (await api.get("/queues/events-x/scale")).json["ready"] == 0
    nothing = {"desired": 0, "busy": 0, "ready": 0}
    assert (await api.get("/queues/default/scale")).json == nothing
    await node(api, "w", queues={"idle": 2})
    assert (await api.get("/queues/idle/scale")).json == nothing
    for unknown in ("nothing", "jobs", "dead", "x-w"):
        answer = await api.get(f"/queues/{unknown}/scale")
        assert (answer.status, answer.message) == (404, "queue not found")


async def test_metrics_as_json(api: Served) -> None:
    await node(api, "a", cpu_percent=10)
    await node(api, "b", cpu_percent=20, draining=True)
    await node(api, "late", ago=20, cpu_percent=90)
    job = (await api.submit())["id"]
    await api.commands.become(job, "RUNNING")
    await api.task(job, state="RUNNING")
    for accept in ("application/json", "*/*", "text/html,application/json"):
        answer = await api.get("/metrics", headers={"Accept": accept})
        assert answer.json == {
            "jobs": {"running": 1},
            "tasks": {"running": 1},
            "nodes": {"online": 2, "cpuPercent": 15.0},
        }


async def test_metrics_for_prometheus(api: Served) -> None:
    await api.get("/jobs/x")
    await api.broker.publish("default", b"x")
    text = await api.get("/metrics", headers={"Accept": "text/plain"})
    assert text.headers["Content-Type"].startswith("text/plain; version=")
    assert "haulier_jobs_running 0.0" in text.text
    assert 'haulier_queue_size{queue="default"} 1.0' in text.text
    assert (
        'haulier_http_requests_total{method="GET",path="/jobs/{id}",status="404"} 1.0' in text.text
    )
    prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3,*/*;q=0.1"
    metrics = await api.get("/metrics", headers={"Accept": prometheus})
    assert metrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert metrics.text.endswith("# EOF\n")


SCHEDULED = HELLO + "schedule: {cron: '0 2 * * *', timezone: Europe/Berlin}\n"


async def test_scheduled_jobs(api: Served) -> None:
    answer = await api.ask("POST", "/scheduled-jobs", data=SCHEDULED, headers=YAML)
    assert answer.status == 200, answer.text
    made = answer.json
    expected = {
        "name": "hello",
        "cron": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "state": "ACTIVE",
        "tasks": [{"name": "say", "image": "alpine", "run": "echo hello"}],
    }
    assert {key: made[key] for key in expected} == expected
    assert made["nextAt"].endswith("Z")
    path = f"/scheduled-jobs/{made['id']}"
    assert (await api.get(path)).json == made
    page = (await api.get("/scheduled-jobs?size=5")).json
    assert (page["items"], page["totalItems"], page["size"]) == ([made], 1, 1)
    refused = await api.ask("PUT", f"{path}/resume")
    assert (refused.status, refused.message) == (400, "scheduled job is not paused")
    assert (await api.ask("PUT", f"{path}/pause")).json == {"status": "OK"}
    refused = await api.ask("PUT", f"{path}/pause")
    assert (refused.status, refused.message) == (400, "scheduled job is not active")
    assert (await api.ask("PUT", f"{path}/resume")).json == {"status": "OK"}
    assert await api.store.count(JobDocument, {}) == 0
    ran = await api.ask("POST", f"{path}/run")
    assert (ran.status, ran.json["name"], ran.json["state"]) == (200, "hello", "PENDING")
    changed = SCHEDULED.replace("0 2 * * *", "0 3 * * *")
    shown = await api.ask("PUT", path, data=changed, headers=YAML)
    assert (shown.status, shown.json["id"], shown.json["cron"]) == (200, made["id"], "0 3 * * *")
    assert (await api.get(path)).json["cron"] == "0 3 * * *"
    refused = await api.ask("PUT", path, data=HELLO, headers=YAML)
    assert (refused.status, refused.message) == (400, "schedule: required for a scheduled job")
    assert (await api.ask("DELETE", path)).json == {"status": "OK"}
    assert (await api.get(path)).status == 404
    assert (await api.ask("POST", f"{path}/run")).status == 404
    assert (await api.ask("PUT", path, data=changed, headers=YAML)).status == 404
    assert await api.store.count(JobDocument, {}) == 1, "what it made stays"


async def test_a_dry_run_schedules_nothing(api: Served) -> None:
    body = HELLO + "schedule: {cron: '@hourly'}\n"
    shown = await api.ask("POST", "/scheduled-jobs?dryRun=true", data=body, headers=YAML)
    assert (shown.status, shown.json["cron"]) == (200, "@hourly")
    bare = await api.ask("POST", "/scheduled-jobs?dryRun", data=body, headers=YAML)
    assert (bare.status, bare.message) == (400, "dryRun: must be true or false")
    assert (await api.get("/scheduled-jobs")).json["totalItems"] == 0


async def test_what_is_no_scheduled_job(api: Served) -> None:
    for body in (HELLO, HELLO + "schedule: {cron: 'x'}\n"):
        answer = await api.ask("POST", "/scheduled-jobs", data=body, headers=YAML)
        assert answer.status == 400
        assert "schedule" in answer.message
    answer = await api.ask("POST", "/jobs", data=SCHEDULED, headers=YAML)
    assert answer.status == 400
    answer = await api.ask("POST", "/scheduled-jobs", data=SCHEDULED)
    assert answer.status == 415
