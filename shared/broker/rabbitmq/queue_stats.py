"""Figures of queues: from the management API where it is there, else by asking for each queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import structlog
from aiormq.channel import Channel
from yarl import URL

from shared.broker.port import QueueInfo
from shared.broker.rabbitmq.declarations import (
    Absent,
    Elsewhere,
    Interrupted,
    check_name,
    interruptible,
    look,
)
from shared.broker.rabbitmq.publisher import PublishChannel
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.model.queues import ALWAYS_THERE, queue_kind
from shared.supervision import waiting

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

_PATIENCE = 5.0
"""Seconds for an answer, the wait for its turn included: figures are looked at by people and by sweeps."""

_WHOLE = 20.0
"""Seconds for all answers that a list needs: a broker far away gives each of them in some milliseconds."""

_FIGURES = ("messages_ready", "consumers", "messages_unacknowledged")
_COLUMNS = ",".join(("name", *_FIGURES))


_SILENT = 60.0
"""Seconds for which a management API that nobody said is there, and that did not answer, is left alone."""

_DEFAULT_PORTS = {"amqp": 5672, "amqps": 5671}


def management_of(
    broker: URL, given: str | None, tls: ssl.SSLContext | None = None
) -> Management | None:
    """Return the management API that was `given`, else the one of `broker` where RabbitMQ has it by default: at port
    15672, behind TLS at 15671. None for a broker at a port of its own: what is at those ports may be another's."""
    vhost = broker.path.removeprefix("/") or "/"
    if given:
        return Management(given, vhost, tls=tls)
    if broker.port not in (None, _DEFAULT_PORTS[broker.scheme]):
        return None
    scheme, port = ("https", 15671) if broker.scheme == "amqps" else ("http", 15672)
    usual = URL.build(
        scheme=scheme, host=broker.host or "", port=port, user=broker.user, password=broker.password
    )
    return Management(str(usual), vhost, silence=_SILENT, tls=tls)


class Management:
    """RabbitMQ's management API, for one virtual host. One that did not answer is left alone for `silence` seconds."""

    def __init__(
        self, url: str, vhost: str, *, silence: float = 0.0, tls: ssl.SSLContext | None = None
    ) -> None:
        self._tls = tls
        self._silence = silence
        self._silent_until = 0.0
        self.level = logging.DEBUG if silence else logging.WARNING
        """How its silence is logged: one that nobody said is there need not be."""
        given = URL(url)
        self.url = given.with_user(None)
        secret = f"{given.user or 'guest'}:{given.password or 'guest'}"
        self._headers = {"Authorization": f"Basic {b64encode(secret.encode()).decode()}"}
        self._vhost = quote(vhost, safe="")
        self._client: aiohttp.ClientSession | None = None

    async def queues(self) -> list[dict[str, Any]]:
        """Return every queue. Raises `Interrupted` where the API does not answer as it should."""
        answer = await self._get(f"queues/{self._vhost}")
        if not isinstance(answer, list):
            raise Interrupted("RabbitMQ's management API does not know the virtual host")
        return answer

    async def queue(self, name: str) -> dict[str, Any] | None:
        """Return one queue; None where it is not there. Raises `Interrupted` as `queues` does."""
        answer = await self._get(f"queues/{self._vhost}/{quote(name, safe='')}")
        return answer if isinstance(answer, dict) else None

    async def close(self) -> None:
        """Close its connections."""
        if self._client is not None:
            await self._client.close()

    async def _get(self, path: str) -> Any:
        if time.monotonic() < self._silent_until:
            raise Interrupted("RabbitMQ's management API did not answer lately")
        if self._client is None:
            timeout = aiohttp.ClientTimeout(total=_PATIENCE)
            connector = aiohttp.TCPConnector(ssl=self._tls or True)
            self._client = aiohttp.ClientSession(
                headers=self._headers, timeout=timeout, connector=connector
            )
        base = str(self.url).rstrip("/")
        url = URL(f"{base}/api/{path}?columns={_COLUMNS}", encoded=True)
        try:
            async with self._client.get(url) as answer:
                if answer.status == 404:
                    return None
                answer.raise_for_status()
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            self._silent_until = time.monotonic() + self._silence
            raise Interrupted(f"RabbitMQ's management API at {base}: {error}") from error


