"""Rules for single values: each returns what is wrong, or None.

They are rules for what a value finally is. A template is held to them only once it is evaluated.
"""

import posixpath
import re
from collections.abc import Callable, Collection, Sized
from typing import Any, Final

from shared.durations import format_duration, parse_duration
from shared.expressions import Budget, ExpressionError, check_field, check_template
from shared.model.cron import at_problem, cron_problem, timezone_problem
from shared.model.plans import Rule, TextRole
from shared.model.problems import quoted_text, suggestion
from shared.model.quantities import limit_of_cpus, limit_of_memory, parse_gpus
from shared.model.queues import queue_problem

_IDENTIFIER: Final = re.compile(r"[^\W\d]\w*")
_STEERING: Final = frozenset(
    {
        *("connection", "content-length", "expect", "host", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade"),
    }
)
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_TASK_PATHS: Final = "/tork"
_TASK_WORKDIR: Final = "/tork/workdir"
_TASK_FILES: Final = ("/tork/entrypoint", "/tork/progress", "/tork/stdout")
_LONGEST_FILE_NAME: Final = 255
LONGEST_FILE_PATH: Final = 4096


def between(low: int, high: int) -> Rule:
    """Return the rule for a number from `low` to `high`, both counted in."""

    def check(value: float) -> str | None:
        return None if low <= value <= high else f"must be from {low} to {high}"

    return Rule(check, {"minimum": low, "maximum": high})


MORE_MOUNT_TYPES: Final[set[str]] = set()
"""Types of mounts that extensions make; a coordinator fills it when it starts."""


def one_of_rule(*allowed: str, more: Collection[str] = ()) -> Rule:
    """Return the rule for one of the given words; the empty text passes as absent. `more` is looked at each time."""

    def check(value: str) -> str | None:
        if not value or value in allowed or value in more:
            return None
        choices = ", ".join(allowed[:-1]) + " or " + allowed[-1]
        return f"must be {choices}{suggestion(value, allowed)}"

    return Rule(check, {"enum": list(allowed)})


def at_most_characters(limit: int, *, evaluated: bool = False) -> Rule:
    """Return the rule for a text of at most `limit` characters; `evaluated`: a template may be longer itself."""

    def check(value: str) -> str | None:
        return _too_long(value, limit)

    return Rule(check, {} if evaluated else {"maxLength": limit})


def at_most_items(limit: int) -> Rule:
    """Return the rule for a list of at most `limit` items."""

    def check(value: Sized) -> str | None:
        return None if len(value) <= limit else f"at most {limit:,}, but there are {len(value):,}"

    return Rule(check, {"maxItems": limit})


def _too_long(value: str, limit: int) -> str | None:
    if len(value) <= limit:
        return None
    return f"must have at most {limit:,} characters, has {len(value):,}"


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
    """Return the rule for what `parse` reads."""

    def check(value: str) -> str | None:
        try:
            if value:
                parse(value)
        except ValueError as error:
            return str(error)
        return None

    return Rule(check, {"examples": examples})


CPUS: Final = _parsed_by(limit_of_cpus, [".5", "2"])
"""A number of CPUs as Docker takes it."""

MEMORY: Final = _parsed_by(limit_of_memory, ["512m", "1.5g"])
"""An amount of memory as Docker takes it."""

PIDS: Final = Rule(
    lambda value: (
        None
        if value == -1 or 1 <= value < 2**63
        else "must be a whole number, at least 1, or -1 for no limit"
    ),
    {"minimum": -1},
)
"""A number of processes as Docker takes it; it would take 0 for no limit."""


def container_path(path: str) -> str:
    """Return an absolute path in a container in the one way to write it."""
    return "/" + posixpath.normpath(path).lstrip("/")


def own_file_problem(path: str) -> str | None:
    """Return what is wrong with a path in a container at which the task's own files are, or None."""
    place = container_path(path) + "/"
    for own in _TASK_FILES:
        if place.startswith(own + "/"):
            return f"must not be {own}, which is a file of the task's own"
    return None


def _workdir_problem(value: str) -> str | None:
    if not value.startswith("/"):
        return "must be an absolute path"
    return _too_long(value, 256) or own_file_problem(value)


WORKDIR_PATH: Final = _where_given(_workdir_problem)
"""A folder in a container."""


def _gpus_problem(value: str) -> str | None:
    if not value.strip(", "):
        return "must not be blank"
    try:
        parse_gpus(value)
    except ValueError as error:
        return str(error)
    return None


GPUS: Final = _where_given(_gpus_problem)
"""GPUs as Docker's `--gpus` takes them."""

QUEUE: Final = _where_given(queue_problem)
"""A queue a task may ask for."""


def _target_problem(value: str) -> str | None:
    if not value.startswith("/"):
        return "must be an absolute path"
    path = container_path(value)
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
    if len(name) > LONGEST_FILE_PATH:
        return f"a file name can have at most {LONGEST_FILE_PATH:,} characters"
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


NETWORK_NAME: Final = Rule(
    lambda name: "the name of a network must not contain a colon" if ":" in name else None, {}
)
"""The name of a network of the engine."""


def header_problem(name: str) -> str | None:
    """Return what is wrong with the name of a header, None where a job may set it.

    What steers the connection, its routing or its framing is not a job's to say (RFC 9110, 7.6.1)."""
    if not _HEADER_NAME.fullmatch(name):
        return "not a valid HTTP header name"
    if name.lower() in _STEERING or name.lower().startswith("proxy-"):
        return "this header can not be set: it steers the connection"
    return None


HEADER_NAME: Final = Rule(header_problem, {})
"""The name of an HTTP header (RFC 9110, 5.6.2) that a job may set."""


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

AT: Final = _where_given(at_problem)
"""When a schedule fires once."""

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
