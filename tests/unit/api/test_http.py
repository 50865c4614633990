"""HTTP itself: methods, slashes, broken requests, slow ones, the request log."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import resource
import socket

import pytest
from structlog.testing import capture_logs

from coordinator.api import app, http
from coordinator.api.app import ALL_ROUTES
from coordinator.api.sharing import Slices
from shared import http_server
from shared.config.schema import RequestLog
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


@pytest.fixture
def unlingering(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_LINGER", 0.05)


@pytest.mark.usefixtures("unlingering")
async def test_a_body_that_announces_too_much_is_not_read(api: Served) -> None:
    for method, path in (("POST", "/jobs"), ("PUT", "/jobs/x/cancel")):
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/yaml\r\n"
        status, body = await raw(api, f"{head}Content-Length: 99999999\r\n\r\n".encode())
        assert status == 413
        assert body["message"]


@pytest.mark.usefixtures("unlingering")
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
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8, 8))
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


async def test_empty_parameters_are_defaults(api: Served) -> None:
    for path in (
        "/jobs?page=&size=&q=&state=&tag=",
        "/scheduled-jobs?page=",
        "/audit?size=&since=",
    ):
        assert (await api.get(path)).status == 200, path


async def _asked(api: Served, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask for a path over a connection whose answer waits with the server until it is read."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    await asyncio.get_running_loop().sock_connect(small, (api.host, api.port))
    reader, writer = await asyncio.open_connection(sock=small, limit=1024)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {api.host}\r\n\r\n".encode())
    return reader, writer


async def _long_log(api: Served) -> str:
    job = (await api.submit())["id"]
    state = {"state": "COMPLETED", "run": 1, "log_parts": 150, "ended_at": api.store.now()}
    await api.log(await api.task(job, **state), *["x" * 65_000 + "\n"] * 150)
    await api.commands.become(job, "COMPLETED")
    return str(job)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["log/stream", "log/download", "log?size=1000"])
async def test_a_client_that_stops_reading_is_let_go_of(
    start: Serve, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(http_server, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(http_server, "READS_WITHIN", 0.3)
    api = await start()
    job = await _long_log(api)
    stopped = await _asked(api, f"/jobs/{job}/{what}")
    reads = await _asked(api, f"/jobs/{job}/{what}")
    size = 0
    while size < 9_000_000:
        part = await reads[0].readexactly(1_000_000)
        size += len(part)
        await asyncio.sleep(0.1)
    while len(api.runner.server.connections) > 2:
        await api.get("/health")
    for _, writer in (stopped, reads):
        writer.close()


async def test_the_kernel_keeps_little_for_a_client_that_does_not_read(api: Served) -> None:
    await api.get("/health")
    assert api.runner.server is not None
    sockets = [
        each.transport.get_extra_info("socket")
        for each in api.runner.server.connections
        if each.transport
    ]
    kept = [each.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) for each in sockets]
    assert kept
    assert max(kept) <= 512 * 1024, "the kernel doubles what it is asked for"


async def test_any_number_of_long_answers_leaves_the_loop_as_much_room_as_one() -> None:
    slices, rounds, made = Slices(), [0], []

    async def long_answer() -> None:
        for _ in range(20):
            await slices.next()
            made.append(rounds[0])

    def again() -> None:
        rounds[0] += 1
        asyncio.get_running_loop().call_soon(again)

    again()
    await asyncio.gather(*(long_answer() for _ in range(30)))
    assert len(set(made)) == 20 * 30


async def test_when_too_much_waits_for_clients_those_that_read_nothing_go_first(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "_LOOK_EVERY", 0.05)
    monkeypatch.setattr(http_server, "BUFFERED", 20_000_000)
    api = await start()
    job = await _long_log(api)
    asked = [await _asked(api, f"/jobs/{job}/log?size=1000") for _ in range(6)]

    async def waiting() -> int:
        await api.get("/health")
        connections = [each for each in api.runner.server.connections if each.transport]
        return sum(each.transport.get_write_buffer_size() for each in connections)

    while len(api.runner.server.connections) > 4:
        await waiting()
    assert await waiting() < 30_000_000
    for _, writer in asked:
        writer.close()
