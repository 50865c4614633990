"""The declaration of an endpoint, from which the server's routes and the OpenAPI document are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
from aiohttp import web

from coordinator.api.http import ErrorView

RouteHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Param(msgspec.Struct, frozen=True):
    """A parameter of the query, or a header. `kind`: the type of its value."""

    name: str
    description: str
    kind: type = str
    default: Any = None
    place: str = "query"


class Media(msgspec.Struct, frozen=True):
    """A response body other than a typed view as JSON."""

    type: str
    description: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})


class Body(msgspec.Struct, frozen=True):
    """The body of a request: its model and the content types it accepts."""

    model: Any
    types: Sequence[str] = ("application/json",)


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint.

    `group` is the switch of the configuration that it hangs on, "" for none. `answer` is a
    view (or several that it may be), a list of views or a `Media`; `errors` when each other status is given.
    """

    method: str
    path: str
    handler: RouteHandler
    group: str
    summary: str
    answer: Any
    also: Sequence[Media] = ()
    """Other forms of the same answer, by what the client accepts."""
    errors: Mapping[int, str] = msgspec.field(default_factory=dict)
    params: Sequence[Param] = ()
    body: Body | None = None
    public: bool = False
    """Needs no credentials."""
    dataless: bool = False
    """Holds no data: open where only a key is asked for, which a browser's first request lacks."""
    endless: bool = False
    """May take as long as it takes."""
    documented: bool = True


ERROR_SCHEMA: Final = ErrorView
"""The model of every error."""

_ROUTES: Final = web.AppKey("ROUTES", dict)


def add_routes(app: web.Application, routes: Sequence[Route]) -> None:
    """Serve `routes`, each with and without a slash at its end, and by HEAD what is served by GET."""
    found = app[_ROUTES] = {}
    for route in routes:
        methods = ("GET", "HEAD") if route.method == "GET" else (route.method,)
        paths = (route.path,) if route.path == "/" else (route.path, route.path + "/")
        for path in paths:
            for method in methods:
                found[app.router.add_route(method, path, route.handler)] = route


def route_of(request: web.Request) -> Route | None:
    """Return the endpoint that a request is for, None where there is no such."""
    found = request.app[_ROUTES].get(request.match_info.route)
    return found if isinstance(found, Route) else None


PAGE_PARAMS: Final = (
    Param("page", "Page number; values out of range are clamped.", int, 1),
    Param("size", "Items per page, 1 to 20; values out of range are clamped.", int, 10),
)
