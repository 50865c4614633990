"""A process that writes to a SQLite datastore: `python writing.py DATABASE`.

It says `ready` when it has started, then the id of each job whose write was acknowledged, until it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import sys

from coordinator.store.sqlite import SqliteStore
from shared.errors import ApplicationError
from shared.model.documents import JobDocument
from shared.model.queries import Change
from tests.contract.documents import job

WRITERS = 16


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def write(store: SqliteStore, writer: int) -> None:
    for number in itertools.count():
        id = f"{writer}-{number}"
        await store.insert(job(id, error="inserted"))
        await store.change(Change(kind=JobDocument, id=id, set={"error": "changed"}))
        say(id)


async def main(path: str) -> None:
    store = SqliteStore(path)
    try:
        await store.start()
    except ApplicationError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    say("ready")
    await asyncio.gather(*(write(store, writer) for writer in range(WRITERS)))


asyncio.run(main(sys.argv[1]))
