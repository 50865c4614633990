"""Rules for single values: each returns what is wrong, or None.

They are rules for what a value finally is. A template is held to them only once it is evaluated.
"""

import posixpath
import re
from collections.abc import Callable
from typing import Any, Final

from shared.durations import format_duration, parse_duration
from shared.expressions import Budget, ExpressionError, check_field, check_template
from shared.model.cron import cron_problem, timezone_problem
from shared.model.plans import Rule, TextRole
from shared.model.problems import quoted_text, suggestion
from shared.model.quantities import parse_cpus, parse_memory
from shared.model.queues import queue_problem

_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TASK_PATHS: Final = "/tork"
_TASK_WORKDIR: Final = "/tork/workdir"
_LONGEST_FILE_NAME: Final = 255
_GPU_KEYS: Final = frozenset({"count", "driver", "device", "capabilities", "options"})


def between(low: int, high: int) -> Rule:
    """Return the rule for a number from `low` to `high`, both counted in."""

    def check(value: float) -> str | None:
        return None if low <= value <= high else f"must be from {low} to {high}"

    return Rule(check, {"minimum": low, "maximum": high})


def at_least_rule(low: int) -> Rule:
    """Return the rule for a whole number from `low` up, that fits 63 bits."""

    def check(value: int) -> str | None:
        return None if low <= value < 2**63 else f"must be a whole number, at least {low}"

    return Rule(check, {"minimum": low})


def one_of_rule(*allowed: str) -> Rule:
    """Return the rule for one of the given words; the empty text passes as absent."""

    def check(value: str) -> str | None:
        if not value or value in allowed:
            return None
        choices = ", ".join(allowed[:-1]) + " or " + allowed[-1]
        return f"must be {choices}{suggestion(value, allowed)}"

    return Rule(check, {"enum": list(allowed)})


def at_most_characters(limit: int) -> Rule:
    """Return the rule for a text of at most `limit` characters."""

    def check(value: str) -> str | None:
        if len(value) <= limit:
            return None
        return f"must have at most {limit} characters, has {len(value)}"

    return Rule(check, {})


def _where_given(problem: Callable[[str], str | None]) -> Rule:
    """Return a rule for texts that are absent when they are empty."""
    return Rule(lambda value: problem(value) if value else None, {})


def duration(*, zero: bool = False, most: int | None = None) -> Rule:
    """Return the rule for a Go duration, never negative, above zero unless `zero`, at most `most` nanoseconds."""

    def check(value: str) -> str | None:
        if not value:
            return None
        try:
            length = parse_duration(value)
        except ValueError as error:
            return str(error)
        if length < 0 or (length == 0 and not zero):
            return "must not be negative" if zero else "must be more than 0s"
        if most is not None and length > most:
            return f"must be at most {format_duration(most)}"
        return None

    return Rule(check, {"examples": ["90s", "1h30m"]})


def _parsed_by(parse: Callable[[str], int], examples: list[str]) -> Rule:
    def check(value: str) -> str | None:
        try:
            if value:
                parse(value)
        except ValueError as error:
            return str(error)
        return None

    return Rule(check, {"examples": examples})


CPUS: Final = _parsed_by(parse_cpus, [".5", "2"])
"""A number of CPUs as Docker takes it."""

MEMORY: Final = _parsed_by(parse_memory, ["512m", "1.5g"])
"""An amount of memory as Docker takes it."""


def _gpus_problem(value: str) -> str | None:
    if value == "all" or value.isdecimal():
        return None
    for part in re.findall(r'(?:[^,"]|"[^"]*")+', value):
        key, equals, _ = part.strip('"').partition("=")
        if key != "all" and not key.isdecimal() and not (equals and key in _GPU_KEYS):
            return 'must be as in Docker\'s --gpus: "all", "2" or "device=0"'
    return None if value.strip(", ") else "must not be blank"


GPUS: Final = _where_given(_gpus_problem)
"""GPUs as Docker's `--gpus` takes them."""

QUEUE: Final = _where_given(queue_problem)
"""A queue a task may ask for."""


