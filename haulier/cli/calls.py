"""Options that name the server, and the event loop around its client."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import click

from haulier.client import DEFAULT_SERVER, Client

_T = TypeVar("_T")

FAULT: Final = 1
MISUSE: Final = 2
EXIT_INTERRUPTED: Final = 130

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the server's response as JSON."
)


def asks_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--server` and `--key` to a command, which gets a `client` instead."""

    @click.option(
        "--server",
        envvar="HAULIER_SERVER",
        default=DEFAULT_SERVER,
        show_default=True,
        show_envvar=True,
        metavar="URL",
        help="URL of the server; can include user:password@.",
    )
    @click.option(
        "--key", envvar="HAULIER_KEY", show_envvar=True, help="Key, if the server requires one."
    )
    @functools.wraps(command)
    def with_client(*args: Any, server: str, key: str | None, **more: Any) -> Any:
        return command(*args, client=Client(server or DEFAULT_SERVER, key=key), **more)

    return with_client


def ask(client: Client, question: Callable[[Client], Coroutine[Any, Any, _T]]) -> _T:
    """Run `question` with the open client; return what it returns."""

    async def asked() -> _T:
        async with client:
            return await question(client)

    return asyncio.run(asked())
