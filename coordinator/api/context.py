"""The context of request handlers: the API's parts, and the caller."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Final, Protocol

import msgspec
from aiohttp import web

from coordinator.api.port import Commands
from coordinator.api.roles import ADMIN
from coordinator.api.sharing import LookTurns, SharedReads, Slices
from coordinator.dead_letters import DeadLetters
from coordinator.store.port import Store, Viewer
from coordinator.turns import Turns
from shared.broker.port import Broker
from shared.config.schema import Config
from shared.model.documents import GUEST, Actor, AuditIntentDocument
from shared.model.messages import StateChanged
from shared.supervision import Loop, waiting


class Caller(msgspec.Struct, frozen=True):
    """Who sent a request. `viewer` limits which jobs the caller can see; None: all of them."""

    actor: Actor
    viewer: Viewer | None = None
    role: str = ADMIN
    how: str = "none"
    """How they are known: by `password`, `key`, `token` or `session`; `none` where that is not asked for."""
    token_id: str = ""
    password: str = ""
    """Says which password of theirs they showed, where they did, and nothing else of it."""


ANYONE: Final = Caller(actor=GUEST)
"""Who asks where no authentication is on."""


class Auditor(Protocol):
    """Where it is written who did what (`coordinator.api.audit`)."""

    async def begin(self, intent: AuditIntentDocument) -> None:
        """Store what is about to be done."""

    def end(self, intent: AuditIntentDocument, status: int) -> None:
        """Note how it was answered."""

    async def refused(self, attempt: AuditIntentDocument, status: int) -> None:
        """Note what somebody was refused, with the status that said so."""

    async def flush(self) -> None:
        """Have all that is done written."""


class Listeners:
    """Those who hear each state change. The changes are read once for them all."""

    def __init__(self, events: Callable[[], AsyncIterator[StateChanged]]) -> None:
        self._events = events
        self._listeners: set[Callable[[StateChanged], None]] = set()
        self._loop: Loop | None = None

    @asynccontextmanager
    async def listening(self, heard: Callable[[StateChanged], None]) -> AsyncIterator[None]:
        """Call `heard` with each state change while the block runs."""
        self._listeners.add(heard)
        if self._loop is None:
            self._loop = Loop("listen for readers", self._listen)
            self._loop.start()
            await asyncio.sleep(0)  # so that an iterator that subscribes when first asked does so
        try:
            yield
        finally:
            self._listeners.discard(heard)
            if not self._listeners and self._loop is not None:
                loop, self._loop = self._loop, None
                await loop.close()

    async def _listen(self) -> None:
        with waiting():
            async for event in self._events():
                for heard in tuple(self._listeners):
                    heard(event)


DOCUMENTS_AT_ONCE: Final = 2
DOCUMENTS_WAITING: Final = 256
"""Long documents of one user that wait for their turn."""
_LOGS_READ_AT_ONCE: Final = 2


class Api:
    """The parts that the handlers of the API share."""

    def __init__(
        self,
        store: Store,
        broker: Broker,
        commands: Commands,
        config: Config,
        version: str,
        audit: Auditor,
    ) -> None:
        self.store = store
        self.broker = broker
        self.commands = commands
        self.dead_letters = DeadLetters(broker)
        self.config = config
        self.version = version
        self.long_documents = Turns(DOCUMENTS_AT_ONCE, DOCUMENTS_WAITING)
        """Long documents are read on threads, few at a time: each user in turn."""
        self.redacting = Turns(1)
        """Answers with long texts or many secrets to search for are made on a thread, one at a time: each user in
        turn."""
        self.long_pages = Turns(1)
        """Pages that may be of tens of megabytes are made one after another: each user in turn."""
        self.log_searches = Turns(1)
        """Logs are searched one after another, each user in turn: a search may take as long as a read may."""
        self.log_reads = Turns(_LOGS_READ_AT_ONCE)
        """The stored parts of logs are read for few at a time, each user in turn: the datastore has others to serve."""
        self.log_waits = SharedReads({}, worth=lambda _: False)
        """Waits for parts of logs that are on their way: those who wait for the same wait together."""
        self.slices = Slices()
        self.listeners = Listeners(commands.events)
        self.log_turns: dict[str, LookTurns] = {}
        """By the job whose log is followed."""
        self.audit = audit
        self.trusted_proxies = tuple(
            ipaddress.ip_network(text, strict=False) for text in config.coordinator.trusted_proxies
        )
        """Whose `X-Forwarded-For` counts."""
        self.closing = asyncio.Event()
        """Set when the server stops: streams end."""

    @property
    def key_patterns(self) -> tuple[str, ...]:
        """What the key of a value that is never shown contains."""
        return self.config.redaction.keys


API: Final = web.AppKey("API", Api)

_caller: Final[ContextVar[Caller]] = ContextVar("caller", default=ANYONE)
"""Each request is served by an asyncio task of its own, which this belongs to."""


def api_of(request: web.BaseRequest) -> Api:
    """Return the parts that serve this request."""
    assert isinstance(request, web.Request)
    return request.app[API]


def caller() -> Caller:
    """Return who asks, as the authentication found."""
    return _caller.get()


def caller_id() -> str:
    """Return the id of the user who asks."""
    return caller().actor.id


def set_caller(caller: Caller) -> None:
    """Note who asks."""
    _caller.set(caller)
