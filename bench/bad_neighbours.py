"""Neighbours at their worst, each within its limits, and what is asked of the engine about them."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import msgspec
import pymongo
from pymongo.database import Database
from yarl import URL

from bench.servers import Server, worker
from coordinator.store.codec import Codec
from coordinator.store.mongodb.queries import to_mongo
from haulier.client import Client
from haulier.errors import HaulierError
from shared.model import language
from shared.model.documents import (
    MICROS_PER_SECOND,
    Document,
    JobDocument,
    Micros,
    NodeDocument,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.states import JobState, NodeKind, TaskKind, TaskState
from tests.services.engine_proxy import EngineProxy

WORST_FOR: Final = 20.0
"""Seconds of what goes on for as long as one likes."""
TOGETHER: Final = 8
"""Requests of one neighbour at a time."""
LOOK_EVERY: Final = 0.5
_BATCH: Final = 1000


class Ground(msgspec.Struct, frozen=True):
    """Where a neighbour is let loose: the coordinators, their clients by user, and what starts more processes."""

    servers: Sequence[Server]
    boss: Client
    bad: Sequence[Client]
    plain: Sequence[str]
    """The coordinators' addresses, with the plain user's name and password."""
    folder: Path
    settings: Mapping[str, str]

    async def submit(self, count: int, document: Mapping[str, object]) -> list[str]:
        """Submit a job so many times, to all coordinators in turn; return the ids."""
        places = asyncio.Semaphore(TOGETHER)

        async def one(number: int) -> str:
            async with places:
                return (await self.bad[number % len(self.bad)].submit(document)).id

        return await asyncio.gather(*map(one, range(count)))

    @property
    def database(self) -> Database[dict[str, Any]]:
        """The datastore itself."""
        client = pymongo.MongoClient[dict[str, Any]](self.settings["HAULIER_DATASTORE_MONGODB_URL"])
        return client[self.settings["HAULIER_DATASTORE_MONGODB_DATABASE"]]

    def insert(self, documents: Sequence[Document]) -> None:
        """Store documents as if they had been there for long."""
        codec = Codec()
        for first in range(0, len(documents), _BATCH):
            some = documents[first : first + _BATCH]
            rows = [to_mongo(codec, document) for document in some]
            self.database[some[0].collection].insert_many(rows, ordered=False)


class Outcome(msgspec.Struct, frozen=True):
    """What a neighbour has to say of itself, and whether that is what is asked for."""

    figure: str
    within: bool = True


class Neighbour(msgspec.Struct, frozen=True):
    """A neighbour: what it does, until it is done."""

    name: str
    does: str
    act: Callable[[Ground], Awaitable[Outcome]]
    standalone: bool = False
    settings: tuple[tuple[str, str], ...] = ()


def now() -> Micros:
    """Return the time in microseconds."""
    return time.time_ns() // 1000


async def until(happened: Callable[[], Awaitable[bool] | bool]) -> float:
    """Wait until it has; return the seconds that took."""
    began = time.monotonic()
    while True:
        found = happened()
        if found if isinstance(found, bool) else await found:
            return time.monotonic() - began
        await asyncio.sleep(LOOK_EVERY)


def counted(ground: Ground, collection: str, query: Mapping[str, object], wanted: int) -> Any:
    """Return what tells whether so many documents match."""
    found = ground.database[collection]

    async def enough() -> bool:
        return await asyncio.to_thread(found.count_documents, query) == wanted

    return enough


def job(*tasks: Mapping[str, object], **more: object) -> dict[str, object]:
    """Return a job of these tasks."""
    return {"name": "bad", "tasks": list(tasks), **more}


# --- templates --------------------------------------------------------------------------------------------------------


def templates(text: str, count: int) -> Callable[[Ground], Awaitable[Outcome]]:
    """Return a neighbour whose jobs have so many of one template."""

    async def act(ground: Ground) -> Outcome:
        env = {f"A{number}": text for number in range(count)}
        ids = await ground.submit(40, job({"name": "t", "run": "true", "env": env}))
        await asyncio.sleep(WORST_FOR)
        counts = (await ground.boss.job_counts()).states
        return Outcome(f"{len(ids)} jobs, {counts.get('FAILED', 0)} of them over the budget so far")

    return act


# --- queues -----------------------------------------------------------------------------------------------------------


async def lost_queue(ground: Ground) -> Outcome:
    """Tasks wait in a queue that is deleted again and again; then a worker comes."""
    await ground.submit(500, job({"name": "t", "run": "true", "queue": "gpu"}))
    ends = time.monotonic() + WORST_FOR
    while time.monotonic() < ends:
        with suppress(HaulierError):
            await ground.boss.delete_queue("gpu", force=True)
        await asyncio.sleep(0.2)
    gpu = {**ground.settings, "HAULIER_WORKER_QUEUES_GPU": "8"}
    with worker(gpu, ground.folder, 0):
        took = await until(counted(ground, "tasks", {"queue": "gpu", "state": "COMPLETED"}, 500))
    return Outcome(f"500 tasks of it ended {took:.0f} s after a worker came")


async def many_queues(ground: Ground) -> Outcome:
    """Jobs name queues that nobody takes from."""
    for number in range(5):
        tasks = [{"name": "t", "run": "true", "queue": f"q{number}-{n}"} for n in range(300)]
        await ground.submit(1, job({"name": "p", "parallel": {"tasks": tasks}}))
    took = await until(counted(ground, "tasks", {"state": "SCHEDULED"}, 1500))
    await asyncio.sleep(WORST_FOR - min(took, WORST_FOR))
    return Outcome(f"1,500 queues named within {took:.0f} s")


# --- what is due together ---------------------------------------------------------------------------------------------


async def schedules(ground: Ground) -> Outcome:
    """3,000 schedules are due at once."""
    due = now() + 3 * MICROS_PER_SECOND
    task = language.TaskDefinition(name="t", run="true")
    definition = language.JobDefinition(name="fired", tasks=[task])
    ground.insert(
        [
            ScheduleDocument(
                id=f"{number:032x}",
                definition=definition,
                name="s",
                cron="0 0 1 1 *",
                created_at=due - MICROS_PER_SECOND,
                next_at=due,
            )
            for number in range(3000)
        ]
    )
    await until(counted(ground, "jobs", {"name": "fired"}, 3000))
    last = ground.database["jobs"].find_one({"name": "fired"}, sort=[("createdAt", -1)])
    assert last is not None
    took = (last["createdAt"] - due) / MICROS_PER_SECOND
    figure = f"3,000 jobs of 3,000 schedules, the last {took:.0f} s after it was due (asked: 60)"
    return Outcome(figure, took <= 60)


async def ended_jobs(ground: Ground) -> Outcome:
    """10,000 ended jobs are past their time."""
    at = now()
    jobs = [
        JobDocument(
            id=f"{number:032x}",
            root_id=f"{number:032x}",
            name="old",
            state=JobState.COMPLETED,
            created_at=at,
            ended_at=at,
            delete_at=at,
        )
        for number in range(10_000)
    ]
    tasks = [
        TaskDocument(
            id=f"{number:032x}",
            job_id=old.id,
            root_id=old.id,
            path="1",
            position=1,
            kind=TaskKind.CONTAINER,
            name="t",
            state=TaskState.COMPLETED,
            open=False,
            active=False,
            created_at=at,
            ended_at=at,
        )
        for number, old in enumerate(jobs)
    ]
    ground.insert(tasks)
    ground.insert(jobs)
    took = await until(counted(ground, "jobs", {"name": "old"}, 0))
    return Outcome(f"10,000 ended jobs gone within {took:.0f} s (asked: 120)", took <= 120)


async def hanging_receiver(ground: Ground) -> Outcome:
    """600 deliveries are due at a receiver that hangs; another's one comes all the same."""
    heard = asyncio.Event()

    async def hang(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(3600)

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        heard.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    async with listener(hang) as bad, listener(hear) as good:
        await ground.submit(600, job({"name": "t", "run": "true"}, webhooks=[{"url": bad}]))
        async with Client(ground.plain[0]) as plain:
            began = time.monotonic()
            task = {"name": "t", "run": "true", "queue": "plain"}
            await plain.submit(job(task, webhooks=[{"url": good}]))
            await heard.wait()
        took = time.monotonic() - began
        await asyncio.sleep(max(0.0, WORST_FOR - took))
    return Outcome(f"another user's webhook came after {took:.1f} s (asked: 10)", took <= 10)


@asynccontextmanager
async def listener(answer: Any) -> AsyncIterator[str]:
    """Serve connections so; yield the address."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


# --- big structures ---------------------------------------------------------------------------------------------------


async def sub_jobs(ground: Ground) -> Outcome:
    """Jobs with 300 attached sub-jobs each are cancelled, and one is deleted."""
    subjob = {"name": "below", "tasks": [{"name": "t", "run": "sleep 60"}]}
    each = {"list": "sequence(0, 300)", "task": {"name": "s", "subjob": subjob}}
    ids = await ground.submit(3, job({"name": "e", "each": each}))
    await until(counted(ground, "jobs", {"name": "below"}, 900))
    for job_id in ids:
        await ground.boss.cancel(job_id)
    await ground.boss.delete(ids[-1])
    open_jobs = {"name": {"$in": ["bad", "below"]}, "endedAt": None}
    took = await until(counted(ground, "jobs", open_jobs, 0))
    return Outcome(f"900 attached sub-jobs ended {took:.0f} s after the cancel")


async def big_cancel(ground: Ground) -> Outcome:
    """A job of 40,000 tasks is cancelled while a worker is killed that runs another's task."""
    each = {"list": "sequence(0, 40000)", "task": {"name": "t", "run": "true", "queue": "nobody"}}
    job_id = (await ground.submit(1, job({"name": "e", "each": each})))[0]
    made = await until(counted(ground, "tasks", {"jobId": job_id}, 40_001))
    victim = {**ground.settings, "HAULIER_WORKER_QUEUES_VICTIM": "1"}
    lasts = job({"name": "t", "run": "sleep 300", "queue": "victim"})
    with worker(victim, ground.folder, 0) as first:
        other = (await ground.submit(1, lasts))[0]
        await until(counted(ground, "tasks", {"jobId": other, "state": "RUNNING"}, 1))
        os.kill(first.pid, signal.SIGKILL)
        began = time.monotonic()
        await ground.boss.cancel(job_id)
        closed = asyncio.ensure_future(
            until(counted(ground, "tasks", {"jobId": job_id, "open": True}, 0))
        )
        with worker(victim, ground.folder, 0):
            await until(counted(ground, "tasks", {"jobId": other, "run": 2}, 1))
            again = time.monotonic() - began
            took = await closed
    figure = (
        f"40,000 tasks made within {made:.0f} s, closed {took:.0f} s after the cancel (asked: 60); "
        f"a killed worker's task ran again after {again:.0f} s (asked: 60)"
    )
    return Outcome(figure, max(took, again) <= 60)


async def dead_nodes(ground: Ground) -> Outcome:
    """6,000 nodes that were, and the first sight of an `each` of 60,000."""
    at = now()
    ground.insert(
        [
            NodeDocument(
                id=f"{number:032x}",
                kind=NodeKind.WORKER,
                name="w",
                hostname="h",
                version="1",
                started_at=at,
                last_heartbeat_at=at - 3600 * MICROS_PER_SECOND,
                closed=True,
            )
            for number in range(6000)
        ]
    )
    each = {"list": "sequence(0, 60000)", "task": {"name": "t", "run": "true"}}
    await ground.submit(1, job({"name": "e", "each": each}))
    await asyncio.sleep(2 * WORST_FOR)
    done = ground.database["tasks"].count_documents({"state": "COMPLETED"})
    return Outcome(f"{done} tasks done meanwhile", done > 0)


async def hopeless(ground: Ground) -> Outcome:
    """500 intents that can't be followed: sub-jobs whose inputs are too big, and results of control characters."""
    inputs = {f"a{number}": "{{ repeat('x', 900000) }}" for number in range(19)}
    subjob = {"name": "below", "inputs": inputs, "tasks": [{"name": "t", "run": "true"}]}
    task = {"name": "s", "subjob": subjob}
    each = {"list": "sequence(0, 50)", "task": {"name": "p", "parallel": {"tasks": [task] * 5}}}
    script = "head -c 3000000 /dev/zero | tr '\\0' '\\001' > $TORK_OUTPUT"
    await ground.submit(2, job({"name": "e", "each": each}))
    await ground.submit(10, job({"name": "t", "run": script}))
    await asyncio.sleep(2 * WORST_FOR)
    ended = ground.database["jobs"].count_documents({"name": "bad", "endedAt": {"$ne": None}})
    return Outcome(f"{ended} of 12 jobs ended meanwhile", ended == 12)


# --- workers and engines ----------------------------------------------------------------------------------------------


async def killed_worker(ground: Ground) -> Outcome:
    """A worker is killed and started again, over and over, while it runs a task."""
    victim = {
        **ground.settings,
        "HAULIER_WORKER_QUEUES_VICTIM": "1",
        "HAULIER_WORKER_DATA": str(ground.folder / "victim"),
    }
    lasts = job({"name": "t", "run": "sleep 300", "queue": "victim"})
    took, job_id = [], ""
    for run in range(1, 4):
        began = time.monotonic()
        with worker(victim, ground.folder, 0) as killed:
            job_id = job_id or (await ground.submit(1, lasts))[0]
            await until(counted(ground, "tasks", {"jobId": job_id, "run": run}, 1))
            took.append(time.monotonic() - began)
            os.kill(killed.pid, signal.SIGKILL)
    seconds = ", ".join(f"{each:.1f}" for each in took[1:])
    figure = f"the task ran again {seconds} s after the new start (asked: 10)"
    return Outcome(figure, max(took[1:]) <= 10)


async def hanging_engine(ground: Ground) -> Outcome:
    """A Docker engine hangs while a task of it runs."""
    proxy = EngineProxy(ground.folder / "engine", Path(URL(os.environ["DOCKER_HOST"]).path))
    settings = {
        **ground.settings,
        "HAULIER_RUNTIME_TYPE": "docker",
        "DOCKER_HOST": proxy.host,
        "HAULIER_WORKER_QUEUES_CONTAINED": "4",
    }
    lasts = {"name": "t", "image": "alpine:3.18.3", "run": "sleep 50", "queue": "contained"}
    with proxy.serving(), worker(settings, ground.folder, 0):
        job_id = (await ground.submit(1, job(lasts)))[0]
        await until(counted(ground, "tasks", {"jobId": job_id, "state": "RUNNING"}, 1))
        await asyncio.sleep(2)
        proxy.freeze()

        async def down() -> bool:
            return any(node.status == "DOWN" for node in await ground.boss.nodes())

        took = await until(down)
        await asyncio.sleep(max(0.0, 40 - took))
        task = ground.database["tasks"].find_one({"jobId": job_id})
        proxy.thaw()
        await until(counted(ground, "jobs", {"_id": job_id, "state": "COMPLETED"}, 1))
    assert task is not None
    figure = f"DOWN after {took:.0f} s; its task still had its run {task['run']} after 40 s"
    return Outcome(figure, task["run"] == 1)


# --- readers ----------------------------------------------------------------------------------------------------------


async def _spoken(ground: Ground, megabytes: int) -> str:
    """Have a log of so many megabytes; return its job."""
    script = f"head -c {megabytes * 750_000} /dev/urandom | base64"
    job_id = (await ground.submit(1, job({"name": "t", "run": script})))[0]
    await ground.bad[0].wait(job_id)
    return job_id


async def stopped_readers(ground: Ground) -> Outcome:
    """200 readers ask for a long log, as a stream, a download and a page, and read nothing."""
    began = time.monotonic()
    job_id = await _spoken(ground, 20)
    spoken = time.monotonic() - began
    paths = ("log/stream", "log/download", "log?size=1000")
    before = _descriptors(ground)
    async with AsyncExitStack() as stack:
        for number in range(200):
            server = ground.servers[number % len(ground.servers)]
            await stack.enter_async_context(
                _asking(ground, server, f"/jobs/{job_id}/{paths[number % 3]}")
            )
        most = _descriptors(ground) - before

        async def let_go() -> bool:
            return _descriptors(ground) <= before + 20

        took = await until(let_go)
    figure = (
        f"a log of 20 MB made within {spoken:.0f} s; {most} descriptors taken, "
        f"given back within {took:.0f} s (asked: 30 and a little)"
    )
    return Outcome(figure, took <= 40)


def _descriptors(ground: Ground) -> int:
    folders = [Path(f"/proc/{server.pid}/fd") for server in ground.servers]
    return sum(1 for folder in folders for _ in folder.iterdir())


@asynccontextmanager
async def _asking(ground: Ground, server: Server, path: str) -> AsyncIterator[asyncio.StreamReader]:
    """Ask for a path, as the bad user; what is answered is read by nobody but the caller."""
    url = URL(server.address)
    address = URL(ground.plain[0])
    token = b64encode(f"bad:{address.password}".encode()).decode()
    reader, writer = await asyncio.open_connection(url.host, url.port, limit=1024)
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: {url.host}\r\nAuthorization: Basic {token}\r\n\r\n".encode()
    )
    try:
        yield reader
    finally:
        writer.close()


