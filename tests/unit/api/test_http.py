"""HTTP itself: methods, slashes, broken requests, slow ones, the request log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re

import pytest
from structlog.testing import capture_logs

from coordinator.api import app, http
from coordinator.api.app import ALL_ROUTES
from shared import http_server
from shared.config.tree import RequestLog
from tests.unit.api.conftest import Serve
from tests.unit.api.served import HELLO, YAML, Served, configured


async def raw(api: Served, request: bytes) -> tuple[int, dict[str, object]]:
    """Send bytes, and return the status and JSON of what comes back."""
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(request)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    found = json.loads(body)
    assert isinstance(found, dict)
    return int(head.split()[1]), found


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/jobs", "GET, HEAD, POST"),
        ("DELETE", "/jobs", "GET, HEAD, POST"),
        ("GET", "/jobs/x/cancel", "PUT"),
        ("POST", "/queues", "GET, HEAD"),
        ("OPTIONS", "/health", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_not_allowed(
    api: Served, method: str, path: str, allowed: str
) -> None:
    answer = await api.ask(method, path)
    assert answer.status == 405
    assert allowed in answer.message
    assert {part.strip() for part in answer.headers["Allow"].split(",")} == set(allowed.split(", "))


@pytest.mark.parametrize(
    "path", ["/nowhere", "/jobs/a/b/c", "/jobs//log", "//", "/%00", "/jobs%2Fx"]
)
async def test_no_such_path(api: Served, path: str) -> None:
    answer = await api.get(path)
    assert answer.status == 404
    assert answer.message


async def test_a_slash_at_the_end(api: Served) -> None:
    job = (await api.submit())["id"]
    assert (await api.get("/jobs/")).json == (await api.get("/jobs")).json
    assert (await api.get(f"/jobs/{job}/")).status == 200
    assert (await api.ask("PUT", f"/jobs/{job}/cancel/")).status == 200
    answer = await api.ask("POST", "/jobs/", data=HELLO, headers=YAML)
    assert answer.status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /jobs HTTP/1.1\r\nHost: x\r\nbad header\r\nConnection: close\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /jobs HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_proper_request(api: Served, request_bytes: bytes) -> None:
    status, body = await raw(api, request_bytes)
    assert status == 400
    assert body["message"]


async def test_an_unknown_expectation(api: Served) -> None:
    request = b"GET /health HTTP/1.1\r\nHost: x\r\nExpect: magic\r\nConnection: close\r\n\r\n"
    status, body = await raw(api, request)
    assert status == 417
    assert body["message"]


async def test_a_body_that_announces_too_much_is_not_read(api: Served) -> None:
    for method, path in (("POST", "/jobs"), ("PUT", "/jobs/x/cancel")):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\n"
        status, body = await raw(api, f"{head}Content-Length: 99999999\r\n\r\n".encode())
        assert status == 413
        assert body["message"]


async def test_a_body_that_does_not_come(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_TIME", 0.1)
    head = b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\nContent-Length: 100\r\n\r\nna"
    status, body = await raw(api, head)
    assert status == 408
    assert body["message"]


async def test_a_body_that_breaks_off(api: Served) -> None:
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(
        b"POST /jobs HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\nContent-Length: 100\r\n\r\nna"
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    assert (await api.get("/jobs")).json["totalItems"] == 0


async def test_a_request_is_logged_unless_skipped(start: Serve) -> None:
    log = RequestLog(skip=("GET /health", "GET /queues*"))
    api = await start(configured(request_log=log))
    with capture_logs() as entries:
        await api.get("/health")
        await api.get("/queues/x?secret=1")
        await api.get("/jobs/x%0Ay")
        await api.ask("PUT", "/health")
    logged = [entry for entry in entries if entry["event"] == "request"]
    assert [(entry["method"], entry["path"], entry["status"]) for entry in logged] == [
        ("GET", "/jobs/x\ny", 404),
        ("PUT", "/health", 405),
    ]
    assert logged[0]["user"] == "guest"


async def test_an_accident_is_logged_and_not_shown(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the password is hunter2")

    monkeypatch.setattr(api.store, "search_jobs", broken)
    with capture_logs() as entries:
        answer = await api.get("/jobs")
    assert answer.status == 500
    assert "hunter2" not in answer.text
    assert any(entry["event"] == "a request failed" for entry in entries)


async def test_answers_are_not_kept(api: Served) -> None:
    answer = await api.get("/jobs")
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_headers_that_do_not_come(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "IDLE_TIME", 0.2)
    api = await start()
    reader, writer = await asyncio.open_connection(api.host, api.port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    await writer.drain()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def test_connections_leave_half_of_the_descriptors_to_the_process(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "descriptor_limit", lambda: 8)
    lines = [await asyncio.open_connection(api.host, api.port) for _ in range(4)]
    async with asyncio.timeout(5):
        reader, writer = await asyncio.open_connection(api.host, api.port)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        lines[0][1].close()
        await lines[0][1].wait_closed()
        for _, line in lines[1:]:
            line.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        for answer, _ in lines[1:]:
            assert (await answer.read()).startswith(b"HTTP/1.1 200 ")
    assert (await api.get("/health/live")).status == 200


ODD = [
    "x",
    "0",
    "%00",
    "%ff",
    "%ed%a0%80",
    "..",
    "%2e%2e%2f",
    "a" * 300,
    "%F0%9F%92%A9",
    "{id}",
    "*",
    "-1",
]


@pytest.mark.parametrize("seed", range(4))
async def test_no_request_is_an_accident(api: Served, seed: int) -> None:
    chance = random.Random(seed)
    job = (await api.submit())["id"]
    await api.task(job)
    known = [job, "t1", "default", "jobs"]
    for _ in range(150):
        route = chance.choice([route for route in ALL_ROUTES if "stream" not in route.path])
        if route.path == "/events":
            continue
        path = re.sub(r"\{\w+\}", lambda _: chance.choice(ODD + known), route.path)
        names = ["page", "size", "q", "state", "tag", "dryRun", "format", chance.choice(ODD)]
        query = "&".join(f"{chance.choice(names)}={chance.choice(ODD)}" for _ in range(3))
        body = chance.choice([b"", b"{", b"\xff\xfe", b"[]", HELLO.encode(), b"null", b'{"a":1}'])
        kinds = ["text/yaml", "application/json", "text/plain", ";", "application/json; charset=x"]
        headers = {"Content-Type": chance.choice(kinds), "Accept": chance.choice(ODD[:2])}
        answer = await api.ask(
            chance.choice([route.method, "GET", "POST", "PUT", "DELETE"]),
            f"{path}?{query}",
            data=body,
            headers=headers,
        )
        assert answer.status < 500, (route.method, path, query, body, answer.text)
        if answer.status >= 400:
            assert answer.message
