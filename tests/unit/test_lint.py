"""The rules of `make lint` hold: where one is broken, the project's own lint says so.

It runs on a small tree with the same configuration: each module that a contract names, and nothing
in them. Lint passes there, so what it says of a tree with one fault more is about that fault.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = ("pyproject.toml", "coordinator/engine/ruff.toml", "tools/lint")
BENIGN = '"""Nothing."""\n'

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("lint")]


def named_modules() -> Iterator[str]:
    """Yield the modules that contracts name."""
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    yield from settings["importlinter"]["root_packages"]
    for contract in settings["importlinter"]["contracts"]:
        for key, names in contract.items():
            if key.endswith(("modules", "importers")):
                yield from (name for name in names if "*" not in name)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree")
    for module in named_modules():
        for folder in [(path := Path(*module.split("."))), *path.parents[:-1]]:
            (tree / folder).mkdir(parents=True, exist_ok=True)
            (tree / folder / "__init__.py").write_text(BENIGN)
    for name in ("tests", "bench", "docs"):
        (tree / name).mkdir()
        (tree / name / "__init__.py").write_text(BENIGN)
    for name in CONFIGURATION:
        (tree / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    (tree / "tools" / "devservices.py").write_text(BENIGN)
    code, said = lint(tree)
    assert code == 0, said
    return tree


def lint(tree: Path) -> tuple[int, str]:
    """Run the project's lint on a tree; return its exit code and what it says, a fault a line."""
    tools = Path(sys.executable).parent
    done = subprocess.run(
        [tree / "tools" / "lint"],
        env={
            "PATH": f"{tools}:{os.environ['PATH']}",
            "RUFF_OUTPUT_FORMAT": "concise",
            "COLUMNS": "200",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_a_tree_without_fault_passes(tree: Path) -> None:
    code, said = lint(tree)
    assert code == 0
    assert "All checks passed!" in said
    assert "Success: no issues found" in said
    assert " kept, 0 broken." in said


def source(*lines: str) -> str:
    return "\n".join(['"""Planted."""', "", *lines, ""])


FAULTS = {
    "a module outside composition roots names an adapter": (
        "coordinator/api/planted.py",
        source("from coordinator.store import sqlite", "", '__all__ = ["sqlite"]'),
        "coordinator.api.planted -> coordinator.store.sqlite",
    ),
    "the client imports another room": (
        "haulier/client/__init__.py",
        source("from shared import config", "", '__all__ = ["config"]'),
        "haulier.client -> shared.config",
    ),
    "the engine reads the clock": (
        "coordinator/engine/planted.py",
        source("import time", "", '__all__ = ["time"]'),
        "coordinator/engine/planted.py:3:8: TID251 `time` is banned",
    ),
    "the engine makes an id": (
        "coordinator/engine/planted.py",
        source("from uuid import uuid4", "", '__all__ = ["uuid4"]'),
        "coordinator/engine/planted.py:3:1: TID251 `uuid` is banned",
    ),
    "the engine asks what day it is": (
        "coordinator/engine/planted.py",
        source("from datetime import UTC, datetime", "", "NOW = datetime.now(UTC)"),
        "coordinator/engine/planted.py:5:7: TID251 `datetime.datetime.now` is banned",
    ),
    "a task has no owner": (
        "worker/planted.py",
        source(
            "import asyncio",
            *("", ""),
            "async def planted() -> None:",
            '    """Wait."""',
            "    await asyncio.create_task(asyncio.sleep(0))",
        ),
        "worker/planted.py:8:11: TID251 `asyncio.create_task` is banned",
    ),
    "a task of a loop has no owner": (
        "worker/planted.py",
        source(
            "import asyncio",
            *("", ""),
            "async def planted() -> None:",
            '    """Wait."""',
            "    await asyncio.get_running_loop().create_task(asyncio.sleep(0))",
        ),
        "worker/planted.py:8:    await asyncio.get_running_loop().create_task(",
    ),
    "there is a second logger": (
        "shared/planted.py",
        source("import logging", "", "log = logging.getLogger(__name__)"),
        "shared/planted.py:5:7: TID251 `logging.getLogger` is banned",
    ),
    "a test has a wrong type": (
        "tests/planted.py",
        source("NUMBER: int = str()"),
        'tests/planted.py:3: error: Incompatible types in assignment (expression has type "str", ',
    ),
}


@pytest.mark.parametrize(("file", "text", "expected"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_found(tree: Path, file: str, text: str, expected: str) -> None:
    planted = tree / file
    before = planted.read_text() if planted.exists() else None
    planted.write_text(text)
    try:
        code, said = lint(tree)
    finally:
        planted.unlink() if before is None else planted.write_text(before)
    assert code == 1
    assert expected in said
