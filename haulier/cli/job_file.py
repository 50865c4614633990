"""A job file: what is in it, what the command line changes of it, and where its faults are."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click

from haulier.cli.output import plain_text, say_on_stderr, shortened, shown_width
from haulier.client import JSON_TYPE, YAML_TYPE
from haulier.errors import ApiError, HaulierError, MisuseError

_PATH: Final = re.compile(r"[A-Za-z_][\w-]*(?:\[\d+\]|\.[\w-]+)*(?=: )")
_MAPPING: Final = "tag:yaml.org,2002:map"
_INDENT: Final = "    "
_PART: Final = re.compile(r"\[(\d+)\]|([\w-]+)")


class JobFile:
    """A file with a job in YAML or JSON; - is standard input."""

    def __init__(self, file: str) -> None:
        self.name = "<stdin>" if file == "-" else file
        self.body, self.content_type = read_document(file)

    def change(self, path: Sequence[str | int], value: Any) -> None:
        """Give the job another value, plain or as a node, at a path; what is missing on the way is made."""
        import yaml

        root = self._root()
        place: Any = root
        for part in path[:-1]:
            place = _value_at(place, part, yaml.MappingNode(_MAPPING, []), path, replace=False)
        _value_at(place, path[-1], _node(value), path, replace=True)
        self.body = yaml.serialize(root, allow_unicode=True).encode("utf-8", "replace")
        self.content_type = YAML_TYPE

    def _root(self) -> Any:
        import yaml

        try:
            if self.content_type == JSON_TYPE:
                root = _node(json.loads(self.body))
            else:
                root = yaml.compose(self.body, Loader=yaml.SafeLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise HaulierError(f"{self.name}: can't be read: {error}") from None
        if not isinstance(root, yaml.MappingNode):
            raise HaulierError(f"{self.name}: must be a job, fields with values")
        return root

    def schedules(self) -> bool:
        """Whether the job seems to have a schedule."""
        return bool(re.search(rb"(?m)^[\s{]*[\"']?schedule[\"']?\s*:", self.body))


def _value_at(
    place: Any, part: str | int, value: Any, path: Sequence[str | int], *, replace: bool
) -> Any:
    """Return what is at a part of a mapping or list; first put `value` there if nothing is, or to replace it."""
    found = place.value
    if isinstance(part, int) and isinstance(found, list) and part < len(found):
        if replace:
            found[part] = value
        return found[part]
    if not isinstance(part, str) or not place.tag.endswith(":map"):
        raise MisuseError(f"there is no {_shown(path)} in the file")
    for at, (key, present) in enumerate(found):
        if key.value == part:
            if replace:
                found[at] = (key, value)
            return value if replace else present
    found.append((_node(part), value))
    return value


def yaml_value(text: str) -> Any:
    """Return YAML as a node, in which 1.10 stays as it is written; what is no YAML is a text."""
    import yaml

    try:
        yaml.safe_load(text)
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return text


def _node(value: Any) -> Any:
    """Return a value as a node; what YAML can't have as it stands in a text is written as escapes, all else that is not
    ASCII too."""
    import yaml

    if isinstance(value, yaml.Node):
        return value
    text = yaml.safe_dump(value, sort_keys=False)
    return yaml.compose(text, Loader=yaml.SafeLoader)


def _shown(path: Sequence[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")


def path_parts(text: str) -> list[str | int]:
    """Return a path such as `tasks[0].retry.limit` as its parts."""
    return [int(index) if index else name for index, name in _PART.findall(text)]


def assignments(option: str, given: Sequence[str]) -> dict[str, str]:
    """Return NAME=VALUE pairs by name."""
    pairs = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise MisuseError(f"{option}: must be NAME=VALUE, not {text!r}")
        pairs[name] = value
    return pairs


def given_secrets(given: Sequence[str]) -> dict[str, str]:
    """Return secrets by name, read from where each is said to be: never from the command line."""
    found = {}
    for name, source in assignments("--secret", given).items():
        kind, colon, place = source.partition(":")
        if not colon or kind not in ("env", "file") or not place:
            raise MisuseError(
                f"--secret {name}: must be env:NAME or file:PATH, so that it shows in no list of "
                "processes"
            )
        found[name] = _secret(name, kind, place)
    return found


def _secret(name: str, kind: str, place: str) -> str:
    if kind == "env":
        if place not in os.environ:
            raise MisuseError(f"--secret {name}: there is no variable {place} in the environment")
        return os.environ[place]
    return file_bytes(place).decode("utf-8", "replace").removesuffix("\n")


def file_bytes(file: str) -> bytes:
    """Return what is in a file. Raises `MisuseError` where it can't be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise MisuseError(f"can't read {file}: {reason}") from error


def read_document(file: str) -> tuple[bytes, str]:
    """Return what is in a file, and its content type; - is standard input."""
    if file == "-":
        body = sys.stdin.buffer.read()
        return body, JSON_TYPE if _is_json(body) else YAML_TYPE
    return file_bytes(file), JSON_TYPE if file.lower().endswith(".json") else YAML_TYPE


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def say_faults(name: str, body: bytes, error: ApiError, *, sent: bool) -> None:
    """Say on stderr what a server says of a file, each fault as `file:line:col: message` with a caret.

    `sent`: whether the file was sent as it is, so that the server's places are those of the file.
    """
    if sent and error.faults:
        for each in error.faults:
            say_fault(name, body, str(each), each.line, each.column)
        return
    root = _nodes(body)
    for fault in str(error).splitlines():
        found = _PATH.match(fault)
        known = found is not None and root is not None
        place = _place(root, path_parts(found[0])) if found and known else (None, None)
        say_fault(name, body, fault, *place)


def say_fault(name: str, body: bytes, message: str, line: int | None, column: int | None) -> None:
    """Say a fault as `file:line:col: message`, then the line of the file, and a caret under the place."""
    place = "".join(f":{number}" for number in (line, column) if number is not None)
    say_on_stderr(f"{name}{place}: {message}", _INDENT)
    for each in _pointed_at(body, line, column):
        click.echo(_INDENT + each, err=True)


def _pointed_at(body: bytes, line: int | None, column: int | None) -> Iterator[str]:
    lines = body.decode("utf-8", "replace").splitlines()
    if line is None or column is None or line > len(lines):
        return
    source = lines[line - 1]
    shown = plain_text(source)
    offset = column - 1 - (len(source) - len(source.lstrip()))
    if shown and 0 <= offset <= len(shown):
        room = (shown_width(sys.stderr) or 200) - len(_INDENT)
        if offset < room - 1:
            yield shortened(shown, room)
            yield " " * offset + "^"


def _nodes(body: bytes) -> Any:
    import yaml

    try:
        return yaml.compose(body, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _place(node: Any, path: Sequence[str | int]) -> tuple[int, int]:
    """Return line and column, from 1, of what a path names, or of what it should be in."""
    mark = node.start_mark
    for part in path:
        found = _child(node, part)
        if found is None:
            break
        mark, node = found
    return mark.line + 1, mark.column + 1


def _child(node: Any, part: str | int) -> tuple[Any, Any] | None:
    if isinstance(part, int) and isinstance(node.value, list) and part < len(node.value):
        child = node.value[part]
        return None if isinstance(child, tuple) else (child.start_mark, child)
    if isinstance(part, str) and isinstance(node.value, list):
        for pair in node.value:
            if isinstance(pair, tuple) and pair[0].value == part:
                return pair[0].start_mark, pair[1]
    return None
