"""Runs tests with a mechanism and without it, each time in a process of its own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from tests.mechanisms import plugin
from tests.mechanisms.mechanism import Mechanism

OPTIONS = (
    *("-q", "--tb=native", "-W", "ignore::pytest.PytestAssertRewriteWarning"),
    *("-p", "no:cacheprovider"),
    *("-p", "no:unraisableexception"),  # it collects garbage several times in the end
)
"""What makes a run quick, of which nobody reads the output."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one mechanism's tests. Empty `survived` and `broken`: each test passes with it and fails
    without it."""

    mechanism: str
    survived: tuple[str, ...]
    """Tests that did not fail without it."""
    broken: tuple[str, ...]
    """Tests that did not pass with it."""
    reasons: dict[str, str] = {}
    """Why each test that failed did; where it fails with it too, why that is."""


class Recorder:
    """Remembers how each case ended, and each test, however many cases it has."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: dict[str, str] = {}
        self.broken: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a phase of a test."""
        for name in {report.nodeid, report.nodeid.partition("[")[0]}:
            if report.when == "call" and report.failed:
                self.failed.setdefault(name, _reason(report))
            elif report.when == "call" and report.passed:
                self.passed.add(name)
            elif not report.passed:
                self.broken.add(name)


def _reason(report: pytest.TestReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr).partition("\n")[0]


def run_tests(without: str | None, tests: Sequence[str]) -> Recorder:
    """Run tests here, quietly."""
    recorder = Recorder()
    options = [*OPTIONS, *tests]
    if without is not None:
        options.append(f"--without={without}")
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main(options, plugins=[plugin, recorder])
    return recorder


def _apart(task: tuple[str | None, tuple[str, ...]]) -> Recorder:
    return run_tests(*task)


def try_all(mechanisms: Sequence[Mechanism], workers: int) -> Iterator[Verdict]:
    """Try each mechanism; yield the verdicts in their order.

    A run's process is a fork of this one, so that none pays for the imports, and none sees what another cut."""
    named = tuple(dict.fromkeys(test for mechanism in mechanisms for test in mechanism.tests))
    tasks: list[tuple[str | None, tuple[str, ...]]] = [(None, named)]
    tasks += [(mechanism.name, mechanism.tests) for mechanism in mechanisms]
    with multiprocessing.get_context("fork").Pool(workers, maxtasksperchild=1) as pool:
        results = pool.imap(_apart, tasks)
        whole = next(results)
        for mechanism, cut in zip(mechanisms, results, strict=True):
            yield judged(mechanism, whole, cut)


def judged(mechanism: Mechanism, whole: Recorder, cut: Recorder) -> Verdict:
    """Judge a mechanism by its tests run `whole`, and with it cut out."""
    sound = whole.passed - whole.failed.keys() - whole.broken
    return Verdict(
        mechanism=mechanism.name,
        survived=tuple(test for test in mechanism.tests if test not in cut.failed),
        broken=tuple(test for test in mechanism.tests if test not in sound),
        reasons={**cut.failed, **whole.failed},
    )
