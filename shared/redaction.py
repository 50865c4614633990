"""Removes the values of secrets from everything that leaves a process (job language spec, `secrets`).

Values are looked for as UTF-8 bytes by an Aho-Corasick automaton, so that the time is linear in
the text whatever the number, length and likeness of the values, and so that a stream knows exactly
how much it must hold back.
"""

from __future__ import annotations

import base64
import codecs
import copy
import fnmatch
import html
import json
import re
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, Final
from urllib.parse import quote, quote_plus

import re2
from cachetools import LRUCache, cached

REDACTED = "[REDACTED]"

EVERYTHING: Final = frozenset({"\ud800"})
"""Values that stand for any text, where it is not known what is secret: no text has such a one."""

KEY_PATTERNS = ("SECRET", "PASSWORD", "TOKEN", "API_KEY", "ACCESS_KEY")
"""A value whose key contains one of these, in any case, is redacted, declared or not. One with `*` or `?` in it must
fit the whole key."""

_CREDENTIALS = frozenset({"AUTHORIZATION", "PROXY_AUTHORIZATION", "COOKIE"})
"""Keys, mostly of headers, whose values are always secret."""

SHORTEST_LINE = 6
"""Characters from which on a line of a value of several lines is a value too."""

SHORTEST = 4
"""Values shorter than this many characters are redacted only where they are a whole value."""

_MARK = REDACTED.encode()
_PREFIX = 8
_MANY_PREFIXES = 256
_BREAKS = b"\r\n"
_SPACE = b"\r\n \t"
_LONGEST_BREAK = 20
"""Bytes of a line break within base64, with what the next line is indented by."""
_KEPT_BEHIND_A_BREAK = 4
"""Characters of base64 from which on a line that ends with them waits for the next one."""


class _Automaton:
    """Aho-Corasick over bytes. State 0 is the root. `skip`: the search for where a value may begin, where it is made.

    `depth`: how many of the last bytes may be the beginning of a value. `broken`: whether lines may break there, as in
    `in_lines`, which tools write in lines of any length.
    """

    def __init__(
        self, values: Iterable[bytes], in_lines: Iterable[bytes] = (), skip: Any = None
    ) -> None:
        self.goto: list[dict[int, int]] = [{}]
        self.fail: list[int] = [0]
        self.depth: list[int] = [0]
        self.longest: list[int] = [0]
        """Length of the longest value that ends in a state; 0 where none does."""
        self.broken = [False]
        patterns = [*values, *in_lines]
        self.size = sum(map(len, patterns))
        for value in patterns:
            self._add(value)
        for value in in_lines:
            self._may_break(value)
        self._link()
        self.skip = skip or _skipper(patterns, {value[:_PREFIX] for value in in_lines})

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
                self.broken.append(False)
            state = following
        self.longest[state] = len(value)

    def _may_break(self, value: bytes) -> None:
        state = 0
        for byte in value[:-1]:
            state = self.goto[state][byte]
            self.broken[state] = True

    def _link(self) -> None:
        waiting = deque(self.goto[0].values())
        while waiting:
            state = waiting.popleft()
            for byte, child in self.goto[state].items():
                waiting.append(child)
                self.fail[child] = self.step(self.fail[state], byte)
                self.longest[child] = self.longest[child] or self.longest[self.fail[child]]
                self.broken[child] = self.broken[child] or self.broken[self.fail[child]]

    def step(self, state: int, byte: int) -> int:
        """Return the state after one more byte."""
        while (following := self.goto[state].get(byte)) is None and state:
            state = self.fail[state]
        return following or 0


