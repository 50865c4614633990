"""Figures of queues: from the management API where it is there, else by asking for each queue."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import aiohttp
import structlog
from aiormq.channel import Channel
from yarl import URL

from shared.broker.port import QueueInfo
from shared.broker.rabbitmq.declarations import check_name, look
from shared.broker.rabbitmq.errors import Absent, Elsewhere, Interrupted, interruptible
from shared.broker.rabbitmq.publisher import PublishChannel
from shared.errors import BrokerMisconfigured, BrokerUnavailable
from shared.model.queues import ALWAYS_THERE, queue_kind

_T = TypeVar("_T")

log = structlog.get_logger(__name__)

_PATIENCE = 5.0
"""Seconds for an answer: figures are looked at by people and by sweeps."""

_FIGURES = ("messages_ready", "consumers", "messages_unacknowledged")
_COLUMNS = ",".join(("name", *_FIGURES))


class Management:
    """RabbitMQ's management API, for one virtual host."""

    def __init__(self, url: str, vhost: str) -> None:
        given = URL(url)
        self._url = given.with_user(None)
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
        if self._client is None:
            timeout = aiohttp.ClientTimeout(total=_PATIENCE)
            self._client = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        base = str(self._url).rstrip("/")
        url = URL(f"{base}/api/{path}?columns={_COLUMNS}", encoded=True)
        try:
            async with self._client.get(url) as answer:
                if answer.status == 404:
                    return None
                answer.raise_for_status()
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise Interrupted(f"RabbitMQ's management API at {base}: {error}") from error


class Figures:
    """Looks at queues through `lane`, a channel of its own, and `management` where that is there.

    `held` counts what this process has on loan: without the management API nobody else's is
    known."""

    def __init__(
        self, lane: PublishChannel, management: Management | None, held: Counter[str]
    ) -> None:
        self._lane = lane
        self._management = management
        self._held = held
        self._known: set[str] = set(ALWAYS_THERE)
        self._turn = asyncio.Lock()

    def know(self, name: str) -> None:
        """Remember that there is a queue of this name: the protocol has no way to list them."""
        self._known.add(name)

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
        return QueueInfo(name, ready, consumers, listed.unacked if listed else self._held[name])

    async def queues(self) -> list[QueueInfo]:
        """Return the figures of all queues, by name. Raises `BrokerUnavailable`."""
        found = await self._all_listed()
        if found is None:
            # To ask for a queue that expires is to use it: it would never go.
            names = sorted(name for name in self._known if not _expires(name))
            found = [await self.queue(name) for name in names]
        there = [info for info in found if info is not None]
        self._known = {info.name for info in there} | set(ALWAYS_THERE)
        return sorted(there, key=lambda info: info.name)

    async def delete(self, name: str) -> bool:
        """Delete a queue with what is in it; False where it is not there. Raises
        `BrokerUnavailable`, also where it is one that another connection has for itself."""
        if not _possible(name):
            return False
        try:
            await self._look(name)
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
            log.warning("figures are asked for queue by queue", reason=str(silent))
            return None
        # One so new that there are no figures of it yet is asked for itself.
        return [_of_entry(entry) or await self.queue(str(entry["name"])) for entry in entries]

    async def _listed(self, name: str) -> QueueInfo | None:
        if self._management is None:
            return None
        try:
            return _of_entry(await self._management.queue(name))
        except Interrupted as silent:
            log.warning("figures of a queue lack what others hold", queue=name, reason=str(silent))
            return None

    async def _look(self, name: str) -> tuple[int, int]:
        return await self._ask(lambda channel: look(channel, name))

    async def _ask(self, call: Callable[[Channel], Awaitable[_T]]) -> _T:
        """Ask, one question at a time: one that fails takes the channel with it."""
        async with self._turn:
            try:
                async with asyncio.timeout(_PATIENCE):
                    _, channel = await self._lane.channel()
                    with interruptible():
                        return await call(channel)
            except (Absent, Elsewhere):
                raise
            except (Interrupted, TimeoutError) as error:
                text = str(error) or f"no answer within {_PATIENCE:g} s"
                raise BrokerUnavailable(f"RabbitMQ gives no figures: {text}") from error


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
