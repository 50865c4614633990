"""The asynchronous client of Haulier's REST API.

    async with Client("http://localhost:8000") as client:
        job = await client.submit(Path("job.yaml"))
        async for line in client.follow_job_log(job.id):
            print(line.text)
        print((await client.wait(job.id)).result)

Every method may raise `ApiError` (the server refuses: status and message), `UnreachableError`
(nobody answers at the address) and, where the answer makes no sense, `HaulierError`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote

import msgspec

from haulier import DEFAULT_SERVER
from haulier.errors import ApiError, StrangeAnswerError, UnreachableError
from haulier.results import (
    AuditEntry,
    DeadMessage,
    Event,
    Health,
    Job,
    JobCounts,
    JobSummary,
    LogLine,
    LogPart,
    Metrics,
    Node,
    Page,
    Queue,
    QueueScale,
    RerunPlan,
    Role,
    ScheduledJob,
    Task,
    Token,
    User,
    WebhookDelivery,
    Why,
)
from haulier.transport import AWAY, Params, Pauses, TlsFiles, Transport, growing

YAML_TYPE: Final = "text/yaml"
JSON_TYPE: Final = "application/json"

JobText = str | bytes | Path | Mapping[str, Any]
"""A job: YAML (or JSON) as text, a file of it (`.json` is JSON), or plain data."""

_T = TypeVar("_T")

_FIRST_POLL: Final = 0.1
_LONGEST_POLL: Final = 2.0
_MOST_TASKS: Final = 1000
"""Tasks on a page, at most."""
UNAVAILABLE: Final = frozenset({503})


class Client(Transport):
    """A client of one server.

    `server` may hold a user and a password (`http://ann:secret@host:8000`); `key` is for servers
    that ask for one. `timeout`: seconds that an answer may take. `patience`: seconds that a stream
    which was cut is tried to be taken up again. `tls`: files for servers that use TLS, where the
    system's authorities are not enough.
    """

    def __init__(
        self,
        server: str = DEFAULT_SERVER,
        *,
        key: str | None = None,
        timeout: float = 60.0,
        patience: float = 60.0,
        tls: TlsFiles = TlsFiles(),  # noqa: B008 - it is frozen
    ) -> None:
        super().__init__(server, key=key, timeout=timeout, patience=patience, tls=tls)

    # --- jobs -----------------------------------------------------------------------------------

    async def submit(
        self,
        document: JobText,
        *,
        content_type: str | None = None,
        idempotency_key: str | None = None,
    ) -> JobSummary:
        """Submit a job; return it as stored. The same `idempotency_key` makes no second job."""
        body, kind = _body_of(document)
        headers = {"Content-Type": content_type or kind}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        # A job that asks to be waited for is answered when it has ended.
        limited = not re.search(rb"\bwait[\"']?\s*:", body)
        answer = await self.request("POST", "/jobs", body=body, headers=headers, limited=limited)
        return _read(answer, JobSummary)

    async def check(self, document: JobText, *, content_type: str | None = None) -> JobSummary:
        """Have the server validate a job without storing it; return what it would store."""
        body, kind = _body_of(document)
        answer = await self.request(
            "POST",
            "/jobs",
            params={"dryRun": True},
            body=body,
            headers={"Content-Type": content_type or kind},
        )
        return _read(answer, JobSummary)

    async def jobs(
        self,
        q: str | None = None,
        *,
        state: str | None = None,
        tag: str | None = None,
        schedule: str | None = None,
        parent: str | None = None,
        page: int | None = None,
        size: int | None = None,
    ) -> Page[JobSummary]:
        """Return a page of jobs, newest first. `q` searches, and may hold `tag:x`, `tags:a,b`.

        `schedule`: only those that it made; `parent`: only sub-jobs of this task, `none`: no sub-jobs.
        """
        params: Params = {"q": q, "state": state, "tag": tag, "page": page, "size": size}
        params = {**params, "scheduleId": schedule, "parentId": parent}
        return _read(await self.request("GET", "/jobs", params=params), Page[JobSummary])

    async def job(self, job_id: str, *, execution: bool = True) -> Job:
        """Return a job whole, with its execution, or without it."""
        params: Params = {} if execution else {"execution": "false"}
        return _read(await self.request("GET", f"/jobs/{path_name(job_id)}", params=params), Job)

    async def job_counts(self) -> JobCounts:
        """Return how many jobs there are by state and by tag."""
        return _read(await self.request("GET", "/jobs/counts"), JobCounts)

    async def why(self, job_id: str) -> Why:
        """Return why a job does not run, or why it failed."""
        return _read(await self.request("GET", f"/jobs/{path_name(job_id)}/why"), Why)

    async def deliveries(
        self, job_id: str, *, page: int | None = None, size: int | None = None
    ) -> Page[WebhookDelivery]:
        """Return a page of what a job's webhooks were told, newest first."""
        params: Params = {"page": page, "size": size}
        path = f"/jobs/{path_name(job_id)}/deliveries"
        return _read(await self.request("GET", path, params=params), Page[WebhookDelivery])

    async def why_task(self, task_id: str) -> Why:
        """Return why a task does not run, or why it failed."""
        return _read(await self.request("GET", f"/tasks/{path_name(task_id)}/why"), Why)

    async def rerun(
        self,
        job_id: str,
        *,
        inputs: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        tasks: Sequence[Mapping[str, Any]] | None = None,
        webhooks: Sequence[Mapping[str, Any]] | None = None,
        start: str | int | None = None,
    ) -> JobSummary:
        """Make a new job like this one. `start`: the step to begin with; what came before is kept."""
        asked = _rerun_of(inputs, secrets, tasks, webhooks, start)
        return _read(await self._post(f"/jobs/{path_name(job_id)}/rerun", asked), JobSummary)

    async def plan_rerun(
        self,
        job_id: str,
        *,
        inputs: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        tasks: Sequence[Mapping[str, Any]] | None = None,
        webhooks: Sequence[Mapping[str, Any]] | None = None,
        start: str | int | None = None,
    ) -> RerunPlan:
        """Return what such a rerun would keep and run, without making a job."""
        asked = {**_rerun_of(inputs, secrets, tasks, webhooks, start), "dryRun": True}
        return _read(await self._post(f"/jobs/{path_name(job_id)}/rerun", asked), RerunPlan)

    async def job_tasks(
        self,
        job_id: str,
        *,
        states: Sequence[str] = (),
        parent: str | None = None,
        failed_first: bool = False,
        page: int | None = None,
        size: int | None = None,
    ) -> Page[Task]:
        """Return a page of a job's execution, in its order.

        `parent`: only children of this task, `none`: no children.
        """
        path = f"/jobs/{path_name(job_id)}/tasks"
        params: Params = {
            "page": page,
            "size": size,
            "state": ",".join(states) or None,
            "parentId": parent,
            "order": "failed" if failed_first else None,
        }
        return _read(await self.request("GET", path, params=params), Page[Task])

    async def all_tasks(self, job_id: str, *, parent: str | None = None) -> list[Task]:
        """Return all of a job's execution, in its order, or what `parent` picks of it, as `job_tasks` does."""
        found: list[Task] = []
        for number in itertools.count(1):
            page = await self.job_tasks(job_id, parent=parent, page=number, size=_MOST_TASKS)
            found += page.items
            if not page.has_more:
                break
        return found

    async def cancel(self, job_id: str) -> None:
        """Cancel a job: on return that is stored, and its containers are about to go."""
        await self.request("PUT", f"/jobs/{path_name(job_id)}/cancel")

    async def restart(self, job_id: str) -> None:
        """Let a failed or cancelled job go on from the task where it ended."""
        await self.request("PUT", f"/jobs/{path_name(job_id)}/restart")

    async def delete(self, job_id: str) -> None:
        """Delete an ended job, its tasks and logs."""
        await self.request("DELETE", f"/jobs/{path_name(job_id)}")

    async def wait(self, job_id: str) -> Job:
        """Return the job once it has ended, good or bad."""
        pauses = growing(_FIRST_POLL, _LONGEST_POLL, 1.5)
        job = await self.job(job_id)
        while not job.ended:
            await asyncio.sleep(next(pauses))
            if (await self.job_again(job_id, execution=False)).ended:
                job = await self.job_again(job_id)
        return job

    async def job_again(self, job_id: str, *, execution: bool = True) -> Job:
        """Return a job that was seen before: while the server is away, ask again until the patience ends."""
        pauses = Pauses(self._patience)
        while True:
            try:
                return await self.job(job_id, execution=execution)
            except (UnreachableError, ApiError) as error:
                if isinstance(error, ApiError) and error.status not in AWAY:
                    raise
                await pauses.wait(error, None)

    async def task(self, task_id: str) -> Task:
        """Return one attempt at a task."""
        return _read(await self.request("GET", f"/tasks/{path_name(task_id)}"), Task)

    async def tasks_of_node(
        self, node_id: str, *, page: int | None = None, size: int | None = None
    ) -> Page[Task]:
        """Return a page of what a node runs."""
        params: Params = {"nodeId": node_id, "page": page, "size": size}
        return _read(await self.request("GET", "/tasks", params=params), Page[Task])

    # --- logs -----------------------------------------------------------------------------------

    async def job_log(
        self,
        job_id: str,
        *,
        q: str | None = None,
        tail: int | None = None,
        since: str | None = None,
        oldest_first: bool = False,
        page: int | None = None,
        size: int | None = None,
    ) -> Page[LogPart]:
        """Return a page of a job's log, newest part first.

        `tail`: only the last so many lines, on one page; `since`: a time, or a duration back from now.
        """
        asked = _log_params(q, tail, since, page, size, oldest_first=oldest_first)
        return await self._log(f"/jobs/{path_name(job_id)}/log", asked)

    async def task_log(
        self,
        task_id: str,
        *,
        q: str | None = None,
        tail: int | None = None,
        since: str | None = None,
        oldest_first: bool = False,
        page: int | None = None,
        size: int | None = None,
    ) -> Page[LogPart]:
        """Return a page of a task's log, as `job_log` does."""
        asked = _log_params(q, tail, since, page, size, oldest_first=oldest_first)
        return await self._log(f"/tasks/{path_name(task_id)}/log", asked)

    async def _log(self, path: str, params: Params) -> Page[LogPart]:
        return _read(await self.request("GET", path, params=params), Page[LogPart])

    def follow_job_log(self, job_id: str) -> AsyncGenerator[LogLine]:
        """Yield the lines of a job's log so far, then live, until it ends; each line once.

        A connection that is cut is taken up again where it was.
        """
        return self._follow(f"/jobs/{path_name(job_id)}/log/stream")

    def follow_task_log(self, task_id: str) -> AsyncGenerator[LogLine]:
        """Yield the lines of a task's log so far, then live, until it ends; each line once."""
        return self._follow(f"/tasks/{path_name(task_id)}/log/stream")

    async def _follow(self, path: str) -> AsyncGenerator[LogLine]:
        async with aclosing(self._follow_parts(path)) as parts:
            async for part in parts:
                yield LogLine(task_id=part.task_id, text=part.contents.removesuffix("\n"))

    def follow_job_parts(self, job_id: str) -> AsyncGenerator[LogPart]:
        """Yield the lines of a job's log as `follow_job_log` does, each as a part: with number and time."""
        return self._follow_parts(f"/jobs/{path_name(job_id)}/log/stream")

    def follow_task_parts(self, task_id: str) -> AsyncGenerator[LogPart]:
        """Yield the lines of a task's log as `follow_task_log` does, each as a part: with number and time."""
        return self._follow_parts(f"/tasks/{path_name(task_id)}/log/stream")

    async def _follow_parts(self, path: str) -> AsyncGenerator[LogPart]:
        async with aclosing(self.stream(path, {"format": "json"})) as events:
            async for event in events:
                if event.name == "end":
                    return
                part: LogPart = _read(event.data.encode(), LogPart)
                yield part

    def download_log(self, job_id: str) -> AsyncGenerator[bytes]:
        """Yield the whole log of a job as text in UTF-8, as it comes."""
        return self.chunks(f"/jobs/{path_name(job_id)}/log/download")

    async def events(
        self,
        *,
        job: str | None = None,
        type: str | None = None,
    ) -> AsyncGenerator[Event]:
        """Yield state changes of jobs and tasks as they happen, for ever."""
        async with aclosing(self.stream("/events", {"job": job, "type": type})) as events:
            async for event in events:
                yield Event(type=event.name, data=_read(event.data.encode(), Any))

    # --- the cluster ----------------------------------------------------------------------------

    async def health(self) -> Health:
        """Return how the server is. `DOWN` is an answer, not an error."""
        answer = await self.request("GET", "/health", accept_status=UNAVAILABLE)
        return _read(answer, Health)

    async def nodes(self) -> list[Node]:
        """Return the nodes that were heard of lately."""
        return _read(await self.request("GET", "/nodes"), list[Node])

    async def drain(self, node_id: str) -> None:
        """Let a worker take nothing new."""
        await self.request("PUT", f"/nodes/{path_name(node_id)}/drain")

    async def resume(self, node_id: str) -> None:
        """Let a drained worker take tasks again."""
        await self.request("PUT", f"/nodes/{path_name(node_id)}/resume")

    async def queues(self) -> list[Queue]:
        """Return the figures of all queues."""
        return _read(await self.request("GET", "/queues"), list[Queue])

    async def queue(self, name: str) -> Queue:
        """Return the figures of one queue."""
        return _read(await self.request("GET", f"/queues/{path_name(name)}"), Queue)

    async def queue_scale(self, name: str) -> QueueScale:
        """Return how many slots a task queue has use for."""
        return _read(await self.request("GET", f"/queues/{path_name(name)}/scale"), QueueScale)

    async def delete_queue(self, name: str, *, force: bool = False) -> None:
        """Delete a task queue; while tasks wait in it only with `force`, and they are sent again when a worker takes
        from it."""
        params = {"force": "true"} if force else {}
        await self.request("DELETE", f"/queues/{path_name(name)}", params=params)

    async def dead_letters(self) -> list[DeadMessage]:
        """Return the oldest messages that nobody could handle."""
        return _read(await self.request("GET", "/queues/dead/messages"), list[DeadMessage])

    async def resend_dead_letter(self, message_id: str) -> None:
        """Send a message again to the queue that it was taken from."""
        await self.request("POST", f"/queues/dead/messages/{path_name(message_id)}/resend")

    async def discard_dead_letter(self, message_id: str) -> None:
        """Remove a message that nobody could handle."""
        await self.request("DELETE", f"/queues/dead/messages/{path_name(message_id)}")

    async def metrics(self) -> Metrics:
        """Return the cluster in four numbers."""
        return _read(await self.request("GET", "/metrics"), Metrics)

    # --- scheduled jobs -------------------------------------------------------------------------

    async def schedule(self, document: JobText, *, content_type: str | None = None) -> ScheduledJob:
        """Store a job that has a `schedule`; it is active at once."""
        body, kind = _body_of(document)
        headers = {"Content-Type": content_type or kind}
        answer = await self.request("POST", "/scheduled-jobs", body=body, headers=headers)
        return _read(answer, ScheduledJob)

    async def scheduled_jobs(
        self, *, page: int | None = None, size: int | None = None
    ) -> Page[ScheduledJob]:
        """Return a page of scheduled jobs."""
        params: Params = {"page": page, "size": size}
        answer = await self.request("GET", "/scheduled-jobs", params=params)
        return _read(answer, Page[ScheduledJob])

    async def scheduled_job(self, schedule_id: str) -> ScheduledJob:
        """Return one scheduled job."""
        answer = await self.request("GET", f"/scheduled-jobs/{path_name(schedule_id)}")
        return _read(answer, ScheduledJob)

    async def change_scheduled_job(
        self, schedule_id: str, document: JobText, *, content_type: str | None = None
    ) -> ScheduledJob:
        """Have a scheduled job make other jobs, at other times, from now on."""
        body, kind = _body_of(document)
        headers = {"Content-Type": content_type or kind}
        path = f"/scheduled-jobs/{path_name(schedule_id)}"
        return _read(await self.request("PUT", path, body=body, headers=headers), ScheduledJob)

    async def run_scheduled_job(self, schedule_id: str) -> JobSummary:
        """Make a job of a scheduled job now, besides its firings."""
        answer = await self.request("POST", f"/scheduled-jobs/{path_name(schedule_id)}/run")
        return _read(answer, JobSummary)

    async def pause_scheduled_job(self, schedule_id: str) -> None:
        """Let a scheduled job make no jobs for now."""
        await self.request("PUT", f"/scheduled-jobs/{path_name(schedule_id)}/pause")

    async def resume_scheduled_job(self, schedule_id: str) -> None:
        """Let a paused scheduled job go on."""
        await self.request("PUT", f"/scheduled-jobs/{path_name(schedule_id)}/resume")

    async def delete_scheduled_job(self, schedule_id: str) -> None:
        """Delete a scheduled job; the jobs it has made stay."""
        await self.request("DELETE", f"/scheduled-jobs/{path_name(schedule_id)}")

    # --- users ----------------------------------------------------------------------------------

    async def users(self) -> list[User]:
        """Return all users."""
        return _read(await self.request("GET", "/users"), list[User])

    async def add_user(self, username: str, password: str, name: str = "") -> User:
        """Add a user who may sign in."""
        person = {"username": username, "password": password, "name": name}
        return _read(await self._post("/users", person), User)

    async def change_user(
        self,
        username: str,
        *,
        password: str | None = None,
        name: str | None = None,
        disabled: bool | None = None,
    ) -> User:
        """Change a user; what is None stays. It holds from the user's next request on."""
        given = {"password": password, "name": name, "disabled": disabled}
        asked = {key: value for key, value in given.items() if value is not None}
        return _read(await self._send("PUT", f"/users/{path_name(username)}", asked), User)

    async def delete_user(self, username: str) -> None:
        """Delete a user and their tokens; their jobs stay."""
        await self.request("DELETE", f"/users/{path_name(username)}")

    async def change_password(self, password: str, *, current: str = "") -> None:
        """Change your own password."""
        asked = {"password": password, "current": current}
        await self._send("PUT", "/users/me/password", asked)

    async def tokens(self) -> list[Token]:
        """Return your tokens, or everybody's for an admin."""
        return _read(await self.request("GET", "/tokens"), list[Token])

    async def add_token(self, name: str, *, role: str = "", expires: str = "") -> Token:
        """Make a token for a program; its text, `token`, is returned only here.

        `role`: at most your own, which is the default. `expires`: a time, or a duration such as `720h`."""
        asked = {"name": name, "role": role, "expires": expires}
        return _read(await self._post("/tokens", asked), Token)

    async def revoke_token(self, token_id: str) -> None:
        """Revoke a token: it is refused from the next request on."""
        await self.request("DELETE", f"/tokens/{path_name(token_id)}")

    async def audit(
        self,
        *,
        page: int | None = None,
        size: int | None = None,
        user: str | None = None,
        action: str | None = None,
        target: str | None = None,
    ) -> Page[AuditEntry]:
        """Return a page of the audit log, newest first; for admins."""
        params: Params = {"page": page, "size": size, "user": user, "action": action} | {
            "target": target
        }
        return _read(await self.request("GET", "/audit", params=params), Page[AuditEntry])

    async def roles(self) -> list[Role]:
        """Return all roles."""
        return _read(await self.request("GET", "/roles"), list[Role])

    async def add_role(self, name: str) -> Role:
        """Add a role that permissions may name."""
        return _read(await self._post("/roles", {"name": name}), Role)

    async def grant_role(self, username: str, role: str) -> None:
        """Give a user a role."""
        await self.request("PUT", f"/users/{path_name(username)}/roles/{path_name(role)}")

    async def revoke_role(self, username: str, role: str) -> None:
        """Take a role from a user."""
        await self.request("DELETE", f"/users/{path_name(username)}/roles/{path_name(role)}")

    async def _post(self, path: str, data: Mapping[str, Any]) -> bytes:
        return await self._send("POST", path, data)

    async def _send(self, method: str, path: str, data: Mapping[str, Any]) -> bytes:
        body = msgspec.json.encode(data)
        return await self.request(method, path, body=body, headers={"Content-Type": JSON_TYPE})


