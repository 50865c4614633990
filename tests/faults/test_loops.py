"""Every loop of both daemons raises, hangs, and is torn from its work: it is begun again, and jobs complete with their
whole logs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from shared import extensions, supervision
from shared.supervision import Loop
from tests.faults.whole import KEY, LOG, Process, System, configured, system
from tests.services.fixtures import Database, Vhost
from worker.runtime.docker import shared_files_probe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

PATIENCE = 0.5
"""Seconds that a loop has while it is made to hang."""
AMID = 0.05
"""Seconds after which a loop is torn from its work."""

WITHIN = 30.0
"""Seconds in which a loop that fails is begun again, or named (engine spec, promise 14)."""

OF_ALL = [
    "access of a stream",
    "announce listeners",
    "audit left over",
    "audit log",
    "beats",
    "delays",
    "due",
    "ends-stored",
    "engine check",
    "extension",
    "growth",
    "handle events",
    "later-writes",
    "let go of readers",
    "listen for readers",
    "log-parts",
    "probes",
    "progress of a task",
    "queue consumers",
    "retention",
    "schedules",
    "ship a log",
    "slot",
    "sweep",
    "sweeper",
    "turns of readers",
    "webhooks",
]
OF_STANDALONE = ["SQLite's file"]
OF_CLUSTERS = ["MongoDB's clock", "RabbitMQ connection", "consume", "send events"]
OF_CONTAINERS = ["usage of a task"]
OF_KINDS = {
    "standalone": [*OF_ALL, *OF_STANDALONE],
    "cluster": [*OF_ALL, *OF_CLUSTERS],
    "containers": [*OF_ALL, *OF_STANDALONE, *OF_CONTAINERS],
}
"""Names of the loops of each kind of system. Containers are those of a standalone one whose engine shares no files."""

cluster_only = [pytest.mark.rabbitmq, pytest.mark.mongodb]

each_loop = pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("standalone", name) for name in OF_KINDS["standalone"]),
        *(pytest.param("cluster", name, marks=cluster_only) for name in OF_KINDS["cluster"]),
        *(pytest.param("containers", name, marks=pytest.mark.docker) for name in OF_CONTAINERS),
    ],
)
each_kind = pytest.mark.parametrize(
    "kind", ["standalone", pytest.param("cluster", marks=cluster_only)]
)

Work = Callable[[], Awaitable[None]]
Trial = Callable[[Work], Awaitable[None]]


class Trouble(Exception):
    """What a loop is made to raise."""


class Troubles:
    """Makes the loops of one name raise, hang, raise amid their work, and work from then on; or raise for ever."""

    def __init__(self) -> None:
        self.name = ""
        self.for_ever = False
        self.met: set[str] = set()
        self._left: list[Trial] = [raises, hangs, is_torn_away]

    def give(self, loop: Loop) -> None:
        """Give a loop its share, as it is started."""
        self.met.add(loop.name)
        if loop.name == self.name:
            loop._work = self._troubled(loop)

    def _troubled(self, loop: Loop) -> Work:
        work, patience = loop._work, loop._patience
        loop._patience = PATIENCE

        async def troubled() -> None:
            if self.for_ever:
                await raises(work)
            if self._left:
                trial = self._left.pop(0)
                try:
                    await trial(work)
                except asyncio.CancelledError:
                    if trial is is_torn_away:  # its owner ended the loop before
                        self._left.insert(0, trial)
                    raise
            loop._patience = patience
            await work()

        return troubled


async def raises(_: Work) -> None:
    raise Trouble("made up")


async def hangs(_: Work) -> None:
    await asyncio.Event().wait()


async def is_torn_away(work: Work) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(AMID):
            await work()
    raise Trouble("amid its work")


@pytest.fixture
def troubles(monkeypatch: pytest.MonkeyPatch) -> Troubles:
    made, start = Troubles(), Loop.start

    def started(loop: Loop) -> None:
        made.give(loop)
        start(loop)

    monkeypatch.setattr(Loop, "start", started)
    return made


def watches(_: extensions.Context) -> Watches:
    return Watches()


async def shares_nothing(*_: object) -> bool:
    return False


class Watches:
    """An extension that is told of jobs."""

    async def changed(self, *_: object) -> None:
        """Hear of one."""


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    entry = EntryPoint("watches", f"{__name__}:watches", "haulier.middleware.job")
    monkeypatch.setattr(
        extensions, "entry_points", lambda group: EntryPoints([entry]).select(group=group)
    )
    return {
        "HAULIER_EXTENSIONS_MIDDLEWARE_JOB": "watches",
        "HAULIER_COORDINATOR_MIDDLEWARE_KEY_AUTH_ENABLED": "true",
        "HAULIER_COORDINATOR_MIDDLEWARE_KEY_AUTH_KEY": KEY,
        **of_kind(request, kind, monkeypatch),
    }


def of_kind(
    request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    if kind == "standalone":
        return {}
    if kind == "containers":
        monkeypatch.setattr(shared_files_probe, "shares_files", shares_nothing)
        return {"HAULIER_RUNTIME_TYPE": "docker"}
    vhost: Vhost = request.getfixturevalue("rabbitmq_vhost")
    database: Database = request.getfixturevalue("mongodb_database")
    return {
        "HAULIER_BROKER_TYPE": "rabbitmq",
        "HAULIER_BROKER_RABBITMQ_URL": vhost.url,
        "HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL": vhost.management_url,
        "HAULIER_DATASTORE_TYPE": "mongodb",
        "HAULIER_DATASTORE_MONGODB_URL": database.url,
        "HAULIER_DATASTORE_MONGODB_DATABASE": database.name,
    }


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with capture_logs() as entries:
        yield entries


@pytest.mark.parametrize(
    "kind",
    [
        "standalone",
        pytest.param("cluster", marks=cluster_only),
        pytest.param("containers", marks=pytest.mark.docker),
    ],
)
async def test_every_loop_is_tried(
    kind: str, settings: dict[str, str], troubles: Troubles, tmp_path: Path
) -> None:
    async with system(configured(tmp_path, settings)) as whole:
        assert await whole.run_job() == ("COMPLETED", LOG)
        assert not whole.restarts
    assert troubles.met == set(OF_KINDS[kind])


@each_loop
async def test_a_loop_that_fails_is_begun_again(
    name: str, settings: dict[str, str], troubles: Troubles, tmp_path: Path, logged: list[Any]
) -> None:
    troubles.name = name
    async with system(configured(tmp_path, settings)) as whole, asyncio.timeout(WITHIN):
        while whole.restarts.get(name, 0) < 3:
            assert await whole.run_job() == ("COMPLETED", LOG)
        assert await whole.run_job() == ("COMPLETED", LOG)
        for process in whole.processes:
            assert await whole.health(process, "/health/live") == (200, "")
    causes = {
        type(entry["exc_info"]).__name__
        for entry in logged
        if entry["event"] == "a loop failed and begins again" and entry["loop"] == name
    }
    assert causes == {"Trouble", "LoopCutError"}


@each_kind
@pytest.mark.parametrize("name", ["sweeper", "engine check"])
async def test_a_loop_that_fails_for_ever_is_named_by_its_process(
    name: str,
    settings: dict[str, str],
    troubles: Troubles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "LIVE_WITHIN", 1.0)
    monkeypatch.setattr(supervision, "LONGEST_DELAY", 1.0)
    troubles.name, troubles.for_ever = name, True
    async with system(configured(tmp_path, settings)) as whole, asyncio.timeout(WITHIN):
        first, last = whole.processes[0], whole.processes[-1]
        process, other = (first, last) if name == "sweeper" else (last, first)
        said = await told(whole, process, 503)
        assert said.startswith(f"{name} has been failing for")
        assert await whole.health(process, "/health") == (200, "")
        if other is not process:
            assert await whole.health(other, "/health/live") == (200, "")
        troubles.for_ever = False
        await told(whole, process, 200)


async def told(whole: System, process: Process, status: int, path: str = "/health/live") -> str:
    """Return what a process says of its health, or its loops, once it answers so."""
    while True:
        found, said = await whole.health(process, path)
        if found == status:
            return said
        await asyncio.sleep(0.05)
