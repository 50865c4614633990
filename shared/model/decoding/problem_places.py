"""Where in the text a path leads, for faults that are found after the walk."""

from collections.abc import Iterator

from shared.model.decoding.entries import own_entries
from shared.model.decoding.nodes import Entries, Items, Node
from shared.model.problems import Path


def locate(root: Node, path: Path) -> int:
    """The offset of the deepest node on a path that is there."""
    node = root
    for step in path:
        found = _step(node, step)
        if found is None:
            break
        node = found
    return node.offset


def _step(node: Node, step: str | int) -> Node | None:
    if isinstance(node, Items) and isinstance(step, int):
        return node.items[step] if step < len(node.items) else None
    if isinstance(node, Entries) and isinstance(step, str):
        return next(_named(node, step), None)
    return None


def _named(node: Entries, name: str) -> Iterator[Node]:
    """The value of a key, a map's own before those of its merges; each map is looked at once."""
    waiting, seen = [node], {id(node)}
    while waiting:
        own, merges, _ = own_entries(waiting.pop(0))
        if name in own:
            yield own[name].value
        fresh = [m for m in merges if isinstance(m, Entries) and id(m) not in seen]
        seen.update(map(id, fresh))
        waiting.extend(fresh)