class Figures:
    """Looks at queues through `lane`, a channel of its own, and `management` where that is there: without it nobody
    can list queues, or tell what is on loan."""

    def __init__(self, lane: PublishChannel, management: Management | None) -> None:
        self._lane = lane
        self._management = management
        self._turn = asyncio.Lock()

    async def queue(self, name: str) -> QueueInfo | None:
        """Return the figures of one queue. Raises `BrokerUnavailable`."""
        if not _possible(name):
            return None
        listed = await self._listed(name)
        if listed is not None and _expires(name):
            return listed
        try:
            ready, consumers = await self._look(name)
        except Absent:
            return None
        except Elsewhere:
            return listed
        return QueueInfo(name, ready, consumers, listed.unacked if listed else None)

    async def queues(self, names: Collection[str]) -> list[QueueInfo]:
        """Return the figures of all queues, or where they can't be listed of `names`, by name. Raises
        `BrokerUnavailable`."""
        found = await self._all_listed()
        if found is None:
            async with _in_time(_WHOLE):
                found = [await self._asked(name) for name in {*ALWAYS_THERE, *names}]
        there = [info for info in found if info is not None]
        return sorted(there, key=lambda info: info.name)

    async def ready(self, name: str) -> int | None:
        """Return what is ready in a queue; None where it is not there. Raises `BrokerUnavailable`."""
        asked = await self._asked(name)
        return None if asked is None else asked.size

    async def delete(self, name: str, *, unused: bool = False) -> bool:
        """Delete a queue with what is in it; False where it is not there, or not `unused` where it must be. Raises
        `BrokerUnavailable`, also where it is one that another connection has for itself."""
        if not _possible(name):
            return False
        try:
            _, consumers = await self._look(name)
            if consumers and unused:
                return False
            await self._ask(lambda channel: channel.queue_delete(name))
        except Absent:
            return False
        except Elsewhere as error:
            raise BrokerUnavailable(str(error)) from error
        return True

    async def _all_listed(self) -> list[QueueInfo | None] | None:
        """Return all that the management API lists; None where there is none that answers."""
        if self._management is None:
            return None
        try:
            entries = await self._management.queues()
        except Interrupted as silent:
            log.log(
                self._management.level, "figures are asked for queue by queue", reason=str(silent)
            )
            return None
        # One so new that there are no figures of it yet is asked for itself.
        async with _in_time(_WHOLE):
            return [_of_entry(entry) or await self.queue(str(entry["name"])) for entry in entries]

    async def _asked(self, name: str) -> QueueInfo | None:
        if not _possible(name):
            return None
        try:
            return QueueInfo(name, *await self._look(name))
        except (Absent, Elsewhere):
            return None

    async def _listed(self, name: str) -> QueueInfo | None:
        if self._management is None:
            return None
        try:
            return _of_entry(await self._management.queue(name))
        except Interrupted as silent:
            text = "figures of a queue lack what others hold"
            log.log(self._management.level, text, queue=name, reason=str(silent))
            return None

    async def _look(self, name: str) -> tuple[int, int]:
        return await self._ask(lambda channel: look(channel, name))

    async def _ask(self, call: Callable[[Channel], Awaitable[_T]]) -> _T:
        """Ask, one question at a time: one that fails takes the channel with it. Nobody waits for a lost connection."""
        if self._lane.link.present is None:
            raise BrokerUnavailable("RabbitMQ gives no figures: there is no connection to it now")
        async with _in_time(_PATIENCE), self._turn:
            try:
                _, channel = await self._lane.channel()
                with interruptible():
                    return await call(channel)
            except (Absent, Elsewhere):
                raise
            except Interrupted as error:
                raise BrokerUnavailable(f"RabbitMQ gives no figures: {error}") from error


@contextlib.asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    """Bound what is asked in the block, however many questions that are. The loop that waits here is not stuck."""
    try:
        with waiting():
            async with asyncio.timeout(seconds):
                yield
    except TimeoutError as error:
        text = f"RabbitMQ gives no figures: no answer within {seconds:g} s"
        raise BrokerUnavailable(text) from error


def _of_entry(entry: dict[str, Any] | None) -> QueueInfo | None:
    """Return the figures as the management API gives them; None where it has none yet."""
    if entry is None or not all(isinstance(entry.get(column), int) for column in _FIGURES):
        return None
    return QueueInfo(str(entry["name"]), *(entry[column] for column in _FIGURES))


def _possible(name: str) -> bool:
    try:
        check_name(name)
    except BrokerMisconfigured:
        return False
    return True


def _expires(name: str) -> bool:
    return queue_kind(name, node_expiry=1).expires is not None
