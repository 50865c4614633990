"""From tree to closures, refusing on the way what can be seen not to work."""

from __future__ import annotations

from collections.abc import Callable

from shared.expressions.compilation.binding import bind_binary, bind_unary
from shared.expressions.compilation.calls import compile_call, compile_function, extra_function
from shared.expressions.compilation.code import (
    MISSING,
    Code,
    CompiledCode,
    Frame,
    LoopCall,
    constant,
    guarded,
)
from shared.expressions.compilation.inference import (
    Scope,
    either_shape,
    member_shape,
    speaks_of_index,
)
from shared.expressions.compilation.lazy_filter import current, mapped, sifted_end
from shared.expressions.compilation.loops import compile_loop
from shared.expressions.errors import ExpressionError, name_error
from shared.expressions.functions.signatures import EXTRAS, SIGNATURES
from shared.expressions.grammar.names import ENVIRONMENT
from shared.expressions.grammar.nodes import (
    Array,
    Binary,
    Builtin,
    Call,
    Chain,
    Conditional,
    Let,
    Literal,
    Map,
    Member,
    Name,
    Pointer,
    Predicate,
    Sequence,
    Slice,
    SyntaxNode,
    Unary,
    written_name,
)
from shared.expressions.grammar.vocabulary import LOOPS
from shared.expressions.limits import ENTRY_ELEMENTS
from shared.expressions.operations.access import cut, fetch
from shared.expressions.operations.operators import add, to_bool, to_text
from shared.expressions.static_types import INT, LIST, MAP, UNKNOWN, StaticType, list_of, shape_of
from shared.expressions.values.kinds import is_nil

_LONGEST_NAME = 60
"""Characters of a name that an error tells."""

FUNCTION_NAMES = frozenset([*SIGNATURES, *LOOPS])
"""The names of the language's own functions."""


def compile_tree(tree: SyntaxNode, scope: Scope) -> CompiledCode:
    """Return the code of a whole expression. Raises a `name` fault where it cannot work."""
    return _Compiler(scope).visit(tree).run


