"""GET /health, and what holds without the datastore or the broker."""

from __future__ import annotations

import pytest

from tests.unit.api.served import HELLO, VERSION, YAML, Served


async def test_up(api: Served) -> None:
    answer = await api.get("/health")
    assert answer.status == 200
    assert answer.json == {"status": "UP", "version": VERSION}


async def test_without_the_broker_only_health_and_queues_fail(api: Served) -> None:
    await api.broker.close()
    health = await api.get("/health")
    assert health.status == 503
    assert health.json["status"] == "DOWN"
    assert health.json["failing"] == "broker"
    queues = await api.get("/queues")
    assert queues.status == 503
    assert "broker" in queues.message
    assert (await api.get("/nodes")).status == 200
    assert (await api.get("/metrics")).status == 200
    await api.submit()


ENDPOINTS = [
    ("GET", "/jobs"),
    ("GET", "/jobs/x"),
    ("GET", "/jobs/x/tasks"),
    ("PUT", "/jobs/x/cancel"),
    ("PUT", "/jobs/x/restart"),
    ("DELETE", "/jobs/x"),
    ("GET", "/jobs/x/log"),
    ("GET", "/jobs/x/log/stream"),
    ("GET", "/jobs/x/log/download"),
    ("GET", "/tasks/x"),
    ("GET", "/tasks/x/log"),
    ("GET", "/tasks/x/log/stream"),
    ("GET", "/events"),
    ("GET", "/nodes"),
    ("PUT", "/nodes/x/drain"),
    ("GET", "/queues"),
    ("GET", "/queues/default"),
    ("DELETE", "/queues/mine"),
    ("GET", "/metrics"),
    ("GET", "/scheduled-jobs"),
    ("GET", "/scheduled-jobs/x"),
    ("GET", "/users"),
    ("GET", "/roles"),
]


async def test_without_the_datastore_everything_answers_503(api: Served) -> None:
    await api.store.close()
    health = await api.get("/health")
    assert health.status == 503
    assert health.json["failing"] == "datastore"
    assert health.json["message"]
    for method, path in ENDPOINTS:
        answer = await api.ask(method, path)
        assert answer.status == 503, (method, path, answer.text)
        assert "datastore" in answer.message
    answer = await api.ask("POST", "/jobs", data=HELLO, headers=YAML)
    assert answer.status == 503


@pytest.mark.parametrize("path", ["/health", "/jobs", "/queues", "/nodes"])
async def test_head_is_get_without_a_body(api: Served, path: str) -> None:
    answer = await api.ask("HEAD", path)
    assert (answer.status, answer.body) == (200, b"")
