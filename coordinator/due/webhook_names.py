"""Looks receivers' names up, so that a name server which never answers delays nobody but who named it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter
from contextvars import ContextVar
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

LOOKUPS_AT_ONCE: Final = 100
LOOKUPS_OF_A_USER: Final = 40
"""Names that are looked up at a time, each on a thread."""

LOOKUP_PATIENCE: Final = 10.0
"""Seconds that a lookup waits for others to end."""

_NUMERIC: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV

named_by: ContextVar[str] = ContextVar("named_by", default="")
"""The user whose receiver is to be found."""


class NoLookup(socket.gaierror):
    """This process has no room to look a name up just now."""


class ReceiverNames(AbstractResolver):
    """Resolves names as all else here does (`/etc/hosts`, search domains), but on threads of its own.

    Nobody can end a lookup: it goes on when who asked has given up. The threads that the process has for what is short
    would all be taken by a few names, and the broker could not be connected to. So a place is free again only when the
    lookup has ended, and one user never has all."""

    def __init__(self, patience: float = LOOKUP_PATIENCE) -> None:
        self._patience = patience
        self._places: Counter[str] = Counter()
        self._some_ended = asyncio.Event()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises `OSError`; `NoLookup` where the name is not to blame."""
        user = named_by.get()
        await self._room_for(user)
        self._places[user] += 1
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[ResolveResult]] = loop.create_future()

        def ended(answer: list[ResolveResult] | OSError) -> None:
            self._places[user] -= 1
            self._places += Counter()  # without those that have none left
            self._some_ended.set()
            if found.done():
                return
            if isinstance(answer, OSError):
                found.set_exception(answer)
            else:
                found.set_result(answer)

        def look() -> None:
            answer = _looked_up(host, port, family)
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended, answer)

        try:  # as a daemon it keeps no process from its end
            threading.Thread(target=look, name="receiver's name", daemon=True).start()
        except RuntimeError as error:  # the machine has no room for another thread
            ended(NoLookup(socket.EAI_AGAIN, str(error)))
        return await found

    async def close(self) -> None:
        """Nothing: what is looked up ends by itself."""

    async def _room_for(self, user: str) -> None:
        try:
            async with asyncio.timeout(self._patience):
                while not self._has_room_for(user):
                    self._some_ended.clear()
                    await self._some_ended.wait()
        except TimeoutError:
            text = "too many names of receivers are being looked up"
            raise NoLookup(socket.EAI_AGAIN, text) from None

    def _has_room_for(self, user: str) -> bool:
        return self._places[user] < LOOKUPS_OF_A_USER and self._places.total() < LOOKUPS_AT_ONCE


def _looked_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult] | OSError:
    try:
        found = socket.getaddrinfo(
            host, port, family, socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG
        )
        numeric = socket.NI_NUMERICHOST | socket.NI_NUMERICSERV
        return [
            ResolveResult(
                hostname=host,
                host=socket.getnameinfo(address, numeric)[0],
                port=port,
                family=kind,
                proto=protocol,
                flags=_NUMERIC,
            )
            for kind, _, protocol, _, address in found
        ]
    except OSError as error:
        return error
    except ValueError as error:  # no name can be like that
        return socket.gaierror(socket.EAI_NONAME, str(error))
