"""Removes the values of secrets from everything that leaves a process (job language spec, `secrets`).

Values are looked for as UTF-8 bytes by an Aho-Corasick automaton, so that the time is linear in
the text whatever the number, length and likeness of the values, and so that a stream knows exactly
how much it must hold back.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import re2

REDACTED = "[REDACTED]"

KEY_PATTERNS = ("SECRET", "PASSWORD", "ACCESS_KEY")
"""A value whose key contains one of these, in any case, is redacted, declared or not."""

SHORTEST = 4
"""Values shorter than this many characters are redacted only where they are a whole value."""

_MARK = REDACTED.encode()
_PREFIX = 8
_MANY_PREFIXES = 256


class _Automaton:
    """Aho-Corasick over bytes. State 0 is the root.

    `depth`: how many of the last bytes may be the beginning of a value.
    """

    def __init__(self, values: Iterable[bytes]) -> None:
        self.goto: list[dict[int, int]] = [{}]
        self.fail: list[int] = [0]
        self.depth: list[int] = [0]
        self.longest: list[int] = [0]
        """Length of the longest value that ends in a state; 0 where none does."""
        patterns = list(values)
        for value in patterns:
            self._add(value)
        self._link()
        self.skip = _skipper(patterns)

    def _add(self, value: bytes) -> None:
        state = 0
        for byte in value:
            following = self.goto[state].get(byte)
            if following is None:
                following = len(self.goto)
                self.goto[state][byte] = following
                self.goto.append({})
                self.fail.append(0)
                self.depth.append(self.depth[state] + 1)
                self.longest.append(0)
            state = following
        self.longest[state] = len(value)

    def _link(self) -> None:
        waiting = deque(self.goto[0].values())
        while waiting:
            state = waiting.popleft()
            for byte, child in self.goto[state].items():
                waiting.append(child)
                self.fail[child] = self.step(self.fail[state], byte)
                self.longest[child] = self.longest[child] or self.longest[self.fail[child]]

    def step(self, state: int, byte: int) -> int:
        """Return the state after one more byte."""
        while (following := self.goto[state].get(byte)) is None and state:
            state = self.fail[state]
        return following or 0


def _skipper(patterns: Sequence[bytes]) -> Any:
    """Return a compiled search for where a value may begin, fast on text that holds none."""
    prefixes = {value[:_PREFIX] for value in patterns}
    if len(prefixes) > _MANY_PREFIXES:
        firsts = b"".join(re.escape(bytes([first])) for first in {value[0] for value in patterns})
        return re.compile(b"[" + firsts + b"]")
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    return re2.compile(b"|".join(re.escape(prefix) for prefix in sorted(prefixes)), options)


class _Scan:
    """One pass over bytes that arrive in pieces. Overlapping values become one mark."""

    def __init__(self, automaton: _Automaton) -> None:
        self._automaton = automaton
        self._state = 0
        self._held = b""
        self._runs: deque[tuple[int, int]] = deque()
        """Parts of `_held` (start, end) that are to be replaced, in order."""
        self._inside = 0
        """How much of `_held`'s beginning belongs to a mark that was given out already."""

    def feed(self, data: bytes) -> bytes:
        """Take more bytes; return those that no later byte can make part of a value."""
        buffer = self._held + data
        self._advance(buffer, len(self._held))
        return self._release(buffer, len(buffer) - self._automaton.depth[self._state])

    def flush(self) -> bytes:
        """Return what was held back: nothing follows."""
        rest = self._release(self._held, len(self._held))
        self._state = 0
        return rest

    def _advance(self, buffer: bytes, start: int) -> None:
        automaton, state, at, end = self._automaton, self._state, start, len(buffer)
        while at < end:
            if not state:
                at = self._candidate(buffer, at)
                if at >= end:
                    break
            state = automaton.step(state, buffer[at])
            at += 1
            if automaton.longest[state]:
                self._found(at - automaton.longest[state], at)
        self._state = state

    def _candidate(self, buffer: bytes, at: int) -> int:
        match = self._automaton.skip.search(buffer, at)
        if match:
            return int(match.start())
        return max(at, len(buffer) - _PREFIX + 1)

    def _found(self, start: int, end: int) -> None:
        if start < self._inside:
            self._inside = end
            self._runs.clear()
            return
        while self._runs and self._runs[-1][1] > start:
            start = min(start, self._runs.pop()[0])
        self._runs.append((start, end))

    def _release(self, buffer: bytes, safe: int) -> bytes:
        out = []
        at = min(self._inside, safe)
        inside = self._inside
        while self._runs and self._runs[0][0] < safe:
            start, inside = self._runs.popleft()
            out += [buffer[at:start], _MARK]
            at = min(inside, safe)
        out.append(buffer[at:safe])
        self._held = buffer[safe:]
        self._inside = max(0, inside - safe)
        self._runs = deque((start - safe, end - safe) for start, end in self._runs)
        return b"".join(out)


