"""Whole systems with a virtual clock: whatever goes wrong, and whenever, the promises hold (`make simulate`)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence

import msgspec
import pytest

from tests.mechanisms.catalogue import MECHANISMS
from tests.simulation import __main__ as main
from tests.simulation import coverage, faults, plant, slips
from tests.simulation.__main__ import LABELS
from tests.simulation.noticed import NOTICED, UNNOTICED

SEEDS = 400


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_promises_hold_whatever_goes_wrong_at_each_step_and_in_each_state() -> None:
    """The run fails, too, where a pair of step or state and fault was never met."""
    played = _simulate("--first", "1000000", "--seeds", str(SEEDS), "--processes", "2")
    assert " histories, 0 with problems" in played.stdout
    assert " 0 of " in played.stdout


def test_a_pair_that_was_never_met_is_named_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(main, "ENOUGH", 1)
    pairs = [*faults.wanted(LABELS), *faults.wanted_in_states()]
    assert main._told([_result(met=pairs)]) == 0
    assert main._told([_result(met=pairs[1:])]) == 1
    assert f"never met: {pairs[0][0]} × {pairs[0][1]}\n" in capsys.readouterr().out


def test_what_was_not_met_is_aimed_at_where_it_came_by() -> None:
    played = _result(labels={"insert Job top": 3}, states={"job RUNNING": 4.5})
    wanted = [("insert Job top", "stall"), ("job RUNNING", "engine hangs"), ("delete Job", "stall")]
    step, state = coverage.aimed_at(wanted, [played])
    assert (step.seed, step.fault.label, step.fault.nth) == (CALM, "insert Job top", 1)
    assert 4.5 < state.fault.at < 4.501


@pytest.mark.parametrize(
    "fault",
    [
        faults.Fault(what="fail before", label="insert Job top", nth=1),
        faults.Fault(what="engine hangs", at=8.0, seconds=20.0),
    ],
)
def test_a_fault_that_is_added_to_a_seed_is_met(fault: faults.Fault) -> None:
    alone = _simulate("--seed", str(CALM)).stdout
    added = _simulate("--seed", str(CALM), "--fault", msgspec.json.encode(fault).decode()).stdout
    assert _never_met(added) < _never_met(alone)


def _never_met(said: str) -> int:
    found = re.search(r"(\d+) of", said)
    assert found is not None
    return int(found.group(1))


CALM = 7
"""A seed without faults."""


def _result(
    met: Sequence[coverage.Pair] = (),
    labels: Mapping[str, int] = {},
    states: Mapping[str, float] = {},
) -> plant.Result:
    return plant.Result(
        seed=CALM,
        problems=[],
        trace="",
        labels=dict(labels),
        states=dict(states),
        met=list(met),
        faults=[],
    )


def test_half_of_the_seeds_are_aimed_and_all_pairs_are_in_turn() -> None:
    wanted = faults.wanted(LABELS)
    seeds = range(2 * len(wanted) // faults.AIMED_AT_ONCE + 2)
    aimed = [faults.faults_of(seed, LABELS) for seed in seeds if seed % 2 == 0]
    met = {(each.label, each.what) for one in aimed for each in one if each.nth}
    assert met == set(wanted)


def test_each_kind_of_step_slips_in_some_seeds_and_none_in_calm_ones() -> None:
    slipping = {
        (seed, calm): slips.Slips(seed, calm=calm) for seed in range(200) for calm in (False, True)
    }
    assert not any(each.any_left for (_, calm), each in slipping.items() if calm)
    assert {each.kind for each in slipping.values() if each.any_left} == {*slips.KINDS}


SOON = 20
"""Mechanisms that a seed below this notices the lack of are tried in each run of the suite."""


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mechanisms_that_are_missing_are_noticed() -> None:
    """A simulation that finds nothing proves nothing."""
    soon = sorted(name for name, seed in NOTICED.items() if seed < SOON)
    assert len(soon) >= 10
    noticed = _simulate("--mechanisms", *soon, "--seeds", "40")
    assert noticed.stdout.count("noticed by seed") == len(soon)


def test_each_mechanism_is_noticed_or_has_a_reason_why_not() -> None:
    assert sorted([*NOTICED, *UNNOTICED]) == sorted(mechanism.name for mechanism in MECHANISMS)


def _simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
