"""Fixtures: clusters to break."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import cluster, cluster_settings, own_broker, own_store
from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import Cluster
from tests.chaos.receiver import Receiver

__all__ = ["cluster", "cluster_settings", "own_broker", "own_store"]

QUICK = {
    "HAULIER_ENGINE_BEAT": "1s",
    "HAULIER_ENGINE_LEASE": "17s",
    "HAULIER_ENGINE_SWEEP": "1s",
    "HAULIER_ENGINE_RECONNECT_CAP": "2s",
}
"""The shortest times that fit together: a lease lasts three of AMQP's heartbeats and two beats."""


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as made:
        yield made


@pytest.fixture
def quick(tmp_path: Path, cluster_settings: dict[str, str]) -> Iterator[Cluster]:
    """A cluster with short times, and nothing in it yet."""
    made = Cluster(tmp_path, {**cluster_settings, **QUICK})
    yield made
    made.stop()
