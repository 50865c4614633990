"""A campaign: jobs go in all the time, and faults strike one after another. What became of it is in `truth`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from random import Random

from tests.acceptance.ledger import Ledger, now
from tests.chaos.faults import AFTER_OUTAGE, Fault
from tests.chaos.load import Load
from tests.chaos.plant import Plant
from tests.chaos.truth import Excuse


@dataclass(frozen=True)
class Struck:
    """A fault that struck: when, and how many seconds it took from the end of its round until all that was there before
    had ended."""

    fault: Fault
    what: str
    began: float
    over: float
    healing: float = 0.0

    def row(self) -> str:
        """Return it as a row of the table."""
        lasted = self.over - self.began
        return f"| {self.fault.name} | {self.what} | {lasted:.0f} s | {self.healing:.0f} s |"


class Campaign(Load):
    """One campaign on a plant; `say` is told each fault once it is healed."""

    def __init__(
        self,
        plant: Plant,
        ledger: Ledger,
        hook: str,
        seed: int,
        pace: float,
        say: Callable[[str], None],
    ) -> None:
        super().__init__(plant, ledger, hook, seed, pace)
        self._plant = plant
        self._random = Random(seed)
        self._say = say
        self.struck: list[Struck] = []

    def run(self, rounds: Iterable[Sequence[Fault]]) -> None:
        """Have these faults strike under load, those of a round at once, each round once the last is healed; then wait
        for every job's end."""
        with self.going():
            for faults in rounds:
                if self.done.is_set():
                    break
                self._strike(faults)
        self.wait_ended(AFTER_OUTAGE, "the last jobs")

    def _strike(self, faults: Sequence[Fault]) -> None:
        with ThreadPoolExecutor(len(faults), "striking") as threads:
            struck = list(threads.map(self._struck_by, faults, [self._chance() for _ in faults]))
        over = now()
        what = ", ".join(f"{each.fault.name} {each.what}" for each in struck)
        self.wait_ended(max(fault.within for fault in faults), f"all jobs of before: {what}")
        for each in struck:
            self.struck.append(replace(each, healing=now() - over))
            self._say(self.struck[-1].row())

    def _chance(self) -> Random:
        """Faults that strike at once have a source of chance each: so a seed gives the same ones."""
        return Random(self._random.random())

    def _struck_by(self, fault: Fault, random: Random) -> Struck:
        self.done.wait(random.uniform(1, 4))
        began = now()
        what = fault.strike(self._plant, random)
        return Struck(fault, what, began, now())

    @property
    def excuses(self) -> list[Excuse]:
        """When something struck for which runs may be made again."""
        return [(each.began, each.over) for each in self.struck if each.fault.repeats]

    @property
    def log_losses(self) -> list[Excuse]:
        """When something struck with which parts of logs may be gone, until it was healed."""
        return [
            (each.began, each.over + each.healing) for each in self.struck if each.fault.loses_logs
        ]

    def table(self) -> str:
        """Return what struck and how long it took to heal, as a table."""
        head = "| fault | where | lasted | healed after |\n|---|---|---|---|"
        return "\n".join([head, *(struck.row() for struck in self.struck)])
