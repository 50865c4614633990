"""Extensions can't stop anything: what raises, hangs, refuses or lags is logged and counted, and the rest goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client import CollectorRegistry

from coordinator.api.http import Route, RouteHandler
from coordinator.extensions import CoordinatorExtensions, guard_middleware
from shared import extensions
from shared.config.cross_checks import role_problems
from shared.config.schema import Config, ExtensionMiddleware, ExtensionSettings
from shared.errors import ApplicationError, Forbidden, NotAllowed
from shared.extensions import (
    CALL_BACKLOG,
    Context,
    Extension,
    Guard,
    Observer,
    load_extension,
    load_extensions,
)
from shared.model.language import Mount, TaskDefinition
from tests.unit.worker.plant import HeldRun
from worker.extensions import ExtendedRuntime
from worker.runtime.port import Assignment, Outcome, Run, Runtime, Sink


class Counted:
    """A guard with short patience, and what it counted."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.guard = Guard(0.1, self.registry)

    def __call__(self, outcome: str, kind: str = "middleware.job", name: str = "x") -> float:
        labels = {"kind": kind, "extension": name, "outcome": outcome}
        return self.registry.get_sample_value("haulier_extension_calls_total", labels) or 0.0


@pytest.fixture
def counted() -> Counted:
    return Counted()


NO_STORE: Any = None
"""Nothing is stored."""


def extension(made: Any, kind: str = "middleware.job", name: str = "x") -> Extension:
    return Extension(kind, name, made)


async def fails(*_: Any) -> int:
    raise ValueError("boom")


async def hangs(*_: Any) -> int:
    await asyncio.Event().wait()
    return 0


async def gives(*args: Any) -> int:
    return len(args)


def at_once(*_: Any) -> Awaitable[int]:
    raise KeyError("not even async")


# --- loading ------------------------------------------------------------------------------------------------------


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def offer(**groups: dict[str, str]) -> None:
        found = [
            EntryPoint(name, value, group.replace("__", "."))
            for group, entries in groups.items()
            for name, value in entries.items()
        ]
        monkeypatch.setattr(
            extensions, "entry_points", lambda group: EntryPoints(found).select(group=group)
        )

    return offer


def named(**settings: Any) -> Config:
    return Config(extensions=ExtensionSettings(**settings))


def test_only_what_is_named_is_loaded(offered: Callable[..., None], tmp_path: Path) -> None:
    here = f"{__name__}:"
    offered(haulier__broker={"mine": here + "made", "broken": "no_such_module:x"})
    tables = tmp_path / "extensions.toml"
    tables.write_text('[mine]\nurl = "x://y"\n')
    assert load_extension("broker", Config()) is None
    context = load_extension("broker", named(broker="mine", settings=str(tables)), node_id="n")
    assert (context.name, context.settings, context.node_id) == ("mine", {"url": "x://y"}, "n")
    assert load_extensions("broker", Config(), ()) == []


def made(context: Context) -> Context:
    return context


