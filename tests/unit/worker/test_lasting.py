"""How long a container ran, where the engine notes its start late or not at all."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from worker.runtime.docker.usage import Seen, seconds

CALLED = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
SEEN = Seen(called=CALLED, asked=100.0, started=100.3, ended=101.6)
"""Asked for at 0, said to have started after 0.3 s, heard of its end after 1.6."""
NEVER = "0001-01-01T00:00:00Z"


def state(began: float, ended: float) -> dict[str, str]:
    """Return the engine's times, in seconds from the call."""
    return {"StartedAt": at(began), "FinishedAt": at(ended)}


def at(offset: float) -> str:
    return datetime.fromtimestamp(CALLED + offset, UTC).isoformat()


def test_the_engines_times_count() -> None:
    assert seconds(state(0.2, 1.5), SEEN, None) == pytest.approx(1.3)


def test_a_start_noted_late_is_put_right_by_the_first_look_at_the_script() -> None:
    assert seconds(state(0.9, 1.5), SEEN, CALLED + 0.2) == pytest.approx(1.3)


def test_a_start_noted_after_the_end_is_put_right_by_the_first_look_at_the_script() -> None:
    assert seconds(state(0.2101, 0.21), SEEN, CALLED + 0.2) == pytest.approx(0.01)


@pytest.mark.parametrize("read", [-5.0, 0.8])
def test_a_look_at_the_script_that_says_nothing(read: float) -> None:
    assert seconds(state(0.2, 1.5), SEEN, CALLED + read) == pytest.approx(1.3)


@pytest.mark.parametrize(
    "times",
    [
        state(1.51, 1.5),
        {"StartedAt": at(0.2), "FinishedAt": NEVER},
        {"StartedAt": at(0.2)},
        {"StartedAt": "yesterday", "FinishedAt": at(1.5)},
        {},
    ],
)
def test_what_the_worker_saw_counts_where_the_engine_says_nothing(times: dict[str, str]) -> None:
    assert seconds(times, SEEN, None) == pytest.approx(1.3)


def test_nothing_ran_longer_than_the_worker_saw() -> None:
    assert seconds(state(0.2, 9.5), SEEN, None) == pytest.approx(1.6)


def test_what_never_started_ran_for_no_time() -> None:
    assert seconds(state(0.2, 1.5), Seen(CALLED, 100.0, None, 100.3), None) == 0.0


@pytest.mark.parametrize(
    ("began", "ended"),
    [
        ("2026-01-01T00:00:00.100000001Z", "2026-01-01T00:00:00.35Z"),
        ("2026-01-01T02:00:00.100000001+02:00", "2026-01-01T02:00:00.35+02:00"),
        ("2025-12-31T18:30:00.1-05:30", "2026-01-01T00:00:00.35Z"),
    ],
)
def test_times_as_engines_write_them(began: str, ended: str) -> None:
    assert seconds({"StartedAt": began, "FinishedAt": ended}, SEEN, None) == pytest.approx(0.25)
