"""What any text of a user's must be to pass through every part: encodable, and without NUL."""


def text_fault(text: str) -> str | None:
    """What keeps a text from being stored or handed to a process, or None."""
    if "\0" in text:
        return "must not hold the character NUL"
    if not text.isascii() and not _is_encodable(text):
        return "holds half of a surrogate pair, which is no character"
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_template(text: str) -> bool:
    """Whether a template may hold an expression, so that its value is known only once evaluated."""
    return "{{" in text
