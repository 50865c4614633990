"""Parses JSON into nodes (RFC 8259), with offsets, and with numbers as they are written."""

import json
import re
from typing import Final, NoReturn

from shared.model.decoding.nodes import (
    MAX_NESTING,
    MAX_VALUES,
    BrokenText,
    DocumentNode,
    ListNode,
    MapNode,
    TextNode,
)

# Possessive (`*+`): a long text without an end must not be gone over again and again.
_TOKEN: Final = re.compile(
    r"""[ \t\n\r]*(?:
        (?P<mark>[{}\[\],:])
      | (?P<text>"[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+")
      | (?P<bare>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null)
      | (?P<end>\Z)
    )""",
    re.VERBOSE,
)
_SPACE: Final = re.compile(r"[ \t\n\r]*")


def read_json_text(text: str) -> DocumentNode:
    """Return the value of a JSON text; BrokenText where it is not JSON, too big or too deep."""
    reader = _Reader(text)
    node = reader.value()
    reader.expect("", "the end of the document")
    return node


class _Reader:
    """One token ahead: `kind`, `ahead` (its text) and `offset` are the one to be taken next."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next = 0
        self._count = 0
        self._depth = 0
        self._advance()

    def value(self) -> DocumentNode:
        self._count += 1
        if self._count > MAX_VALUES:
            raise BrokenText(f"too big: more than {MAX_VALUES} values", self._offset)
        if self._kind == "text":
            return self._string()
        if self._kind == "bare":
            node = TextNode(self._ahead, self._offset, bare=True)
            self._advance()
            return node
        if self._ahead not in ("[", "{"):
            self._fail("a value")
        return self._collection()

    def expect(self, token: str, what: str) -> None:
        if self._ahead != token or self._kind == "text":
            self._fail(what)
        if token:
            self._advance()

    def _collection(self) -> DocumentNode:
        if self._depth >= MAX_NESTING:
            raise BrokenText(f"nested deeper than {MAX_NESTING} levels", self._offset)
        self._depth += 1
        node = self._list() if self._ahead == "[" else self._map()
        self._depth -= 1
        node.complete = True
        return node

    def _list(self) -> ListNode:
        node = ListNode(self._offset)
        self._advance()
        if self._ahead != "]":
            node.items.append(self.value())
            while self._take_comma():
                node.items.append(self.value())
        self.expect("]", 'a "," or "]"')
        return node

    def _map(self) -> MapNode:
        node = MapNode(self._offset)
        self._advance()
        if self._ahead != "}":
            self._entry(node)
            while self._take_comma():
                self._entry(node)
        self.expect("}", 'a "," or "}"')
        return node

    def _entry(self, node: MapNode) -> None:
        if self._kind != "text":
            self._fail("a key in double quotes")
        key = self._string()
        self.expect(":", 'a ":"')
        node.pairs.append((key, self.value()))

    def _take_comma(self) -> bool:
        found = self._kind == "mark" and self._ahead == ","
        if found:
            self._advance()
        return found

    def _string(self) -> TextNode:
        try:
            node = TextNode(json.loads(self._ahead), self._offset, bare=False)
        except ValueError as error:
            raise BrokenText(f"not JSON: {error}", self._offset) from None
        self._advance()
        return node

    def _advance(self) -> None:
        match = _TOKEN.match(self._text, self._next)
        if match is None:
            space = _SPACE.match(self._text, self._next)
            self._offset = space.end() if space else self._next
            self._kind, self._ahead = "", self._text[self._offset]
            self._fail("text that ends, on its own line" if self._ahead == '"' else "a value")
        self._kind = match.lastgroup or ""
        self._ahead = match[self._kind]
        self._offset = match.start(self._kind)
        self._next = match.end()

    def _fail(self, what: str) -> NoReturn:
        got = json.dumps(self._ahead[:20], ensure_ascii=False) if self._ahead else "the end"
        raise BrokenText(f"not JSON: expected {what}, got {got}", self._offset)
