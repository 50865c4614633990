"""What extensions do in a coordinator: they see requests, jobs, tasks, nodes and logs, and add endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware as AioMiddleware
from prometheus_client import CollectorRegistry

from coordinator.api.app import ALL_ROUTES
from coordinator.api.http import HttpError, Route, RouteHandler
from coordinator.commands import JobCommands
from coordinator.effects.events import state_changed
from coordinator.store.port import Store
from shared.config import Config
from shared.errors import ApplicationError
from shared.extensions import (
    FAILED,
    OK,
    TIMEOUT,
    Extension,
    Guard,
    Observer,
    load_extensions,
    observers,
)
from shared.model import checks, language
from shared.model.documents import (
    Actor,
    Document,
    JobDocument,
    LogPartDocument,
    NodeDocument,
    ScheduleDocument,
)
from shared.model.views import node_view
from shared.supervision import beside, done_first


class CoordinatorExtensions:
    """The extensions of a coordinator. Raises `ApplicationError` where one can't be loaded."""

    def __init__(self, config: Config, store: Store, registry: CollectorRegistry) -> None:
        named = config.extensions
        self._config = config
        self._store = store
        self._guard = Guard(named.timeout, registry)
        self._web = load_extensions("middleware.web", config, named.middleware.web)
        self._jobs = load_extensions("middleware.job", config, named.middleware.job)
        tasks = load_extensions("middleware.task", config, named.middleware.task)
        nodes = load_extensions("middleware.node", config, named.middleware.node)
        logs = load_extensions("middleware.log", config, named.middleware.log)
        self.routes = _routes(load_extensions("endpoints", config, named.endpoints))
        self._of_jobs = observers(self._guard, self._jobs, "changed")
        self._of_tasks = observers(self._guard, tasks, "changed")
        self._of_nodes = observers(self._guard, nodes, "beat")
        self._of_logs = observers(self._guard, logs, "written")
        self.submitting = [each for each in self._jobs if hasattr(each.made, "submitted")]
        checks.MORE_MOUNT_TYPES.update(named.mounters)

    @property
    def _observers(self) -> list[Observer]:
        return [*self._of_jobs, *self._of_tasks, *self._of_nodes, *self._of_logs]

    @property
    def observing(self) -> bool:
        """Whether any wants to know what happens."""
        return bool(self._observers)

    @property
    def middlewares(self) -> list[AioMiddleware]:
        """What requests pass through, in the order of the configuration."""
        return [guard_middleware(self._guard, extension) for extension in self._web]

    def start(self) -> None:
        """Begin to tell what happens."""
        for observer in self._observers:
            observer.start()

    async def close(self) -> None:
        """Tell no more."""
        for observer in self._observers:
            await observer.close()

    async def submitted(
        self, definition: language.JobDefinition, actor: Actor
    ) -> language.JobDefinition:
        """Return a definition as extensions leave it. Raises `NotAllowed` or `Forbidden` where one refuses it."""
        for extension in self.submitting:
            changed = await self._guard.call(
                extension, extension.made.submitted, definition, actor, may_refuse=True
            )
            definition = definition if changed is None else changed
        return definition

    # --- what happens ---------------------------------------------------------------------------------------------

    def changed(self, document: Document, job: JobDocument | None) -> None:
        """Tell of a job's or task's new state, or of a beat."""
        if isinstance(document, NodeDocument):
            if self._of_nodes:
                view = node_view(document, self._store.now(), self._config.engine.beat)
                _tell(self._of_nodes, view)
            return
        wanted = self._of_jobs if isinstance(document, JobDocument) else self._of_tasks
        if wanted:
            keys = self._config.redaction.keys
            _tell(wanted, state_changed(document, job, self._store.now(), keys))

    def logged(self, parts: Sequence[LogPartDocument]) -> None:
        """Tell of parts of logs that were stored."""
        if self._of_logs:
            _tell(self._of_logs, tuple(map(msgspec.structs.replace, parts)))


