"""The judges of a campaign, at work on what is known."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.jobs import Work
from tests.chaos.quota import Quota
from tests.chaos.truth import counted_twice, excused, times_of


@pytest.mark.parametrize(
    ("until", "excuse", "expected"),
    [
        pytest.param(20.0, (10.0, 12.0), True, id="struck while it ran"),
        pytest.param(8.0, (10.0, 12.0), False, id="it had ended long before"),
        pytest.param(20.0, (31.0, 40.0), False, id="it ran twice before anything struck"),
        pytest.param(20.0, (0.0, 4.0), False, id="all was over before it began"),
    ],
)
def test_only_a_run_that_was_struck_may_be_made_again(
    until: float, excuse: tuple[float, float], expected: bool
) -> None:
    assert excused(5.0, until, 30.0, [excuse]) is expected


def test_each_attempt_has_its_own_times() -> None:
    lines = [["t", "1", "99", "7.5", "a"], ["t", "2", "99", "8.0", "a"], ["t", "1", "98", "3", "a"]]
    assert times_of(lines) == {("t", "1", "a"): [3.0, 7.5], ("t", "2", "a"): [8.0]}


def ended(*names: str, position: int = 2) -> dict[str, Any]:
    execution = [{"name": name, "state": "COMPLETED"} for name in names]
    return {"position": position, "execution": execution}


@pytest.mark.parametrize(
    ("job", "count"),
    [
        pytest.param(ended("1.a"), 0, id="once"),
        pytest.param(ended("1.a", position=3), 1, id="a position too far"),
        pytest.param(ended("1.a", "1.a"), 2, id="twice"),
        pytest.param(ended("1.a", "1.b"), 1, id="a task that nobody asked for"),
    ],
)
def test_what_an_end_that_counts_twice_leaves(job: dict[str, Any], count: int) -> None:
    work = Work("chain", 1, {"tasks": [{"name": "1.a"}]}, ["1.a"])
    assert len(list(counted_twice(job, work))) == count


def test_a_shorter_campaign_has_its_share_to_see() -> None:
    assert Quota.of(1800) == Quota.of(7200) == Quota(jobs=500, contained=100, faults=40)
    assert Quota.of(300) == Quota(jobs=84, contained=17, faults=7)
