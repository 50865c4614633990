"""The judges of a campaign, at work on what is known."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.acceptance.ledger import Ledger
from tests.chaos.faults import FAULTS
from tests.chaos.jobs import Work
from tests.chaos.quota import Quota, in_rounds
from tests.chaos.truth import counted_twice, excused, parts_lost, times_of


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


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        pytest.param([], False, id="nothing was lost"),
        pytest.param([(6.0, 7.0)], True, id="while its script ran"),
        pytest.param([(12.0, 13.0)], True, id="while its last parts were on their way"),
        pytest.param([(1.0, 4.0), (40.0, 41.0)], False, id="before, and long after"),
    ],
)
def test_a_log_may_lack_lines_only_where_some_were_lost_meanwhile(
    tmp_path: Path, losses: list[tuple[float, float]], expected: bool
) -> None:
    ledger = Ledger(tmp_path / "ledger")
    ledger.path.write_text("start t 1 99 5.0 1.a\nend t 1 99 8.0 1.a\nstart u 1 99 40.0 2.a\n")
    assert parts_lost(ledger, ["1.a"], losses) is expected


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


@pytest.mark.parametrize(("seconds", "rounds"), [(300, 8), (1800, len(FAULTS))])
def test_every_kind_of_fault_strikes_in_the_time_and_no_part_is_struck_twice_at_once(
    seconds: float, rounds: int
) -> None:
    chosen = list(islice(in_rounds(FAULTS, seconds, Random(1)), rounds))
    struck = Counter(fault.name for faults in chosen for fault in faults)
    assert struck == dict.fromkeys((fault.name for fault in FAULTS), 1)
    assert all(len({fault.part for fault in faults}) == len(faults) for faults in chosen)
