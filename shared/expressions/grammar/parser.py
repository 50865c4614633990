"""From tokens to a tree, by precedence climbing.

The grammar is that of the language definition of expr-lang 1.17.
"""

from __future__ import annotations

from collections.abc import Collection

from shared.expressions.errors import ExpressionError, limit_error, syntax_error
from shared.expressions.grammar.cursor import TokenCursor
from shared.expressions.grammar.lexer import Lexeme, tokenize
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
)
from shared.expressions.grammar.vocabulary import (
    BINARY,
    COMPARISONS,
    CONSTANTS,
    GROUPS_RIGHT,
    LOOPS,
    NEGATABLE,
    UNARY,
)
from shared.expressions.limits import MAX_EXPRESSION_NESTING, MAX_LENGTH
from shared.expressions.values.numerals import read_number


def parse(text: str, builtins: Collection[str]) -> SyntaxNode:
    """Return the tree of `text`; a call of a name in `builtins` is one of the language's own functions.

    Raises a fault of kind `syntax`, or `limit` where the text is too long, too nested or too rich.
    """
    if len(text) > MAX_LENGTH:
        raise limit_error(f"the expression has more than {MAX_LENGTH:,} characters")
    try:
        return _Parser(tokenize(text), builtins).whole()
    except RecursionError:
        raise limit_error("the expression is nested too deeply") from None
    except ExpressionError as error:
        raise error.within(text) from None


