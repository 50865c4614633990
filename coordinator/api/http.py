"""Reading requests, and making answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from coordinator.api.context import api_of
from shared.model.problems import Problem
from shared.model.views import View

_MAX_SIZE: Final = 20
"""Items on a page of most lists."""

_LAST_PAGE: Final = 1_000_000_000
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}")
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False, "": True}
_LONGEST_ID: Final = 255


class Paging(msgspec.Struct, frozen=True):
    """The page of a list that a request asks for."""

    number: int
    size: int

    @property
    def skip(self) -> int:
        """How many items stand before it."""
        return (self.number - 1) * self.size


class Question(msgspec.Struct, frozen=True):
    """The search in `q`: all terms must match, and at least one tag of each set."""

    terms: tuple[str, ...]
    tags_any: tuple[tuple[str, ...], ...]


def paging(request: web.BaseRequest, *, size: int = 10, most: int = _MAX_SIZE) -> Paging:
    """Return the page that is asked for; out of range is clamped, 400 where it is no number."""
    return Paging(
        number=_integer(request, "page", 1, _LAST_PAGE), size=_integer(request, "size", size, most)
    )


def _integer(request: web.BaseRequest, name: str, default: int, most: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text):
        raise HttpError(400, f"{name}: must be a number")
    return max(1, min(int(text), most))


def flag(request: web.BaseRequest, name: str) -> bool:
    """Return a parameter that is true or false; 400 where it is neither."""
    value = _FLAGS.get(request.query.get(name, "false").lower())
    if value is None:
        raise HttpError(400, f"{name}: must be true or false")
    return value


def question(text: str) -> Question:
    """Return what a search text asks for: words, `tag:x`, `tags:a,b`."""
    terms: list[str] = []
    tags: list[tuple[str, ...]] = []
    for word in text.split():
        if word.startswith("tag:"):
            tags.append((word.removeprefix("tag:"),))
        elif word.startswith("tags:"):
            tags.append(tuple(tag for tag in word.removeprefix("tags:").split(",") if tag))
        else:
            terms.append(word)
    return Question(tuple(terms), tuple(tags))


def path_id(request: web.BaseRequest, name: str = "id") -> str:
    """Return an id or a name from the path; 404 where it can be nobody's."""
    assert isinstance(request, web.Request)
    value = request.match_info[name]
    if len(value) > _LONGEST_ID or not value.isprintable():
        raise HttpError(404, "not found")
    return value


BODY_TIME: Final = 30.0
"""Seconds that a client may take to send a body."""

_ENCODINGS: Final = frozenset({"", "identity", "gzip", "deflate"})

_S = TypeVar("_S", bound=msgspec.Struct)


def too_large(limit: int) -> HttpError:
    """Return the answer to a body over the limit, in bytes."""
    return HttpError(413, f"the body is larger than {limit} bytes", {"Connection": "close"})


async def read_body(request: web.BaseRequest) -> bytes:
    """Return the body, decompressed. 413 past the limit, 408 where it takes too long, 400 broken."""
    limit = api_of(request).config.coordinator.middleware.body_limit
    if request.headers.get("Content-Encoding", "").lower() not in _ENCODINGS:
        raise HttpError(415, "Content-Encoding: only gzip and deflate are supported")
    try:
        async with asyncio.timeout(BODY_TIME):
            return await _read(request, limit)
    except TimeoutError:
        raise HttpError(408, "the body did not arrive in time", {"Connection": "close"}) from None
    except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError, ConnectionError):
        raise HttpError(400, "the body can't be read", {"Connection": "close"}) from None


async def _read(request: web.BaseRequest, limit: int) -> bytes:
    body = bytearray()
    while chunk := await request.content.readany():
        if len(body) + len(chunk) > limit:
            raise too_large(limit)
        body += chunk
    return bytes(body)


async def read_json_body(request: web.BaseRequest, kind: type[_S]) -> _S:
    """Return the body as `kind`, JSON. 400 with the path where it is not."""
    if request.content_type not in ("application/json", "text/json"):
        raise HttpError(415, "Content-Type: must be application/json")
    body = await read_body(request)
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"the body is invalid: {error}") from None


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