def refuses(_context: Context) -> None:
    raise ValueError("needs\na url")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"broker": "other"}, r"no package .* 'other' .*'haulier.broker' \(offered: bad, gone, mine\)"),
        ({"broker": "gone"}, "'gone' can't be loaded: ModuleNotFoundError: No module named 'no_such'"),
        ({"broker": "bad"}, "extensions.broker: 'bad' can't be loaded: ValueError: needs a url"),
        ({"broker": "mine", "settings": "/no/such/file"}, "settings: /no/such/file can't be read: No such file"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_missing(
    offered: Callable[..., None], settings: dict[str, str], said: str
) -> None:
    here = f"{__name__}:"
    offered(haulier__broker={"mine": here + "made", "gone": "no_such:x", "bad": here + "refuses"})
    with pytest.raises(ApplicationError, match=said) as raised:
        load_extension("broker", named(**settings))
    assert "\n" not in str(raised.value)


def test_an_extension_takes_the_place_of_what_the_settings_must_name_else() -> None:
    assert list(role_problems(Config(), "worker"))
    assert not list(role_problems(named(broker="mine"), "worker"))


# --- calls --------------------------------------------------------------------------------------------------------


async def test_a_call_that_fails_or_hangs_gives_nothing_and_is_counted(counted: Counted) -> None:
    call = counted.guard.call
    assert await call(extension(None), gives, 1, 2) == 2
    assert [await call(extension(None), each) for each in (fails, hangs, at_once)] == [None] * 3
    assert (counted("ok"), counted("failed"), counted("timeout")) == (1, 2, 1)


async def test_a_call_that_can_not_be_cancelled_is_not_waited_for(counted: Counted) -> None:
    released = asyncio.Event()

    async def stubborn() -> None:
        while not released.is_set():
            try:
                await released.wait()
            except asyncio.CancelledError:
                continue

    async with asyncio.timeout(5):
        await counted.guard.call(extension(None), stubborn)
    assert counted("timeout") == 1
    released.set()


async def test_a_refusal_passes_where_it_may(counted: Counted) -> None:
    async def refuse() -> None:
        raise NotAllowed("not here")

    with pytest.raises(NotAllowed, match="not here"):
        await counted.guard.call(extension(None), refuse, may_refuse=True)
    assert counted("failed") == 0
    await counted.guard.call(extension(None), refuse)
    assert counted("failed") == 1


async def test_an_observer_hears_all_in_order_and_holds_nobody_up(counted: Counted) -> None:
    heard: list[int] = []
    go_on, through = asyncio.Event(), asyncio.Event()

    class Slow:
        async def changed(self, what: int) -> None:
            if what == 0:
                await go_on.wait()
            if what == 1:
                raise ValueError("boom")
            heard.append(what)
            if what == CALL_BACKLOG - 1:
                through.set()

    counted.guard.timeout = 10.0
    observer = Observer(counted.guard, extension(Slow()), "changed")
    for number in range(CALL_BACKLOG + 3):
        observer.tell(number)
    observer.start()
    go_on.set()
    async with asyncio.timeout(10):
        await through.wait()
    await observer.close()
    assert heard == [0, *range(2, CALL_BACKLOG)]
    assert (counted("dropped"), counted("failed")) == (3, 1)


# --- requests -----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def served(
    counted: Counted, middleware: Any
) -> AsyncIterator[tuple[TestClient[Any, Any], list[str]]]:
    handled: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        handled.append(request.path)
        if request.path == "/fault":
            raise web.HTTPConflict
        return web.Response(text="handled")

    app = web.Application(middlewares=[guard_middleware(counted.guard, extension(middleware))])
    app.router.add_get("/{any:.*}", handler)
    async with TestClient(TestServer(app)) as client:
        yield client, handled


async def fails_before(_request: web.Request, _handler: RouteHandler) -> web.StreamResponse:
    raise ValueError("boom")


