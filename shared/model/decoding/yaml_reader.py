"""Parses YAML into nodes: only the first document, event by event, so that a hostile one stops early."""

import contextlib
import re
from collections.abc import Callable
from typing import Any, Final, Self

import yaml

from shared.model.decoding.json_reader import read_json_text
from shared.model.decoding.nodes import (
    MAX_NESTING,
    MAX_VALUES,
    BadNode,
    BrokenText,
    DocumentNode,
    ListNode,
    MapNode,
    TextNode,
)
from shared.model.problems import quoted_text

_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# The C scanner looks ahead of its events, and since PyYAML 6.0.4 gives up by itself at 1,000 levels.
_TOO_DEEP_AHEAD: Final = "exceeded maximum nesting depth"

_CORE: Final = "tag:yaml.org,2002:"
_TEXT_TAGS: Final = frozenset({"!", _CORE + "str"})
_BARE_TAGS: Final = frozenset(
    _CORE + kind for kind in ("null", "bool", "int", "float", "timestamp", "merge")
)


_MAPPING: Final = "mapping values are not allowed"
_COLON_INSIDE: Final = ": a text with a colon and a space in it needs quotes, or | before it"
"""What is meant nearly always where YAML finds a key that can't be one."""

_SURROGATE: Final = "found invalid Unicode character escape code"
_PAIR: Final = re.compile(
    r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})"
)
_OF_JSON: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufffe\uffff]")
"""What JSON has as it stands in a text, and YAML 1.1 has not, or as line breaks."""
_PRIVATE: Final = range(0xE000, 0xF8F0, 16)
"""Where blocks of characters begin that no text is likely to have (Unicode's private use area)."""


def read_yaml(text: str) -> DocumentNode:
    """Return the first document of a YAML text; BrokenText where it is not YAML, too big or too deep.

    What is JSON may have characters that YAML has not, or takes for line breaks, and a character beyond 16 bits as a
    pair of escapes, which YAML does not know."""
    if _OF_JSON.search(text) and (found := _json(text)) is not None:
        return found
    try:
        return _read(text, None)
    except BrokenText as error:
        if _SURROGATE not in str(error):
            raise
        if (found := _json(text)) is not None:
            return found
        pairs = _Pairs.marked(text)
        if pairs is None:
            raise
    return _read(pairs.text, pairs)


def _json(text: str) -> DocumentNode | None:
    """Return the value of a text where it is a JSON object, else None."""
    if text.lstrip().startswith("{"):
        with contextlib.suppress(BrokenText):
            return read_json_text(text)
    return None


class _Pairs:
    """A text in which each pair of escapes is one escape and two marks, so that nothing moves. The marks also tell how
    the pair was written, for outside double quotes it stands for itself."""

    def __init__(self, text: str, first: int) -> None:
        self._first = first
        self._marks = {first + n: None for n in range(16)}
        mark = f"[{chr(first)}-{chr(first + 15)}]"
        self._written = re.compile(rf"\\U([0-9a-f]{{8}})({mark})({mark})")
        self.text = _PAIR.sub(self._joined, text)

    @classmethod
    def marked(cls, text: str) -> Self | None:
        """Return a text with marks that it has not; None where it has them all."""
        taken = {ord(char) & ~15 for char in re.findall("[\ue000-\uf8ff]", text)}
        first = next((block for block in _PRIVATE if block not in taken), None)
        return cls(text, first) if first is not None else None

    def value(self, text: str, *, quoted: bool) -> str:
        """Return the value of a scalar as it is without marks. `quoted`: in double quotes."""
        return text.translate(self._marks) if quoted else self._written.sub(self._apart, text)

    def _joined(self, pair: re.Match[str]) -> str:
        high, low = int(pair[2], 16), int(pair[3], 16)
        code = 0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF)
        marks = (chr(self._first + _capitals(half)) for half in (pair[2], pair[3]))
        return f"{pair[1]}\\U{code:08x}{''.join(marks)}"

    def _apart(self, found: re.Match[str]) -> str:
        code = int(found[1], 16) - 0x10000
        halves = (0xD800 + (code >> 10), 0xDC00 + (code & 0x3FF))
        capitals = (ord(found[2]) - self._first, ord(found[3]) - self._first)
        return "".join(map(_half, halves, capitals))


def _capitals(digits: str) -> int:
    """Return which of four digits are capital letters, one bit for each."""
    return sum(1 << place for place, digit in enumerate(digits) if digit.isupper())


def _half(code: int, capitals: int) -> str:
    digits = (
        digit.upper() if capitals >> place & 1 else digit
        for place, digit in enumerate(f"{code:04x}")
    )
    return "\\u" + "".join(digits)


