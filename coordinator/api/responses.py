"""Responses: typed views as JSON, and errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import msgspec
from aiohttp import web

from shared.model.problems import Problem
from shared.model.views import View

_T = TypeVar("_T")

_encoder = msgspec.json.Encoder()


class PageView(View, Generic[_T], frozen=True, kw_only=True):
    """A page of a list. `size`: items on this page; `totalCapped`: there are more than `totalItems`."""

    items: list[_T]
    number: int
    size: int
    total_pages: int
    total_items: int
    total_capped: bool = False


class StatusView(View, frozen=True, kw_only=True):
    """The request succeeded."""

    status: str = msgspec.field(name="status")


class ErrorView(View, frozen=True, kw_only=True):
    """An error. `faults` lists everything that is wrong with a document, each with its position."""

    message: str
    problems: list[Problem] = msgspec.field(name="faults", default_factory=list)


class HttpError(Exception):
    """An answer other than success, with a message that the client can act on."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers


def answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """Return `body`, a view or a list of them, as JSON."""
    return web.Response(
        body=_encoder.encode(body),
        status=status,
        content_type="application/json",
        charset="utf-8",
        headers=headers,
    )


def error_response(
    status: int,
    message: str,
    *,
    problems: list[Problem] | None = None,
    headers: Mapping[str, str] | None = None,
) -> web.Response:
    """Return an error as JSON."""
    return answer(ErrorView(message=message, problems=problems or []), status, headers)


OK = StatusView(status="OK")
"""That a command is stored."""


def page_of(
    items: list[_T], *, number: int, size: int, total: int, capped: bool = False
) -> PageView[_T]:
    """Return a page. `size`: how many items a page may hold."""
    return PageView(
        items=items,
        number=number,
        size=len(items),
        total_pages=-(-total // size),
        total_items=total,
        total_capped=capped,
    )
