"""Slots have numbers (engine spec, Structure): an `each`'s concurrency and a root job's window.

A held child is released by being given a number that is unique among its owner's active tasks. The task that closes
gives its numbers to the next held one; whoever inserts held ones, and the sweeper, offers the free numbers. Nobody
counts, so a repeat gives nothing away twice.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from coordinator.engine.flow import Flow, Unread, change_first_task, count, find, now
from coordinator.engine.new_documents import EVALUATE, intent
from coordinator.engine.transitions import TaskFields
from shared.model.documents import Document, TaskDocument
from shared.model.queries import Not
from shared.model.states import Hold, TaskState

SLOT_NUMBERS = tuple(
    field.name
    for field in msgspec.structs.fields(TaskDocument)
    if not field.required and field.name not in {"slot", "slot_of", "window", "window_of"}
)
"""All fields but those that say who has which number, and those that cannot be left out."""

MISSES = 2
"""Numbers in a row that nobody took, after which an offer ends."""


def free_numbers(owner_field: str, number_field: str, owner: str, size: int) -> Flow[list[int]]:
    """Return the numbers below `size` that no open or active task of `owner` has."""
    where = {owner_field: owner, "open": True, number_field: Not(None)}
    if (yield from count(TaskDocument, where)) >= size:
        return []
    taken = yield from find(TaskDocument, where, without=SLOT_NUMBERS)
    used = {getattr(task, number_field) for task in taken}
    return [number for number in range(size) if number not in used]


def offer_window(window: str, size: int) -> Flow[list[Document]]:
    """Give the free numbers of a window to the tasks held for it."""
    numbers = yield from free_numbers("window_of", "window", window, size)
    where = {"window_of": window, "hold": Hold.WINDOW}
    return (yield from _offer(numbers, where, lambda number: {"window": number, "hold": None}))


def offer_slots(owner: str, size: int) -> Flow[list[Document]]:
    """Give the free slots of an `each` to the children held for them; they then wait for the window."""
    numbers = yield from free_numbers("slot_of", "slot", owner, size)
    where = {"slot_of": owner, "hold": Hold.CONCURRENCY}
    return (yield from _offer(numbers, where, lambda number: {"slot": number, "hold": Hold.WINDOW}))


def _offer(
    numbers: list[int], where: dict[str, str], fields: Callable[[int], TaskFields]
) -> Flow[list[Document]]:
    follow: list[Document] = []
    misses = 0
    for number in numbers:
        image = yield from _give(where, fields(number))
        misses = 0 if image else misses + 1
        if image and image.then:
            follow.append(Unread(id=image.id))
        if misses == MISSES:
            break
    return follow


def _give(where: dict[str, str], fields: TaskFields) -> Flow[TaskDocument | None]:
    at = yield from now()
    then = () if fields["hold"] else (intent(EVALUATE, at),)
    order = ("index",) if "slot_of" in where else ("created_at", "index")
    held = {**where, "state": TaskState.CREATED}
    return (yield from change_first_task(held, order, fields, add=then))


def hand_over(task: TaskDocument) -> Flow[list[Document]]:
    """Give the numbers of `task`, which is closed, to the next that wait for them."""
    window = task.window
    if task.slot_of and task.slot is not None:
        where = {"slot_of": task.slot_of, "hold": Hold.CONCURRENCY}
        fields: TaskFields = {
            "slot": task.slot,
            "hold": Hold.WINDOW if window is None else None,
        }
        if window is not None:
            fields["window"] = window
        heir = yield from _give(where, fields)
        if heir is not None:
            return [heir] if heir.then else []
    if not task.window_of or window is None:
        return []
    heir = yield from _give(
        {"window_of": task.window_of, "hold": Hold.WINDOW}, {"window": window, "hold": None}
    )
    return [heir] if heir else []
