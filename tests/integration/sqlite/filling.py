"""A disk that fills and has room again, in a mount namespace: `python filling.py EMPTY_FOLDER`.

Fails with a traceback where the datastore on it does not do as promised.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from coordinator.store.sqlite import SqliteStore
from shared.errors import StoreUnavailable
from shared.model.documents import JobDocument
from tests.contract.documents import job

DISK = 6 << 20
BALLAST = 3 << 20
CHUNK = "x" * 50_000


async def refused(store: SqliteStore, id: str) -> bool:
    """Whether there is no room for one more job."""
    try:
        await store.insert(job(id, error=CHUNK))
    except StoreUnavailable as error:
        if "the disk is full" in str(error):
            return True
        raise
    return False


async def fill(store: SqliteStore) -> list[str]:
    """Insert until there is no room; return what was acknowledged."""
    kept: list[str] = []
    for number in range(DISK // len(CHUNK) + 1):
        if await refused(store, str(number)):
            return kept
        kept.append(str(number))
    raise AssertionError("the disk did not fill")


async def main(folder: Path) -> None:
    ballast = folder / "ballast"
    ballast.write_bytes(bytes(BALLAST))
    store = SqliteStore(folder / "haulier.db")
    await store.start()
    kept = await fill(store)
    assert len(await store.get_many(JobDocument, kept)) == len(kept)
    for _ in range(3):
        assert await refused(store, "more")
    ballast.unlink()
    assert await store.insert(job("more", error=CHUNK))
    await store.ping()
    assert await store.count(JobDocument, {}) == len(kept) + 1
    await store.close()


subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", sys.argv[1]], check=True)
asyncio.run(main(Path(sys.argv[1])))
