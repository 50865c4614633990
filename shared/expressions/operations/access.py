"""Reaching into values: elements, fields, slices, membership."""

from __future__ import annotations

from collections.abc import Mapping

from shared.expressions.errors import ExpressionError
from shared.expressions.limits import Budget
from shared.expressions.operations.operators import to_int
from shared.expressions.values.equality import equal
from shared.expressions.values.kinds import Nil, Pair, Table, Texts, is_map, type_name
from shared.expressions.values.methods import METHODS, bound
from shared.expressions.values.moments import Time
from shared.expressions.values.strings import byte_length, byte_slice, to_bytes


def fetch(base: object, key: object, budget: Budget) -> object:
    """`base[key]` and `base.key`: an element, an entry (a missing one is nil, or the empty text), a
    method. Raises a fault where there is nothing to reach into, or no such element."""
    if type(base) in METHODS and isinstance(key, str):
        return bound(base, key)
    if isinstance(base, list):
        index = _index(key, len(base))
        return base[index]
    if isinstance(base, str):
        budget.write(len(base), base)
        data = to_bytes(base)
        return data[_index(key, len(data))]
    if is_map(base):
        assert isinstance(base, Mapping)
        return _entry(base, key)
    raise ExpressionError(f"there is nothing to fetch from {type_name(base)}")


def _index(key: object, length: int) -> int:
    index = to_int(key)
    if index < 0:
        index += length
    if not 0 <= index < length:
        raise ExpressionError(f"index out of range: the length is {length}")
    return index


def _entry(base: Mapping[object, object], key: object) -> object:
    key = usable_key(base, key)
    if key in base:
        return base[key]
    if isinstance(base, Table) and base.groups:
        return Nil()
    return "" if isinstance(base, Texts) else None


def usable_key(base: Mapping[object, object], key: object) -> object:
    """Return the key as the map takes it: nil stands for the empty text where keys are texts."""
    if isinstance(base, Table) or isinstance(key, str):
        return key
    if key is None:
        return ""
    raise ExpressionError(f"the keys of the map are texts, not {type_name(key)}")


def fetch_or_nil(base: object, key: object, budget: Budget) -> object:
    """`get()`: as `fetch`, but nil for what is not there, and where there is nothing to reach into."""
    if isinstance(base, list | str):
        length = len(base) if isinstance(base, list) else _measured(base, budget)
        index = to_int(key)
        return fetch(base, index, budget) if -length <= index < length else None
    if is_map(base):
        assert isinstance(base, Mapping)
        return base.get(usable_key(base, key))
    if type(base) in METHODS and isinstance(key, str) and key in METHODS[type(base)]:
        return bound(base, key)
    if isinstance(base, Time) and not isinstance(key, str):
        raise ExpressionError(f"{type_name(base)} has no field {type_name(key)}")
    return None


def cut(base: object, start: object, stop: object, budget: Budget) -> object:
    """`base[start:stop]` of a list or (by bytes) a text; bounds out of range stop at the ends."""
    if isinstance(base, str):
        length = _measured(base, budget)
    elif isinstance(base, list):
        length = len(base)
    else:
        raise ExpressionError(f"cannot slice {type_name(base)}")
    high = length if stop is None else _bound(to_int(stop), length)
    low = min(_bound(to_int(start), length), high)
    if isinstance(base, str):
        budget.write(high - low, base)
        return byte_slice(base, low, high)
    budget.build(high - low)
    kind = list if type(base) is Pair else type(base)
    return kind(base[low:high])


def _measured(text: str, budget: Budget) -> int:
    """Return how many bytes a text has, for which one that is not all ASCII is written out."""
    if not text.isascii():
        budget.write(len(text), text)
    return byte_length(text)


def _bound(index: int, length: int) -> int:
    if index < 0:
        index += length
    return max(0, min(index, length))


def within(needle: object, whole: object, budget: Budget) -> bool:
    """`in`: an element of a list, a key of a map; nothing is in nil."""
    if whole is None:
        return False
    if isinstance(whole, list):
        return any(equal(item, needle, budget) for item in whole)
    if is_map(whole):
        assert isinstance(whole, Mapping)
        return usable_key(whole, needle) in whole
    if isinstance(whole, Time) and isinstance(needle, str):
        return False
    raise ExpressionError(f"operator 'in' is not defined on {type_name(whole)}")