class _Compiler:
    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._variables: list[tuple[str, StaticType]] = []
        self._loops: list[tuple[StaticType, dict[str, StaticType]]] = []

    def visit(self, node: SyntaxNode) -> Code:
        """Return the code of any node."""
        visit: Callable[[_Compiler, SyntaxNode], Code] = _VISITS[type(node)]
        return visit(self, node)

    # Names

    def literal(self, node: Literal) -> Code:
        return constant(shape_of(node.value), node.value)

    def name(self, node: Name) -> Code:
        given = dict(self._variables).get(node.name)
        if given is not None:
            return Code(given, lambda frame: frame.variables[node.name])
        if node.name == ENVIRONMENT:
            return Code(UNKNOWN, lambda frame: dict(frame.scope))
        found = self._scope.shapes.get(node.name)
        if found is None and node.name in EXTRAS:
            return Code(StaticType("func", name=node.name), extra_function(node.name))
        if found is None and node.name in FUNCTION_NAMES:
            return Code(StaticType("func", name=node.name), lambda _: None)
        found = found or self._scope.find(node.name)
        if found is None:
            raise name_error(f"unknown name {node.name}", node.position)
        return Code(found, _from_scope(node.name))

    def pointer(self, node: Pointer) -> Code:
        collection, extra = self._loops[-1]
        if node.name == "":
            shape = UNKNOWN if collection.is_unknown else collection.items()
            return Code(shape, guarded(node.position, current))
        if node.name not in extra:
            raise name_error(f"unknown pointer #{node.name}", node.position)
        if node.name == "index":
            return Code(INT, lambda frame: frame.index)
        return Code(UNKNOWN, lambda frame: frame.acc)

    def let(self, node: Let) -> Code:
        name = node.name
        if (
            name in self._scope.shapes
            or name in FUNCTION_NAMES
            or name in EXTRAS
            or name in dict(self._variables)
        ):
            raise name_error(f"{name} has a meaning already: name it otherwise", node.position)
        value = self.visit(node.value)
        self._variables.append((name, value.shape))
        body = self.visit(node.body)
        self._variables.pop()
        given, run = value.run, body.run

        def bind(frame: Frame) -> object:
            frame.variables[name] = given(frame)
            return run(frame)

        return Code(body.shape, bind)

    # Structure

    def sequence(self, node: Sequence) -> Code:
        codes = [self.visit(part) for part in node.parts]
        *before, last = [code.run for code in codes]

        def run(frame: Frame) -> object:
            for part in before:
                part(frame)
            return last(frame)

        return Code(codes[-1].shape, run)

    def conditional(self, node: Conditional) -> Code:
        condition = self.visit(node.condition)
        if not condition.shape.maybe("bool"):
            raise name_error(
                f"a condition is a boolean, not {condition.shape}", node.condition.position
            )
        then, otherwise = self.visit(node.then), self.visit(node.otherwise)
        test, first, second = condition.run, then.run, otherwise.run

        def run(frame: Frame) -> object:
            return first(frame) if to_bool(test(frame)) else second(frame)

        return Code(
            either_shape(then.shape, otherwise.shape), guarded(node.condition.position, run)
        )

    def unary(self, node: Unary) -> Code:
        return bind_unary(node.operator, self.visit(node.operand), node.position)

    def binary(self, node: Binary) -> Code:
        if node.operator == "??":
            return bind_binary(node, self._side(node.left), self._side(node.right))
        return bind_binary(node, self.visit(node.left), self.visit(node.right))

    def _side(self, node: SyntaxNode) -> Code:
        """Return a side of `??`, where a chain may give a list that was never made."""
        return self.chain(node, tidy=False) if isinstance(node, Chain) else self.visit(node)

    def array(self, node: Array) -> Code:
        codes = [self.visit(item) for item in node.items]
        alike = all(code.shape.kind == codes[0].shape.kind for code in codes)
        shape = LIST if not alike else list_of(codes[-1].shape) if codes else list_of(UNKNOWN)
        literals = [code.literal for code in codes]
        if codes and all(isinstance(literal, bool | int | float | str) for literal in literals):
            return Code(shape, _copies(literals), literals)
        runs = [code.run for code in codes]

        def run(frame: Frame) -> object:
            frame.budget.build(ENTRY_ELEMENTS + len(runs))
            return [item(frame) for item in runs]

        return Code(shape, guarded(node.position, run))

    def map(self, node: Map) -> Code:
        pairs = [(self.visit(key).run, self.visit(value).run) for key, value in node.pairs]

        def run(frame: Frame) -> object:
            frame.budget.build(ENTRY_ELEMENTS * (1 + len(pairs)))
            items = [(key(frame), value(frame)) for key, value in pairs]
            return {to_text(key): value for key, value in reversed(items)}

        return Code(MAP, guarded(node.position, run))

    # Reaching in

    def chain(self, node: Chain, *, tidy: bool = True) -> Code:
        inner = self.visit(node.inner)
        run = inner.run

        def give_up(frame: Frame) -> object:
            try:
                value = run(frame)
            except _GaveUp:
                return None
            return None if tidy and is_nil(value) else value

        return Code(inner.shape, give_up)

    def member(self, node: Member) -> Code:
        if (
            isinstance(node.base, Name)
            and node.base.name == ENVIRONMENT
            and isinstance(node.key, Literal)
        ):
            return self._of_environment(node, node.key.value)
        base, key = self.visit(node.base), self.visit(node.key)
        shape = member_shape(node, base.shape, key)
        if (
            base.sieve is not None
            and not node.optional
            and key.shape.kind == "int"
            and key.literal in (0, -1)
        ):
            end = 0 if key.literal == 0 else -1
            return Code(shape, guarded(node.position, sifted_end(base.sieve, end, must=True)))
        first, second = base.run, key.run
        named = written_name(node.base)[:_LONGEST_NAME]

        def reach(frame: Frame) -> object:
            value, wanted = first(frame), second(frame)
            if named and is_nil(value):
                raise ExpressionError(f"there is nothing to fetch from {named}, which is nil")
            return fetch(value, wanted, frame.budget)

        def reach_or_give_up(frame: Frame) -> object:
            value = first(frame)
            if is_nil(value):
                raise _GaveUp
            return fetch(value, second(frame), frame.budget)

        return Code(shape, guarded(node.position, reach_or_give_up if node.optional else reach))

    def _of_environment(self, node: Member, key: object) -> Code:
        if not isinstance(key, str):
            return Code(
                UNKNOWN,
                guarded(node.position, lambda frame: fetch(dict(frame.scope), key, frame.budget)),
            )
        found = self._scope.find(key)
        if found is None and not node.optional:
            raise name_error(f"unknown name {key}", node.position)
        return Code(found or UNKNOWN, _from_scope(key))

    def slice(self, node: Slice) -> Code:
        base = self.visit(node.base)
        if not base.shape.maybe("string", "list"):
            raise name_error(f"cannot slice {base.shape}", node.position)
        start, stop = (self._bound(bound) for bound in (node.start, node.stop))
        run = base.run

        def take(frame: Frame) -> object:
            value = run(frame)
            high = None if stop is None else stop(frame)
            return cut(value, 0 if start is None else start(frame), high, frame.budget)

        return Code(UNKNOWN if base.shape.is_unknown else base.shape, guarded(node.position, take))

    def _bound(self, node: SyntaxNode | None) -> CompiledCode | None:
        if node is None:
            return None
        code = self.visit(node)
        if not code.shape.maybe("int"):
            raise name_error(
                f"a bound of a slice is a whole number, not {code.shape}", node.position
            )
        return code.run

    # Calls

    def call(self, node: Call) -> Code:
        callee = self.visit(node.callee)
        if isinstance(node.callee, Name) and callee.shape == UNKNOWN and not self._scope.closed:
            raise name_error(f"unknown function {node.callee.name}", node.position)
        return compile_call(node, callee, [self.visit(argument) for argument in node.arguments])

    def builtin(self, node: Builtin) -> Code:
        if node.name in LOOPS:
            return self._loop(node)
        arguments = [self.visit(argument) for argument in node.arguments]
        return compile_function(node, arguments)

    def _loop(self, node: Builtin) -> Code:
        collection = self.visit(node.arguments[0])
        if node.name == "sum" and len(node.arguments) == 1:
            added = self._added(node.arguments[0], collection)
            if added is not None:
                return added
        extra_names = {"map": {"index": INT}, "reduce": {"index": INT, "acc": UNKNOWN}}.get(
            node.name, {}
        )
        body: Code | None = None
        cost = 1
        if len(node.arguments) > 1:
            predicate = node.arguments[1]
            assert isinstance(predicate, Predicate)
            self._loops.append((collection.shape, extra_names))
            body = self.visit(predicate.body)
            self._loops.pop()
            cost = predicate.size
        extra = self.visit(node.arguments[2]) if len(node.arguments) > 2 else None
        loop = LoopCall(node.name, node.position, collection, body, extra, cost)
        code = compile_loop(loop)
        if node.name == "map" and not speaks_of_index(node.arguments[1]):
            return mapped(code, loop)
        return code

    def _added(self, node: SyntaxNode, collection: Code) -> Code | None:
        """`sum([a, b, c])` is `a + (b + c)`, so that texts and durations add up too."""
        if not isinstance(node, Array) or len(node.items) < 2 or collection.literal is not MISSING:
            return None
        *before, last = [self.visit(item).run for item in node.items]

        def run(frame: Frame) -> object:
            values = [item(frame) for item in before]
            total = last(frame)
            for value in reversed(values):
                total = add(value, total, frame.budget)
            return total

        return Code(collection.shape.items(), guarded(node.position, run))


class _GaveUp(Exception):
    """Something before a `?.` is nil."""


def _copies(literals: list[object]) -> CompiledCode:
    """Return the code of a list of written values, made anew each time."""

    def run(frame: Frame) -> object:
        frame.budget.build(ENTRY_ELEMENTS + len(literals))
        return list(literals)

    return run


def _from_scope(name: str) -> CompiledCode:
    def run(frame: Frame) -> object:
        return frame.scope.get(name)

    return run


_VISITS: dict[type[SyntaxNode], Callable[..., Code]] = {
    Literal: _Compiler.literal,
    Name: _Compiler.name,
    Pointer: _Compiler.pointer,
    Unary: _Compiler.unary,
    Binary: _Compiler.binary,
    Member: _Compiler.member,
    Chain: _Compiler.chain,
    Slice: _Compiler.slice,
    Call: _Compiler.call,
    Builtin: _Compiler.builtin,
    Let: _Compiler.let,
    Sequence: _Compiler.sequence,
    Conditional: _Compiler.conditional,
    Array: _Compiler.array,
    Map: _Compiler.map,
}
