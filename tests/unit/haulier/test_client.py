"""The client, against a real server."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web

from haulier import ApiError, Client, HaulierError, UnreachableError
from tests.unit.haulier.seed_server import JOB_ID, OTHER_TASK_ID, TASK_ID, SeedServer, task

YAML = "name: from yaml\ntasks: [{name: a, run: echo}]\n"


async def test_submits_text_files_and_data(server: SeedServer, tmp_path: Path) -> None:
    as_yaml, as_json = tmp_path / "job.yaml", tmp_path / "job.json"
    as_yaml.write_text(YAML)
    as_json.write_text('{"name": "from json"}')
    async with Client(server.url) as client:
        names = [
            (await client.submit(document)).name
            for document in (YAML, YAML.encode(), as_yaml, as_json, {"name": "from data"})
        ]
        await client.submit(YAML, idempotency_key="k")
        await client.check(YAML)
    assert names == ["from yaml", "from yaml", "from yaml", "from json", "from data"]
    types = [headers["Content-Type"] for headers in server.headers]
    assert types == ["text/yaml"] * 3 + ["application/json"] * 2 + ["text/yaml"] * 2
    assert server.headers[5]["Idempotency-Key"] == "k"
    assert server.requests[6] == ("POST", "/jobs?dryRun=true")
    assert server.bodies[0] == YAML.encode()


async def test_answers_are_typed(server: SeedServer) -> None:
    async with Client(server.url) as client:
        page = await client.jobs("tag:x y", state="FAILED", page=2, size=5)
        job = await client.job(JOB_ID)
        tasks = await client.job_tasks(JOB_ID)
        one = await client.task(TASK_ID)
    assert server.requests[0] == ("GET", "/jobs?q=tag:x+y&state=FAILED&page=2&size=5")
    assert (page.total_items, page.total_pages, page.items[0].state) == (11, 2, "COMPLETED")
    assert page.items[0].created_by is not None
    assert page.items[0].created_by.username == "guest"
    assert job.created_at == datetime(2023, 9, 5, 1, 33, 8, 413605, tzinfo=UTC)
    assert (job.result, job.ended, job.tasks[1]["name"]) == ("the result", True, "second")
    assert [each.name for each in job.execution] == ["first", "second"]
    assert tasks.items == job.execution
    assert one == job.execution[0]


async def test_the_cluster(server: SeedServer) -> None:
    async with Client(server.url) as client:
        nodes = await client.nodes()
        queues = await client.queues()
        assert await client.queue("default") == queues[0]
        metrics = await client.metrics()
        await client.drain("n 1")
        await client.resume("n/1")
        await client.delete_queue("a?b#c")
        await client.delete_queue("gpu", force=True)
    assert [node.name for node in nodes] == ["Coordinator", "Worker"]
    assert (nodes[1].task_count, nodes[1].port) == (3, 8001)
    assert (queues[0].size, queues[0].subscribers, queues[0].unacked) == (12, 3, 3)
    assert (metrics.jobs.running, metrics.tasks.running, metrics.nodes.online) == (1, 2, 3)
    assert server.requests[-4:] == [
        ("PUT", "/nodes/n%201/drain"),
        ("PUT", "/nodes/n%2F1/resume"),
        ("DELETE", "/queues/a%3Fb%23c"),
        ("DELETE", "/queues/gpu?force=true"),
    ]


async def test_scheduled_jobs_and_users(server: SeedServer) -> None:
    async with Client(server.url) as client:
        scheduled = await client.schedule(YAML)
        assert await client.scheduled_job(scheduled.id) == scheduled
        assert (await client.scheduled_jobs(page=1)).items == [scheduled]
        await client.pause_scheduled_job(scheduled.id)
        await client.resume_scheduled_job(scheduled.id)
        await client.delete_scheduled_job(scheduled.id)
        user = await client.add_user("ann", "secret", "Ann")
        assert await client.users() == [user]
        assert await client.roles() == [await client.add_role("ops")]
        await client.grant_role("ann", "ops")
        await client.revoke_role("ann", "ops")
    assert (scheduled.cron, scheduled.state) == ("0 5 * * *", "ACTIVE")
    assert server.bodies[6] == b'{"username":"ann","password":"secret","name":"Ann"}'
    assert server.requests[-1] == ("DELETE", "/users/ann/roles/ops")


async def test_a_refusal_carries_status_and_message(server: SeedServer) -> None:
    async with Client(server.url) as client:
        with pytest.raises(ApiError) as refused:
            await client.cancel(JOB_ID)
        assert (refused.value.status, str(refused.value)) == (400, "job is not running")
        with pytest.raises(ApiError) as missing:
            await client.job("nope")
        assert missing.value.status == 404
        with pytest.raises(ApiError) as nameless:
            await client.job("..")
        assert nameless.value.status == 404
        with pytest.raises(ApiError, match="name: missing\ntasks: missing"):
            await client.submit("- not a job")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (web.Response(status=502, body=b"<html>"), "the server answered 502 Bad Gateway"),
        (web.Response(status=302, headers={"Location": "https://x/"}), "redirects to https://x/"),
        (web.Response(status=500, body=b'{"message": 3}'), "the server answered 500"),
        (web.Response(body=b"<html>not ours</html>"), "makes no sense"),
        (web.Response(body=b"\xff\xfe"), "makes no sense"),
        (web.Response(body=b'{"items": 3}'), "makes no sense"),
    ],
)
async def test_answers_of_others(server: SeedServer, answer: web.Response, message: str) -> None:
    server.fail_with = answer
    async with Client(server.url) as client:
        with pytest.raises(HaulierError, match=message):
            await client.jobs()


async def test_down_is_an_answer(server: SeedServer) -> None:
    async with Client(server.url) as client:
        assert (await client.health()).status == "UP"
        server.health_status = 503
        health = await client.health()
    assert (health.status, health.message) == ("DOWN", "broker: does not answer within 2 s")


async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(UnreachableError, match=f"127.0.0.1:{port}: connection refused"):
                await client.health()


async def test_a_server_that_resets_the_connection() -> None:
    """As one does that wants TLS, or a certificate: the hint does not depend on how it cuts."""

    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        line = writer.get_extra_info("socket")
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with await asyncio.start_server(reset, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(UnreachableError, match=r"reset by peer .*begin with https"):
                await client.health()


async def test_a_server_that_never_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        async with Client(f"http://127.0.0.1:{port}", timeout=0.1) as client:
            with pytest.raises(UnreachableError, match="the server did not answer in time"):
                await client.nodes()


@pytest.mark.parametrize("address", ["ftp://x", "http://", "http://[", "http://h/?q=1", " ", "a b"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(HaulierError, match="not a server URL"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("https://h/api/", "https://h/api"),
        ("http://u:p%40w@h:1", "http://h:1"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_without_its_password(address: str, server: str) -> None:
    assert Client(address).server == server


async def test_credentials(server: SeedServer) -> None:
    host = server.url.removeprefix("http://")
    async with Client(f"http://ann:p%40w@{host}") as client:
        await client.nodes()
    async with Client(server.url, key="k3y") as client:
        await client.nodes()
    sent = [headers.get("Authorization") for headers in server.headers]
    assert sent == ["Basic YW5uOnBAdw==", "Bearer k3y"]


async def followed(client: Client) -> list[tuple[str, str]]:
    async with aclosing(client.follow_job_log(JOB_ID)) as lines:
        return [(line.task_id, line.text) async for line in lines]


async def test_follows_a_log_to_its_end(server: SeedServer) -> None:
    async with Client(server.url) as client:
        assert await followed(client) == server.lines
        async with aclosing(client.follow_task_log(TASK_ID)) as lines:
            assert [line.text async for line in lines] == ["hello", "", "wörld"]


async def test_a_cut_stream_goes_on_without_gap_or_repeat(server: SeedServer) -> None:
    server.lines = [(TASK_ID, f"line {number}") for number in range(7)]
    server.cut_after = 3
    server.refuse_streams = 1
    async with Client(server.url) as client:
        assert await followed(client) == server.lines
    resumed = [headers.get("Last-Event-ID") for headers in server.headers]
    assert resumed == [None, None, "3", "6"]


async def test_a_stream_gives_up_after_its_patience(server: SeedServer) -> None:
    server.refuse_streams = 1000
    async with Client(server.url, patience=0.0) as client:
        with pytest.raises(ApiError, match="the datastore is away"):
            await followed(client)


async def test_a_stream_that_is_refused_for_good(server: SeedServer) -> None:
    server.fail_with = web.json_response({"message": "job not found"}, status=404)
    async with Client(server.url) as client:
        with pytest.raises(ApiError, match="job not found"):
            await followed(client)


async def test_no_stream_at_all(server: SeedServer) -> None:
    server.fail_with = web.Response(body=b"hello")
    async with Client(server.url) as client:
        with pytest.raises(HaulierError, match="did not return an event stream"):
            await followed(client)


async def test_events(server: SeedServer) -> None:
    async with Client(server.url) as client, aclosing(client.events(job="j", type="job")) as events:
        event = await anext(events)
    assert (event.type, event.data) == ("job.StateChange", {"jobId": "j", "state": "RUNNING"})
    assert server.requests == [("GET", "/events?job=j&type=job")]


async def test_logs_by_page_and_whole(server: SeedServer) -> None:
    async with Client(server.url) as client:
        page = await client.job_log(JOB_ID, q="x", page=1, size=2)
        assert [part.contents for part in page.items] == ["wörld\n", "\n"]
        assert page.items[0].task_id == OTHER_TASK_ID
        assert (await client.task_log(TASK_ID)).total_pages == 1
        chunks = [chunk async for chunk in client.download_log(JOB_ID)]
    assert b"".join(chunks).decode() == "hello\n\nwörld\n"


async def test_waits_until_the_end(server: SeedServer) -> None:
    server.states = ["PENDING", "RUNNING", "FAILED"]
    async with Client(server.url) as client:
        job = await client.wait(JOB_ID)
    assert (job.state, len(server.requests)) == ("FAILED", 4), "whole at first and at the end"


async def test_goes_on_waiting_while_the_server_is_away(server: SeedServer) -> None:
    server.states = ["RUNNING"]

    async def asked(times: int) -> None:
        while len(server.requests) < times:  # noqa: ASYNC110 - the server is in another thread
            await asyncio.sleep(0.01)

    async def away_and_back() -> None:
        await asked(1)
        server.fail_with = web.Response(status=503, body=b'{"message": "the datastore is away"}')
        await asked(len(server.requests) + 2)
        server.job["state"] = "COMPLETED"
        server.fail_with = None

    async with Client(server.url) as client:
        job, _ = await asyncio.gather(client.wait(JOB_ID), away_and_back())
    assert job.state == "COMPLETED"
    server.job["state"], server.states = "RUNNING", ["RUNNING"]
    server.fail_with = web.Response(status=503)
    async with Client(server.url) as client:
        with pytest.raises(ApiError):
            await client.wait(JOB_ID)


async def test_fields_of_a_newer_server_are_passed_over(server: SeedServer) -> None:
    server.job["execution"] = [task(TASK_ID, 1, "a", exitCode=137, logIncomplete=True)]
    async with Client(server.url) as client:
        found = (await client.job(JOB_ID)).execution[0]
    assert (found.exit_code, found.log_incomplete) == (137, True)
