"""An extension of each kind. Each is made with a `Context`: its name, its own settings, and the configuration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.http import Route, RouteHandler, answer
from coordinator.store.sqlite import SqliteStore
from shared.broker.memory import MemoryBroker
from shared.errors import NotAllowed
from shared.extensions import Context
from shared.model.documents import Actor, JobDocument, LogPartDocument
from shared.model.language import JobDefinition, Mount, TaskDefinition
from shared.model.messages import StateChanged
from shared.model.views import NodeView, View
from worker.runtime.port import Assignment, Outcome, Run, Sink


class Notes:
    """A file of lines, so that one can see what the examples do."""

    def __init__(self, context: Context) -> None:
        self._path = Path(context.settings["notes"])

    def add(self, line: str) -> None:
        """Add a line."""
        with self._path.open("a") as file:
            file.write(line + "\n")


# --- middleware ---------------------------------------------------------------------------------------------------


class Stamp:
    """Web: adds a header to each answer, and lets nobody in who asks for a path that is closed."""

    def __init__(self, context: Context) -> None:
        self._text = str(context.settings.get("text", "stamped"))
        self._closed = context.settings.get("closed", [])

    async def __call__(self, request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        """See a request on its way in, and its answer on the way out."""
        if request.path in self._closed:
            raise web.HTTPForbidden(reason="closed")
        response = await handler(request)
        if not response.prepared:
            response.headers["X-Stamp"] = self._text
        return response


class Owner:
    """Job: has each job say whose it is, refuses those without a description, and notes how jobs end."""

    def __init__(self, context: Context) -> None:
        self._notes = Notes(context)

    async def submitted(self, definition: JobDefinition, actor: Actor) -> JobDefinition:
        """See a job before it is stored. What is returned takes its place; None leaves it."""
        if not definition.description:
            raise NotAllowed("description: required here")
        tags = [*definition.tags, f"owner-{actor.username}"]
        return msgspec.structs.replace(definition, tags=tags)

    async def changed(self, event: StateChanged) -> None:
        """Hear of each new state of a job."""
        self._notes.add(f"{event.type} {event.state} {event.job_id}")


class Region:
    """Task: tells each task where it runs, and notes how tasks end."""

    def __init__(self, context: Context) -> None:
        self._region = str(context.settings.get("region", "here"))
        self._notes = Notes(context)

    async def before_run(self, assignment: Assignment) -> TaskDefinition:
        """In workers: see a task before its run. What is returned takes its place; None leaves it."""
        env = {**assignment.task.env, "REGION": self._region}
        return msgspec.structs.replace(assignment.task, env=env)

    async def changed(self, event: StateChanged) -> None:
        """In coordinators: hear of each new state of a task."""
        self._notes.add(f"{event.type} {event.state} {event.task_id}")


class RollCall:
    """Node: notes which nodes beat."""

    def __init__(self, context: Context) -> None:
        self._notes = Notes(context)
        self._seen: set[str] = set()

    async def beat(self, node: NodeView) -> None:
        """Hear of each heartbeat that this coordinator handles."""
        if node.id not in self._seen:
            self._seen.add(node.id)
            self._notes.add(f"beat {node.name} {node.status}")


class Errors:
    """Log: notes the lines of logs that look like errors."""

    def __init__(self, context: Context) -> None:
        self._notes = Notes(context)

    async def written(self, parts: Sequence[LogPartDocument]) -> None:
        """See parts of logs once they are stored; secrets are redacted already."""
        for part in parts:
            for line in part.contents.splitlines():
                if "error" in line.lower():
                    self._notes.add(f"log {part.task_id} {line}")


# --- endpoints ----------------------------------------------------------------------------------------------------


class Count(View, frozen=True):
    """How many jobs there are."""

    jobs: int


async def count_jobs(request: web.Request) -> web.StreamResponse:
    """Answer how many jobs are stored."""
    return answer(Count(jobs=await api_of(request).store.count(JobDocument, {})))


def endpoints(_context: Context) -> list[Route]:
    """Return the endpoints; they are in the OpenAPI document too."""
    return [
        Route(
            method="GET",
            path="/extra/count",
            handler=count_jobs,
            group="",
            summary="Count all jobs",
            answer=Count,
            role="operator",
        )
    ]


# --- mounters -----------------------------------------------------------------------------------------------------


class Shared:
    """Mounts of the type `shared`: a folder below one of the host's, by name. The worker must allow binds of it."""

    def __init__(self, context: Context) -> None:
        self._root = Path(context.settings["root"])
        self._notes = Notes(context)

    async def mount(self, mount: Mount, _assignment: Assignment) -> Mount:
        """Return a mount of a type that the runtime knows."""
        if not mount.source.isidentifier():
            raise NotAllowed(
                f"the mount {mount.target}: {mount.source!r} is no name of a shared folder"
            )
        folder = self._root / mount.source
        folder.mkdir(exist_ok=True)
        return Mount(type="bind", source=str(folder), target=mount.target)

    async def unmount(self, mount: Mount) -> None:
        """Undo it, once the run is removed."""
        self._notes.add(f"unmounted {mount.source}")


# --- broker, datastore, runtime -----------------------------------------------------------------------------------


class CountingBroker(MemoryBroker):
    """Broker: the embedded one, which counts. Yours implements `shared.broker.port.Broker`."""

    published = 0

    async def publish(self, queue: str, body: bytes, **more: Any) -> None:
        """Publish a message."""
        self.published += 1
        await super().publish(queue, body, **more)


def counting_broker(context: Context) -> CountingBroker:
    """Return the broker."""
    engine = context.config.engine
    return CountingBroker(node_expiry=engine.lease + engine.reconnect_cap + 20)


def journal_datastore(context: Context) -> SqliteStore:
    """Return the datastore: SQLite in a file of its own. Yours implements `coordinator.store.port.Store`."""
    return SqliteStore(Path(context.settings["file"]), context.vault)


class DryRun:
    """Runtime: runs nothing, and says what it would. Implements `worker.runtime.port.Runtime`."""

    def __init__(self, context: Context) -> None:
        self._node = context.node_id

    async def start(self) -> None:
        """There is no engine to find."""

    def warm_up(self) -> None:
        """Keep nothing warm."""

    async def prepare(self, assignment: Assignment, sink: Sink) -> Run:
        """Make ready to say what a task is."""
        return Said(assignment, sink)

    async def sweep(
        self, _dead: Callable[[Collection[str]], Awaitable[Collection[str]]], _mine: str
    ) -> int:
        """Nothing is left behind."""
        return 0

    async def ping(self) -> None:
        """Answer always."""

    async def close(self) -> None:
        """Close nothing."""


class Said:
    """A run of `DryRun`."""

    def __init__(self, assignment: Assignment, sink: Sink) -> None:
        self._task = assignment.task
        self._sink = sink

    async def run(self) -> Outcome:
        """Say what would be run."""
        await self._sink.write(f"would run {self._task.image}: {self._task.run}\n".encode())
        return Outcome(result="dry", exit_code=0)

    async def stop(self, _reason: str) -> None:
        """It is over already."""

    async def remove(self) -> None:
        """Nothing was made."""
