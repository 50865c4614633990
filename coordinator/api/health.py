"""Whether this coordinator, its datastore and its broker answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.responses import answer
from coordinator.api.routes import Route
from shared.errors import HaulierError
from shared.model.views import View

PATIENCE: Final = 2.0
"""Seconds that a part may take to answer."""


class HealthView(View, frozen=True, kw_only=True):
    """UP, or DOWN with the part that does not answer and why."""

    status: str
    version: str
    failing: str = ""
    message: str = ""


async def health(request: web.Request) -> web.StreamResponse:
    """Answer UP, or 503 DOWN where the datastore or the broker does not answer within 2 s."""
    api = api_of(request)
    found = await asyncio.gather(
        _fault("datastore", api.store.ping()), _fault("broker", api.broker.ping())
    )
    faults = [fault for fault in found if fault is not None]
    if not faults:
        return answer(HealthView(status="UP", version=api.version))
    return answer(
        HealthView(
            status="DOWN",
            version=api.version,
            failing=", ".join(part for part, _ in faults),
            message="; ".join(f"{part}: {reason}" for part, reason in faults),
        ),
        503,
    )


async def _fault(part: str, ping: Awaitable[None]) -> tuple[str, str] | None:
    try:
        await asyncio.wait_for(ping, PATIENCE)
    except TimeoutError:
        return part, f"does not answer within {PATIENCE:g} s"
    except HaulierError as error:
        return part, str(error)
    return None


ROUTES: Final = (
    Route(
        method="GET",
        path="/health",
        handler=health,
        group="",
        summary="Health of this coordinator, its datastore and its broker",
        answer=HealthView,
        errors={503: "A part does not answer; `failing` names it."},
        public=True,
    ),
)
