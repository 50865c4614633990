"""What a test does to RabbitMQ behind the broker's back."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp
from yarl import URL

from devservices.places import LOOPBACK
from devservices.rabbitmq_node import EPMD_PORT, Node
from tests.integration.rabbitmq.waiting import eventually
from tests.services.fixtures import Vhost

CONSUMER_TIMEOUT = 3.0
"""Seconds, on the node of these tests: 30 minutes elsewhere."""

CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"


def settings() -> str:
    """Lines for the node's rabbitmq.conf."""
    return f"consumer_timeout = {CONSUMER_TIMEOUT * 1000:.0f}\n"


async def look_often(node: Node) -> None:
    """Have the node look for late acknowledgements every second, on channels opened from now on."""
    await control(node, "eval", "application:set_env(rabbit, channel_tick_interval, 1000).")


class Server:
    """A server, by its management API."""

    def __init__(self, vhost: Vhost) -> None:
        self._vhost = quote(vhost.name, safe="")
        self._url = URL(vhost.management_url)

    async def queue(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self._call("GET", f"queues/{self._vhost}/{quote(name)}")
        return found

    async def delete_queue(self, name: str) -> None:
        await self._call("DELETE", f"queues/{self._vhost}/{quote(name)}")

    async def declare_queue(self, name: str, **declaration: Any) -> None:
        await self._call("PUT", f"queues/{self._vhost}/{quote(name)}", declaration)

    async def declare_exchange(self, name: str, kind: str) -> None:
        await self._call("PUT", f"exchanges/{self._vhost}/{quote(name)}", {"type": kind})

    async def queues(self) -> list[str]:
        """Return the names of all queues."""
        return [entry["name"] for entry in await self._call("GET", f"queues/{self._vhost}")]

    async def event_queues(self) -> list[str]:
        return [name for name in await self.queues() if name.startswith("events-")]

    async def connections(self) -> list[dict[str, Any]]:
        """Those of this virtual host that RabbitMQ has figures of."""
        entries = await self._call("GET", f"vhosts/{self._vhost}/connections")
        return [entry for entry in entries if "client_properties" in entry]

    async def channels(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = await self._call("GET", f"vhosts/{self._vhost}/channels")
        return entries

    async def kill_connections(self, count: int = 2) -> None:
        """End all connections, once it has seen as many as there must be."""
        seen = await eventually(self.connections, lambda found: len(found) >= count)
        for connection in seen:
            await self._call("DELETE", f"connections/{quote(connection['name'], safe='')}")

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        secret = aiohttp.encode_basic_auth(self._url.user or "", self._url.password or "")
        url = URL(f"{str(self._url.with_user(None)).rstrip('/')}/api/{path}", encoded=True)
        async with (
            aiohttp.ClientSession(headers={"Authorization": secret}) as client,
            client.request(method, url, json=body) as answer,
        ):
            answer.raise_for_status()
            return await answer.json() if method == "GET" else None


def _environment(node: Node) -> dict[str, str]:
    return {
        **os.environ,
        "HOME": str(node.folder),
        "RABBITMQ_NODENAME": f"haulier-{node.port}@{LOOPBACK}",
        "RABBITMQ_USE_LONGNAME": "true",
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": (node.folder / EPMD_PORT).read_text(),
    }


async def control(node: Node, *arguments: str) -> None:
    """Run rabbitmqctl on the node."""
    process = await asyncio.create_subprocess_exec(
        CONTROL,
        *arguments,
        env=_environment(node),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()


@asynccontextmanager
async def short_of_memory(node: Node) -> AsyncIterator[None]:
    """RabbitMQ's memory alarm is on."""
    await control(node, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        await control(node, "set_vm_memory_high_watermark", "0.4")