def _spellings(value: str) -> Iterable[str]:
    """Yield `value` as text may hold it: as it is, without space around it, as JSON writes it."""
    yield value
    yield value.strip()
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]


@lru_cache(maxsize=64)
def _automaton(values: frozenset[str]) -> _Automaton | None:
    patterns = {
        spelling.encode("utf-8", "surrogatepass")
        for value in values
        for spelling in _spellings(value)
        if len(spelling) >= SHORTEST
    }
    return _Automaton(patterns) if patterns else None


class Redactor:
    """Replaces the values of secrets, and whatever has the key of a secret, by `[REDACTED]`.

    `key_patterns` are looked for in keys as they are, in any case.
    """

    def __init__(
        self, secret_values: Iterable[str] = (), key_patterns: Sequence[str] = KEY_PATTERNS
    ) -> None:
        self._values = frozenset(value for value in secret_values if value.strip())
        self._whole = frozenset(value.strip() for value in self._values)
        self._automaton = _automaton(self._values)
        self._keys = tuple(pattern.upper() for pattern in key_patterns if pattern)

    def is_secret_key(self, key: str) -> bool:
        """Tell whether the value under `key` must not be shown, whatever it is."""
        upper = key.upper()
        return any(pattern in upper for pattern in self._keys)

    def redact(self, text: str) -> str:
        """Return `text` with each value replaced; a short one only where it is the whole text."""
        if text.strip() in self._whole:
            return REDACTED
        if self._automaton is None or len(text) < SHORTEST:
            return text
        data = text.encode("utf-8", "surrogatepass")
        if not self._automaton.skip.search(data):
            return text
        scan = _Scan(self._automaton)
        return (scan.feed(data) + scan.flush()).decode("utf-8", "surrogatepass")

    def redact_map(self, values: Mapping[str, str]) -> dict[str, str]:
        """Return env, inputs, options or headers, redacted; under a secret's key wholly."""
        return {
            key: REDACTED if value and self.is_secret_key(key) else self.redact(value)
            for key, value in values.items()
        }

    def redact_value(self, value: Any) -> Any:
        """Return any plain value with its texts redacted, and its maps as by `redact_map`."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, Mapping):
            return {
                key: REDACTED if item and self.is_secret_key(str(key)) else self.redact_value(item)
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self.redact_value(item) for item in value]
        return value

    def stream(self) -> StreamRedactor:
        """Return a redactor of the same values for a text that comes in pieces."""
        return StreamRedactor(self._values)


class StreamRedactor:
    """Redacts a log that arrives in pieces, also a value that falls on two or more of them.

    It holds back only what could be the beginning of a value, never more than the longest one.
    Bytes that are not UTF-8 become U+FFFD; a character may fall on two pieces. Values under 4
    characters are not looked for.
    """

    def __init__(self, secret_values: Iterable[str] = ()) -> None:
        automaton = _automaton(frozenset(value for value in secret_values if value.strip()))
        self._scan = _Scan(automaton) if automaton else None
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes | str) -> str:
        """Take the next piece; return the text that is safe to emit."""
        data = piece.encode("utf-8", "replace") if isinstance(piece, str) else piece
        return self._decoder.decode(self._scan.feed(data) if self._scan else data)

    def flush(self) -> str:
        """Return what was held back: the log is over."""
        return self._decoder.decode(self._scan.flush() if self._scan else b"", final=True)
