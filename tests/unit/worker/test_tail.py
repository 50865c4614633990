"""The end of a log in an error."""

from __future__ import annotations

import base64
import random
import textwrap

import pytest

from tests.unit.worker.sinks import NoLog
from worker.runtime.port import TaskError
from worker.runtime.stages import BYTES, KEPT, LINES, Exit, Tail, check, failure


async def shown(written: bytes, secret: str = "", pieces: int = 4096) -> str:
    """Return what an error shows of `written`."""
    tail = Tail()
    for at in range(0, len(written), pieces):
        tail.add(written[at : at + pieces])
    return (await failure("", tail, NoLog(secret))).removeprefix("\n")


def secret_of(length: int) -> str:
    return "".join(random.Random(length).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=length))


async def test_the_last_lines() -> None:
    lines = [f"line {number}" for number in range(30)]
    assert await shown("\n".join(lines).encode() + b"\n") == "\n".join(lines[-LINES:])


@pytest.mark.parametrize(
    ("written", "shows"),
    [
        ("one\ntwo\n" + "".join(f"\r{n} %" for n in range(20)) + "\nend", "one\ntwo\n19 %\nend"),
        ("a\r\nb\r\n", "a\nb"),
        ("10 %\r20 %\r\n", "20 %"),
        ("10 %\r20 %\r", "20 %"),
        ("a\x0cb\x85c\u2028d", "a\x0cb\x85c\u2028d"),
        ("first\n\nlast\n\n\n", "first\n\nlast"),
        ("\r\n\r", ""),
    ],
)
async def test_lines_are_shown_as_a_terminal_leaves_them(written: str, shows: str) -> None:
    assert await shown(written.encode()) == shows


async def test_what_is_too_long_is_shown_from_its_end() -> None:
    assert await shown(b"x" * BYTES) == "x" * BYTES
    assert await shown(b"y" + "é".encode() * BYTES) == "é" * (BYTES // 2)


@pytest.mark.parametrize("length", [700, 2301, 19_991, 65_000])
@pytest.mark.parametrize("behind", [0, 1000, 1579 * 9, KEPT, 2 * KEPT, 3 * KEPT])
async def test_of_a_long_secret_no_part_is_left(length: int, behind: int) -> None:
    secret = secret_of(length)
    for line in (behind or 1, 1579):
        written = "\n".join([secret, *textwrap.wrap("X" * behind, line)])
        assert not any(char.islower() for char in await shown(written.encode(), secret))
        written = secret + "X" * behind
        assert not any(char.islower() for char in await shown(written.encode(), secret))


@pytest.mark.parametrize("length", [699, 8001])
@pytest.mark.parametrize("width", [64, 76])
async def test_of_a_secret_in_lines_of_base64_no_line_is_left(length: int, width: int) -> None:
    secret = secret_of(length)
    coded = base64.b64encode(secret.encode()).decode()
    shows = await shown("\n".join(textwrap.wrap(coded, width)).encode(), secret)
    assert shows == "[REDACTED]"


@pytest.mark.parametrize("cut", [3, 2 * KEPT, 5 * KEPT])
async def test_of_a_key_of_several_lines_no_line_is_left(cut: int) -> None:
    secret = "\n".join(secret_of(64 + number) for number in range(100))
    shows = await shown(f"{secret}\n{'X' * cut}\nthe end".encode(), secret)
    assert not any(secret_of(64 + number) in shows for number in range(100))
    assert shows.endswith("the end")


async def test_the_error_of_a_task_has_the_lines_redacted() -> None:
    secret, tail = secret_of(19_991), Tail()
    tail.add(f"{secret}\n".encode())
    with pytest.raises(TaskError) as failed:
        await check(Exit(1, tail), NoLog(secret))
    assert str(failed.value) == "exit code 1\n[REDACTED]"


async def test_memory_is_bounded() -> None:
    tail = Tail()
    for _ in range(100):
        tail.add(b"x" * KEPT)
        assert len(tail.text()) <= 2 * KEPT