def _skipper(patterns: Sequence[bytes], in_lines: Collection[bytes]) -> Any:
    """Return a compiled search for where a value may begin, fast on text that holds none. `in_lines`: beginnings that
    may have a line break inside."""
    prefixes = {value[:_PREFIX] for value in patterns}
    if len(prefixes) > _MANY_PREFIXES:
        firsts = b"".join(re.escape(bytes([first])) for first in {value[0] for value in patterns})
        return re.compile(b"[" + firsts + b"]")
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1
    ways = [re.escape(prefix) for prefix in sorted(prefixes.difference(in_lines))]
    ways += [
        rb"(?:[\r\n][ \t\r\n]*)?".join(re.escape(bytes([byte])) for byte in prefix)
        for prefix in sorted(in_lines)
    ]
    return re2.compile(b"|".join(ways), options)


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
        self._passed: list[int] = []
        """Where in `_held` lines break within base64: these bytes count for nothing."""
        self._gap = 0
        """How many of the last bytes were passed over."""
        self._open = 0
        """Up to where of `_held` nothing is waited for: a line that ends with next to nothing of a value is shown."""

    def feed(self, data: bytes) -> bytes:
        """Take more bytes; return those that no later byte can make part of a value."""
        buffer = self._held + data
        self._advance(buffer, len(self._held))
        depth = self._automaton.depth[self._state]
        return self._release(buffer, self._start(len(buffer), depth))

    def flush(self) -> bytes:
        """Return what was held back: nothing follows."""
        rest = self._release(self._held, len(self._held))
        self._state = 0
        self._passed = []
        return rest

    def _start(self, end: int, length: int) -> int:
        """Return where so many bytes before `end` begin, not counting those that were passed over."""
        start = end - length
        for place in reversed(self._passed):
            if not length or place < start:
                break
            start -= 1
        return max(start, self._open)

    def _passes(self, state: int, byte: int) -> bool:
        """Tell whether a byte breaks a line within base64, or indents the next one, and so changes nothing."""
        if not self._automaton.broken[state] or byte in self._automaton.goto[state]:
            return False
        return self._gap < _LONGEST_BREAK and (byte in _BREAKS or self._gap > 0)

    def _advance(self, buffer: bytes, start: int) -> None:
        automaton, state, at, end = self._automaton, self._state, start, len(buffer)
        while at < end:
            if not state:
                self._passed.clear()
                at = self._candidate(buffer, at)
                if at >= end:
                    break
            byte = buffer[at]
            if byte in _SPACE and self._passes(state, byte):
                self._gap += 1
                self._passed.append(at)
                at += 1
                if byte in _BREAKS and automaton.depth[state] < _KEPT_BEHIND_A_BREAK:
                    self._open = at
                continue
            self._gap = 0
            state = automaton.step(state, byte)
            at += 1
            if automaton.longest[state]:
                self._found(self._start(at, automaton.longest[state]), at)
        self._state = state

    def _candidate(self, buffer: bytes, at: int) -> int:
        match = self._automaton.skip.search(buffer, at)
        if match:
            return int(match.start())
        return max(at, len(buffer) - _PREFIX + 1 - _LONGEST_BREAK)

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
        self._passed = [place - safe for place in self._passed if place >= safe]
        self._open = max(0, self._open - safe)
        return b"".join(out)


def _spellings(value: str) -> Iterable[str]:
    """Yield `value` as text may hold it: as it is, without space around it, as JSON and a shell (`set -x`) write it."""
    yield value
    yield value.strip()
    yield value.replace("'", "'\\''")
    yield value.replace("'", "'\"'\"'")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]


def _with_breaks(value: str) -> str:
    """Return `value` as it is once its line breaks, written as in JSON and .env files, are read."""
    return re.sub(r"\\{1,2}(?:r\\{1,2}n|[rn])", "\n", value)


def _with_lines(values: Iterable[str]) -> set[str]:
    """Return values and their lines, each of which is a value of its own."""
    read = (one for value in values for one in (value, _with_breaks(value)))
    found = {value for value in read if len(value) >= SHORTEST}
    lines = {line.strip() for value in found for line in value.strip().splitlines()[:_MOST_LINES]}
    return found | {line for line in lines if len(line) >= SHORTEST_LINE}


_MOST_LINES = 10_000
_BASE64_LINE = 76
"""Characters after which tools begin a new line (RFC 2045)."""
_SHORTEST_CORE = 8


_UNQUOTED = ("", "/", "!'()*")
"""What characters besides letters, digits and `_.-~` libraries leave as they are in URLs: the last is JavaScript's."""


