"""What really ran, kept outside of the engine: each script appends a line when it starts and one when it ends."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.acceptance.processes import wait_for


def now() -> float:
    """Seconds since the machine started, as the ledger has them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Ledger:
    """A file that the scripts of a test write into; a line of a few words is appended whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def script(self, work: str = "", name: str = "") -> str:
        """Return a script that does `work` between its two lines; each names it, its task, its process and
        the time since the machine started."""
        told = f'"$HAULIER_TASK_ID $HAULIER_ATTEMPT $$ $at {name}" >> {self.path}'
        look = "read at _ < /proc/uptime\n"
        return f"{look}echo start {told}\n{work}\n{look}echo end {told}\n"

    def task(self, work: str = "", name: str = "task", **fields: Any) -> dict[str, Any]:
        """Return a task of such a script."""
        return {"name": name, "image": "any", "run": self.script(work, name), **fields}

    def job(self, *tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """Return a job of such tasks."""
        return {"name": "job", "tasks": list(tasks), **fields}

    def lines(self, word: str) -> list[list[str]]:
        """Return what the lines that begin with `word` say: task, attempt, process, time and name."""
        return [
            words[1:]
            for line in self.path.read_text().splitlines()
            if (words := line.split()) and words[0] == word
        ]

    @property
    def starts(self) -> Counter[str]:
        """How often each task began."""
        return Counter(words[0] for words in self.lines("start"))

    @property
    def ends(self) -> Counter[str]:
        """How often each task came to its end."""
        return Counter(words[0] for words in self.lines("end"))

    @property
    def repeated(self) -> dict[str, int]:
        """The tasks that began more than once."""
        return {task: count for task, count in self.starts.items() if count > 1}

    def wait_starts(self, count: int, within: float = 60.0) -> None:
        """Return once so many tasks have begun."""
        wait_for(lambda: len(self.starts) >= count, within, f"{count} tasks begun")

    def alive(self) -> list[int]:
        """Return the processes of scripts that are there now."""
        began = [int(words[2]) for words in self.lines("start")]
        return [process for process in began if _is_alive(process)]


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
