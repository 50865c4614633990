"""Functions of texts."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.compilation.code import Frame
from shared.expressions.errors import ExpressionError, limit_error
from shared.expressions.limits import TEXT_ELEMENTS
from shared.expressions.operations.operators import to_int, to_text
from shared.expressions.values import strings
from shared.expressions.values.kinds import Ints, Nil, Pair, Pairs, Strings, is_list, type_name

_MAX_REPEATS = 1_000_000


def _trim(frame: Frame, value: object, *cutset: object) -> object:
    text = _copied(frame, value)
    return text.strip(to_text(cutset[0])) if cutset else strings.trimmed(text)


def _trim_prefix(frame: Frame, value: object, prefix: object = " ") -> object:
    return strings.without_prefix(_copied(frame, value), to_text(prefix))


def _trim_suffix(frame: Frame, value: object, suffix: object = " ") -> object:
    return strings.without_suffix(_copied(frame, value), to_text(suffix))


def _upper(frame: Frame, value: object) -> object:
    return strings.upper(_written(frame, value))


def _lower(frame: Frame, value: object) -> object:
    return strings.lower(_written(frame, value))


def _read(frame: Frame, value: object) -> str:
    text = to_text(value)
    frame.budget.read(len(text))
    return text


def _copied(frame: Frame, value: object) -> str:
    text = to_text(value)
    frame.budget.write(len(text), text)
    return text


def _written(frame: Frame, value: object) -> str:
    """Return the text of a value, its cost taken for handling it slowly, letter by letter."""
    text = to_text(value)
    frame.budget.write(len(text), text)
    if not text.isascii():
        frame.budget.step(len(text))
    return text


def _splitter(*, keep: bool) -> Callable[..., object]:
    def apply(frame: Frame, value: object, separator: object, limit: object = -1) -> object:
        text, between = _read(frame, value), to_text(separator)
        count = to_int(limit)
        if count == 0:
            return Nil()
        parts = text.count(between) + 1 if between else len(text)
        made = min(parts, count) if count > 0 else parts
        frame.budget.build(TEXT_ELEMENTS * made)
        frame.budget.write(len(text) + (len(between) * made if keep else 0), text)
        return Strings(strings.split(text, between, count, keep=keep))

    return apply


def _replace(frame: Frame, value: object, old: object, new: object, limit: object = -1) -> object:
    text, sought, put, count = _read(frame, value), to_text(old), to_text(new), to_int(limit)
    found = text.count(sought) if count < 0 else min(count, text.count(sought))
    frame.budget.write(len(text) + found * len(put), text, put)
    return strings.replaced(text, sought, put, count)


def _repeat(frame: Frame, value: object, times: object) -> object:
    text, count = to_text(value), to_int(times)
    if count < 0:
        raise ExpressionError("repeat takes a number that is not negative")
    if count > _MAX_REPEATS:
        raise limit_error(f"a text is repeated at most {_MAX_REPEATS:,} times")
    frame.budget.write(len(text) * count, text)
    return text * count


def _join(frame: Frame, items: object, glue: object = "") -> object:
    between = to_text(glue)
    if not is_list(items) or isinstance(items, Ints | Pair | Pairs):
        raise ExpressionError(f"invalid argument for join (type {type_name(items)})")
    assert isinstance(items, list)
    frame.budget.step(len(items))
    texts = [to_text(item) for item in items]
    frame.budget.write(sum(map(len, texts)) + len(between) * len(texts), between, *texts)
    whole = between.join(texts)
    return strings.from_bytes(strings.to_bytes(whole)) if strings.is_broken(whole) else whole


def _finder(find: Callable[[str, str], object]) -> Callable[..., object]:
    def apply(frame: Frame, value: object, part: object) -> object:
        return find(_read(frame, value), _read(frame, part))

    return apply


TEXT_FUNCTIONS: dict[str, Callable[..., object]] = {
    "trim": _trim,
    "trimPrefix": _trim_prefix,
    "trimSuffix": _trim_suffix,
    "upper": _upper,
    "lower": _lower,
    "split": _splitter(keep=False),
    "splitAfter": _splitter(keep=True),
    "replace": _replace,
    "repeat": _repeat,
    "join": _join,
    "indexOf": _finder(strings.index_of),
    "lastIndexOf": _finder(strings.last_index_of),
    "hasPrefix": _finder(strings.starts),
    "hasSuffix": _finder(strings.ends),
}