async def log_followers(ground: Ground) -> Outcome:
    """250 follow the log of one task that says nothing."""
    job_id = (await ground.submit(1, job({"name": "t", "run": "sleep 300"})))[0]
    await until(counted(ground, "tasks", {"jobId": job_id, "state": "RUNNING"}, 1))
    quiet = await _operations(ground)
    async with AsyncExitStack() as stack:
        for number in range(250):
            server = ground.servers[number % len(ground.servers)]
            await stack.enter_async_context(_asking(ground, server, f"/jobs/{job_id}/log/stream"))
        await asyncio.sleep(5)
        cost = await _operations(ground) - quiet
    return Outcome(f"{cost:.0f} operations a second of the datastore for 250", cost < 250)


async def event_readers(ground: Ground) -> Outcome:
    """250 read `/events` while jobs run."""
    load = asyncio.ensure_future(ground.submit(2000, job({"name": "t", "run": "true"})))
    await asyncio.sleep(3)
    quiet = await _operations(ground)
    async with AsyncExitStack() as stack:
        readers = []
        for number in range(250):
            server = ground.servers[number % len(ground.servers)]
            reader = await stack.enter_async_context(_asking(ground, server, "/events"))
            readers.append(asyncio.ensure_future(_read_all(reader)))
        await asyncio.sleep(5)
        cost = await _operations(ground) - quiet
        for each in readers:
            each.cancel()
    load.cancel()
    heard = sum(1 for each in readers if not each.done() or not each.cancelled())
    return Outcome(f"{cost:.0f} operations a second more for {heard}")