def _target_problem(value: str) -> str | None:
    if not value.startswith("/"):
        return "must be an absolute path"
    path = "/" + posixpath.normpath(value).lstrip("/")
    if path == "/":
        return "must not be the root of the container"
    inside = path == _TASK_PATHS or path.startswith(_TASK_PATHS + "/")
    if inside and path != _TASK_WORKDIR and not path.startswith(_TASK_WORKDIR + "/"):
        return "must not be /tork, where the task's own files are"
    return None


MOUNT_TARGET: Final = _where_given(_target_problem)
"""A place in the container that a mount may take."""

PROBE_PATH: Final = _where_given(
    lambda value: None if value.startswith("/") else "must begin with /"
)
"""The path part of a URL."""


def _file_name_problem(name: str) -> str | None:
    if name.startswith("/"):
        return "the name of a file must not be absolute"
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        return 'a file\'s name must not hold ".."'
    if not parts or name.endswith(("/", "/.")):
        return "must be the name of a file, not of a folder"
    if any(len(part.encode()) > _LONGEST_FILE_NAME for part in parts):
        return f"each part of a file name can have at most {_LONGEST_FILE_NAME} bytes"
    return None


FILE_NAME_RULE: Final = Rule(_file_name_problem, {})
"""A name under the working directory."""


def _environment_name_problem(name: str) -> str | None:
    return (
        "the name of a variable must not be empty or contain =" if not name or "=" in name else None
    )


ENVIRONMENT_NAME: Final = Rule(_environment_name_problem, {})
"""The name of an environment variable."""

KEY: Final = Rule(lambda name: None if name else "the name must not be empty", {})
"""A key of a map: any text but the empty one."""

NOT_BLANK: Final = Rule(lambda text: None if text.strip() else "must not be blank", {})
"""A text that says something, where it is given at all."""

HEADER_NAME: Final = Rule(
    lambda name: None if _HEADER_NAME.fullmatch(name) else "not a valid HTTP header name", {}
)
"""The name of an HTTP header (RFC 9110, 5.6.2)."""


def _header_value_problem(value: str) -> str | None:
    return "an HTTP header must not contain line breaks" if "\n" in value or "\r" in value else None


HEADER_VALUE: Final = Rule(_header_value_problem, {})
"""The value of an HTTP header."""


def _url_problem(value: str) -> str | None:
    scheme, colon, rest = value.partition("://")
    if not colon or scheme.lower() not in ("http", "https"):
        return "must be an http:// or https:// URL"
    if not re.match(r"[^/?#\s]", rest) or re.search(r"[\s\x00-\x1f]", rest):
        return "is not a complete URL"
    return None


URL: Final = _where_given(_url_problem)
"""The address of a web server."""

IDENTIFIER: Final = _where_given(
    lambda value: (
        None
        if _IDENTIFIER.fullmatch(value)
        else "must be a name: letters, digits and _, not starting with a digit"
    )
)
"""A name that expressions can use as a variable."""

CRON: Final = _where_given(cron_problem)
"""When a schedule fires."""

TIMEZONE: Final = _where_given(timezone_problem)
"""An IANA time zone."""


def problems_of(value: Any, rules: tuple[Rule, ...]) -> list[str]:
    """Return what each rule finds wrong with a value."""
    return [message for rule in rules if (message := rule.check(value)) is not None]


def text_problem(text: str) -> str | None:
    """Return what keeps a text from being stored or handed to a process, or None."""
    if "\0" in text:
        return "must not contain a NUL character"
    if not text.isascii() and not _is_encodable(text):
        return "contains half of a surrogate pair, which is not a valid character"
    return None


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def has_template(text: str) -> bool:
    """Return whether a template may hold an expression, so that its value is known only once evaluated."""
    return "{{" in text


def syntax_problem(role: TextRole, text: str, budget: Budget | None = None) -> str | None:
    """Return what is wrong with a template's or an expression's syntax, or None.

    Only what cannot work whatever its values will be: syntax, unknown functions, wrong arguments. All texts
    of one document share a `budget`.
    """
    try:
        if role is TextRole.EXPRESSION:
            check_field(text, budget)
        elif role is TextRole.TEMPLATE and has_template(text):
            check_template(text, budget)
    except ExpressionError as error:
        expression = error.source.strip()
        return (
            f"bad expression {quoted_text(expression)}: {error.message}"
            if expression
            else str(error)
        )
    return None
