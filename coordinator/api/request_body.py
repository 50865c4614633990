"""Reading a request's body: bounded in size and time, whatever its encoding."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from coordinator.api.context import api_of
from coordinator.api.responses import HttpError

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
