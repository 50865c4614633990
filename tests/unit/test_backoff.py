"""Growing delays: their growth, their spread, and starting over."""

import random

import pytest

from shared.supervision import Backoff


def test_delays_grow_by_their_factor_up_to_the_longest() -> None:
    backoff = Backoff(0.5, 3.0, jitter=0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 3.0, 3.0]
    backoff = Backoff(1.0, 100.0, factor=3.0, jitter=0)
    assert [backoff.next() for _ in range(3)] == [1.0, 3.0, 9.0]


def test_the_first_delay_is_no_longer_than_the_longest() -> None:
    assert Backoff(5.0, 0.1, jitter=0).next() == 0.1


@pytest.mark.parametrize(
    ("chance", "delays"), [(0.0, [0.8, 1.6, 3.2]), (0.5, [1.0, 2.0, 4.0]), (1.0, [1.2, 2.4, 4.0])]
)
def test_delays_are_spread_to_both_sides_but_not_above_the_longest(
    chance: float, delays: list[float]
) -> None:
    backoff = Backoff(1.0, 4.0, chance=lambda: chance)
    assert [backoff.next() for _ in delays] == pytest.approx(delays)


def test_a_seed_gives_the_same_delays_again() -> None:
    one, other = (Backoff(1.0, 60.0, chance=random.Random(7).random) for _ in range(2))
    drawn = [one.next() for _ in range(6)]
    assert drawn == [other.next() for _ in range(6)]
    assert drawn != [2.0**power for power in range(6)]


def test_starting_over_begins_with_the_first_delay() -> None:
    backoff = Backoff(0.5, 3.0, jitter=0)
    assert backoff.next() < backoff.next()
    backoff.reset()
    assert backoff.next() == 0.5
