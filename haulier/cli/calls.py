"""The server that a command asks, and the event loop around its client."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import Callable, Coroutine
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from haulier.cli.general import ASKS_SERVER, EXIT_INTERRUPTED, server_of
from haulier.cli.interrupts import Interruption
from haulier.cli.output import say_on_stderr
from haulier.client import Client
from haulier.results import Job
from haulier.transport import TlsFiles

_T = TypeVar("_T")

_SOME_FAILED: Final = 20


def asks_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a `client` of the server that its options name."""

    @click.pass_context
    @functools.wraps(command)
    def with_client(ctx: click.Context, /, *args: Any, **more: Any) -> Any:
        return command(*args, client=client_of(ctx), **more)

    setattr(with_client, ASKS_SERVER, True)
    return with_client


def client_of(ctx: click.Context, **more: Any) -> Client:
    """Return a client of the server that the options name."""
    server, key, files = server_of(ctx)
    return Client(server, key=key, tls=TlsFiles(*files), **more)


MAY_BE_MADE: Final = "haulier: interrupted; the job may have been made: haulier jobs shows it"


class Parting:
    """What to say when the person leaves by Ctrl-C: it changes as more is known."""

    def __init__(self, text: str = "haulier: interrupted") -> None:
        self.text = text

    def leave(self) -> NoReturn:
        """Say it and end the process, whatever is under way."""
        os.write(2, f"{self.text}\n".encode())
        os._exit(EXIT_INTERRUPTED)


def ask(
    client: Client,
    question: Callable[[Client], Coroutine[Any, Any, _T]],
    parting: Parting | None = None,
) -> _T:
    """Run `question` with the open client; return what it returns.

    On Ctrl-C say one line and end with the exit code of that.
    """

    parting = parting or Parting()
    interruption = Interruption(parting.leave)

    async def asked() -> _T:
        interruption.cancels(asyncio.current_task())
        async with client:
            return await question(client)

    with interruption.watched():
        try:
            return asyncio.run(asked())
        except (KeyboardInterrupt, asyncio.CancelledError):
            say_on_stderr(parting.text)
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None


async def with_tasks(client: Client, job: Job, *, whole: bool = False) -> Job:
    """Return a job with what its own answer has no room for where it is large: all tasks, or those at the top and some
    that failed."""
    if not job.execution_truncated:
        return job
    if whole:
        tasks = await client.all_tasks(job.id)
    else:
        top = await client.all_tasks(job.id, parent="none")
        failed = await client.job_tasks(job.id, states=["FAILED"], size=_SOME_FAILED)
        tasks = [*{task.id: task for task in (*top, *failed.items)}.values()]
    return msgspec.structs.replace(job, execution=tasks, execution_truncated=False)