def _read(text: str, pairs: _Pairs | None) -> DocumentNode:
    loader = _Loader(text)
    try:
        return _Composer(loader, pairs).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BrokenText(_complaint(error), mark.index if mark else None) from None
    except yaml.reader.ReaderError as error:
        offset = len(text.encode()[: error.position].decode("utf-8", "ignore"))
        what = f"U+{error.character:04X} is not allowed as it is: write an escape in double quotes"
        raise BrokenText(f"not YAML: {what}", offset) from None
    finally:
        loader.dispose()


class _Composer:
    """Nodes out of a parser's events, on a stack of its own."""

    def __init__(self, loader: Any, pairs: _Pairs | None) -> None:
        self._loader = loader
        self._pairs = pairs
        self._open: list[ListNode | MapNode] = []
        self._keys: list[DocumentNode | None] = []
        self._anchors: dict[str, DocumentNode] = {}
        self._count = 0
        self._root: DocumentNode | None = None
        self._handlers: dict[type, Callable[[Any], None]] = {
            yaml.ScalarEvent: self._scalar,
            yaml.AliasEvent: self._alias,
            yaml.SequenceStartEvent: self._start_list,
            yaml.MappingStartEvent: self._start_map,
            yaml.SequenceEndEvent: self._end,
            yaml.MappingEndEvent: self._end,
        }

    def compose(self) -> DocumentNode:
        while not isinstance(event := self._loader.get_event(), yaml.DocumentEndEvent):
            if isinstance(event, yaml.StreamEndEvent):
                break
            if handler := self._handlers.get(type(event)):
                handler(event)
        return self._root or TextNode("", 0, bare=True)

    def _add(self, node: DocumentNode) -> None:
        self._count += 1
        if self._count > MAX_VALUES:
            raise BrokenText(f"too big: more than {MAX_VALUES} values", node.offset)
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if isinstance(parent, ListNode):
            parent.items.append(node)
        elif (key := self._keys[-1]) is None:
            self._keys[-1] = node
        else:
            parent.pairs.append((key, node))
            self._keys[-1] = None

    def _scalar(self, event: Any) -> None:
        offset, value = _offset(event), event.value
        if self._pairs is not None:
            value = self._pairs.value(value, quoted=event.style == '"')
        node: DocumentNode
        if event.tag is None:
            node = TextNode(value, offset, bare=not event.style)
        elif event.tag in _TEXT_TAGS or event.tag in _BARE_TAGS:
            node = TextNode(value, offset, bare=event.tag in _BARE_TAGS)
        else:
            node = BadNode(_tag_problem(event.tag), offset)
        self._name(event, node)
        self._add(node)

    def _alias(self, event: Any) -> None:
        offset = _offset(event)
        node = self._anchors.get(event.anchor)
        if node is None:
            node = BadNode(
                f"the alias *{event.anchor[:64]} has no matching anchor before it", offset
            )
        elif isinstance(node, ListNode | MapNode) and not node.complete:
            node = BadNode(
                f"the alias *{event.anchor[:64]} refers to a value that contains it", offset
            )
        self._add(node)

    def _start_list(self, event: Any) -> None:
        self._start(event, ListNode(_offset(event)), _CORE + "seq")

    def _start_map(self, event: Any) -> None:
        self._start(event, MapNode(_offset(event)), _CORE + "map")

    def _start(self, event: Any, node: ListNode | MapNode, tag: str) -> None:
        if len(self._open) >= MAX_NESTING:
            raise BrokenText(f"nested deeper than {MAX_NESTING} levels", node.offset)
        if event.tag in (None, "!", tag):
            self._name(event, node)
            self._add(node)
        else:  # read to its end, but for nobody
            self._add(BadNode(_tag_problem(event.tag), node.offset))
        self._open.append(node)
        self._keys.append(None)

    def _end(self, _event: Any) -> None:
        self._open.pop().complete = True
        self._keys.pop()

    def _name(self, event: Any, node: DocumentNode) -> None:
        if event.anchor is not None:
            self._anchors[event.anchor] = node


def _complaint(error: yaml.MarkedYAMLError) -> str:
    if error.problem == _TOO_DEEP_AHEAD:
        return f"nested deeper than {MAX_NESTING} levels"
    problem = error.problem or error.context or ""
    return f"not YAML: {problem}{_COLON_INSIDE if problem.startswith(_MAPPING) else ''}"


def _offset(event: Any) -> int:
    return int(event.start_mark.index)


def _tag_problem(tag: str) -> str:
    written = tag.replace(_CORE, "!!", 1)
    return (
        f"the tag {quoted_text(written)} is not allowed: write plain text, numbers, lists and maps"
    )