async def _read_all(reader: asyncio.StreamReader) -> None:
    while await reader.read(1 << 16):
        pass


async def _operations(ground: Ground, seconds: float = 5.0) -> float:
    """Return how many operations a second the database serves now."""

    def counted_now() -> int:
        totals = ground.database.client.admin.command("top")["totals"]
        name = ground.database.name + "."
        return sum(
            int(each["total"]["count"]) for at, each in totals.items() if at.startswith(name)
        )

    before = await asyncio.to_thread(counted_now)
    await asyncio.sleep(seconds)
    return (await asyncio.to_thread(counted_now) - before) / seconds


REDUCE: Final = templates("{{ reduce(1..330000, #acc + #) }}", 150)
REPLACE: Final = templates("{{replace(repeat('a',100000),'a',repeat('b',160))}}", 60)

NEIGHBOURS: Final = (
    Neighbour("steps", "40 jobs of 150 templates that take 330,000 steps each", REDUCE),
    Neighbour("bytes", "40 jobs of 60 templates that build 16 MB each", REPLACE),
    Neighbour("standalone-steps", "the same as `steps`, of a standalone process", REDUCE, True),
    Neighbour(
        "lost-queue", "500 tasks wait in a queue that is deleted 5 times a second", lost_queue
    ),
    Neighbour("many-queues", "1,500 queues are named that nobody takes from", many_queues),
    Neighbour("schedules", "3,000 schedules are due in one second", schedules),
    Neighbour("receiver", "600 webhooks of a receiver that hangs", hanging_receiver),
    Neighbour("sub-jobs", "3 jobs with 300 attached sub-jobs each are cancelled", sub_jobs),
    Neighbour("cancel", "40,000 tasks are cancelled, and a worker killed", big_cancel),
    Neighbour("nodes", "6,000 nodes that were, and an `each` of 60,000", dead_nodes),
    Neighbour(
        "hopeless", "500 sub-jobs with 16 MiB of inputs, results of control characters", hopeless
    ),
    Neighbour("retention", "10,000 ended jobs are past their time", ended_jobs),
    Neighbour("worker", "a worker is killed and started again while it runs a task", killed_worker),
    Neighbour("engine", "a Docker engine hangs while a task runs", hanging_engine),
    Neighbour("readers", "200 readers of a long log stop reading", stopped_readers),
    Neighbour("followers", "250 follow the log of one silent task", log_followers),
    Neighbour("events", "250 read `/events` while 2,000 jobs run", event_readers),
)
