"""A server for each test, as fresh as can be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.haulier.seed_server import SeedServer


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SeedServer]:
    """A server that speaks the API's shapes, and is the command's default."""
    server = SeedServer()
    server.start()
    monkeypatch.setenv("HAULIER_SERVER", server.url)
    yield server
    server.stop()
