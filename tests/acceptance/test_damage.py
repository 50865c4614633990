"""A damaged SQLite file ends a process with a sentence that says what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.processes import SHELL, Standalone

pytestmark = pytest.mark.timeout(120)

WITHIN = 20.0
"""Seconds: it looks at its file every five."""


def overwritten(file: Path) -> None:
    file.write_bytes(b"what is this " * 20_000)


def emptied(file: Path) -> None:
    os.truncate(file, 0)


def cut_in_half(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


DAMAGES = [overwritten, emptied, cut_in_half]


def check_words(server: Standalone) -> None:
    *before, last = server.text().splitlines()
    assert last.startswith("haulier: the datastore")
    assert "restore a backup" in last
    assert not any("Traceback" in line for line in before)
    assert sum("error" in line for line in before) == 0


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_while_it_runs_ends_standalone(
    standalone: Callable[..., Standalone], tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    server = standalone()
    task = {"name": "task", "image": "any", "run": "sleep 300"}
    for _ in range(3):
        server.submit({"name": "job", "tasks": [task]})
    damage(tmp_path / "standalone-0" / "haulier.db")
    assert server.process.wait(WITHIN) == 2
    check_words(server)


@pytest.mark.parametrize("damage", [overwritten, cut_in_half])
def test_damage_at_the_start_is_refused(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    server = Standalone(tmp_path / "own", **SHELL)
    server.start()
    assert server.terminate() == 0
    damage(tmp_path / "own" / "haulier.db")
    server.launch()
    assert server.process.wait(WITHIN) == 2
    check_words(server)
