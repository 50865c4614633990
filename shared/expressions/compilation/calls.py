"""Calls: of the language's functions, of functions in the scope, of methods."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from shared.expressions.compilation.code import Code, CompiledCode, Frame, guarded
from shared.expressions.compilation.lazy_filter import sifted_count, sifted_end
from shared.expressions.errors import ExpressionError, name_error
from shared.expressions.functions.registry import EXTRA_FUNCTIONS, FUNCTIONS
from shared.expressions.functions.signatures import EXTRAS, SIGNATURES, takes
from shared.expressions.grammar.nodes import Builtin, Call
from shared.expressions.static_types import FLOAT, INT, TEXT_TYPE, TIME, UNKNOWN, StaticType
from shared.expressions.values.kinds import Function, type_name
from shared.expressions.values.methods import METHODS_BY_KIND

_SHAPES: dict[str, StaticType] = {"int": INT, "float": FLOAT, "string": TEXT_TYPE, "time": TIME}
_ENDS = {"first": 0, "last": -1}


_METHOD_STEPS = 100
"""Steps that a call of a method costs, besides those for its texts: most are of dates."""
_GROWTH = 4
"""How many times longer than its layout a date may become."""


def compile_function(node: Builtin, arguments: Sequence[Code]) -> Code:
    """Return the code of a call of one of the language's functions. Raises a `name` fault for arguments that
    it does not take."""
    shape = _given(node.name, SIGNATURES[node.name], arguments, node.position)
    sieve = arguments[0].sieve if arguments else None
    if sieve is not None and node.name in _ENDS:
        return Code(shape, guarded(node.position, sifted_end(sieve, _ENDS[node.name], must=False)))
    if sieve is not None and node.name == "len":
        return Code(shape, guarded(node.position, sifted_count(sieve)))
    apply = FUNCTIONS[node.name]
    runs = tuple(argument.run for argument in arguments)
    if len(runs) == 1:
        only = runs[0]
        return Code(shape, guarded(node.position, lambda frame: apply(frame, only(frame))))
    return Code(
        shape, guarded(node.position, lambda frame: apply(frame, *[run(frame) for run in runs]))
    )


def _given(name: str, signature: object, arguments: Sequence[Code], position: int) -> StaticType:
    assert callable(signature)
    try:
        shape: StaticType = signature(name, [argument.shape for argument in arguments])
    except ValueError as reason:
        raise name_error(str(reason), position) from None
    return shape


def compile_call(node: Call, callee: Code, arguments: Sequence[Code]) -> Code:
    """Return the code of a call of anything else. Raises a `name` fault where it is no function."""
    shape = callee.shape
    runs = tuple(argument.run for argument in arguments)
    if shape.is_unknown:
        return Code(UNKNOWN, guarded(node.position, _dynamic(callee.run, runs)))
    if shape.kind != "func":
        raise name_error(f"{shape} is not a function", node.position)
    if shape.form:
        method = METHODS_BY_KIND[shape.form][shape.name]
        wanted = takes(*(_shape(kind) for kind in method.takes), gives=_shape(method.gives))
        given = _given(shape.name, wanted, arguments, node.position)
        return Code(given, guarded(node.position, _dynamic(callee.run, runs)))
    signature = EXTRAS.get(shape.name)
    if signature is None:
        raise name_error(f"{shape.name} cannot be called here", node.position)
    given = _given(shape.name, signature, arguments, node.position)
    return Code(given, guarded(node.position, _dynamic(callee.run, runs)))


def _shape(kind: str) -> StaticType:
    return _SHAPES.get(kind) or StaticType(kind)  # type: ignore[arg-type] # the tables name kinds only


def _dynamic(callee: CompiledCode, runs: Sequence[CompiledCode]) -> CompiledCode:
    def run(frame: Frame) -> object:
        values = [argument(frame) for argument in runs]
        function = callee(frame)
        if not isinstance(function, Function):
            raise ExpressionError(f"{type_name(function)} is not a function")
        apply = function.apply
        assert callable(apply)
        frame.budget.step(_METHOD_STEPS)
        for value in values:
            if isinstance(value, str):
                frame.budget.write(_GROWTH * len(value), value)
                frame.budget.step(len(value))
        return apply(*values)

    return run


def extra_function(name: str) -> CompiledCode:
    """Return the code that finds a function of the job language."""
    apply = EXTRA_FUNCTIONS[name]
    return lambda frame: Function(name, partial(apply, frame))
