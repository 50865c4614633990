"""The code of operators."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.compilation.code import (
    MISSING,
    Code,
    CompiledCode,
    Frame,
    constant,
    guarded,
)
from shared.expressions.compilation.rules import NUMBER_KINDS, RULES
from shared.expressions.errors import ExpressionError, name_error
from shared.expressions.grammar.nodes import Array, Binary, Literal
from shared.expressions.limits import Budget
from shared.expressions.operations.access import within
from shared.expressions.operations.operators import (
    OPERATIONS,
    at_least,
    at_most,
    negated,
    to_bool,
    to_text,
)
from shared.expressions.operations.patterns import compile_pattern
from shared.expressions.static_types import (
    BOOL,
    UNKNOWN,
)
from shared.expressions.values.equality import equal
from shared.expressions.values.kinds import is_int, is_nil, type_name
from shared.expressions.values.strings import to_bytes


def bind_unary(operator: str, operand: Code, position: int) -> Code:
    """Return the code of a sign before `operand`. Raises a `name` fault where it makes no sense."""
    shape, run = operand.shape, operand.run
    inverts = operator in ("not", "!")
    if not shape.maybe(*(("bool",) if inverts else NUMBER_KINDS)):
        raise name_error(f"invalid operation: {operator} (mismatched type {shape})", position)
    if operand.literal is not MISSING and operand.shape.kind in ("bool", *NUMBER_KINDS):
        value = operand.literal
        return constant(
            shape, not value if inverts else negated(value) if operator == "-" else value
        )
    if inverts:
        return Code(BOOL, guarded(position, lambda frame: not to_bool(run(frame))))
    gives = UNKNOWN if shape.is_unknown else shape
    if operator == "+":
        return Code(gives, run)
    return Code(gives, guarded(position, lambda frame: negated(run(frame))))


def bind_binary(node: Binary, left: Code, right: Code) -> Code:
    """Return the code of an operator. Raises a `name` fault where the sides do not fit it."""
    sign, position = node.operator, node.position
    gives = RULES[sign](left.shape, right.shape)
    if gives is None:
        raise name_error(
            f"invalid operation: {sign} (mismatched types {left.shape} and {right.shape})", position
        )
    folded = _folded(sign, left, right, position)
    if folded is not None:
        return folded
    run = _special(node, left, right) or _plain(OPERATIONS[sign], left.run, right.run)
    return Code(gives, guarded(position, run))


def _plain(
    apply: Callable[[object, object, Budget], object], left: CompiledCode, right: CompiledCode
) -> CompiledCode:
    return lambda frame: apply(left(frame), right(frame), frame.budget)


def _special(node: Binary, left: Code, right: Code) -> CompiledCode | None:
    """Return the code of the operators that skip a side, or go by what is known of the sides."""
    sign = node.operator
    if sign in ("and", "&&", "or", "||"):
        return _logic(left.run, right.run, stop=sign in ("or", "||"))
    if sign == "??":
        return _fallback(left.run, right.run)
    if sign in ("==", "!="):
        return _comparison(left, right, same=sign == "==")
    if sign == "in":
        return _within(node, left, right)
    if sign == "matches":
        return _matching(left, right, node.position)
    return None


def _logic(left: CompiledCode, right: CompiledCode, *, stop: bool) -> CompiledCode:
    def run(frame: Frame) -> object:
        first = to_bool(left(frame))
        return first if first is stop else right(frame)

    return run


def _fallback(left: CompiledCode, right: CompiledCode) -> CompiledCode:
    def run(frame: Frame) -> object:
        value = left(frame)
        return right(frame) if is_nil(value) else value

    return run


def _comparison(left: Code, right: Code, *, same: bool) -> CompiledCode:
    first, second = left.run, right.run
    kind = left.shape.kind if left.shape.kind == right.shape.kind else ""
    expected = {"int": int, "string": str}.get(kind)

    def run(frame: Frame) -> object:
        return equal(first(frame), second(frame), frame.budget) is same

    def run_typed(frame: Frame) -> object:
        one, other = first(frame), second(frame)
        if type(one) is not expected or type(other) is not expected:
            wrong = other if type(one) is expected else one
            raise ExpressionError(f"expected {kind}, not {type_name(wrong)}")
        if isinstance(one, str) and isinstance(other, str):
            frame.budget.read(min(len(one), len(other)))
        return (one == other) is same

    return run if expected is None else run_typed


def _within(node: Binary, left: Code, right: Code) -> CompiledCode:
    run = left.run
    if isinstance(node.right, Array) and node.right.items:
        written = [item.value for item in node.right.items if isinstance(item, Literal)]
        if len(written) == len(node.right.items):
            if left.shape.kind == "int" and all(map(is_int, written)):
                return _among(run, frozenset(written), int, 0)
            if all(isinstance(value, str) for value in written):
                return _among(run, frozenset(written), str, "")
    if left.shape.kind == "int" and isinstance(node.right, Binary) and node.right.operator == "..":
        ends = right.literal
        if isinstance(ends, range):
            return _between(run, ends.start, ends.stop - 1)
    second = right.run
    return lambda frame: within(run(frame), second(frame), frame.budget)


def _among(run: CompiledCode, values: frozenset[object], kind: type, empty: object) -> CompiledCode:
    """`in` a list of written texts or numbers: only such may be asked for, nil being the empty one."""

    def test(frame: Frame) -> object:
        value = run(frame)
        if value is None:
            value = empty
        if type(value) is not kind:
            raise ExpressionError(f"expected one of {kind.__name__}, not {type_name(value)}")
        return value in values

    return test


def _between(run: CompiledCode, first: int, last: int) -> CompiledCode:
    """`in` a written range, without making it."""

    def test(frame: Frame) -> object:
        value = run(frame)
        return at_least(value, first, frame.budget) and at_most(value, last, frame.budget)

    return test


def _matching(left: Code, right: Code, position: int) -> CompiledCode:
    subject, pattern = left.run, right.run
    if isinstance(right.literal, str):
        try:
            compiled = compile_pattern(right.literal)
        except ExpressionError as error:
            raise name_error(error.message, position) from None

        def run_compiled(frame: Frame) -> object:
            text = subject(frame)
            if is_nil(text):
                return False
            frame.budget.match(len(to_text(text)), compiled.programsize)
            return compiled.search(to_bytes(to_text(text))) is not None

        return run_compiled

    def run(frame: Frame) -> object:
        text, expression = subject(frame), pattern(frame)
        if is_nil(text) or is_nil(expression):
            return False
        frame.budget.compile(to_text(expression))
        compiled = compile_pattern(to_text(expression))
        frame.budget.match(len(to_text(text)), compiled.programsize)
        return compiled.search(to_bytes(to_text(text))) is not None

    return run


# Literals


def _folded(sign: str, left: Code, right: Code, position: int) -> Code | None:
    """Return the value, where both sides (or for `and` and `or` one) are written out."""
    if sign in ("and", "&&", "or", "||"):
        return _folded_logic(left, right, neutral=sign in ("and", "&&"))
    kinds = (left.shape.kind, right.shape.kind)
    if MISSING in (left.literal, right.literal) or isinstance(left.literal, list):
        return None
    if sign == "==" and kinds in (("int", "int"), ("string", "string"), ("bool", "bool")):
        return constant(BOOL, left.literal == right.literal)
    if left.shape.is_number and right.shape.is_number:
        return _folded_numbers(sign, left, right, position)
    return None


def _folded_logic(left: Code, right: Code, *, neutral: bool) -> Code | None:
    if left.literal is neutral:
        return right
    if right.literal is neutral:
        return left
    if left.literal is (not neutral) or right.literal is (not neutral):
        return constant(BOOL, not neutral)
    return None


def _folded_numbers(sign: str, left: Code, right: Code, position: int) -> Code | None:
    shape = RULES[sign](left.shape, right.shape)
    assert shape is not None
    if sign == "..":
        first, last = left.literal, right.literal
        assert isinstance(first, int)
        assert isinstance(last, int)
        run = guarded(position, _plain(OPERATIONS[sign], left.run, right.run))
        return Code(shape, run, range(first, last + 1))
    if sign not in ("+", "-", "*", "/", "%", "**", "^"):
        return None
    try:
        return constant(shape, OPERATIONS[sign](left.literal, right.literal, Budget()))
    except ExpressionError as error:
        raise name_error(error.message, position) from None
