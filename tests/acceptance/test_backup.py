"""A backup that was made while Haulier ran, as docs/how-to/backup.md says, has everything after it is restored."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import aiohttp
import pymongo
import pytest
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument
from pymongo.read_concern import ReadConcern

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import Cluster, Coordinator, wait_for
from tests.faults.whole import JOB, Process, configured
from tests.services.fixtures import Database, Vhost
from tests.services.management import Management

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "backup.md"


async def test_a_backup_of_a_running_sqlite_is_whole(tmp_path: Path) -> None:
    found = re.search(r'sqlite3 \S+ "(VACUUM INTO \')backup\.db\'"', PAGE.read_text())
    assert found is not None
    database, backup = tmp_path / "haulier.db", tmp_path / "backup.db"
    path = "HAULIER_DATASTORE_SQLITE_PATH"
    first = Process()
    await first.do(first.stand_alone(configured(tmp_path / "first", {path: str(database)})))
    async with aiohttp.ClientSession() as session:
        async with session.post(f"{first.url}/jobs", json=JOB) as answer:
            job = await answer.json()
        assert job["state"] == "COMPLETED"
        connection = sqlite3.connect(database)
        connection.execute(f"{found.group(1)}{backup}'")
        connection.close()
        await first.close()
        second = Process()
        await second.do(second.stand_alone(configured(tmp_path / "second", {path: str(backup)})))
        try:
            async with session.get(f"{second.url}/jobs/{job['id']}") as answer:
                restored = await answer.json()
            async with session.get(f"{second.url}/jobs/{job['id']}/log/download") as answer:
                assert "the end" in await answer.text()
            assert (restored["state"], restored["tasks"]) == ("COMPLETED", job["tasks"])
        finally:
            await second.close()


# --- MongoDB ------------------------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
@pytest.mark.mongodb
@pytest.mark.slow
@pytest.mark.xdist_group("cluster")
@pytest.mark.timeout(240)
def test_a_cluster_goes_on_from_the_state_of_one_moment_with_an_empty_broker(
    quick: Cluster, rabbitmq_vhost: Vhost, mongodb_database: Database, tmp_path: Path
) -> None:
    """What `mongodump --oplog` saves, taken by a transaction: MongoDB's tools are not in Debian."""
    ledger = Ledger(tmp_path / "ledger")
    quick.settings["HAULIER_WORKER_QUEUES_DEFAULT"] = "1"
    server = quick.add_coordinator()
    quick.add_worker()
    quick.wait_ready()
    before = server.submit(ledger.job(ledger.task("echo kept")))
    assert server.wait_job(before)["state"] == "COMPLETED"
    running = server.submit(ledger.job(ledger.task("sleep 3", name="running")))
    ledger.wait_starts(2)
    waiting = server.submit(ledger.job(ledger.task(name="waiting")))
    wait_for(lambda: states_of(server, waiting) == ["SCHEDULED"], 20, "a task in the queue")
    restored = f"{mongodb_database.name}-restored"
    copy_of_one_moment(mongodb_database, restored)
    later = server.submit(ledger.job(ledger.task()))
    quick.stop()

    management = Management(rabbitmq_vhost.management_url)
    management.delete_vhost(rabbitmq_vhost.name)
    management.add_vhost(rabbitmq_vhost.name)
    second = Cluster(
        tmp_path / "second", {**quick.settings, "HAULIER_DATASTORE_MONGODB_DATABASE": restored}
    )
    second.folder.mkdir()
    try:
        server = second.add_coordinator()
        second.add_worker()
        second.wait_ready()
        done = server.wait_jobs([before, running, waiting], within=90)
        assert {job["state"] for job in done.values()} == {"COMPLETED"}
        assert server.log_of(before) == "kept\n"
        assert server.call("GET", f"/jobs/{later}")[0] == 404
        names = [words[4] for words in ledger.lines("end")]
        assert names.count("running") == 2, "its end is not in the backup"
    finally:
        second.stop()
        with pymongo.MongoClient[RawBSONDocument](mongodb_database.url) as client:
            client.drop_database(restored)


def states_of(server: Coordinator, job_id: str) -> list[str]:
    return [task["state"] for task in server.job(job_id)["execution"]]


def copy_of_one_moment(database: Database, target: str) -> None:
    raw = CodecOptions(document_class=RawBSONDocument)
    with pymongo.MongoClient[RawBSONDocument](database.url) as client:
        source = client.get_database(database.name, codec_options=raw)
        names = source.list_collection_names()
        with (
            client.start_session() as session,
            session.start_transaction(read_concern=ReadConcern("snapshot")),
        ):
            found = {name: list(source[name].find(session=session)) for name in names}
        for name, documents in found.items():
            if documents:
                client[target][name].insert_many(documents)
