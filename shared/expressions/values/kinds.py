"""The values that JSON lacks, and the kinds of lists and maps that behave unlike one another.

An int is Go's `int` (64 bits), a float its `float64`, a str its `string`; a str holds bytes that
are no UTF-8 (a slice may cut a character) as Python's surrogate escapes while it is evaluated. A list
is `[]any`, a dict `map[string]any`.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping
from typing import ClassVar

from shared.expressions.errors import ExpressionError, limit_error


class Texts(Mapping[str, str]):
    """A map of texts in which a missing key is the empty text (`inputs`, `secrets`, `tasks`, `job`)."""

    __slots__ = ("_texts",)

    def __init__(self, texts: Mapping[str, str]) -> None:
        self._texts = texts

    def __getitem__(self, key: str) -> str:
        return self._texts[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)


class TooManyTexts(Texts):
    """Texts that are too many, or too large, and were not read: an expression that names them fails."""

    __slots__ = ("_said",)

    def __init__(self, said: str) -> None:
        super().__init__({})
        self._said = said

    def __len__(self) -> int:
        raise limit_error(f"this names {self._said}")


class Nil(list[object]):
    """A list that was never made: empty, and equal to nil (`concat([], [])`)."""

    __slots__ = ()


class Strings(list[object]):
    """`[]string`, which `split` gives and `join` takes."""

    __slots__ = ()


class Ints(list[object]):
    """`[]int`, which a range and `sequence` give and `join` refuses."""

    __slots__ = ()


class Pair(list[object]):
    """`[2]any`, an element of what `toPairs` gives."""

    __slots__ = ()


class Pairs(list[object]):
    """`[][2]any`, which `toPairs` gives."""

    __slots__ = ()


class _Entries(ItemsView[object, object]):
    """The entries of a table, the ones under NaN too, which no look-up finds."""

    def __init__(self, entries: Mapping[object, tuple[object, object]]) -> None:
        super().__init__({})
        self._entries = entries

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[tuple[object, object]]:
        return iter(self._entries.values())


class Table(Mapping[object, object]):
    """A map whose keys are any values; 1, 1.0 and true are three keys, as in Go.

    `groups` tells `map[any][]any` (of `groupBy`) from `map[any]any` (of `fromPairs`).
    """

    __slots__ = ("_entries", "groups")

    def __init__(self, *, groups: bool = False) -> None:
        self._entries: dict[object, tuple[object, object]] = {}
        self.groups = groups

    def put(self, key: object, value: object) -> None:
        """Set the value of a key. Raises a fault for a list or a map as a key."""
        self._entries[identity(key)] = (key, value)

    def __getitem__(self, key: object) -> object:
        return self._entries[identity(key)][1]

    def __iter__(self) -> Iterator[object]:
        return (key for key, _ in self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return identity(key) in self._entries

    def items(self) -> ItemsView[object, object]:
        """Keys and values, in the order they were put."""
        return _Entries(self._entries)


def identity(key: object) -> object:
    """Return what two keys share when they are the same key. Raises a fault for a list or a map."""
    if isinstance(key, Pair):
        return ("pair", *(identity(part) for part in key))
    if isinstance(key, list | dict | Mapping):
        raise ExpressionError(f"{type_name(key)} cannot be a key")
    if key != key:
        return object()  # NaN is never found again
    return (type(key), key)


_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


class Month:
    """A month of a date, 1 to 12."""

    __slots__ = ("number",)
    NAMES: ClassVar = _MONTHS

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return self.NAMES[self.number - 1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Month) and other.number == self.number

    def __hash__(self) -> int:
        return hash(("month", self.number))


class Weekday:
    """A day of the week, 0 (Sunday) to 6."""

    __slots__ = ("number",)
    NAMES: ClassVar = _WEEKDAYS

    def __init__(self, number: int) -> None:
        self.number = number

    def __str__(self) -> str:
        return self.NAMES[self.number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Weekday) and other.number == self.number

    def __hash__(self) -> int:
        return hash(("weekday", self.number))


class Function:
    """A function or a method that was named and not called."""

    __slots__ = ("apply", "name")

    def __init__(self, name: str, apply: object) -> None:
        self.name = name
        self.apply = apply


def is_nil(value: object) -> bool:
    """Return whether the value counts as nil, as a list that was never made does."""
    return value is None or type(value) is Nil


def is_list(value: object) -> bool:
    """Return whether it is a list of any kind."""
    return isinstance(value, list)


def is_map(value: object) -> bool:
    """Return whether it is a map of any kind."""
    return isinstance(value, dict | Mapping)


def is_int(value: object) -> bool:
    """Return whether it is a whole number (a boolean is none)."""
    return type(value) is int


def is_number(value: object) -> bool:
    """Return whether it is a whole number or a float."""
    return type(value) is int or type(value) is float


_NAMES: dict[type, str] = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "string",
    Month: "time.Month",
    Weekday: "time.Weekday",
    Function: "func",
}


def type_name(value: object) -> str:
    """Return the name that `type()` gives, which messages use too."""
    if value is None:
        return "nil"
    if is_list(value):
        return "array"
    if is_map(value):
        return "map"
    known = _NAMES.get(type(value))
    return known or f"time.{type(value).__name__}"


def pairs_of(value: Mapping[object, object]) -> Iterable[tuple[object, object]]:
    """Keys and values in the order that Go prints them: nil, texts, numbers, booleans, the rest."""
    return sorted(value.items(), key=lambda pair: _key_order(pair[0]))


_KEY_ORDER: tuple[type, ...] = (str, int, float, bool)


def _key_order(key: object) -> tuple[int, object]:
    if key is None:
        return (-1, 0)
    kind = type(key)
    if kind in _KEY_ORDER:
        if isinstance(key, str):
            return (0, key.encode("utf-8", "surrogatepass"))
        return (_KEY_ORDER.index(kind), -float("inf") if key != key else key)
    return (len(_KEY_ORDER), str(key))
