"""A small real server that speaks the REST API's shapes, for the client and the command."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import yaml
from aiohttp import web

JOB_ID = "9d7d7184b8f244249c5f5d8b4074f72e"
TASK_ID = "aa76535bc23649ca9403e636e377aca3"
OTHER_TASK_ID = "bb76535bc23649ca9403e636e377aca3"
SUB_ID = "cc76535bc23649ca9403e636e377aca3"
TIME = "2023-09-05T01:33:08.413605Z"


def summary(**more: Any) -> dict[str, Any]:
    return {
        "id": JOB_ID,
        "name": "my job",
        "state": "COMPLETED",
        "createdAt": TIME,
        "startedAt": TIME,
        "completedAt": "2023-09-05T01:33:14.167127Z",
        "position": 3,
        "taskCount": 2,
        "progress": 100.0,
        "createdBy": {
            "id": "1" * 32,
            "username": "guest",
            "name": "Guest",
            "createdAt": TIME,
            "disabled": False,
        },
        **more,
    }


def task(task_id: str, position: int, name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": task_id,
        "jobId": JOB_ID,
        "position": position,
        "name": name,
        "state": "COMPLETED",
        "createdAt": TIME,
        "run": "echo hello world",
        "image": "alpine:3.18.3",
        "queue": "default",
        "nodeId": "93a1cd11800741e6863d1adef3bc3d18",
        "progress": 100.0,
        "aFieldOfTomorrow": {"x": 1},
        **more,
    }


NODES = [
    {
        "id": "V2CjY4HYEaUCtTZziuJh6M",
        "name": "Coordinator",
        "startedAt": "2024-06-15T19:51:51.111662-04:00",
        "cpuPercent": 17.977528051675314,
        "lastHeartbeatAt": "2024-06-15T23:51:51.226284Z",
        "status": "UP",
        "hostname": "some-host-1",
        "version": "0.1.87",
    },
    {
        "id": "2C2LtZRhktaieM768LQpbP",
        "name": "Worker",
        "startedAt": "2024-06-15T23:51:50.995903Z",
        "cpuPercent": 9.95,
        "lastHeartbeatAt": "2024-06-15T23:51:51.135511Z",
        "queue": "x-2C2LtZRhktaieM768LQpbP",
        "status": "UP",
        "hostname": "some-host-2",
        "version": "0.1.87",
        "taskCount": 3,
        "port": 8001,
    },
]
QUEUES = [
    {"name": "default", "size": 12, "subscribers": 3, "unacked": 3},
    {"name": "jobs", "size": 0, "subscribers": 1, "unacked": 0},
]


class SeedServer:
    """The server, on a loop and thread of its own. What it answers with may be changed at any time."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.job: dict[str, Any] = {
            **summary(result="the result"),
            "tasks": [{"name": "first", "run": "echo"}, {"name": "second", "run": "echo"}],
            "execution": [task(TASK_ID, 1, "first"), task(OTHER_TASK_ID, 2, "second")],
            "context": {"job": {"id": JOB_ID, "name": "my job"}},
        }
        self.lines: list[tuple[str, str]] = [
            (TASK_ID, "hello"),
            (TASK_ID, ""),
            (OTHER_TASK_ID, "wörld"),
        ]
        self.sub_lines: list[tuple[str, str]] = []
        self.sub_job: dict[str, Any] = {}
        """A sub-job, with the id SUB_ID, if there is one."""
        self.tasks: list[dict[str, Any]] = []
        """All tasks of the job, where its own answer leaves some out."""
        self.schedule_pages = 1
        self.states: list[str] = []
        """The job's next states, one for each time that it is asked for; the last one stays."""
        self.cut_after: int | None = None
        """After how many lines each connection of a stream is cut."""
        self.hold_stream = False
        """Whether a stream stays open after its lines."""
        self.refuse_streams = 0
        self.health_status = 200
        self.capped_pages = 0
        """How many pages of jobs there are where the total stops at two; 0: there are two."""
        self.date = ""
        """What the server says is the time, if it is wrong."""
        self.fail_with: web.Response | None = None
        self.streaming = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="seed-server", daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(10)

    def stop(self) -> None:
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        app = web.Application(middlewares=[self._record])
        app.add_routes(self._routes())
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    @web.middleware
    async def _record(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        self.headers.append(dict(request.headers))
        self.bodies.append(await request.read())
        if self.fail_with is not None:
            return self.fail_with.__class__(
                status=self.fail_with.status,
                body=self.fail_with.body,
                headers=self.fail_with.headers,
            )
        try:
            answer: web.StreamResponse = await handler(request)
        except web.HTTPNotFound:
            return _refusal(404, "not found")
        if self.date:
            answer.headers["Date"] = self.date
        return answer

    def _routes(self) -> list[web.RouteDef]:
        done = self._done
        return [
            web.get("/health", self._health),
            web.get("/jobs", self._jobs),
            web.post("/jobs", self._submit),
            web.get("/jobs/{id}", self._job),
            web.put("/jobs/{id}/{change:cancel|restart}", self._change),
            web.delete("/jobs/{id}", self._change),
            web.get("/{kind:jobs|tasks}/{id}/why", self._why),
            web.post("/jobs/{id}/rerun", self._rerun),
            web.get("/jobs/{id}/tasks", self._tasks),
            web.get("/{kind:jobs|tasks}/{id}/log", self._log),
            web.get("/{kind:jobs|tasks}/{id}/log/stream", self._stream),
            web.get("/jobs/{id}/log/download", self._download),
            web.get("/tasks/{id}", self._task),
            web.get("/events", self._events),
            web.get("/nodes", self._answer(NODES)),
            web.put("/nodes/{id}/{change}", done),
            web.get("/queues", self._answer(QUEUES)),
            web.get("/queues/{name}", self._queue),
            web.delete("/queues/{name}", done),
            web.get("/metrics", self._answer(METRICS)),
            web.post("/scheduled-jobs", self._answer(SCHEDULED)),
            web.get("/scheduled-jobs", self._schedules),
            web.get("/scheduled-jobs/{id}", self._answer(SCHEDULED)),
            web.put("/scheduled-jobs/{id}/{change}", done),
            web.delete("/scheduled-jobs/{id}", done),
            web.post("/scheduled-jobs/{id}/run", self._answer(summary(state="PENDING"))),
            web.put("/users/{name}", self._answer(USER)),
            web.put("/users/me/password", done),
            web.delete("/users/{name}", done),
            web.get("/audit", self._answer(_page([AUDIT]))),
            web.get("/tokens", self._answer([TOKEN])),
            web.post("/tokens", self._answer({**TOKEN, "token": "hlr_text"})),
            web.delete("/tokens/{id}", done),
            web.get("/users", self._answer([USER])),
            web.post("/users", self._answer(USER)),
            web.get("/roles", self._answer([ROLE])),
            web.post("/roles", self._answer(ROLE)),
            web.put("/users/{name}/roles/{role}", done),
            web.delete("/users/{name}/roles/{role}", done),
        ]

    def _answer(self, body: Any) -> Any:
        async def handler(_request: web.Request) -> web.Response:
            return web.json_response(body)

        return handler

    async def _done(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "OK"})

    async def _health(self, _request: web.Request) -> web.Response:
        up = self.health_status == 200
        body = {"status": "UP" if up else "DOWN", "version": "0.1.0"}
        if not up:
            body["message"] = "broker: does not answer within 2 s"
        return web.json_response(body, status=self.health_status)

    async def _jobs(self, request: web.Request) -> web.Response:
        number = int(request.query.get("page", "1"))
        page = {**_page([summary()]), "number": number, "totalPages": 2, "totalItems": 11}
        if self.capped_pages:
            page |= {"totalCapped": True, "items": [summary()] * (number <= self.capped_pages)}
        return web.json_response(page)

    async def _schedules(self, request: web.Request) -> web.Response:
        number = int(request.query.get("page", "1"))
        pages = {"number": number, "totalPages": self.schedule_pages}
        return web.json_response(_page([SCHEDULED]) | pages)

    async def _submit(self, request: web.Request) -> web.Response:
        if request.content_type not in ("text/yaml", "application/json"):
            return _refusal(415, "unknown content type")
        job = yaml.safe_load(await request.read())
        if not isinstance(job, dict) or "name" not in job:
            return _refusal(400, "name: missing\ntasks: missing")
        return web.json_response(summary(name=job["name"], state="PENDING", progress=0.0))

    def _known(self, request: web.Request) -> None:
        if request.match_info["id"] != self.job["id"]:
            raise web.HTTPNotFound

    async def _job(self, request: web.Request) -> web.Response:
        if self.sub_job and request.match_info["id"] == SUB_ID:
            return web.json_response(self.sub_job)
        self._known(request)
        if self.states:
            self.job["state"] = self.states.pop(0)
            for each in self.job["execution"]:
                if each["state"] == "RUNNING":
                    each["state"] = self.job["state"]
        return web.json_response(self.job)

    async def _change(self, request: web.Request) -> web.Response:
        self._known(request)
        if request.match_info.get("change") == "cancel" and self.job["state"] == "COMPLETED":
            return _refusal(400, "job is not running")
        return web.json_response({"status": "OK"})

    async def _why(self, request: web.Request) -> web.Response:
        known = JOB_ID if request.match_info["kind"] == "jobs" else TASK_ID
        if request.match_info["id"] != known:
            raise web.HTTPNotFound
        return web.json_response(WHY)

    async def _rerun(self, request: web.Request) -> web.Response:
        self._known(request)
        if (await request.json()).get("dryRun"):
            step = {"position": 1, "name": "first", "reason": "it completed"}
            return web.json_response({"kept": [step], "run": [{"position": 2, "name": "second"}]})
        return web.json_response(summary(state="PENDING", rerunOf=JOB_ID))

    async def _tasks(self, request: web.Request) -> web.Response:
        self._known(request)
        asked = request.query
        found = [
            each
            for each in self.tasks or self.job["execution"]
            if (asked.get("parentId") != "none" or "parentId" not in each)
            and (not asked.get("state") or each["state"] in asked["state"].split(","))
        ]
        size = int(asked.get("size", len(found) or 1))
        number = int(asked.get("page", 1))
        start = (number - 1) * size
        pages = {
            "number": number,
            "totalPages": -(-len(found) // size),
            "totalItems": len(found),
        }
        return web.json_response(_page(found[start : start + size]) | pages)

    async def _task(self, request: web.Request) -> web.Response:
        for each in [*self.job["execution"], *self.sub_job.get("execution", [])]:
            if each["id"] == request.match_info["id"]:
                return web.json_response(each)
        raise web.HTTPNotFound

    def _part(self, number: int, task_id: str, line: str) -> dict[str, Any]:
        at = f"2023-09-05T01:33:{number % 60:02}.000000Z"
        contents = f"{line}\n"
        return {
            "id": f"p{number}",
            "number": number,
            "taskId": task_id,
            "contents": contents,
            "createdAt": at,
        }

    async def _log(self, request: web.Request) -> web.Response:
        size, page = int(request.query.get("size", "25")), int(request.query.get("page", "1"))
        id = request.match_info["id"]
        lines = self.sub_lines if id == SUB_ID else self.lines
        parts = [self._part(number, *line) for number, line in enumerate(lines, 1)]
        if request.match_info["kind"] == "tasks":
            parts = [part for part in parts if part["taskId"] == id]
        if request.query.get("tail"):
            parts = parts[-int(request.query["tail"]) :]
        if request.query.get("order") != "asc":
            parts = parts[::-1]
        shown = parts[(page - 1) * size : page * size]
        body = {**_page(shown), "number": page, "totalPages": -(-len(parts) // size)}
        return web.json_response(body)

    async def _download(self, request: web.Request) -> web.Response:
        self._known(request)
        return web.Response(text="".join(f"{line}\n" for _, line in self.lines))

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_streams:
            self.refuse_streams -= 1
            return _refusal(503, "the datastore is away")
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"retry: 1\n\n: a comment\n\n")
        first = int(request.headers.get("Last-Event-ID", "0"))
        lines = self.sub_lines if request.match_info["id"] == SUB_ID else self.lines
        for sent, (task_id, line) in enumerate(lines[first:]):
            if sent == self.cut_after:
                assert request.transport is not None
                request.transport.close()  # without the end of the body
                return response
            part = self._part(first + sent + 1, task_id, line)
            data = json.dumps(part) if request.query.get("format") == "json" else line
            await response.write(f"id: {first + sent + 1}\ndata: {data}\n\n".encode())
        self.streaming.set()
        if self.hold_stream:
            assert self._stop is not None
            await self._stop.wait()
        await response.write(b'event: end\ndata: {"state":"COMPLETED"}\n\n')
        return response

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'event: job.StateChange\ndata: {"jobId":"j","state":"RUNNING"}\n\n')
        return response

    async def _queue(self, request: web.Request) -> web.Response:
        for queue in QUEUES:
            if queue["name"] == request.match_info["name"]:
                return web.json_response(queue)
        raise web.HTTPNotFound


WHY = {
    "state": "FAILED",
    "reason": "exitCode",
    "message": "it failed at second: exit code 2",
    "task": {"id": TASK_ID, "name": "second"},
    "lastLine": "no such file",
}
TOKEN = {"id": "t" * 32, "name": "ci", "username": "ann", "role": "user", "createdAt": TIME}
AUDIT = {
    "id": "e1",
    "at": TIME,
    "username": "ann",
    "address": "192.0.2.1",
    "action": "cancel_job",
    "target": JOB_ID,
    "status": 200,
}
METRICS = {
    "jobs": {"running": 1},
    "tasks": {"running": 2},
    "nodes": {"online": 3, "cpuPercent": 1.5},
}
SCHEDULED = {
    "id": "c" * 32,
    "name": "nightly",
    "cron": "0 5 * * *",
    "timezone": "UTC",
    "state": "ACTIVE",
    "createdAt": TIME,
    "nextAt": TIME,
}
USER = {"id": "u" * 32, "username": "ann", "name": "Ann", "createdAt": TIME, "disabled": False}
ROLE = {"id": "r" * 32, "name": "ops", "createdAt": TIME}


def _page(items: list[Any]) -> dict[str, Any]:
    return {
        "items": items,
        "number": 1,
        "size": len(items),
        "totalPages": 1,
        "totalItems": len(items),
    }


def _refusal(status: int, message: str) -> web.Response:
    return web.json_response({"message": message}, status=status)
