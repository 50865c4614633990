"""Reading requests, and making answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from coordinator.api.context import api_of
from coordinator.api.roles import USER, VIEWER
from shared.model.problems import Problem
from shared.model.views import View
from shared.telemetry import known_trace, present_trace

_MAX_SIZE: Final = 20
"""Items on a page of most lists."""

_LAST_PAGE: Final = 1_000_000_000
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,30}")
_FLAGS: Final = {"true": True, "1": True, "false": False, "0": False}
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
    text = request.query.get(name, "").strip()
    if not text:
        return default
    if not _INTEGER.fullmatch(text):
        raise HttpError(400, f"{name}: must be a number")
    return max(1, min(int(text), most))


def flag(request: web.BaseRequest, name: str, *, default: bool = False) -> bool:
    """Return a parameter that is true or false; 400 where it is neither."""
    value = _FLAGS.get(request.query.get(name, str(default)).lower())
    if value is None:
        raise HttpError(400, f"{name}: must be true or false")
    return value


def trace_of(request: web.BaseRequest) -> str:
    """Return the `traceparent` of what a request is a part of: its own span, else what the client sent; "" for none."""
    return present_trace() or known_trace(request.headers.get("traceparent", ""))


MOST_WORDS: Final = 16
"""Different words of a search."""


def words_asked(request: web.BaseRequest) -> tuple[str, ...]:
    """Return the different words of `q`; 400 where there are too many to look for."""
    words = tuple(dict.fromkeys(request.query.get("q", "").split()))
    if len(words) > MOST_WORDS:
        raise HttpError(400, f"q: at most {MOST_WORDS} different words")
    return words


def question(request: web.BaseRequest) -> Question:
    """Return what `q` asks for: words, `tag:x`, `tags:a,b`. 400 where these are too many."""
    terms: list[str] = []
    tags: list[tuple[str, ...]] = []
    for word in words_asked(request):
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
        zlib_executor_size=_COMPRESSED_ASIDE,
    )


_COMPRESSED_ASIDE: Final = 64 * 1024
"""From this size in bytes on an answer is compressed in a thread."""
_NO_GZIP: Final = re.compile(r"q=0(?:\.0*)?$")


def takes_gzip(request: web.BaseRequest) -> bool:
    """Return whether the client takes an answer that is compressed (RFC 9110, 12.5.3)."""
    takes = {}
    for each in request.headers.get("Accept-Encoding", "").lower().split(","):
        coding, _, weight = each.partition(";")
        takes[coding.strip()] = not _NO_GZIP.match(weight.strip())
    return takes.get("gzip", takes.get("*", False))


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


RouteHandler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Param(msgspec.Struct, frozen=True):
    """A parameter of the query, or a header. `kind`: the type of its value."""

    name: str
    description: str
    kind: type = str
    default: Any = None
    place: str = "query"
    most: int = 1_000_000_000
    """Of a number: values out of range are clamped."""
    choices: Sequence[str] = ()


class Media(msgspec.Struct, frozen=True):
    """A response body other than a typed view as JSON."""

    type: str
    description: str
    schema: Mapping[str, Any] = msgspec.field(default_factory=lambda: {"type": "string"})
    example: Any = None


class Body(msgspec.Struct, frozen=True):
    """The body of a request: its model and the content types it accepts."""

    model: Any
    types: Sequence[str] = ("application/json",)
    example: Any = None
    required: bool = True


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
    role: str = ""
    """The role that it needs; by default `viewer` to read and `user` to change anything."""

    @property
    def audited(self) -> bool:
        """Tell whether the audit log has what is asked for here."""
        return self.method != "GET" and not self.public

    @property
    def needs(self) -> str:
        """Return the weakest role that may ask for it."""
        return self.role or (VIEWER if self.method == "GET" else USER)


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


def page_params(most: int = _MAX_SIZE, noun: str = "Items", size: int = 10) -> tuple[Param, Param]:
    """Return the parameters of a list in pages of at most `most` and, where nothing is asked, `size` items."""
    about = f"{noun} per page, 1 to {most}; values out of range are clamped."
    return (
        Param("page", "Page number; values out of range are clamped.", int, 1),
        Param("size", about, int, size, most=most),
    )


PAGE_PARAMS: Final = page_params()
