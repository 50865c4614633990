"""Programs in the background: known by more than their pid, ended whole."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from devservices.processes import (
    ServiceError,
    await_answer,
    halt,
    launch,
    running,
    send_signal,
    wait_until,
)


def test_a_launched_program_runs_until_it_is_halted(tmp_path: Path) -> None:
    launch(tmp_path, ["sleep", "600"])
    assert running(tmp_path)
    halt(tmp_path)
    assert not running(tmp_path)


def test_halting_what_never_ran_or_has_ended_does_nothing(tmp_path: Path) -> None:
    halt(tmp_path)
    launch(tmp_path, ["true"])
    wait_until(lambda: not running(tmp_path), 10)
    halt(tmp_path)
    assert not running(tmp_path)


def test_one_that_ignores_the_request_is_killed_with_its_children(tmp_path: Path) -> None:
    script = "trap '' TERM; sleep 600 & echo $! > child; while :; do sleep 600; done"
    launch(tmp_path, ["sh", "-c", script])
    child = tmp_path / "child"
    wait_until(lambda: child.exists() and bool(child.read_text().strip()), 10)
    halt(tmp_path, patience=0.3)
    assert not running(tmp_path)
    wait_until(lambda: not _alive(int(child.read_text())), 10)


def test_a_frozen_one_is_halted_too(tmp_path: Path) -> None:
    launch(tmp_path, ["sleep", "600"])
    send_signal(tmp_path, signal.SIGSTOP)
    halt(tmp_path, patience=10)
    assert not running(tmp_path)


def test_a_pid_that_belongs_to_another_by_now_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()} 1\n")
    assert not running(tmp_path)
    halt(tmp_path)


def test_one_that_dies_before_it_answers_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    launch(tmp_path, ["sh", "-c", "echo no such port; exit 1"])
    with pytest.raises(ServiceError, match=r"the thing did not come up(?s:.*)no such port"):
        await_answer("the thing", tmp_path, lambda: False)


def test_waiting_ends_when_the_time_is_up() -> None:
    with pytest.raises(TimeoutError):
        wait_until(lambda: False, 0.2)


def _alive(pid: int) -> bool:
    """Whether it runs; a zombie that nobody has collected yet does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
