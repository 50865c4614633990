"""`tools/measure` counts what it says it counts, and traces what really runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from structure.path import RECORDER
from structure.source import SourceTree

FIRST = """\
log = print
LIMIT = 1
T = TypeVar("T")


class Job:
    def run(self):
        async def inner():
            asyncio.create_task(inner())

        return inner


def _hidden(): ...
"""
SECOND = """\
log = print
LIMIT: int = 2
Job = None
_hidden = 1
"""


def tree_of(root: Path, files: dict[str, str]) -> SourceTree:
    """A checkout with these files."""
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    return SourceTree(root)


def test_rooms_count_files_and_lines(tmp_path: Path) -> None:
    tree = tree_of(
        tmp_path,
        {"shared/model/jobs.py": "a = 1\n", "shared/ids.py": "b = 1\nc = 2\n", "docs/x.py": ""},
    )
    assert tree.rooms() == {"shared": (2, 3), "shared/model": (1, 1), "docs": (1, 0)}


def test_functions_are_measured_from_def_to_last_line(tmp_path: Path) -> None:
    found = tree_of(tmp_path, {"worker/first.py": FIRST}).functions()
    assert [(function.place, function.lines) for function in found] == [
        ("worker/first.py:14 _hidden", 1),
        ("worker/first.py:8 inner", 2),
        ("worker/first.py:7 run", 5),
    ]


def test_public_names_of_several_modules(tmp_path: Path) -> None:
    tree = tree_of(
        tmp_path, {"worker/first.py": FIRST, "shared/second.py": SECOND, "tests/third.py": FIRST}
    )
    assert tree.repeated_names() == {
        "class": ["Job: shared/second.py, worker/first.py"],
        "function": [],
        "constant": ["LIMIT: shared/second.py, worker/first.py"],
    }


def test_tasks_may_be_made_by_supervision_alone(tmp_path: Path) -> None:
    tree = tree_of(tmp_path, {"worker/first.py": FIRST, "shared/supervision.py": FIRST})
    assert tree.task_makers() == ["worker/first.py:9"]


def test_small_files(tmp_path: Path) -> None:
    long = "a = 1\n" * 60
    tree = tree_of(
        tmp_path, {"worker/small.py": long[6:], "worker/large.py": long, "worker/__init__.py": ""}
    )
    assert tree.small_files() == ["worker/small.py 59"]


PROGRAM = """\
import os, sys
from shared import before, called

before.f()
print("up", file=sys.stderr, flush=True)
os.read(int(sys.argv[1]), 1)
called.f()
import shared.imported
print("done", file=sys.stderr, flush=True)
os.read(int(sys.argv[1]), 1)
"""


def test_the_recorder_notes_calls_between_start_and_stop_and_no_imports(tmp_path: Path) -> None:
    tree_of(
        tmp_path,
        {
            "shared/before.py": "def f(): ...\n",
            "shared/called.py": "def f(): ...\n",
            "shared/imported.py": "def f(): ...\nf()\n",
            "shared/__init__.py": "",
            "haulier/__init__.py": "",
            "haulier/cli/__init__.py": "",
            "haulier/cli/__main__.py": PROGRAM,
        },
    )
    waits, goes_on = os.pipe()
    process = subprocess.Popen(
        [sys.executable, RECORDER, tmp_path, "shared,haulier", str(waits)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[waits],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        assert process.stderr.readline() == b"up\n"
        process.stdin.write(b"start\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == []
        os.write(goes_on, b"1")
        assert process.stderr.readline() == b"done\n"
        process.stdin.write(b"stop\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline()) == ["shared/called.py"]
    finally:
        process.kill()
        process.communicate()
        os.close(waits)
        os.close(goes_on)
