"""Plays simulations: `python -m tests.simulation` plays 1,000 seeds, and some of them again, aimed at what none has
met; `--seed 7` one again, with what went wrong in it; `--mechanisms` takes each mechanism out, and counts the seeds
until that is noticed."""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Iterator
from functools import partial
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Final

import msgspec
import pytest
import structlog

from tests.mechanisms.catalogue import MECHANISMS, named
from tests.simulation import coverage, faults, plant
from tests.simulation.noticed import NOTICED
from tests.simulation.plant import Result

LABELS: Final = (Path(__file__).parent / "labels.txt").read_text().splitlines()
"""The steps that faults are aimed at: what 200 seeds were seen to do. `--labels` writes it anew."""

TWICE_EVERY: Final = 50
"""Each so many seeds one is played twice: the traces must be the same."""

ENOUGH: Final = 400
"""After so many seeds each wanted pair of step or state and fault must have been met. What these have not met is aimed
at: seeds that came by it are played again with that fault."""

AIMED_ROUNDS: Final = 3
"""How often that is tried, each time with other seeds: a fault may change what its history does before it."""

SEEDS_OF_A_PROCESS: Final = 10
"""A forked process ends after so many seeds, and its garbage with it: that costs less than to collect it."""


def main() -> int:
    """Play what the command line asks for; return 1 where a promise did not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1_000, help="how many seeds to play")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="play this one alone")
    parser.add_argument("--fault", help="with this fault, too: as JSON, as a failure prints it")
    parser.add_argument("--labels", action="store_true", help="write the steps that were seen")
    parser.add_argument(
        "--mechanisms", nargs="*", metavar="NAME", help="take each mechanism out in turn, or these"
    )
    asked = parser.parse_args()
    if asked.mechanisms is not None:
        return _mechanisms(asked.mechanisms, asked)
    if asked.seed is not None:
        more = msgspec.json.decode(asked.fault, type=faults.Fault) if asked.fault else None
        return _told([_play(asked.seed, more)])
    began = time.monotonic()
    results = list(_played(range(asked.first, asked.first + asked.seeds), asked))
    for round_ in range(AIMED_ROUNDS if len(results) >= ENOUGH else 0):
        results += _aimed(
            coverage.aimed_at(coverage.missing(results, LABELS), results, round_), asked
        )
    _say(f"played in {time.monotonic() - began:.0f} s")
    return _told(results, asked.labels)


def _play(seed: int, more: faults.Fault | None = None) -> Result:
    """Play a seed, perhaps with one fault more than it has."""
    _hush()
    wrong = [*([more] if more else []), *faults.faults_of(seed, LABELS)]
    result = plant.play(seed, wrong)
    if seed % TWICE_EVERY == 0 and plant.play(seed, wrong).trace != result.trace:
        result.problems.append("played twice it went two ways")
    return result


def _hush() -> None:
    """Let nothing be logged, and nobody hear of coroutines that a killed process left."""
    warnings.simplefilter("ignore", RuntimeWarning)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(50), cache_logger_on_first_use=True
    )
    sys.unraisablehook = lambda *_: None


def _played(seeds: range, asked: argparse.Namespace) -> Iterator[Result]:
    with _pool(asked) as pool:
        yield from pool.imap(_play, seeds, chunksize=SEEDS_OF_A_PROCESS)


def _aimed(histories: list[coverage.Aimed], asked: argparse.Namespace) -> list[Result]:
    with _pool(asked) as pool:
        played = [(each.seed, each.fault) for each in histories]
        return pool.starmap(_play, played, chunksize=SEEDS_OF_A_PROCESS)


def _pool(asked: argparse.Namespace) -> Pool:
    """Return processes that collect no garbage, and end before they have much."""
    gc.collect()
    gc.freeze()
    gc.disable()
    return multiprocessing.get_context("fork").Pool(asked.processes, maxtasksperchild=1)


def _told(results: list[Result], write_labels: bool = False) -> int:
    """Say what went wrong, and what was never met; 1 where there is something."""
    bad = [result for result in results if result.problems]
    for result in bad:
        _say(f"seed {result.seed}: python -m tests.simulation --seed {result.seed}{_more(result)}")
        _say("  faults:", *(_fault(fault) for fault in result.faults))
        for problem in result.problems[:5]:
            _say("  ", problem)
    seen = sorted({label for result in results for label in result.labels})
    if write_labels:
        (Path(__file__).parent / "labels.txt").write_text("\n".join(seen) + "\n")
    never = coverage.missing(results, LABELS)
    at_steps, in_states = len(faults.wanted(LABELS)), len(faults.wanted_in_states())
    _say(
        f"{len(results)} histories, {len(bad)} with problems; {len(seen)} kinds of steps; {len(never)} of "
        f"{at_steps} pairs of step and fault and {in_states} of state and fault were never met"
    )
    if len(results) < ENOUGH:
        return int(bool(bad))
    for name, fault in never:
        _say("never met:", name, "×", fault)
    return int(bool(bad or never))


def _more(result: Result) -> str:
    """Return how to say that a fault was added to those of the seed."""
    if len(result.faults) == len(faults.faults_of(result.seed, LABELS)):
        return ""
    return f" --fault '{msgspec.json.encode(result.faults[0]).decode()}'"


def _say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


def _fault(fault: faults.Fault) -> str:
    where = f"at {fault.label} number {fault.nth}" if fault.nth else f"at {fault.at} s"
    return f"{fault.what} {where} for {fault.seconds} s;"


def _mechanisms(names: list[str], asked: argparse.Namespace) -> int:
    """Take mechanisms out, one after another; 1 where one is not noticed within so many seeds."""
    chosen = [named(name).name for name in names] or [each.name for each in MECHANISMS]
    notice = partial(_noticed_by, seeds=asked.seeds)
    missed = 0
    with _pool(asked) as pool:
        for name, found in zip(chosen, pool.imap(notice, chosen, chunksize=1), strict=True):
            missed += found is None
            _say(f"{name:24} {found or 'not noticed'}")
    _say(f"{missed} of {len(chosen)} mechanisms not noticed within {asked.seeds} seeds")
    return int(bool(missed))


def _noticed_by(name: str, seeds: int) -> str | None:
    """Return what notices that a mechanism is missing. The seed that is known to is played first. None is played twice:
    what is put in the place of a mechanism may go on counting where it was."""
    _hush()
    known = NOTICED.get(name)
    with pytest.MonkeyPatch.context() as patch:
        named(name).cut(patch)
        for seed in [*([known] if known is not None else []), *range(seeds)]:
            if seed % SEEDS_OF_A_PROCESS == 0:
                gc.collect()
            if problems := plant.play(seed, faults.faults_of(seed, LABELS)).problems:
                return f"noticed by seed {seed}: {problems[0]}"
    return None


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of texts is to be the same
        os.execve(
            sys.executable,
            [sys.executable, "-m", "tests.simulation", *sys.argv[1:]],
            {**os.environ, "PYTHONHASHSEED": "0"},
        )
    sys.exit(main())
