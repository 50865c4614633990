"""A server for each test, as fresh as can be, and the command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from haulier.cli import run_cli
from tests.unit.haulier.seed_server import SeedServer

YAML = "name: mine\ntasks:\n  - name: a\n    run: echo\n"


class Outcome(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


class Command:
    """Runs the command in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *argv: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            run_cli(argv)
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, *self._capfd.readouterr())


@pytest.fixture
def haulier(capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(capfd)


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(YAML)
    return str(path)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[SeedServer]:
    """A server that speaks the API's shapes, and is the command's default."""
    server = SeedServer()
    server.start()
    monkeypatch.setenv("HAULIER_SERVER", server.url)
    yield server
    server.stop()
