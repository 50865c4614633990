"""Where a process listens."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import Any

import pytest
from aiohttp import ClientSession, web

from shared.http_server import listen

NOT_HERE = "192.0.2.1"
"""An address that is nobody's (RFC 5737)."""


@pytest.fixture
async def runner() -> Any:
    made = web.AppRunner(web.Application())
    await made.setup()
    yield made
    await made.cleanup()


def name_stands_for(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def found(_host: Any, port: Any, **_: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)


async def test_an_address_that_the_machine_does_not_have_is_left_out(
    runner: web.AppRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as names:
        name_stands_for(names, NOT_HERE, "127.0.0.1", "127.0.0.1")
        port = await listen(runner, "localhost", 0)
    async with ClientSession() as client, client.get(f"http://127.0.0.1:{port}/") as answer:
        assert answer.status == 404


async def test_a_name_of_which_nothing_is_here_is_refused(
    runner: web.AppRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_stands_for(monkeypatch, NOT_HERE)
    with pytest.raises(OSError, match=NOT_HERE) as refused:
        await listen(runner, "elsewhere", 0)
    assert refused.value.errno == errno.EADDRNOTAVAIL
