"""The rules of `make lint` hold: where one is broken, the project's own lint says so.

It runs on a small tree with the same configuration: each module that a contract names, and nothing
in them. Lint passes there, so what it says of a tree with faults more is about those faults.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import grimp
import pytest

from structure.source import PRODUCT, SourceTree

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
    for name in ("tests", "bench", "docs", "examples"):
        (tree / name).mkdir()
        (tree / name / "__init__.py").write_text(BENIGN)
    for name in CONFIGURATION:
        (tree / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tree / name)
    (tree / "tools" / "devservices.py").write_text(BENIGN)
    return tree


def lint(tree: Path, tools: Path = Path(sys.executable).parent) -> tuple[int, str]:
    """Run the project's lint on a tree; return its exit code and what it says, a fault a line."""
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


@pytest.fixture(scope="module")
def said_without_faults(tree: Path) -> str:
    code, said = lint(tree)
    assert code == 0, said
    return said


def test_a_tree_without_fault_passes(said_without_faults: str) -> None:
    said = said_without_faults
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
        "coordinator/engine/reads_the_clock.py",
        source("import time", "", '__all__ = ["time"]'),
        "coordinator/engine/reads_the_clock.py:3:8: TID251 `time` is banned",
    ),
    "the engine makes an id": (
        "coordinator/engine/makes_an_id.py",
        source("from uuid import uuid4", "", '__all__ = ["uuid4"]'),
        "coordinator/engine/makes_an_id.py:3:1: TID251 `uuid` is banned",
    ),
    "the engine asks what day it is": (
        "coordinator/engine/asks_the_day.py",
        source("from datetime import UTC, datetime", "", "NOW = datetime.now(UTC)"),
        "coordinator/engine/asks_the_day.py:5:7: TID251 `datetime.datetime.now` is banned",
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
        "worker/planted_in_a_loop.py",
        source(
            "import asyncio",
            *("", ""),
            "async def planted() -> None:",
            '    """Wait."""',
            "    await asyncio.get_running_loop().create_task(asyncio.sleep(0))",
        ),
        "worker/planted_in_a_loop.py:8:    await asyncio.get_running_loop().create_task(",
    ),
    "a thread that nobody looks after": (
        "worker/planted_in_a_thread.py",
        source(
            "import asyncio",
            *("", ""),
            "async def planted() -> None:",
            '    """Wait."""',
            "    await asyncio.to_thread(int)",
        ),
        "worker/planted_in_a_thread.py:8:11: TID251 `asyncio.to_thread` is banned",
    ),
    "a thread of a loop's that nobody looks after": (
        "worker/planted_in_an_executor.py",
        source(
            "import asyncio",
            *("", ""),
            "async def planted() -> None:",
            '    """Wait."""',
            "    await asyncio.get_running_loop().run_in_executor(None, int)",
        ),
        "worker/planted_in_an_executor.py:8:    await asyncio.get_running_loop().run_in_executor(",
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


@pytest.fixture(scope="module")
def said_of_faults(tree: Path, said_without_faults: str) -> str:
    """What lint says of a tree with all faults, each in a file of its own, which passes without them."""
    for file, text, _ in FAULTS.values():
        (tree / file).write_text(text)
    code, said = lint(tree)
    assert code == 1
    return said


@pytest.mark.parametrize("expected", [each[2] for each in FAULTS.values()], ids=FAULTS)
def test_a_fault_is_found(said_of_faults: str, expected: str) -> None:
    assert expected in said_of_faults


ENDS_AS_TOLD = 'echo "ran $*"\n[ "$*" != "$(cat "$(dirname "$0")/failing")" ]\n'
"""A program that fails where it is the check that is to fail."""

CHECKS = ("ruff check .", "ruff format --check .", "mypy", "lint-imports", "grep")


@pytest.mark.parametrize("failing", [None, *CHECKS])
def test_any_check_that_fails_fails_the_lint_and_the_others_run(
    tmp_path: Path, failing: str | None
) -> None:
    for name in ("tools", "bin", "coordinator", "haulier", "shared", "worker"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / "tools" / "lint", tmp_path / "tools")
    for name in ("ruff", "mypy", "lint-imports"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nset -- {name} "$@"\n{ENDS_AS_TOLD}')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin" / "failing").write_text(failing or "none")
    if failing == "grep":
        (tmp_path / "worker" / "planted.py").write_text("loop.create_task(work())\n")
    code, said = lint(tmp_path, tmp_path / "bin")
    assert code == (0 if failing is None else 1)
    ran = [line.removeprefix("ran ") for line in said.splitlines() if line.startswith("ran ")]
    assert ran == [check for check in CHECKS if check != "grep"]
    assert ("worker/planted.py:1:loop.create_task(" in said) is (failing == "grep")


def test_no_module_imports_itself_by_a_way_round() -> None:
    """Whichever module is imported first works: those that begin a process of their own come first there."""
    graph = grimp.build_graph(*PRODUCT, exclude_type_checking_imports=True)

    def packages(module: str) -> set[str]:
        parts = module.split(".")
        return {".".join(parts[:length]) for length in range(1, len(parts))}

    imports = {
        module: {
            each
            for imported in graph.find_modules_directly_imported_by(module)
            for each in {imported, *packages(imported)} - {module, *packages(module)}
        }
        for module in graph.modules
    }
    TopologicalSorter(imports).prepare()


def test_a_public_name_is_defined_in_one_module() -> None:
    repeated = SourceTree(ROOT).repeated_names()
    assert not any(repeated.values()), repeated


def test_tests_of_a_group_share_a_process(request: pytest.FixtureRequest) -> None:
    """The runner has to know groups: tests that use one engine or folder must not run at once."""
    if os.environ.get("PYTEST_XDIST_WORKER"):
        assert request.node.nodeid.endswith("@lint")
