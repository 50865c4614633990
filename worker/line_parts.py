"""Bytes as they come become parts of whole lines, redacted."""

from __future__ import annotations

import codecs

from shared.redaction import StreamRedactor

PART_BYTES = 64 * 1024
"""A part is about so long at the most: a longer line is cut, so that memory is bounded whatever a task prints."""


class Lines:
    """Cuts a stream of bytes into parts. What is not UTF-8 becomes U+FFFD."""

    def __init__(self, secrets: list[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._redactor = StreamRedactor(secrets)
        self._pending: list[str] = []
        self._length = 0

    def feed(self, data: bytes) -> list[str]:
        """Take bytes; return the parts that are full."""
        return self._take(self._redactor.feed(self._decoder.decode(data)))

    def end(self) -> str:
        """Return what is left, whole lines or not; nothing follows."""
        text = self._redactor.feed(self._decoder.decode(b"", final=True)) + self._redactor.flush()
        self._pending.append(text)
        rest = "".join(self._pending)
        self._pending, self._length = [], 0
        return rest

    def complete(self) -> str:
        """Return the whole lines that wait, and keep what comes after the last of them."""
        text = "".join(self._pending)
        cut = text.rfind("\n") + 1
        self._pending = [text[cut:]] if cut < len(text) else []
        self._length = len(text) - cut
        return text[:cut]

    def _take(self, text: str) -> list[str]:
        if not text:
            return []
        self._pending.append(text)
        self._length += len(text)
        parts: list[str] = []
        while self._length >= PART_BYTES:
            parts.append(self._cut())
        return parts

    def _cut(self) -> str:
        """Return the first part: up to the last line break that fits, or as much as fits of one long line."""
        text = "".join(self._pending)
        cut = text.rfind("\n", 0, PART_BYTES) + 1 or PART_BYTES
        self._pending = [text[cut:]]
        self._length = len(text) - cut
        return text[:cut]
