"""The event stream's rules, however the bytes are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haulier.sse import EventReader, ServerEvent

STREAM = (
    "\ufeffretry: 1500\n: comment\n\nid: 1\r\ndata: a\r\ndata:  b\r\n\r\n"
    "event: end\rid: 2\rdata\r\rdata: wörld\nunknown: x\n\ndata: never finished\n"
)
EVENTS = [
    ServerEvent("message", "a\n b", "1"),
    ServerEvent("end", "", "2"),
    ServerEvent("message", "wörld", "2"),
]


@given(cuts=st.lists(st.integers(0, len(STREAM.encode())), max_size=20))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    data = STREAM.encode()
    places = [0, *sorted(cuts), len(data)]
    reader = EventReader()
    events = [event for start, end in pairwise(places) for event in reader.feed(data[start:end])]
    assert events == EVENTS
    assert reader.last_id == "2"
    assert reader.retry == 1.5


def test_an_id_counts_only_once_its_event_is_whole() -> None:
    reader = EventReader("7")
    assert list(reader.feed(b"id: 8\ndata: x\n")) == []
    assert reader.last_id == "7"
    assert [event.id for event in reader.feed(b"\n")] == ["8"]


@pytest.mark.parametrize("field", ["id: a\0b", "retry: soon", "retry: -1", ":", "data2: x"])
def test_what_makes_no_sense_is_passed_over(field: str) -> None:
    reader = EventReader("7")
    assert list(reader.feed(field.encode() + b"\n\n")) == []
    assert (reader.last_id, reader.retry) == ("7", None)
