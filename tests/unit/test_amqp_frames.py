"""A frame that RabbitMQ passes on is read, whatever another program put into it: one that is not costs the connection
with all its channels, and its message comes again."""

from __future__ import annotations

import struct

import pytest
from pamqp import commands, frame
from pamqp.base import Frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

import shared.broker.rabbitmq  # noqa: F401  # it is what widens the driver
from tests.amqp_frames import FAR, NO_TEXT, PROPERTIES, content_header, framed, nested, table


@pytest.mark.parametrize("properties", PROPERTIES.values(), ids=PROPERTIES)
def test_properties_that_cannot_be_read_are_left_out(properties: bytes) -> None:
    read = frame.unmarshal(content_header(properties, body_size=70_000))
    assert isinstance(read[2], ContentHeader)
    assert read[2].body_size == 70_000


def test_what_stands_before_them_is_kept() -> None:
    flags = 0x2000 | 0x0800 | 0x0040
    properties = struct.pack(">H", flags) + table(b"\1kS\0\0\0\1v") + b"\7" + FAR
    read = frame.unmarshal(content_header(properties))[2]
    assert isinstance(read, ContentHeader)
    assert (read.properties.headers, read.properties.priority) == ({"k": "v"}, 7)


def test_text_of_another_encoding_stops_nothing_behind_it() -> None:
    flags = 0x8000 | 0x0800
    properties = struct.pack(">H", flags) + NO_TEXT + b"\7"
    read = frame.unmarshal(content_header(properties))[2]
    assert isinstance(read, ContentHeader)
    assert (read.properties.content_type, read.properties.priority) == ("\ufffd\ufffd", 7)


def test_a_list_among_the_headers_takes_no_time() -> None:
    """The driver would copy all that is left for each of its items: 3 s for as many as fit a frame."""
    items = table(b"V" * 130_000)
    properties = struct.pack(">H", 0x2000) + table(b"\1kA" + items + b"\1nS\0\0\0\1v")
    read = frame.unmarshal(content_header(properties))[2]
    assert isinstance(read, ContentHeader)
    assert read.properties.headers == {"k": None, "n": "v"}


def test_tables_within_tables_are_read() -> None:
    properties = struct.pack(">H", 0x2000) + table(b"\1k" + nested(b"F", 20))
    read = frame.unmarshal(content_header(properties))[2]
    assert isinstance(read, ContentHeader)
    assert read.properties.headers


@pytest.mark.parametrize(
    "method",
    [
        commands.Basic.Deliver("tag", 1, False, "", "xx"),
        commands.Basic.Return(312, "NO_ROUTE", "", "xx"),
        commands.Channel.Close(404, "xx", 50, 10),
        commands.Connection.Close(320, "xx", 50, 10),
    ],
    ids=lambda method: method.name,
)
def test_a_method_with_text_of_another_encoding_is_read(method: frame.FrameTypes) -> None:
    """RabbitMQ cuts what it says at 252 bytes, maybe within a character."""
    whole = frame.marshal(method, 1)
    channel, read = frame.unmarshal(whole.replace(b"\2xx", NO_TEXT))[1:]
    assert isinstance(read, Frame)
    assert (channel, type(read)) == (1, type(method))
    assert "\ufffd\ufffd" in dict(read).values()


@pytest.mark.parametrize(
    "payload", [b"", b"\0" * 11, struct.pack(">HHQ", 60, 0, 1)[:-1]], ids=["none", "11", "cut"]
)
def test_a_header_without_its_size_is_refused(payload: bytes) -> None:
    with pytest.raises(Exception, match=r"unpack|frame"):
        frame.unmarshal(framed(2, payload))


def test_a_body_is_read_as_before() -> None:
    read = frame.unmarshal(framed(3, NO_TEXT))[2]
    assert isinstance(read, ContentBody)
    assert read.value == NO_TEXT
