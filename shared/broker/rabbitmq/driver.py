"""Where the driver is stricter than RabbitMQ.

A frame that it can't read costs it the connection with all channels; RabbitMQ then passes on the same message again, to
whoever consumes the queue next."""

from __future__ import annotations

import re

import structlog
from pamqp import decode
from pamqp.constants import DOMAIN_REGEX
from pamqp.header import ContentHeader

log = structlog.get_logger(__name__)

_BEFORE_PROPERTIES = 12
"""Bytes of a content header: they say how large the body is."""

_read_header = ContentHeader.unmarshal


def widen() -> None:
    """Have the driver take what RabbitMQ takes, in all of this process."""
    # AMQP 0-9-1 leaves "ß" and "?" out of a queue's name; RabbitMQ takes any UTF-8.
    DOMAIN_REGEX["queue-name"] = re.compile(".*", re.DOTALL)
    decode.METHODS["shortstr"] = _short_text
    decode.TABLE_MAPPING[b"A"] = _no_list
    ContentHeader.unmarshal = _header  # type: ignore[method-assign]  # the driver has no other place for it


def _header(self: ContentHeader, data: bytes) -> None:
    """Read what a message has besides its body, up to what can't be read."""
    try:
        _read_header(self, data)
    except Exception as error:  # of many kinds, RecursionError among them
        if len(data) < _BEFORE_PROPERTIES:
            raise
        log.warning("properties of a message can't be read and are left out", reason=str(error))


def _short_text(value: bytes) -> tuple[int, str]:
    """Read a text of at most 255 bytes: RabbitMQ passes on routing keys as they are, and cuts what it says itself at a
    byte."""
    try:
        return decode.short_str(value)
    except UnicodeDecodeError:
        end = 1 + value[0]
        return end, value[1:end].decode(errors="replace")


def _no_list(value: bytes) -> tuple[int, None]:
    """Leave out a list among headers: nobody uses one, and reading it takes time with the square of its length."""
    return 4 + int.from_bytes(value[:4], "big"), None