def _tell(some: Sequence[Observer], what: object) -> None:
    if what is not None:
        for observer in some:
            observer.tell(what)


def _routes(extensions: Sequence[Extension]) -> list[Route]:
    found: list[Route] = []
    taken = {(route.method, route.path) for route in ALL_ROUTES}
    for extension in extensions:
        for route in extension.made:
            if not isinstance(route, Route):
                raise ApplicationError(
                    f"extensions.endpoints: {extension.name!r} gives something that is no coordinator.api.http.Route"
                )
            if (route.method, route.path) in taken:
                raise ApplicationError(
                    f"extensions.endpoints: {extension.name!r} gives {route.method} {route.path}, which exists"
                )
            taken.add((route.method, route.path))
            found.append(route)
    return found


class ExtendedCommands(JobCommands):
    """Commands of users, whose jobs extensions see first: they may change or refuse them."""

    extensions: CoordinatorExtensions

    async def submit(
        self, definition: language.JobDefinition, actor: Actor, **more: Any
    ) -> JobDocument:
        """Store a new job and have it begun."""
        return await super().submit(
            await self.extensions.submitted(definition, actor), actor, **more
        )

    async def rerun(
        self, job: JobDocument, definition: language.JobDefinition, actor: Actor, **more: Any
    ) -> JobDocument:
        """Store a new job made from another."""
        changed = await self.extensions.submitted(definition, actor)
        return await super().rerun(job, changed, actor, **more)

    async def schedule(self, definition: language.JobDefinition, actor: Actor) -> ScheduleDocument:
        """Store a schedule."""
        return await super().schedule(await self.extensions.submitted(definition, actor), actor)

    async def change_schedule(
        self, schedule: ScheduleDocument, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        """Have a schedule make other jobs."""
        changed = await self.extensions.submitted(definition, actor)
        return await super().change_schedule(schedule, changed, actor)


# --- requests -----------------------------------------------------------------------------------------------------


class _Passed:
    """What became of a request behind a middleware."""

    def __init__(self, handler: RouteHandler) -> None:
        self._handler = handler
        self.reached = asyncio.Event()
        self.over = asyncio.Event()
        self.response: web.StreamResponse | None = None
        self.error: Exception | None = None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass a request on, once."""
        self.reached.set()
        try:
            self.response = await self._handler(request)
        except Exception as error:
            self.error = error
            raise
        finally:
            self.over.set()
        return self.response


def guard_middleware(guard: Guard, extension: Extension) -> AioMiddleware:
    """Return a middleware that goes on without the extension's where that fails, or takes too long of its own."""

    @web.middleware
    async def guarded(request: web.Request, handler: RouteHandler) -> web.StreamResponse:
        passed = _Passed(handler)
        async with beside(_answer(extension, request, passed), "extension") as running:
            if await _in_time(running, passed, guard.timeout):
                try:
                    response: web.StreamResponse = running.result()
                except Exception as error:
                    if error is passed.error or isinstance(error, _ANSWERS):
                        raise
                    guard.note(extension, FAILED, f"{type(error).__name__}: {error}")
                else:
                    guard.count(extension, OK)
                    return response
            else:
                guard.note(extension, TIMEOUT, f"no answer within {guard.timeout:g} s")
        if passed.error is not None:
            raise passed.error
        return passed.response if passed.response is not None else await handler(request)

    return guarded


async def _answer(extension: Extension, request: web.Request, passed: _Passed) -> Any:
    return await extension.made(request, passed.handle)


_ANSWERS = (web.HTTPException, HttpError, ApplicationError)
"""What a middleware raises to answer in place of the handler."""


async def _in_time(running: asyncio.Task[Any], passed: _Passed, timeout: float) -> bool:
    """Wait until a middleware is done: it has `timeout` before it passes a request on, and again after that."""
    if await done_first(running, passed.reached.wait(), timeout=timeout):
        return True
    if not passed.reached.is_set():
        return False
    return await done_first(running, passed.over.wait()) or await done_first(
        running, timeout=timeout
    )
