from __future__ import annotations

from coordinator.store.clock import FollowingClock
from coordinator.store.mongodb.connection import ServerClock


class Source:
    """A clock and a stopwatch in microseconds, moved by hand."""

    def __init__(self) -> None:
        self.time = 1_000_000
        self.stopwatch = 0

    def run(self, micros: int) -> None:
        self.time += micros
        self.stopwatch += micros

    def clock(self) -> FollowingClock:
        return FollowingClock(lambda: self.time, lambda: self.stopwatch * 1000)


def test_it_follows() -> None:
    source = Source()
    clock = source.clock()
    assert clock.now() == 1_000_000
    source.run(5)
    assert clock.now() == 1_000_005
    source.time += 3_600_000_000
    assert clock.now() == 3_601_000_005


def test_set_back_it_runs_slower_until_it_has_caught_up() -> None:
    source = Source()
    clock = source.clock()
    source.run(1_000_000)
    assert clock.now() == 2_000_000
    source.time -= 300_000
    assert clock.now() == 2_000_000
    source.run(100_000)
    assert clock.now() == 2_050_000
    source.run(50_000)
    assert clock.now() == 2_075_000
    source.run(500_000)
    assert clock.now() == 2_350_000 == source.time
    source.run(7)
    assert clock.now() == 2_350_007


def test_the_servers_clock_is_taken_from_quick_looks() -> None:
    clock = ServerClock()
    here = clock.now()
    second = 1_000_000_000
    clock.looked(10 * second, here + 60_000_000, 10 * second + 2_000_000)
    first = clock._offset_ns
    clock.looked(12 * second, here + 900_000_000, 14 * second)
    assert clock._offset_ns == first
    clock.looked(50 * second, here + 120_000_000, 52 * second)
    assert clock._offset_ns == (here + 120_000_000) * 1000 - 51 * second
