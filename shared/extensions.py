"""Extensions: what other packages add to a process. A package offers them as entry points, in a group for each kind
(`haulier.middleware.task`); a process loads those that `extensions` of its configuration names, and no others.

None of them can stop anything: each call has its time, and what goes wrong is logged and counted."""

from __future__ import annotations

import asyncio
import tomllib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from prometheus_client import CollectorRegistry, Counter

from shared.config.schema import Config
from shared.encryption import Vault
from shared.errors import ApplicationError, Forbidden, NotAllowed
from shared.supervision import Loop, Tasks, waiting

log = structlog.get_logger(__name__)

_T = TypeVar("_T")

GROUP: Final = "haulier"
OK, FAILED, TIMEOUT, DROPPED = "ok", "failed", "timeout", "dropped"
"""How a call of an extension ends, as metrics say it; `dropped`: it was too far behind to be called."""

REFUSALS: Final = (NotAllowed, Forbidden)
"""What an extension raises to refuse, where it may: with 400 or 403, and what it says."""

CALL_BACKLOG: Final = 1000
"""What an extension may lag behind before the newest is dropped."""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """What an extension is made with."""

    name: str
    settings: Mapping[str, Any]
    """The table of its name in the file `extensions.settings`."""
    config: Config
    vault: Vault | None = None
    """What seals secrets that are stored; None where no `encryption.key` is configured."""
    node_id: str = ""
    """The node that a runtime works for; empty for other kinds."""


class Extension(msgspec.Struct, frozen=True):
    """An extension that was loaded: `kind` as `middleware.task`, and what its entry point made."""

    kind: str
    name: str
    made: Any


def load_extensions(
    kind: str, config: Config, names: Sequence[str], **more: Any
) -> list[Extension]:
    """Return the extensions of a kind that are named, in that order.

    Raises `ApplicationError`, with the setting, where one is not installed or can't be made."""
    if not names:
        return []
    tables = _tables(config.extensions.settings)
    return [
        Extension(
            kind,
            name,
            _made(
                kind,
                _found(kind, name),
                Context(name=name, settings=tables.get(name, {}), config=config, **more),
            ),
        )
        for name in names
    ]


def load_extension(kind: str, config: Config, **more: Any) -> Any:
    """Return what the one extension of a kind made that is named (a broker, a datastore, a runtime); None where none
    is. Raises `ApplicationError`."""
    name = getattr(config.extensions, kind)
    found = load_extensions(kind, config, [name] if name else [], **more)
    return found[0].made if found else None


def _found(kind: str, name: str) -> EntryPoint:
    group = f"{GROUP}.{kind}"
    offered = entry_points(group=group)
    for entry in offered:
        if entry.name == name:
            return entry
    others = ", ".join(sorted({entry.name for entry in offered})) or "none"
    raise ApplicationError(
        f"extensions.{kind}: no package that is installed offers {name!r} in the entry point group {group!r} "
        f"(offered: {others})"
    )


def _made(kind: str, entry: EntryPoint, context: Context) -> Any:
    try:
        return entry.load()(context)
    except Exception as error:
        log.debug("an extension can't be loaded", extension=entry.name, exc_info=error)
        of = f" of {entry.dist.name} {entry.dist.version}" if entry.dist is not None else ""
        said = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise ApplicationError(
            f"extensions.{kind}: {entry.name!r}{of} can't be loaded: {said}"
        ) from error


def _tables(file: str) -> dict[str, Mapping[str, Any]]:
    if not file:
        return {}
    try:
        tables = tomllib.loads(Path(file).read_text())
    except (OSError, ValueError) as error:
        said = getattr(error, "strerror", None) or error
        raise ApplicationError(f"extensions.settings: {file} can't be read: {said}") from error
    return {name: table for name, table in tables.items() if isinstance(table, dict)}


class Guard:
    """Calls extensions, so that none stops anything."""

    def __init__(self, timeout: float, registry: CollectorRegistry) -> None:
        self.timeout = timeout
        self._late = Tasks()
        self._calls = Counter(
            "haulier_extension_calls",
            "Calls of extensions",
            ("kind", "extension", "outcome"),
            registry=registry,
        )

    async def call(
        self,
        extension: Extension,
        function: Callable[..., Awaitable[_T]],
        *args: object,
        may_refuse: bool = False,
    ) -> _T | None:
        """Return what a function of an extension gives; None, where it fails or takes too long.

        It is not waited for any longer then, even where it can't be cancelled. `may_refuse`: a refusal is raised."""
        task = self._late.start(_outcome(function, args), f"extension {extension.name}")
        try:
            with waiting():
                await asyncio.wait({task}, timeout=self.timeout)
        finally:
            task.cancel()
        if not task.done():
            self.note(extension, TIMEOUT, f"no answer within {self.timeout:g} s")
            return None
        value, error = (None, _CANCELLED) if task.cancelled() else task.result()
        if may_refuse and isinstance(error, REFUSALS):
            self.count(extension, OK)
            raise error
        if error is not None:
            self.note(extension, FAILED, f"{type(error).__name__}: {error}")
            return None
        self.count(extension, OK)
        return value

    def note(self, extension: Extension, outcome: str, reason: str) -> None:
        """Log and count what went wrong."""
        log.warning(
            "an extension failed",
            kind=extension.kind,
            extension=extension.name,
            outcome=outcome,
            reason=reason,
        )
        self.count(extension, outcome)

    def count(self, extension: Extension, outcome: str) -> None:
        """Count a call."""
        self._calls.labels(extension.kind, extension.name, outcome).inc()


_CANCELLED: Final = RuntimeError("it cancelled itself")


async def _outcome(
    function: Callable[..., Awaitable[_T]], args: tuple[object, ...]
) -> tuple[_T | None, Exception | None]:
    try:
        return await function(*args), None
    except Exception as error:
        return None, error


class Observer:
    """Tells an extension what happened, one thing after another, and makes nobody wait for it."""

    def __init__(self, guard: Guard, extension: Extension, method: str) -> None:
        self._guard = guard
        self._extension = extension
        self._method = getattr(extension.made, method)
        self._queue: asyncio.Queue[Any] = asyncio.Queue(CALL_BACKLOG)
        self._loop = Loop("extension", self._tell_all, about=extension.name)

    def tell(self, what: object) -> None:
        """Have it told soon."""
        try:
            self._queue.put_nowait(what)
        except asyncio.QueueFull:
            self._guard.note(self._extension, DROPPED, f"it is {CALL_BACKLOG} calls behind")

    def start(self) -> None:
        """Begin to tell."""
        self._loop.start()

    async def close(self) -> None:
        """Tell no more."""
        await self._loop.close()

    async def _tell_all(self) -> None:
        while True:
            with waiting():
                what = await self._queue.get()
            await self._guard.call(self._extension, self._method, what)


def observers(guard: Guard, extensions: Sequence[Extension], method: str) -> list[Observer]:
    """Return those of `extensions` that have a method of this name, to be told by it."""
    return [
        Observer(guard, extension, method)
        for extension in extensions
        if hasattr(extension.made, method)
    ]
