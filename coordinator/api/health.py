"""`GET /health`: checks this coordinator, its datastore and its broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from aiohttp import web

from coordinator.api.context import api_of
from coordinator.api.http import Route, answer
from shared.errors import ApplicationError
from shared.model.views import View
from shared.supervision import stuck_loops
from shared.version import version

_PATIENCE: Final = 2.0
"""Seconds that a part may take to answer."""


class HealthView(View, frozen=True, kw_only=True):
    """UP, or DOWN with the part that is unavailable and the reason."""

    status: str
    version: str
    failing: str = ""
    message: str = ""


async def health(request: web.Request) -> web.StreamResponse:
    """Answer UP, or 503 DOWN where the datastore or the broker does not answer within 2 s."""
    api = api_of(request)
    found = await asyncio.gather(
        _problem("datastore", api.store.ping()), _problem("broker", api.broker.ping())
    )
    problems = [problem for problem in found if problem is not None]
    if not problems:
        return answer(HealthView(status="UP", version=api.version))
    return answer(
        HealthView(
            status="DOWN",
            version=api.version,
            failing=", ".join(part for part, _ in problems),
            message="; ".join(f"{part}: {reason}" for part, reason in problems),
        ),
        503,
    )


async def live(_request: web.Request) -> web.StreamResponse:
    """Answer UP, or 503 DOWN where a loop of this process does not get on for a reason of its own.

    An outage of the datastore or the broker is none: whoever starts this process again would not help."""
    found = stuck_loops()
    if not found:
        return answer(HealthView(status="UP", version=version()))
    return answer(HealthView(status="DOWN", version=version(), message="; ".join(found)), 503)


async def _problem(part: str, ping: Awaitable[None]) -> tuple[str, str] | None:
    try:
        async with asyncio.timeout(_PATIENCE):
            await ping
    except TimeoutError:
        return part, f"does not answer within {_PATIENCE:g} s"
    except ApplicationError as error:
        return part, str(error)
    return None


HEALTH_ROUTES: Final = (
    Route(
        method="GET",
        path="/health",
        handler=health,
        group="",
        summary="Check the health of this coordinator, its datastore and its broker",
        answer=HealthView,
        errors={503: "A part is unavailable; `failing` names it."},
        public=True,
    ),
    Route(
        method="GET",
        path="/health/live",
        handler=live,
        group="",
        summary="Whether this coordinator itself gets on: for what starts it again where it does not",
        answer=HealthView,
        errors={503: "A loop of this process is stuck; `message` names it."},
        public=True,
    ),
)
