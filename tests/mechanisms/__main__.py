"""Takes out each mechanism that a promise rests on, and shows which test catches it."""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
import warnings
from pathlib import Path

from tests.mechanisms.catalogue import MECHANISMS, named
from tests.mechanisms.trial import Verdict, try_all

ROOT = Path(__file__).parents[2]
WARM = (
    *("hypothesis", "pymongo", "coordinator.app", "worker.app"),
    *("pytest_asyncio.plugin", "xdist.plugin", "pytest_cov.plugin"),
)
"""What every run would import."""


def main() -> int:
    """Try mechanisms; 1 where one is missed by a test that should have caught it."""
    asked = _arguments()
    os.chdir(ROOT)
    chosen = [named(name) for name in asked.names] or [
        mechanism for mechanism in MECHANISMS if asked.all or mechanism.needs is None
    ]
    for module in WARM:
        importlib.import_module(module)
    gc.freeze()
    missed = [_told(verdict) for verdict in try_all(chosen, asked.workers)]
    _say(f"{len(missed)} mechanisms, {sum(missed)} not caught")
    return 1 if any(missed) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.mechanisms", description=__doc__)
    parser.add_argument("names", nargs="*", help="mechanisms (all that need no service)")
    parser.add_argument("--all", action="store_true", help="those that need a service too")
    parser.add_argument("--workers", type=int, default=4, help="processes side by side")
    return parser.parse_args()


def _told(verdict: Verdict) -> bool:
    """Say what came of a mechanism; return whether it was missed by a test that should have caught it."""
    mechanism = named(verdict.mechanism)
    missed = bool(verdict.survived or verdict.broken)
    _say(f"{'MISSED' if missed else 'caught'}  {mechanism.name}: {mechanism.out}")
    for test in mechanism.tests:
        if test in verdict.broken:
            _say(f"        {test} does not pass with it: {verdict.reasons.get(test, 'not run')}")
        elif test in verdict.survived:
            _say(f"        {test} passes without it")
        else:
            _say(f"        {test} fails: {verdict.reasons[test]}")
    return missed


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
