"""Whether templates and expressions are well formed, asked when a job is submitted."""

from shared.model.fields import Role


def syntax_fault(role: Role, text: str) -> str | None:
    """What is wrong with a template's or an expression's syntax, or None."""
    return None
