"""Whether templates and expressions are well formed, asked when a job is submitted."""

from shared.expressions import ExpressionError, check, check_field
from shared.model.fields import Role
from shared.model.problems import quoted
from shared.model.texts import has_template


def syntax_fault(role: Role, text: str) -> str | None:
    """What is wrong with a template's or an expression's syntax, or None.

    Only what cannot work whatever its values will be: syntax, unknown functions, wrong arguments.
    """
    try:
        if role is Role.EXPRESSION:
            check_field(text)
        elif role is Role.TEMPLATE and has_template(text):
            check(text)
    except ExpressionError as error:
        expression = error.source.strip()
        return f"bad expression {quoted(expression)}: {error.message}" if expression else str(error)
    return None