class _Parser(TokenCursor):
    def __init__(self, tokens: list[Lexeme], builtins: Collection[str]) -> None:
        super().__init__(tokens)
        self._builtins = builtins
        self._nesting = 0
        self._loops = 0

    def whole(self) -> SyntaxNode:
        """Return all of the tokens as one expression."""
        node = self._sequence()
        if self._token.kind != "end":
            raise self._unexpected()
        return node

    def _sequence(self) -> SyntaxNode:
        first = self._expression(0)
        parts = [first]
        while self._takes("operator", ";"):
            if self._token.kind == "end":
                break
            parts.append(self._expression(0))
        if len(parts) == 1:
            return first
        return self._grown(Sequence(first.position, tuple(parts)))

    def _expression(self, rank: int) -> SyntaxNode:
        self._nesting += 1
        if self._nesting > MAX_EXPRESSION_NESTING:
            raise limit_error(
                f"the expression is nested deeper than {MAX_EXPRESSION_NESTING}",
                self._token.position,
            )
        try:
            if rank == 0 and self._sees("operator", "let"):
                return self._let()
            if rank == 0 and self._sees("operator", "if"):
                return self._if()
            node = self._operators(self._primary(), rank)
            return self._ternary(node) if rank == 0 else node
        finally:
            self._nesting -= 1

    def _operators(self, left: SyntaxNode, rank: int) -> SyntaxNode:
        previous = ""
        while self._token.kind == "operator":
            negated = self._negation(rank)
            operator = self._tokens[self._next + negated]
            binds = BINARY.get(operator.value, -1)
            if binds < rank:
                break
            self._next += negated + 1
            if operator.value == "|":
                left = self._call(self._expect_name(), (left,))
            else:
                _refuse_mixing(previous, operator)
                left = self._binary(left, operator, binds)
                if negated:
                    left = self._grown(Unary(operator.position, "not", left))
            previous = operator.value
        return left

    def _negation(self, rank: int) -> int:
        """1 where a `not` stands before an operator that it turns round, else 0."""
        if not self._sees("operator", "not"):
            return 0
        following = self._tokens[self._next + 1]
        if following.kind != "operator" or following.value not in NEGATABLE:
            raise syntax_error(f"unexpected {following}", following.position)
        return 1 if BINARY[following.value] >= rank else 0

    def _binary(self, left: SyntaxNode, operator: Lexeme, binds: int) -> SyntaxNode:
        if operator.value in COMPARISONS:
            return self._comparison(left, operator, binds)
        right = self._expression(binds if operator.value in GROUPS_RIGHT else binds + 1)
        return self._grown(Binary(operator.position, operator.value, left, right))

    def _comparison(self, left: SyntaxNode, operator: Lexeme, binds: int) -> SyntaxNode:
        """Read a chain: `a < b < c` means `a < b && b < c`."""
        whole: SyntaxNode | None = None
        while True:
            right = self._expression(binds + 1)
            link = self._grown(Binary(operator.position, operator.value, left, right))
            whole = link if whole is None else self._both(whole, link, operator)
            if self._token.kind != "operator" or self._token.value not in COMPARISONS:
                return whole
            left, operator = right, self._advance()

    def _both(self, left: SyntaxNode, right: SyntaxNode, operator: Lexeme) -> SyntaxNode:
        return self._grown(Binary(operator.position, "&&", left, right))

    def _let(self) -> SyntaxNode:
        self._advance()
        name = self._expect_name()
        self._expect("operator", "=")
        value = self._expression(0)
        self._expect("operator", ";")
        return self._grown(Let(name.position, name.value, value, self._sequence()))

    def _if(self) -> SyntaxNode:
        start = self._advance()
        condition = self._expression(0)
        then = self._block()
        self._expect("operator", "else")
        otherwise = self._expression(0) if self._sees("operator", "if") else self._block()
        return self._grown(Conditional(start.position, condition, then, otherwise))

    def _block(self) -> SyntaxNode:
        self._expect("bracket", "{")
        node = self._sequence()
        self._expect("bracket", "}")
        return node

    def _ternary(self, condition: SyntaxNode) -> SyntaxNode:
        while self._takes("operator", "?"):
            if self._takes("operator", ":"):
                then = condition
            else:
                then = self._expression(0)
                self._expect("operator", ":")
            otherwise = self._expression(0)
            condition = self._grown(Conditional(condition.position, condition, then, otherwise))
        return condition

    def _primary(self) -> SyntaxNode:
        token = self._token
        if token.kind == "operator":
            if token.value in UNARY:
                self._advance()
                operand = self._expression(UNARY[token.value])
                return self._postfix(self._grown(Unary(token.position, token.value, operand)))
            if token.value in ("#", "."):
                return self._postfix(self._pointer())
            if self._takes("operator", "::"):
                return self._postfix(self._call(self._expect_name(), (), own=True))
        if self._takes("bracket", "("):
            node = self._sequence()
            self._expect("bracket", ")")
            return self._postfix(node)
        return self._atom()

    def _pointer(self) -> SyntaxNode:
        token = self._token
        if not self._loops:
            raise syntax_error(
                f"{token.value!r} stands for an element, and this is not a loop", token.position
            )
        name = ""
        if self._takes("operator", "#") and self._token.kind == "name":
            name = self._advance().value
        return self._grown(Pointer(token.position, name))

    def _atom(self) -> SyntaxNode:
        token = self._token
        if token.kind == "number":
            self._advance()
            return self._grown(Literal(token.position, read_number(token.value, token.position)))
        if token.kind == "text":
            self._advance()
            return self._postfix(self._grown(Literal(token.position, token.value)))
        if token.kind == "name":
            return self._named(self._advance())
        if token.is_("bracket", "["):
            return self._postfix(self._array())
        if token.is_("bracket", "{"):
            return self._postfix(self._map())
        raise self._unexpected()

    def _named(self, token: Lexeme) -> SyntaxNode:
        if token.value in CONSTANTS:
            return self._grown(Literal(token.position, CONSTANTS[token.value]))
        if self._sees("bracket", "("):
            return self._postfix(self._call(token, ()))
        return self._postfix(self._grown(Name(token.position, token.value)))

    # Calls

    def _call(
        self, token: Lexeme, given: tuple[SyntaxNode, ...], *, own: bool = False
    ) -> SyntaxNode:
        """Return a call of `token`, its first arguments `given` by a pipe.

        `own` is the `::` form: the language's function, whatever the scope calls so too.
        """
        name = token.value
        known = own or name in self._builtins
        if known and name in LOOPS:
            return self._grown(Builtin(token.position, name, self._loop_arguments(name, given)))
        arguments = given + self._arguments()
        if known:
            return self._grown(Builtin(token.position, name, arguments))
        callee = self._grown(Name(token.position, name))
        return self._grown(Call(token.position, callee, arguments))

    def _arguments(self) -> tuple[SyntaxNode, ...]:
        self._expect("bracket", "(")
        return self._list(")", lambda: self._expression(0))

    def _loop_arguments(self, name: str, given: tuple[SyntaxNode, ...]) -> tuple[SyntaxNode, ...]:
        self._expect("bracket", "(")
        arguments = list(given)
        for index, form in enumerate(LOOPS[name][len(given) :]):
            if self._sees("bracket", ")"):
                if form.endswith("?"):
                    break
                raise self._unexpected()
            if index:
                self._expect("operator", ",")
            arguments.append(
                self._predicate() if form.startswith("predicate") else self._expression(0)
            )
        self._takes("operator", ",")
        self._expect("bracket", ")")
        return tuple(arguments)

    def _predicate(self) -> SyntaxNode:
        start = self._token.position
        self._loops += 1
        if self._sees("bracket", "{"):
            body = self._block()
        else:
            body = self._expression(0)
            if self._sees("operator", ";"):
                raise syntax_error(
                    "several expressions in a loop go into braces", self._token.position
                )
        self._loops -= 1
        return self._grown(Predicate(start, body))

    # Literals in brackets

    def _array(self) -> SyntaxNode:
        start = self._advance()
        return self._grown(Array(start.position, self._list("]", lambda: self._expression(0))))

    def _map(self) -> SyntaxNode:
        start = self._advance()
        pairs: list[tuple[SyntaxNode, SyntaxNode]] = []

        def pair() -> SyntaxNode:
            key = self._key()
            self._expect("operator", ":")
            value = self._expression(0)
            pairs.append((key, value))
            return value

        self._list("}", pair)
        return self._grown(Map(start.position, tuple(pairs)))

    def _key(self) -> SyntaxNode:
        token = self._token
        if token.kind in ("number", "text", "name"):
            self._advance()
            return self._grown(Literal(token.position, token.value))
        if token.is_("bracket", "("):
            return self._expression(0)
        raise syntax_error(
            f"a key is a text, a number, a name or an expression in parentheses, not {token}",
            token.position,
        )

    # What follows a value

    def _postfix(self, node: SyntaxNode) -> SyntaxNode:
        while True:
            token = self._token
            if self._takes("operator", ".") or self._takes("operator", "?."):
                node = self._after_dot(node, optional=token.value == "?.")
            elif self._takes("bracket", "["):
                node = self._index(node, token, optional=False)
            else:
                return node

    def _after_dot(self, node: SyntaxNode, *, optional: bool) -> SyntaxNode:
        token = self._token
        if optional and self._takes("bracket", "["):
            return self._index(node, token, optional=True)
        if token.kind != "name" and not (token.kind == "operator" and token.value.isalpha()):
            raise syntax_error(f"expected a name, not {token}", token.position)
        self._advance()
        chained = optional
        if isinstance(node, Chain):
            node, chained = node.inner, True
        key = self._grown(Literal(token.position, token.value))
        node = self._grown(Member(token.position, node, key, optional))
        if self._sees("bracket", "("):
            node = self._grown(Call(token.position, node, self._arguments()))
        return self._grown(Chain(token.position, node)) if chained else node

    def _index(self, node: SyntaxNode, bracket: Lexeme, *, optional: bool) -> SyntaxNode:
        start = None if self._sees("operator", ":") else self._expression(0)
        if self._takes("operator", ":"):
            stop = None if self._sees("bracket", "]") else self._expression(0)
            self._expect("bracket", "]")
            return self._grown(Slice(bracket.position, node, start, stop))
        self._expect("bracket", "]")
        assert start is not None
        member = self._grown(Member(bracket.position, node, start, optional))
        return self._grown(Chain(bracket.position, member)) if optional else member


def _refuse_mixing(previous: str, operator: Lexeme) -> None:
    if previous == "??" and operator.value != "??":
        raise syntax_error(
            f"{operator.value!r} and '??' do not mix: put one of them in parentheses",
            operator.position,
        )
