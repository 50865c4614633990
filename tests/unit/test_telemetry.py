"""A log line that repeats is counted, not repeated."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from shared import telemetry
from shared.telemetry import (
    BYTES_KNOWN,
    COUNTED_FOR,
    LINES_KNOWN,
    LONGEST_FIELD,
    LONGEST_TRACEBACK,
    Repeats,
    configure_logging,
    cut_in_the_middle,
)
from tests.acceptance.processes import clean_environment

Lines = Callable[[], list[dict[str, Any]]]


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(telemetry, "Repeats", lambda: Repeats(clock))
    return clock


@pytest.fixture
def written(clock: Clock) -> Callable[[str], Lines]:
    """Configures the log at a level, and gives what reads the lines that were written."""

    def at(level: str) -> Lines:
        stream = io.StringIO()
        configure_logging(level, "json", stream)
        return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]

    return at


def fail(log: Any, text: str) -> None:
    try:
        int(text)
    except ValueError:
        log.exception("it failed", task="t")


def test_a_line_that_repeats_is_written_once_a_minute_with_its_count(
    written: Callable[[str], Lines], clock: Clock
) -> None:
    lines, log = written("info"), structlog.get_logger("here")
    for number in range(5):
        log.warning("away", reason="no answer", message=number)
    assert [line["message"] for line in lines()] == [0]
    clock.now += COUNTED_FOR
    log.warning("away", reason="no answer", message=5)
    log.warning("away", reason="no answer", message=6)
    assert [(line["message"], line.get("repeated")) for line in lines()] == [(0, None), (5, 4)]
    clock.now += COUNTED_FOR
    log.warning("away", reason="no answer", message=7)
    clock.now += COUNTED_FOR
    log.warning("away", reason="no answer", message=8)
    assert [line.get("repeated") for line in lines()[2:]] == [1, None]


def test_lines_of_another_logger_level_event_or_reason_are_others(
    written: Callable[[str], Lines],
) -> None:
    lines, log = written("info"), structlog.get_logger("here")
    for _ in range(2):
        log.warning("away", reason="no answer")
        log.warning("away", reason="refused")
        log.error("away", reason="no answer")
        log.warning("gone", reason="no answer")
        structlog.get_logger("there").warning("away", reason="no answer")
    assert len(lines()) == 5


def test_lines_without_a_reason_are_the_same_where_all_of_them_is(
    written: Callable[[str], Lines],
) -> None:
    lines, log = written("info"), structlog.get_logger("here")
    for job in ("a", "b", "a"):
        log.info("job stored", job=job)
    assert [line["job"] for line in lines()] == ["a", "b"]


def test_errors_with_tracebacks_are_told_apart_by_the_exception(
    written: Callable[[str], Lines],
) -> None:
    lines, log = written("info"), structlog.get_logger("here")
    for text in ("a", "a", "b"):
        fail(log, text)
    log.error("it failed", exc_info=ValueError("c"))
    log.error("it failed", exc_info=ValueError("c"))
    assert len(lines()) == 3
    assert "ValueError: invalid literal" in lines()[0]["exception"]


def test_at_debug_every_line_is_written(written: Callable[[str], Lines]) -> None:
    lines, log = written("debug"), structlog.get_logger("here")
    for _ in range(3):
        log.warning("away", reason="no answer")
    assert len(lines()) == 3


def test_what_is_remembered_is_bounded_and_what_is_forgotten_is_told(
    written: Callable[[str], Lines],
) -> None:
    lines, log = written("info"), structlog.get_logger("here")
    for _ in range(3):
        log.warning("away", reason="the first")
    for number in range(LINES_KNOWN):
        log.warning("away", reason=number)
    told = [line for line in lines() if "repeated" in line]
    assert [(line["reason"], line["repeated"]) for line in told] == [("the first", 2)]
    log.warning("away", reason="the first")
    assert len(lines()) == LINES_KNOWN + 3


def test_the_count_is_told_at_the_end_of_the_process() -> None:
    program = """
import structlog
from shared import startup

async def run(config):
    for _ in range(4):
        structlog.get_logger("here").error("it failed", exc_info=ValueError("a"))
    return 0

startup.process_command("standalone", lambda: run).main(["--log-format", "json"])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        check=True,
    )
    first, last = map(json.loads, done.stderr.splitlines())
    assert "repeated" not in first
    assert (last["event"], last["level"]) == ("it failed", "error")
    assert (last["reason"], last["repeated"]) == ("ValueError: a", 3)


@pytest.mark.parametrize("style", ["pretty", "json"])
def test_what_others_wrote_steers_no_terminal_and_begins_no_line(style: str) -> None:
    stream = io.StringIO()
    configure_logging("info", style, stream)
    log = structlog.get_logger("here")
    trick = "\x1b]0;pwn\x07\x9b2J\u202e"
    log.info("request", path=f"/jobs/{trick}", reason=f"a\nFAKE {trick}")
    logging.getLogger("aiohttp.server").error("bad %s", f"{trick}\nFAKE")
    fail(log, f"{trick}\rx")
    text = stream.getvalue()
    assert all(char.isprintable() or char == "\n" for char in text)
    assert not any(line.startswith("FAKE") for line in text.splitlines())
    if style == "json":
        assert json.loads(text.splitlines()[0])["path"] == f"/jobs/{trick}", "nothing is lost"


LONG = "é" * 500_000


@pytest.mark.parametrize("style", ["json", "pretty"])
def test_no_field_of_a_line_is_long_whoever_wrote_it(style: str) -> None:
    stream = io.StringIO()
    repeats = configure_logging("info", style, stream)
    log = structlog.get_logger("here")
    log.warning(LONG, user=LONG, names=[LONG] * 2, about={"a": LONG}, error=ValueError(LONG))
    log.error("it failed", exc_info=ValueError(LONG))
    log.warning("some", names=["a", "b"], count=3, nothing=None, flag=True)
    logging.getLogger("another").warning("it said %s", LONG)
    *cut, some, _ = lines = stream.getvalue().splitlines()
    if style == "json":
        assert len(lines) == 4
        assert json.loads(some).items() >= {"count": 3, "nothing": None, "flag": True}.items()
        assert json.loads(some)["names"] == ["a", "b"]
    assert all("…" in line for line in cut if "é" in line)
    assert len(stream.getvalue().encode()) < 5 * 2 * LONGEST_FIELD + 2 * LONGEST_TRACEBACK
    assert repeats.size() < 10 * LONGEST_FIELD


def test_a_text_is_cut_by_its_bytes_in_the_middle() -> None:
    for text in ("", "a", "é" * 50, "a" * 100):
        assert cut_in_the_middle(text, 100) is text
    for text in ("a" * 101, "é" * 51, "😀" * 26, "\ud800" * 200, "b" + "é" * 99 + "end"):
        cut = cut_in_the_middle(text, 100)
        first, counted, last = cut.split(" … ")
        assert f"{len(text):,}" in counted
        assert 90 <= len((first + last).encode()) <= 100 or "\ud800" in text
    assert cut.endswith("end")


def test_what_is_remembered_of_lines_is_bounded_by_bytes_and_by_age(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    repeats = Repeats(clock)
    monkeypatch.setattr(telemetry, "Repeats", lambda: repeats)
    configure_logging("info", "json", io.StringIO())
    log = structlog.get_logger("here")
    for number in range(LINES_KNOWN):
        log.warning("away", **{f"field{n}": f"{number}{LONG}" for n in range(9)})
        assert repeats.size() <= BYTES_KNOWN
    clock.now += COUNTED_FOR
    log.warning("away", reason="another")
    assert repeats.size() < LONGEST_FIELD
