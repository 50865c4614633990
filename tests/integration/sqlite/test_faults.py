"""What the SQLite datastore does when a process, a disk or a file goes wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from coordinator.store.sqlite import SqliteStore, threads
from coordinator.store.sqlite.schema import SQLITE_SCHEMA_VERSION
from coordinator.store.sqlite.threads import connected
from shared.errors import StoreMisconfigured, StoreUnavailable
from shared.model.documents import JobDocument, TaskDocument
from shared.model.queries import Change
from tests.contract.documents import job, task

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
ENOUGH = 300
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "haulier.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path)
    await store.start()
    yield store
    await store.close()


@contextmanager
def writing(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that writes; killed in the end."""
    command = [sys.executable, str(HERE / "writing.py"), str(path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.stderr and process.stderr.read()


async def test_what_was_acknowledged_survives_a_kill(path: Path) -> None:
    acknowledged: list[str] = []
    for _ in range(3):
        with writing(path) as process:
            ready(process)
            assert process.stdout is not None
            ids = [process.stdout.readline().strip() for _ in range(ENOUGH)]
            process.send_signal(signal.SIGKILL)
            ids += process.stdout.read().splitlines()
        acknowledged += ids
        store = SqliteStore(path)
        await store.start()
        found = {each.id: each for each in await store.get_many(JobDocument, acknowledged)}
        page = await store.search_jobs(
            terms=["job"], tags_any=[], state=None, viewer=None, skip=0, limit=1, cap=10**6
        )
        assert page.total == await store.count(JobDocument, {})
        assert [found[id].error for id in acknowledged] == ["changed"] * len(acknowledged)
        await store.delete(JobDocument, {})
        acknowledged.clear()
        await store.close()


async def test_a_commit_is_synced(path: Path, store: SqliteStore) -> None:
    with closing(connected(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


async def test_a_second_process_is_refused_until_the_first_is_killed(path: Path) -> None:
    with writing(path) as first:
        ready(first)
        with pytest.raises(StoreMisconfigured, match=rf"in use by another process \({first.pid}\)"):
            await SqliteStore(path).start()
        link = path.parent / "link.db"
        link.symlink_to(path)
        with pytest.raises(StoreMisconfigured, match="in use"):
            await SqliteStore(link).start()
    store = SqliteStore(path)
    await store.start()
    with writing(path) as second:
        assert second.wait() == 1
        assert second.stderr is not None
        assert f"({os.getpid()})" in second.stderr.read()
    await store.close()


def test_a_full_disk_passes(tmp_path: Path) -> None:
    if subprocess.run([*NAMESPACE, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("needs mount namespaces for users")
    command = [*NAMESPACE, sys.executable, str(HERE / "filling.py"), str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


async def started_and_closed(path: Path) -> None:
    store = SqliteStore(path)
    await store.start()
    await store.insert(job("j"))
    await store.close()


async def test_a_newer_schema_is_refused(path: Path) -> None:
    await started_and_closed(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SQLITE_SCHEMA_VERSION + 1}")
    with pytest.raises(StoreMisconfigured, match="newer"):
        await SqliteStore(path).start()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SQLITE_SCHEMA_VERSION}")
    await started_and_closed(path)


async def test_a_store_that_was_refused_can_be_closed(path: Path) -> None:
    await started_and_closed(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {SQLITE_SCHEMA_VERSION + 1}")
    store = SqliteStore(path)
    with pytest.raises(StoreMisconfigured, match="newer"):
        await store.start()
    await store.close()


async def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE jobs (id)")
    with pytest.raises(StoreMisconfigured, match="another program"):
        await SqliteStore(path).start()


async def test_an_older_table_gets_its_columns_and_indexes(path: Path) -> None:
    await started_and_closed(path)
    with closing(sqlite3.connect(path)) as connection:
        indexes = connection.execute("SELECT name FROM sqlite_master WHERE name GLOB 'ix_*'")
        for (name,) in indexes.fetchall():
            connection.execute(f"DROP INDEX {name}")
        connection.execute("ALTER TABLE jobs DROP COLUMN body_hash")
        connection.execute("CREATE INDEX ix_old ON jobs (state)")
    store = SqliteStore(path)
    await store.start()
    assert await store.get(JobDocument, "j") == job("j")
    await store.change(Change(kind=JobDocument, id="j", set={"body_hash": "h"}))
    assert [each.id for each in await store.find(JobDocument, {"body_hash": "h"})] == ["j"]
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    assert "ix_old" not in names
    assert any(name.startswith("ix_tasks_") for name in names)


def not_a_database(path: Path) -> None:
    path.write_bytes(b"what is this " * 1000)


def spoil_from(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE)
        file.write(b"\xff" * (path.stat().st_size - page * PAGE))


def corrupt(path: Path) -> None:
    spoil_from(path, 1)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [not_a_database, corrupt, a_folder])
async def test_a_spoilt_file_is_refused_with_the_reason(
    path: Path, spoil: Callable[[Path], None]
) -> None:
    await started_and_closed(path)
    spoil(path)
    with pytest.raises(StoreMisconfigured, match=r"haulier\.db"):
        await SqliteStore(path).start()


async def test_a_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreMisconfigured, match="can not be opened"):
        await SqliteStore(tmp_path / "file" / "haulier.db").start()


async def test_pages_that_go_bad_later_are_said(path: Path) -> None:
    store = SqliteStore(path)
    await store.start()
    await store.insert_many([task(str(number), error="x" * 2000) for number in range(500)])
    await store.close()
    spoil_from(path, 200)
    store = SqliteStore(path)
    await store.start()
    with pytest.raises(StoreUnavailable, match="corrupt"):
        await store.find(TaskDocument, {})
    await store.close()


async def test_a_foreign_lock_passes(path: Path, store: SqliteStore) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.create_task(store.insert(job("j")))
        assert await store.get(JobDocument, "j") is None
        other.execute("COMMIT")
        assert await waiting


def delete(path: Path) -> None:
    path.unlink()


async def test_a_deleted_file_is_noticed(path: Path, store: SqliteStore) -> None:
    delete(path)
    with pytest.raises(StoreUnavailable, match="is gone"):
        await store.ping()


async def test_after_the_close_it_says_so(path: Path) -> None:
    store = SqliteStore(path)
    await store.start()
    await store.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.insert(job("j"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.get(JobDocument, "j")
    with pytest.raises(StoreUnavailable, match="closed"):
        await store.ping()


async def test_what_is_secret_is_the_owners(path: Path, store: SqliteStore) -> None:
    await store.insert(job("j"))
    for file in path.parent.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file


async def test_one_bad_write_spares_the_others(store: SqliteStore) -> None:
    await store.insert(job("0", error="x" * (10 << 20)))
    big = Change(kind=JobDocument, id="0", set={"result": "x" * (10 << 20)})
    bad = asyncio.create_task(store.change(big))
    good = [asyncio.create_task(store.insert(job(str(number)))) for number in range(1, 50)]
    assert all(await asyncio.gather(*good))
    assert isinstance((await asyncio.gather(bad, return_exceptions=True))[0], Exception)


ENDLESS = (
    "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 60000000) "
    "SELECT count(*) FROM numbers"
)


async def test_a_read_ends_when_nobody_waits_for_it_any_more(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that take too long leave the threads to others; those that waited behind them are not begun."""
    await store.insert(job("j"))
    monkeypatch.setattr(threads, "DEADLINE", 0.3)
    readers, begun = threads.Readers(path), list[int]()

    def endless(connection: sqlite3.Connection) -> None:
        begun.append(1)
        connection.execute(ENDLESS).fetchone()

    reads = [asyncio.create_task(readers.run(endless)) for _ in range(threads.READERS * 3)]
    failed = await asyncio.gather(*reads, return_exceptions=True)
    assert {type(error) for error in failed} == {StoreUnavailable}
    found = await readers.run(lambda each: each.execute("SELECT id FROM jobs").fetchall())
    assert found == [("j",)]
    assert len(begun) < len(reads)
    await readers.close()
