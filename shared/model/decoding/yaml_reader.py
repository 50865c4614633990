"""Parses YAML into nodes: only the first document, event by event, so that a hostile one stops early."""

from collections.abc import Callable
from typing import Any, Final

import yaml

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


def read_yaml(text: str) -> DocumentNode:
    """Return the first document of a YAML text; BrokenText where it is not YAML, too big or too deep."""
    loader = _Loader(text)
    try:
        return _Composer(loader).compose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BrokenText(_complaint(error), mark.index if mark else None) from None
    except yaml.reader.ReaderError as error:
        offset = len(text.encode()[: error.position].decode("utf-8", "ignore"))
        raise BrokenText(f"not YAML: {error.reason}", offset) from None
    finally:
        loader.dispose()


class _Composer:
    """Nodes out of a parser's events, on a stack of its own."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
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
        offset = _offset(event)
        node: DocumentNode
        if event.tag is None:
            node = TextNode(event.value, offset, bare=not event.style)
        elif event.tag in _TEXT_TAGS or event.tag in _BARE_TAGS:
            node = TextNode(event.value, offset, bare=event.tag in _BARE_TAGS)
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
    return f"not YAML: {error.problem or error.context}"


def _offset(event: Any) -> int:
    return int(event.start_mark.index)


def _tag_problem(tag: str) -> str:
    written = tag.replace(_CORE, "!!", 1)
    return (
        f"the tag {quoted_text(written)} is not allowed: write plain text, numbers, lists and maps"
    )
