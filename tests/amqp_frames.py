"""Frames of AMQP as another program may make them."""

from __future__ import annotations

import struct

NO_TEXT = b"\2\xff\xfe"
"""A short text that is not UTF-8."""
FAR = struct.pack(">Q", 1_700_000_000_000_000)
"""A time in microseconds where AMQP has seconds."""


def framed(kind: int, payload: bytes, channel: int = 1) -> bytes:
    """Return a frame."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def content_header(properties: bytes, body_size: int = 0, channel: int = 1) -> bytes:
    """Return the frame that says what a message of `body_size` has besides its body."""
    return framed(2, struct.pack(">HHQ", 60, 0, body_size) + properties, channel)


def published(channel: int, exchange: str, key: bytes, properties: bytes, body: bytes) -> bytes:
    """Return the frames that publish a message with a routing key."""
    names = b"".join(bytes([len(name)]) + name for name in (exchange.encode(), key))
    method = framed(1, struct.pack(">HHH", 60, 40, 0) + names + b"\0", channel)
    return method + content_header(properties, len(body), channel) + framed(3, body, channel)


def table(entries: bytes) -> bytes:
    """Return a table, or a list, of encoded entries."""
    return struct.pack(">I", len(entries)) + entries


def nested(kind: bytes, depth: int) -> bytes:
    """Return a value of tables (`F`) or lists (`A`) within each other."""
    value = b"V"
    for _ in range(depth):
        value = kind + table((b"\0" if kind == b"F" else b"") + value)
    return value


def text_header(name: str, text: str) -> bytes:
    """Return an entry of a table."""
    key, value = name.encode(), text.encode()
    return bytes([len(key)]) + key + b"S" + struct.pack(">I", len(value)) + value


def headers(entries: bytes) -> bytes:
    """Return properties that are headers alone."""
    return struct.pack(">H", 0x2000) + table(entries)


PROPERTIES = {
    "microseconds": struct.pack(">H", 0x0040) + FAR,
    "last-time": struct.pack(">H", 0x0040) + b"\xff" * 8,
    "content-type": struct.pack(">H", 0x8000) + NO_TEXT,
    "header-name": headers(NO_TEXT + b"S\0\0\0\1a"),
    "header-text": headers(b"\1kS\0\0\0\2\xff\xfe"),
    "header-time": headers(b"\1kT" + FAR),
    "deep-tables": headers(b"\1k" + nested(b"F", 15_000)),
    "deep-lists": headers(b"\1k" + nested(b"A", 20_000)),
    "endless-flags": b"\0\1",
}
"""Properties that RabbitMQ (3.10) takes and passes on as they are."""
