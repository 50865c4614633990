"""Few work at a time, each user or address in turn."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.turns import TooManyWaiting, Turns


async def test_turns_are_shared_among_addresses_and_the_newest_goes_first() -> None:
    turns, order = Turns(at_once=1, newest=2), []
    begun = asyncio.Event()

    async def work(address: str, name: str) -> None:
        async with turns.turn(address):
            order.append(name)
            await begun.wait()

    async def later(address: str, name: str) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(work(address, name))
        await asyncio.sleep(0)
        return task

    tasks = [
        await later(*each)
        for each in [("a", "a1"), ("a", "a2"), ("a", "a3"), ("a", "a4"), ("b", "b1")]
    ]
    tasks[3].cancel()
    begun.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[1], TooManyWaiting)
    assert order == ["a1", "a3", "b1"]
    async with asyncio.timeout(1), turns.turn("c"):
        pass


async def test_a_turn_that_is_given_back_to_one_who_was_cancelled_is_not_lost() -> None:
    turns, go = Turns(at_once=1, newest=1), asyncio.Event()

    async def hold() -> None:
        async with turns.turn("ann"):
            await go.wait()

    holder, waiter = (asyncio.create_task(hold()) for _ in range(2))
    await asyncio.sleep(0.01)
    go.set()
    await asyncio.sleep(
        0
    )  # the holder goes on in this turn of the loop, the waiter is cancelled before it
    waiter.cancel()
    await holder
    await asyncio.gather(waiter, return_exceptions=True)
    async with asyncio.timeout(1), turns.turn("bob"):
        pass


async def test_of_one_those_go_on_in_the_order_in_which_they_came_where_none_is_refused() -> None:
    turns, order = Turns(at_once=1), []

    async def work(name: str) -> None:
        async with turns.turn(name[0]):
            order.append(name)

    await turns.take("first")
    async with asyncio.timeout(1), asyncio.TaskGroup() as group:
        for name in ("a1", "a2", "a3", "b1"):
            group.create_task(work(name))
        await asyncio.sleep(0)
        assert (turns.waiting("a"), turns.waiting("b")) == (3, 1)
        turns.give_back()
    assert order == ["a1", "b1", "a2", "a3"]
    assert turns.free
