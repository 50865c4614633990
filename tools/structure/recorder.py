"""Runs `haulier` and notes which files of the product run between two commands.

`structure.path` starts it as a script: TREE ROOM,... ARGUMENT... A line on
standard input, `start` or `stop`, is answered with a line on standard output; `stop` with the list
of files. The process's own output goes to standard error.
"""

from __future__ import annotations

import inspect
import json
import os
import runpy
import sys
import threading
from asyncio import runners
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, TextIO

SETTLE, START, STOP = "settle", "start", "stop"


class Recorder:
    """Notes the files of functions that run between `start` and `stop`, in all threads.

    What a module does while it is imported does not count, nor what begins in a function that ran
    between `settle` and `start`, when nothing was asked of the process: a timer's work.
    """

    def __init__(self, tree: Path, rooms: tuple[str, ...]) -> None:
        self._prefixes = tuple(f"{tree / room}{os.sep}" for room in rooms)
        self._root = f"{tree}{os.sep}"
        self._supervision = str(tree / "shared" / "supervision.py")
        self._phase = ""
        self._files: set[str] = set()
        self._timers: set[CodeType] = set()

    def install(self) -> None:
        """Watch this thread and all that are started after it."""
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    def answer(self, commands: TextIO, answers: TextIO) -> None:
        """Obey commands until there are no more."""
        for command in commands:
            self._phase = command.strip()
            found = sorted(self._files) if self._phase == STOP else []
            print(json.dumps(found), file=answers, flush=True)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call" or self._phase not in (SETTLE, START):
            return
        name = frame.f_code.co_filename
        if not name.startswith(self._prefixes):
            return
        file = name.removeprefix(self._root)
        if file in self._files:
            return
        outermost, importing = self._origin(frame)
        if self._phase == SETTLE:
            self._timers.add(outermost)
        elif not importing and outermost not in self._timers:
            self._files.add(file)

    def _origin(self, frame: FrameType) -> tuple[CodeType, bool]:
        """The product's function that a thread or its loop called, and whether a module is being imported.

        Supervision calls timers and all other loops alike, so it is what it calls that counts.
        """
        outermost, importing = frame.f_code, False
        at: FrameType | None = frame
        while at is not None and not _is_base(at):
            code = at.f_code
            if code.co_filename.startswith(self._prefixes):
                outermost = outermost if code.co_filename == self._supervision else code
                importing = importing or not code.co_flags & inspect.CO_OPTIMIZED
            at = at.f_back
        return outermost, importing


def _is_base(frame: FrameType) -> bool:
    """Whether all of a thread's work is called from here: its event loop, or the command's module."""
    return (
        frame.f_code.co_filename == runners.__file__
        or frame.f_globals.get("__name__") == "__main__"
    )


def main() -> None:
    """Run the command to its end."""
    _, tree, rooms, *arguments = sys.argv
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    recorder = Recorder(Path(tree), tuple(rooms.split(",")))
    threading.Thread(target=recorder.answer, args=(sys.stdin, answers), daemon=True).start()
    recorder.install()
    sys.argv[1:] = arguments
    sys.path[0] = tree
    runpy.run_module("haulier.cli", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
