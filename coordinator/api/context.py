"""The context of request handlers: the API's parts, and the caller."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Final

import msgspec
from aiohttp import web

from coordinator.api.port import Commands
from coordinator.store.port import Store, Viewer
from shared.broker.port import Broker
from shared.config.tree import Config
from shared.model.documents import GUEST, Actor


class Caller(msgspec.Struct, frozen=True):
    """The user who sent a request. `viewer` limits which jobs the caller can see; None: all of them."""

    actor: Actor
    viewer: Viewer | None = None
    admin: bool = False


ANYONE: Final = Caller(actor=GUEST, admin=True)
"""Who asks where no authentication is on, or with the key."""


_DECODED_AT_ONCE: Final = 2


class Api:
    """The parts that the handlers of the API share."""

    def __init__(
        self, store: Store, broker: Broker, commands: Commands, config: Config, version: str
    ) -> None:
        self.store = store
        self.broker = broker
        self.commands = commands
        self.config = config
        self.version = version
        self.decoding = asyncio.Semaphore(_DECODED_AT_ONCE)
        """Documents are read on threads, few at a time."""
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


def set_caller(caller: Caller) -> None:
    """Note who asks."""
    _caller.set(caller)
