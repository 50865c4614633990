"""Whole systems with a virtual clock: whatever goes wrong, and whenever, the promises hold (`make simulate`)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.mechanisms.catalogue import MECHANISMS
from tests.simulation import faults
from tests.simulation.__main__ import LABELS
from tests.simulation.noticed import NOTICED, UNNOTICED

SEEDS = 400
PARTS = 4


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", range(PARTS))
def test_the_promises_hold_whatever_goes_wrong(part: int) -> None:
    each = SEEDS // PARTS
    played = _simulate("--seeds", str(each), "--first", str(part * each), "--processes", "1")
    assert f"{each} seeds, 0 with problems" in played.stdout


def test_half_of_the_seeds_are_aimed_and_all_pairs_are_in_turn() -> None:
    wanted = faults.wanted(LABELS)
    seeds = range(2 * len(wanted) // faults.AIMED_AT_ONCE + 2)
    aimed = [faults.faults_of(seed, LABELS) for seed in seeds if seed % 2 == 0]
    met = {(each.label, each.what) for one in aimed for each in one if each.nth}
    assert met == set(wanted)


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


def test_what_is_said_to_be_noticed_is_a_mechanism() -> None:
    names = {mechanism.name for mechanism in MECHANISMS}
    assert {*NOTICED, *UNNOTICED} <= names
    assert not {*NOTICED} & {*UNNOTICED}


def _simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done
