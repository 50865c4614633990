"""Measures beside the bare engine's and drivers' own speed: `python -m bench [SECTION …] [--rounds N]`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Mapping

from bench import control_plane, local_tasks, whole_path
from bench.turns import Comparison, table

Section = Callable[[dict[str, str], int], Awaitable[Comparison]]

SECTIONS: Mapping[str, Section] = {
    "containers": whole_path.measure,
    "control_plane": control_plane.measure,
    "local": local_tasks.measure,
}
ROUNDS = 3


async def run(names: list[str], rounds: int) -> None:
    comparisons = []
    for name in names:
        print(f"{name}:", flush=True)
        comparisons.append(await SECTIONS[name](dict(os.environ), rounds))
    print(f"\nMedians of {rounds} turns each, the two sides in turns within one run:\n")
    print(table(comparisons))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    given = parser.parse_args()
    names = given.sections or list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"no such section: {', '.join(sorted(unknown))} (of {', '.join(SECTIONS)})")
    # Asked to stop, it leaves nothing behind either.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asyncio.run(run(names, given.rounds))


if __name__ == "__main__":
    main()
