"""What `haulier audit` prints where it connects to RabbitMQ."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from coordinator.store.sqlite import SqliteStore
from tests.services.fixtures import Vhost


async def test_the_report_is_all_of_stdout(rabbitmq_vhost: Vhost, tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "haulier.db")
    await store.start()
    await store.close()
    settings = {
        "broker.type": "rabbitmq",
        "broker.rabbitmq.url": rabbitmq_vhost.url,
        "datastore.sqlite.path": str(tmp_path / "haulier.db"),
        "runtime.type": "shell",
    }
    flags = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    audit = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "haulier.cli", "audit", "--json", *flags),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await audit.communicate()
    assert json.loads(out) == {"findings": [], "not_seen": []}
    assert audit.returncode == 0