def _in_urls(value: str) -> Iterable[str]:
    """Yield `value` as it may stand in a URL."""
    data = value.encode("utf-8", "surrogatepass")
    for safe in _UNQUOTED:
        for quoted in (quote(data, safe=safe), quote_plus(data, safe=safe)):
            yield from (quoted, re.sub("%..", lambda code: code[0].lower(), quoted))
    yield quote(quote(data, safe=""))


def _escaped(value: str) -> Iterable[str]:
    """Yield `value` as other programs may write it: in JSON, YAML, SQL, HTML, Python, or quoted for a shell."""
    for text in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield json.dumps(text)[1:-1]
        yield text.replace("/", "\\/")
        yield re.sub(r"\\u....", lambda code: "\\u" + code[0][2:].upper(), text)
        yield re.sub("[&<>]", lambda char: f"\\u{ord(char[0]):04x}", text)
    yield html.escape(value)
    yield html.escape(value, quote=False).replace('"', "&#34;").replace("'", "&#39;")
    yield value.replace("'", "''")
    yield repr(value)[1:-1]
    yield re.sub(r"[^\w@%+=:,./-]", r"\\\g<0>", value)
    yield re.sub(r'["\\$`]', r"\\\g<0>", value)


def _base64(value: str) -> Iterable[str]:
    """Yield `value` in base64, with whatever stands before and behind it."""
    data = value.encode("utf-8", "surrogatepass")
    for coded in (base64.b64encode(data), base64.b64encode(data + b"\n")):
        text = coded.decode().rstrip("=")
        yield from _either_alphabet(text)
        lines = (text[at : at + _BASE64_LINE] for at in range(0, len(text), _BASE64_LINE))
        yield from (line for line in lines if len(line) >= _SHORTEST_CORE)
    for before in range(3):
        text = base64.b64encode(b"\0" * before + data).decode()
        # Of each end only what no neighbour has a part in.
        core = text[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        if len(core) >= _SHORTEST_CORE:
            yield from _either_alphabet(core)


def _either_alphabet(text: str) -> Iterable[str]:
    yield text
    yield text.replace("+", "-").replace("/", "_")


_MYSQL = str.maketrans(
    {"\0": "\\0", "\n": "\\n", "\r": "\\r", "\x1a": "\\Z", '"': '\\"', "'": "\\'", "\\": "\\\\"}
)


def _seldom_escaped(value: str) -> Iterable[str]:
    """Yield `value` as fewer programs write it: in HTML and XML, for MySQL, PHP and bash, and if characters of it are
    no printable ASCII, as Python, YAML and bash write the codes of these."""
    if value.isascii() and value.isalnum():
        return
    in_html = html.escape(value, quote=False)
    yield in_html
    for quote_mark in ("&#39;", "&#039;", "&apos;"):
        yield in_html.replace('"', "&quot;").replace("'", quote_mark)
    yield value.translate(_MYSQL)
    yield value.replace("\\", "\\\\").replace("'", "\\'")
    yield re.sub(r"""[ !"$&'()*,;<>?\[\]^`{|}\\]""", r"\\\g<0>", value)
    if value.isascii() and value.isprintable():
        return
    yield ascii(value)[1:-1]
    yield repr(value.encode("utf-8", "surrogatepass"))[2:-1]
    yield re.sub(r'[^\x20-\x7e]|["\\]', _in_yaml, value)
    in_bash = re.sub(r"[\x00-\x1f\x7f'\\]", _in_bash, value)
    yield in_bash
    yield re.sub(r"[^\x00-\x7f]", _in_octal, in_bash)


_SHORT_IN_YAML = dict(
    zip('\0\a\b\t\n\v\f\r\x1b"\\\x85\xa0\u2028\u2029', '0abtnvfre"\\N_LP', strict=True)
)
_SHORT_IN_BASH = dict(zip("\a\b\t\n\v\f\r\x1b'\\", "abtnvfrE'\\", strict=True))


def _in_yaml(char: re.Match[str]) -> str:
    """Return a character as a text in double quotes has it."""
    code = ord(char[0])
    short = _SHORT_IN_YAML.get(char[0])
    if short:
        return f"\\{short}"
    if code < 0x100:
        return f"\\x{code:02X}"
    return f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def _in_bash(char: re.Match[str]) -> str:
    """Return a character as `$'…'` has it."""
    return f"\\{_SHORT_IN_BASH.get(char[0], f'{ord(char[0]):03o}')}"


def _in_octal(char: re.Match[str]) -> str:
    return "".join(f"\\{byte:03o}" for byte in char[0].encode("utf-8", "surrogatepass"))


_RESERVED = "!#$&'()*+,/:;=?@"
"""What encodeURI leaves as it is. Requests also leaves brackets, and percent signs where all seem to be of codes."""


def _seldom_in_urls(value: str) -> Iterable[str]:
    """Yield `value` as it may stand in what is quoted as a whole URL, and its base64 in any."""
    if not (value.isascii() and value.isalnum()):
        data = value.encode("utf-8", "surrogatepass")
        for safe in (_RESERVED, _RESERVED + "[]", _RESERVED + "[]%"):
            yield quote(data, safe=safe)
        yield quote_plus(data, safe="*").replace("~", "%7E")  # as forms are sent
    for text in _base64(value):
        if "+" in text or "/" in text:
            plus = text.replace("+", "%2B")
            yield from (plus, plus.replace("/", "%2F"))
            yield text.replace("+", "%2b").replace("/", "%2f")


_CODINGS_AT_MOST = 128 * 1024
"""Bytes of spellings and codings that are looked for, those of the shortest values first: memory is bounded whatever
a job brings."""
SEARCHED_AT_MOST = 512 * 1024
"""Bytes of values, with the lines of each, that are looked for at all. Where there are more, nothing is shown. Four
times what a sub-job can have with the jobs above it: as written, with its breaks read, and the lines of both."""
_REMEMBERED = SEARCHED_AT_MOST + _CODINGS_AT_MOST
"""Bytes of all that is looked for by automata that are remembered: the largest one is."""
_WANTED_REMEMBERED = 8 * 1024 * 1024
"""Bytes of all that is looked for, and remembered without an automaton, which takes a hundred times as much memory."""
_EACH_TEXT = 64
"""Bytes that a text counts for beyond its own where it is searched for each value."""


def _patterns(values: Iterable[str]) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Return all that is to be looked for, and apart what lines may break in."""
    in_lines: set[bytes] = set()
    left = _CODINGS_AT_MOST
    shortest_first = sorted(_with_lines(values), key=lambda value: (len(value), value))
    found = set(_as_bytes(shortest_first))
    if sum(map(len, found)) > SEARCHED_AT_MOST:
        raise _TooMuch
    codings = (
        (_spellings, found),
        (_base64, in_lines),
        (_in_urls, found),
        (_escaped, found),
        (_seldom_escaped, found),
        (_seldom_in_urls, found),
    )
    for coding, group in codings:
        for value in shortest_first:
            coded = set(_as_bytes(coding(value))) - found
            left -= sum(map(len, coded))
            if left <= 0:
                return frozenset(found), frozenset(in_lines)
            group.update(coded)
    return frozenset(found), frozenset(in_lines)


def _as_bytes(texts: Iterable[str]) -> Iterable[bytes]:
    return (text.encode("utf-8", "surrogatepass") for text in texts if len(text) >= SHORTEST)


class _TooMuch(Exception):
    """There is more to be looked for than can be."""


class _Everything:
    """Looks for nothing, and shows nothing: of all that is fed there is one mark."""

    def __init__(self) -> None:
        self._marked = False

    def feed(self, data: bytes) -> bytes:
        """Take more bytes; return the mark where they are the first."""
        marked, self._marked = self._marked, self._marked or bool(data)
        return _MARK if data and not marked else b""

    def flush(self) -> bytes:
        """Return nothing."""
        return b""


class _Wanted:
    """All that is looked for. Whether a text may hold any of it is found out without an automaton of it all, which
    takes far longer to make than to search a short text for each."""

    def __init__(self, found: Collection[bytes], in_lines: Collection[bytes]) -> None:
        self.found = found
        self.in_lines = in_lines
        self.size = sum(map(len, found)) + sum(map(len, in_lines))
        self.skip = _skipper([*found, *in_lines], {value[:_PREFIX] for value in in_lines})
        self._beginnings = {value[:SHORTEST] for value in (*found, *in_lines)}

    def may_be_in(self, data: bytes) -> bool:
        """Tell whether `data` has the beginning of anything that is looked for, lines broken or not."""
        if self.skip.search(data) is None:
            return False
        return len(self._beginnings) <= _MANY_PREFIXES or any(
            not self._beginnings.isdisjoint(one[at : at + SHORTEST] for at in range(len(one)))
            for one in {data, data.translate(None, _SPACE)}
        )

    def held_by(self, data: bytes) -> _Automaton | None:
        """Return what looks for no more than `data` may hold; None where that is nothing."""
        joined = data.translate(None, _SPACE)
        found = [value for value in self.found if value in data]
        in_lines = [value for value in self.in_lines if value in joined]
        return _Automaton(found, in_lines) if found or in_lines else None


def _size_of(made: object) -> int:
    return made.size if isinstance(made, _Automaton | _Wanted) else 1


@cached(LRUCache(_WANTED_REMEMBERED, getsizeof=_size_of), lock=Lock())
def _wanted(values: frozenset[str]) -> _Wanted | type[_Everything] | None:
    if values >= EVERYTHING:
        return _Everything
    try:
        found, in_lines = _patterns(values)
    except _TooMuch:
        return _Everything
    return _Wanted(found, in_lines) if found else None


_automata: LRUCache[frozenset[str], _Automaton] = LRUCache(_REMEMBERED, getsizeof=_size_of)
_automata_lock = Lock()


def _automaton(values: frozenset[str]) -> _Automaton | type[_Everything] | None:
    if (made := _made(values)) is not None:
        return made
    wanted = _wanted(values)
    if not isinstance(wanted, _Wanted):
        return wanted
    made = _Automaton(wanted.found, wanted.in_lines, wanted.skip)
    with _automata_lock:
        return _automata.setdefault(values, made)


def _made(values: frozenset[str]) -> _Automaton | None:
    """Return the automaton that was made already, where one is remembered."""
    with _automata_lock:
        return _automata.get(values)


def _scan_for(values: frozenset[str]) -> _Scan | _Everything | None:
    automaton = _automaton(values)
    if isinstance(automaton, _Automaton):
        return _Scan(automaton)
    return automaton() if automaton is not None else None


HEAVY = 1024
"""Characters of values from which on an automaton is not made on an event loop, nor a text searched without one."""


def is_heavy(values: Iterable[str]) -> bool:
    """Tell whether there is so much to look for that this is not made ready on an event loop."""
    return sum(map(len, values)) > HEAVY


def prepare_redaction(values: Iterable[str]) -> None:
    """Make what looks for `values`, and remember it: to be called in a thread where they are many (`is_heavy`)."""
    _automaton(_worth_it(values))


LONG_TEXT = 64 * 1024
"""Characters from which on a text is not searched on an event loop: one made to match takes a second for each MiB."""
_LONG_TEXTS = 32 * 1024 * 1024
"""Characters of long texts of which it is remembered how they are shown."""


def _length_of_both(texts: tuple[str, str]) -> int:
    return sum(map(len, texts))


@cached(LRUCache(_LONG_TEXTS, getsizeof=_length_of_both), lock=Lock())
def _of_long_text(values: frozenset[str], text: str) -> tuple[str, str]:
    """Return a long text, and what is shown of it."""
    automaton = _automaton(values)
    assert isinstance(automaton, _Automaton)
    return text, _scanned(automaton, text)


def _scanned(automaton: _Automaton, text: str) -> str:
    data = _encoded(text)
    if len(text) < SHORTEST or not automaton.skip.search(data):
        return text
    scan = _Scan(automaton)
    return (scan.feed(data) + scan.flush()).decode("utf-8", "surrogatepass")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def prepare_text(values: Iterable[str], text: str) -> None:
    """Look for `values` in a long text, and remember what is shown of it: to be called in a thread (`LONG_TEXT`)."""
    Redactor(values).redact(text)


def _worth_it(values: Iterable[str]) -> frozenset[str]:
    return frozenset(value for value in values if value.strip())


def _plain_key(key: str) -> str:
    """Return a key as patterns are compared with it: `x-api-key` is like `X_API_KEY`."""
    return key.upper().replace("-", "_")


def _fits(key: str, pattern: str) -> bool:
    if "*" in pattern or "?" in pattern:
        return fnmatch.fnmatchcase(key, pattern.replace("[", "[[]"))
    return pattern in key


class Redactor:
    """Replaces the values of secrets, and whatever has the key of a secret, by `[REDACTED]`.

    `key_patterns` are looked for in keys as they are, in any case.
    """

    def __init__(
        self, secret_values: Iterable[str] = (), key_patterns: Sequence[str] = KEY_PATTERNS
    ) -> None:
        self._values = _worth_it(secret_values)
        self._whole = frozenset(value.strip() for value in self._values)
        self._wanted = _wanted(self._values)
        self._left = self._wanted.size // 4 if isinstance(self._wanted, _Wanted) else 0
        """How much more text costs less to search for each value than an automaton costs to make, about."""
        self._keys = tuple(_plain_key(pattern) for pattern in key_patterns if pattern)
        self.plain: tuple[str, ...] = ()
        """Values that are looked for only as they are, in what is shown of a text."""

    def also(self, values: Iterable[str]) -> Redactor:
        """Return a redactor that looks for these values too, only as they are: made at once, for a few texts."""
        shown = {self.redact(value) for value in values} - {REDACTED}
        if not shown:
            return self
        more = copy.copy(self)
        more.plain = tuple(sorted({*shown, *self.plain}, key=len, reverse=True))
        return more

    def is_secret_key(self, key: str) -> bool:
        """Tell whether the value under `key` must not be shown, whatever it is."""
        plain = _plain_key(key)
        return plain in _CREDENTIALS or any(_fits(plain, pattern) for pattern in self._keys)

    def redact(self, text: str) -> str:
        """Return `text` with each value replaced; a short one only where it is the whole text."""
        shown = self._searched(text)
        for value in self.plain:
            shown = shown.replace(value, REDACTED)
        return shown

    def _searched(self, text: str) -> str:
        if text.strip() in self._whole:
            return REDACTED
        if not isinstance(self._wanted, _Wanted):
            return REDACTED if self._wanted and text.strip() else text
        if len(text) > LONG_TEXT:
            return _of_long_text(self._values, text)[1]
        if len(text) < SHORTEST or not self._wanted.may_be_in(data := _encoded(text)):
            return text
        automaton = self._automaton_for(data)
        return text if automaton is None else _scanned(automaton, text)

    def _automaton_for(self, data: bytes) -> _Automaton | None:
        if (made := _made(self._values)) is not None:
            return made
        assert isinstance(self._wanted, _Wanted)
        self._left -= len(data) + _EACH_TEXT
        if self._left > 0:
            return self._wanted.held_by(data)
        whole = _automaton(self._values)
        assert isinstance(whole, _Automaton)
        return whole

    def redact_beginning(self, text: str, most: int) -> str:
        """Return `text` redacted; of one with more than `most` characters the beginning, with a `…`. Only what may be
        shown is searched, and no value is cut in two."""
        if len(text) <= most:
            return self.redact(text)
        return self.stream().feed(text[:most])[: most - 1] + "…"

    @property
    def searches(self) -> bool:
        """Whether there is anything to look for in a text."""
        return self._wanted is not None

    @property
    def heavy(self) -> bool:
        """Whether there is so much to look for that a text is not searched on an event loop."""
        return is_heavy(self._values)

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
        self._scan = _scan_for(_worth_it(secret_values))
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, piece: bytes | str) -> str:
        """Take the next piece; return the text that is safe to emit."""
        data = piece.encode("utf-8", "replace") if isinstance(piece, str) else piece
        return self._decoder.decode(self._scan.feed(data) if self._scan else data)

    def flush(self) -> str:
        """Return what was held back: the log is over."""
        return self._decoder.decode(self._scan.flush() if self._scan else b"", final=True)