def _rerun_of(
    inputs: Mapping[str, str] | None,
    secrets: Mapping[str, str] | None,
    tasks: Sequence[Mapping[str, Any]] | None,
    webhooks: Sequence[Mapping[str, Any]] | None,
    start: str | int | None,
) -> dict[str, Any]:
    given = {
        "inputs": inputs,
        "secrets": secrets,
        "tasks": tasks,
        "webhooks": webhooks,
        "from": start,
    }
    return {name: value for name, value in given.items() if value is not None}


def _log_params(
    q: str | None,
    tail: int | None,
    since: str | None,
    page: int | None,
    size: int | None,
    *,
    oldest_first: bool,
) -> Params:
    order = "asc" if oldest_first else None
    return {"q": q, "tail": tail, "since": since, "page": page, "size": size, "order": order}


def path_name(text: str) -> str:
    """Return an id or name as it stands in a path of the API."""
    if text in ("", ".", ".."):
        raise ApiError(404, f"there is nothing named {text!r}")
    return quote(text, safe="")


def _body_of(document: JobText) -> tuple[bytes, str]:
    if isinstance(document, Path):
        return document.read_bytes(), JSON_TYPE if document.suffix == ".json" else YAML_TYPE
    if isinstance(document, Mapping):
        return json.dumps(document).encode(), JSON_TYPE
    return document.encode() if isinstance(document, str) else document, YAML_TYPE


def _read(answer: bytes, kind: type[_T] | Any) -> _T:
    try:
        result: _T = msgspec.json.decode(answer, type=kind, strict=False)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StrangeAnswerError(error) from None
    return result
