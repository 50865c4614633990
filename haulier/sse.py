"""Server-Sent Events, read as the HTML standard says (9.2.6, Interpreting an event stream)."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import msgspec

_LINE_END = re.compile(r"\r\n|\n|\r")


class ServerEvent(msgspec.Struct, frozen=True):
    """One event. `id` is the last id that the stream gave, in this event or before."""

    name: str
    data: str
    id: str


class EventReader:
    """Makes events of bytes that arrive cut anywhere.

    `last_id` is what to resume from; `retry` the seconds that the server asks to wait before that.
    """

    def __init__(self, last_id: str = "") -> None:
        self.last_id = last_id
        self.retry: float | None = None
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._rest = ""
        self._name = ""
        self._data: list[str] = []
        self._id = last_id

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Yield the events that `chunk` completes. `last_id` moves as each one is yielded."""
        *lines, self._rest = self._split(self._rest + self._decoder.decode(chunk))
        for line in lines:
            event = self._line(line)
            if event is not None:
                yield event

    def _split(self, text: str) -> list[str]:
        # A \r at the end may be half of \r\n: it waits for what follows.
        held = text.endswith("\r")
        lines = _LINE_END.split(text[:-1] if held else text)
        if held:
            lines[-1] += "\r"
        return lines

    def _line(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self._id = value
        elif field == "retry" and re.fullmatch(r"[0-9]{1,9}", value):
            self.retry = int(value) / 1000
        return None

    def _dispatch(self) -> ServerEvent | None:
        self.last_id = self._id
        data, name = self._data, self._name
        self._data, self._name = [], ""
        if not data and not name:
            return None
        return ServerEvent(name or "message", "\n".join(data), self.last_id)
