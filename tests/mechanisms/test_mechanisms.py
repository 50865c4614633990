"""Every mechanism is missed by its tests when it is taken out, and every promise has some."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mechanisms.catalogue import ELSEWHERE, MECHANISMS, PROMISES, named
from tests.mechanisms.trial import Recorder, judged

ROOT = Path(__file__).parents[2]


def tried(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a developer does."""
    command = [sys.executable, "-m", "tests.mechanisms", *arguments]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_each_mechanism_is_missed_when_it_is_taken_out() -> None:
    done = tried()
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.rabbitmq
@pytest.mark.timeout(300)
def test_the_brokers_confirms_are_missed_when_they_are_taken_out() -> None:
    done = tried("confirm-rabbitmq")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_promise_has_its_mechanisms() -> None:
    # The 14th, that nothing dies in silence, is tried with each loop: tests/faults/test_loops.py.
    assert set(PROMISES) == {*range(1, 14), 15} == set(ELSEWHERE)
    held = {number for mechanism in MECHANISMS for number in mechanism.promises}
    assert held == set(PROMISES)
    assert len({mechanism.name for mechanism in MECHANISMS}) == len(MECHANISMS)


@pytest.mark.parametrize("name", [mechanism.name for mechanism in MECHANISMS])
def test_each_cut_finds_what_it_cuts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named(name).cut(monkeypatch)


def test_all_tests_that_are_named_are_there() -> None:
    wanted = {test for mechanism in MECHANISMS for test in mechanism.tests}
    wanted |= {test for tests in ELSEWHERE.values() for test in tests}
    missing = [test for test in sorted(wanted) if not _is_there(test)]
    assert missing == []


def _is_there(test: str) -> bool:
    path, _, name = test.partition("[")[0].partition("::")
    tree = ast.parse((ROOT / path).read_text())
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name
        for node in tree.body
    )


# --- the judge itself -----------------------------------------------------------------------------------------------

MECHANISM = named("grant")
(TEST,) = MECHANISM.tests


def ended(*, passed: bool = False, failed: bool = False, broken: bool = False) -> Recorder:
    """A run of the test that ended so."""
    recorder = Recorder()
    if passed:
        recorder.passed.add(TEST)
    if failed:
        recorder.failed[TEST] = "assert 2 == 1"
    if broken:
        recorder.broken.add(TEST)
    return recorder


def test_a_mechanism_is_caught_by_a_test_that_passes_with_it_and_fails_without_it() -> None:
    verdict = judged(MECHANISM, ended(passed=True), ended(failed=True))
    assert (verdict.survived, verdict.broken) == ((), ())
    assert verdict.reasons == {TEST: "assert 2 == 1"}


@pytest.mark.parametrize("cut", [ended(passed=True), ended(broken=True), ended()])
def test_a_mechanism_survives_a_test_that_passes_breaks_or_does_not_run(cut: Recorder) -> None:
    assert judged(MECHANISM, ended(passed=True), cut).survived == (TEST,)


@pytest.mark.parametrize(
    "whole", [ended(failed=True), ended(passed=True, failed=True), ended(broken=True), ended()]
)
def test_a_test_that_does_not_pass_with_its_mechanism_is_broken(whole: Recorder) -> None:
    assert judged(MECHANISM, whole, ended(failed=True)).broken == (TEST,)