async def fails_after(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    await handler(request)
    raise ValueError("boom")


async def hangs_after(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    await handler(request)
    await asyncio.Event().wait()
    raise AssertionError


async def changes(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
    response = await handler(request)
    response.headers["X-Seen"] = "yes"
    return response


async def closes(_request: web.Request, _handler: RouteHandler) -> web.StreamResponse:
    raise web.HTTPForbidden


@pytest.mark.parametrize(
    ("middleware", "status", "outcome"),
    [
        (changes, 200, "ok"),
        (fails_before, 200, "failed"),
        (fails_after, 200, "failed"),
        (hangs, 200, "timeout"),
        (hangs_after, 200, "timeout"),
        (at_once, 200, "failed"),
        (closes, 403, "failed"),
    ],
)
async def test_a_request_is_answered_whatever_a_middleware_does(
    counted: Counted, middleware: Any, status: int, outcome: str
) -> None:
    async with served(counted, middleware) as (client, handled), asyncio.timeout(10):
        answer = await client.get("/x")
        assert answer.status == status
        assert handled == ["/x"] * (status == 200)
        assert ("X-Seen" in answer.headers) == (middleware is changes)
        assert counted(outcome) == (middleware is not closes)
        fault = await client.get("/fault")
        assert fault.status == (403 if middleware is closes else 409)


async def test_endpoints_must_be_routes_of_their_own(offered: Callable[..., None]) -> None:
    here = f"{__name__}:"
    offered(haulier__endpoints={"no": here + "no_routes", "taken": here + "taken_routes"})
    for name, said in (("no", "'no' gives something that is no"), ("taken", "GET /jobs, which")):
        with pytest.raises(ApplicationError, match=said):
            CoordinatorExtensions(named(endpoints=(name,)), NO_STORE, CollectorRegistry())


def no_routes(_context: Context) -> list[str]:
    return ["/x"]


def taken_routes(_context: Context) -> list[Route]:
    return [
        Route(method="GET", path="/jobs", handler=changes, group="", summary="", answer=None)  # type: ignore[arg-type]  # it is never called
    ]


async def test_jobs_pass_the_extensions_one_after_another(offered: Callable[..., None]) -> None:
    offered(haulier__middleware__job=dict.fromkeys(("a", "b"), f"{__name__}:Named"))
    config = named(middleware=ExtensionMiddleware(job=("a", "b")))
    made = CoordinatorExtensions(config, NO_STORE, CollectorRegistry())
    assert not made.observing
    assert await made.submitted("job", None) == "job a b"  # type: ignore[arg-type, comparison-overlap]  # any thing
    with pytest.raises(Forbidden, match="closed"):
        await made.submitted("closed", None)  # type: ignore[arg-type]  # any thing


class Named:
    def __init__(self, context: Context) -> None:
        self._name = context.name

    async def submitted(self, definition: str, _actor: object) -> str:
        if definition == "closed":
            raise Forbidden("closed")
        return f"{definition} {self._name}"


# --- runs ---------------------------------------------------------------------------------------------------------


class Prepared:
    """A runtime that keeps what it was to prepare."""

    def __init__(self) -> None:
        self.assignments: list[Assignment] = []

    async def prepare(self, assignment: Assignment, sink: Sink) -> Run:
        self.assignments.append(assignment)
        if assignment.task.image == "bad":
            raise RuntimeError("no such image")
        return HeldRun(assignment, sink)


class Region:
    async def before_run(self, assignment: Assignment) -> TaskDefinition | None:
        image = assignment.task.image
        if image == "refused":
            raise NotAllowed("image: not here")
        if image == "fault":
            raise ValueError("boom")
        return msgspec.structs.replace(assignment.task, env={"REGION": "here"})


class Folder:
    def __init__(self) -> None:
        self.unmounted: list[str] = []

    async def mount(self, mount: Mount, _assignment: Assignment) -> Mount:
        if mount.source == "gone":
            raise OSError("stale")
        return Mount(type="bind", source=f"/shared/{mount.source}", target=mount.target)

    async def unmount(self, mount: Mount) -> None:
        self.unmounted.append(mount.source)


async def prepare(
    counted: Counted, task: TaskDefinition, mounter: Folder | None = None
) -> tuple[Run, list[Assignment]]:
    runtime = Prepared()
    extended = ExtendedRuntime(
        runtime,  # type: ignore[arg-type]  # only prepares
        counted.guard,
        [extension(Region(), "middleware.task")],
        [extension(mounter, "mounters", "shared")] if mounter else [],
    )
    assignment = Assignment(task_id="t", job_id="j", node_id="n", nonce="o", attempt=1, task=task)
    checked: Runtime = extended
    return await checked.prepare(assignment, None), runtime.assignments  # type: ignore[arg-type]  # no output


async def test_a_task_is_changed_before_its_run(counted: Counted) -> None:
    _, (assignment,) = await prepare(counted, TaskDefinition(image="good"))
    assert assignment.task.env == {"REGION": "here"}
    _, (assignment,) = await prepare(counted, TaskDefinition(image="fault", env={"A": "1"}))
    assert assignment.task.env == {"A": "1"}
    assert counted("failed", "middleware.task") == 1


async def test_a_task_that_is_refused_fails_with_what_was_said(counted: Counted) -> None:
    run, assignments = await prepare(counted, TaskDefinition(image="refused"))
    await run.stop("late")
    assert await run.run() == Outcome(error="image: not here")
    await run.remove()
    assert assignments == []


def mounting(*sources: str, image: str = "good") -> TaskDefinition:
    mounts = [
        Mount(type="shared", source=source, target=f"/{source}") if source else Mount(type="volume", target="/v")
        for source in sources
    ]  # fmt: skip
    return TaskDefinition(image=image, mounts=mounts)


async def test_mounts_are_made_by_their_type_and_unmade_with_the_run(counted: Counted) -> None:
    mounter = Folder()
    run, (assignment,) = await prepare(counted, mounting("a", "", "b"), mounter)
    assert [(mount.type, mount.source) for mount in assignment.task.mounts] == [
        ("bind", "/shared/a"), ("volume", ""), ("bind", "/shared/b"),
    ]  # fmt: skip
    await run.stop("enough")
    assert (await run.run()).error == "enough"
    assert mounter.unmounted == []
    await run.remove()
    assert mounter.unmounted == ["b", "a"]


async def test_a_task_does_not_run_without_its_mount(counted: Counted) -> None:
    mounter = Folder()
    run, assignments = await prepare(counted, mounting("a", "gone"), mounter)
    assert (await run.run()).error == "the mount /gone of type shared can't be made"
    assert assignments == []
    assert mounter.unmounted == ["gone", "a"]
    with pytest.raises(RuntimeError, match="no such image"):
        await prepare(counted, mounting("c", image="bad"), mounter)
    assert mounter.unmounted[-1] == "c"


def test_nothing_is_put_in_the_way_where_there_are_no_extensions(tmp_path: Path) -> None:
    del tmp_path
    names: Sequence[str] = ()
    made = CoordinatorExtensions(Config(), NO_STORE, CollectorRegistry())
    assert (made.observing, made.submitting, made.middlewares, made.routes) == (False, [], [], [])
    assert load_extensions("mounters", Config(), names) == []
