"""The process that evaluates beside the loop: reads work from its standard input, and answers what it gives."""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from pathlib import Path
from typing import BinaryIO

from coordinator.effects.evaluations import LENGTH
from shared.expressions import ExpressionError

_NICENESS = 10
_FIRST_TO_GO = "1000"


def serve() -> None:
    """Answer until the input ends, as it does with the coordinator."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what else is written goes to the log
    os.nice(_NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_GO)  # rather than the coordinator
    with contextlib.suppress(BrokenPipeError):
        while head := sys.stdin.buffer.read(LENGTH.size):
            (length,) = LENGTH.unpack(head)
            _answer(sys.stdin.buffer.read(length), answers)


def _answer(asked: bytes, answers: BinaryIO) -> None:
    work, budget = pickle.loads(asked)  # noqa: S301 - of the coordinator, whose child this is
    try:
        answer = work(budget)
    except ExpressionError as error:
        answer = error
    data = pickle.dumps(answer)
    answers.write(LENGTH.pack(len(data)) + data)
    answers.flush()


if __name__ == "__main__":
    serve()
