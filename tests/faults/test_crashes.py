"""A coordinator dies at every step of everything that it does; others go on, and all ends as it must."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import pytest

from coordinator.store.port import Store
from shared.broker.port import Broker
from tests.faults.ports import AROUND, FaultyBroker, FaultyStore, Luck, Mishap, OneMishap
from tests.faults.scenarios import SCENARIOS, Scenario, played
from tests.unit.engine.world import World, world_at

QUICK = frozenset({"chain", "nothing but skipped", "hooks", "parallel fails"})
"""Scenarios that are played in every run of the tests."""

OTHERS = [mishap for mishap in Mishap if mishap is not Mishap.DIE_BEFORE]
"""Mishaps but for the death before a step, of which there is a test of its own."""

cases = pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(
            scenario, id=scenario.name, marks=() if scenario.name in QUICK else pytest.mark.slow
        )
        for scenario in SCENARIOS
    ],
)


def unlucky(world: World, first: Luck) -> None:
    """Give the first coordinator this luck; those that come after it have none to fear."""
    lucks = iter([first])

    def wrapped() -> tuple[Store, Broker]:
        luck = next(lucks, None) or Luck()
        return FaultyStore(world.store, luck), FaultyBroker(world.broker, luck)

    world.wrap = wrapped


async def play(
    scenario: Scenario, luck: Luck, *, loses: bool = False, folder: Path | None = None
) -> None:
    """Play a scenario in a new world."""
    prepare = partial(unlucky, first=luck)
    async with world_at(folder, prepare, job_window=scenario.window) as world:
        world.coordinators[0].loses_messages = loses
        await played(world, scenario)


@pytest.mark.parametrize("store", ["memory", "sqlite"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
async def test_without_bad_luck_all_ends_as_it_must(
    folder: Path, scenario: Scenario, store: str
) -> None:
    await play(scenario, Luck(), folder=folder if store == "sqlite" else None)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("loses", [False, True], ids=["given back", "lost"])
@cases
async def test_a_death_at_any_step_is_healed(scenario: Scenario, loses: bool) -> None:
    await at_every_step(scenario, Mishap.DIE_BEFORE, loses=loses)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mishap", OTHERS, ids=lambda mishap: mishap.value)
@cases
async def test_any_other_mishap_at_any_step_is_healed(scenario: Scenario, mishap: Mishap) -> None:
    await at_every_step(scenario, mishap)


@pytest.mark.slow
@pytest.mark.parametrize("mishap", list(Mishap), ids=lambda mishap: mishap.value)
async def test_a_real_store_heals_as_one_in_memory_does(folder: Path, mishap: Mishap) -> None:
    (scenario,) = (each for each in SCENARIOS if each.name == "sub-job fails")
    await at_every_step(scenario, mishap, folder=folder)


async def at_every_step(
    scenario: Scenario, mishap: Mishap, *, loses: bool = False, folder: Path | None = None
) -> None:
    """Play a scenario once for each of its steps to which the mishap can happen, until it happens to none."""
    for number in itertools.count(1):
        luck = OneMishap(mishap, number)
        try:
            place = folder / str(number) if folder else None
            await play(scenario, luck, loses=loses, folder=place)
        except AssertionError as error:
            error.add_note(f"{mishap.value}, {number}: {luck.struck or 'after the last step'}")
            raise
        if not luck.struck:
            break
    assert number > (5 if mishap in AROUND else 1)
