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
from pathlib import Path
from types import FrameType
from typing import Any, TextIO


class Recorder:
    """Notes the files of functions that run between `start` and `stop`, in all threads.

    What a module does while it is imported does not count.
    """

    def __init__(self, tree: Path, rooms: tuple[str, ...]) -> None:
        self._prefixes = tuple(f"{tree / room}{os.sep}" for room in rooms)
        self._root = f"{tree}{os.sep}"
        self._recording = False
        self._files: set[str] = set()

    def install(self) -> None:
        """Watch this thread and all that are started after it."""
        threading.setprofile(self._on_event)
        sys.setprofile(self._on_event)

    def answer(self, commands: TextIO, answers: TextIO) -> None:
        """Obey commands until there are no more."""
        for command in commands:
            self._recording = command.strip() == "start"
            found = [] if self._recording else sorted(self._files)
            print(json.dumps(found), file=answers, flush=True)

    def _on_event(self, frame: FrameType, event: str, _: Any) -> None:
        if not self._recording or event != "call":
            return
        name = frame.f_code.co_filename
        if not name.startswith(self._prefixes):
            return
        file = name.removeprefix(self._root)
        if file not in self._files and not self._importing(frame):
            self._files.add(file)

    def _importing(self, frame: FrameType | None) -> bool:
        """Whether this thread runs the body of a module or class of the product, the command's aside."""
        while frame is not None:
            code = frame.f_code
            body = not code.co_flags & inspect.CO_OPTIMIZED
            imported = body and frame.f_globals.get("__name__") != "__main__"
            if imported and code.co_filename.startswith(self._prefixes):
                return True
            frame = frame.f_back
        return False


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
