"""Which deliveries of webhooks are due: some of every user's, whatever one of them has."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.store.port import Above, Below, Store, Where
from shared.model.documents import DeliveryDocument, Micros
from shared.model.states import DeliveryState

DELIVERIES_A_LOOK = 300
"""Due deliveries that one look reads, the longest due first."""

STEPS_A_LOOK = 50
OF_A_USER = 5
"""Where more is due: how often one look goes on to further users, and how many deliveries it reads each time."""


class WebhooksDue:
    """Reads what is due, a bounded number at a time. It keeps how far it has come in a round through the users."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last_user: str | None = None
        """The round goes on behind this one; None where it begins."""

    async def look(self, now: Micros) -> tuple[list[DeliveryDocument], bool]:
        """Return what is due, the longest due first, and whether that is all. Where it is not, these may all be one
        user's: then some of others follow."""
        where = {"due_at": Below(now + 1)}
        longest = await pending(self._store, where, ("due_at",), DELIVERIES_A_LOOK)
        if len(longest) < DELIVERIES_A_LOOK:
            return longest, True
        found = {each.id: each for each in longest}
        found |= {each.id: each for each in await self._some_of_users() if each.due_at <= now}
        return list(found.values()), False

    async def _some_of_users(self) -> list[DeliveryDocument]:
        """Return the first of some users' deliveries, at each look those of further users.

        Each step is a look into an index: one with very many that wait costs no more than another."""
        found: list[DeliveryDocument] = []
        for _ in range(STEPS_A_LOOK):
            # what has no user comes first; older versions did not store one
            where = {} if self._last_user is None else {"user": Above(self._last_user)}
            some = await pending(self._store, where, ("user", "due_at"), OF_A_USER)
            found += some
            self._last_user = some[-1].user if len(some) == OF_A_USER else None
            if self._last_user is None:
                break
        return found


async def pending(
    store: Store, where: Where, order: Sequence[str], limit: int, skip: int = 0
) -> list[DeliveryDocument]:
    """Return deliveries that are open, without what is large in them."""
    where = {"state": DeliveryState.PENDING, **where}
    heavy = DeliveryDocument.heavy
    return await store.find(DeliveryDocument, where, order, limit, skip, heavy)
