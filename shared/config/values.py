"""How single values are written, read and shown: as text (variables, flags) and in TOML files."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final
from urllib.parse import urlsplit

from shared.config.flat_settings import Setting
from shared.durations import NANOS_PER_SECOND, duration_seconds, format_duration
from shared.model.problems import suggestion
from shared.model.quantities import limit_of_cpus, limit_of_memory, parse_memory
from shared.model.queues import queue_problem

MASK: Final = "********"
MOST_SLOTS: Final = 10_000

_TRUE: Final = frozenset({"true", "1", "yes", "on"})
_FALSE: Final = frozenset({"false", "0", "no", "off"})
_INT: Final = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[+-]?([0-9]{1,18}(\.[0-9]{0,18})?|\.[0-9]{1,18})")
_VARIABLE: Final = re.compile(r"[^=:\x00]+(:[^=:\x00]+)?")
_DATABASE: Final = re.compile(r"[^/\\. \"$*<>:|?\x00]{1,63}")
# Up to the last @: a password that should have been escaped must not show either.
_PASSWORD: Final = re.compile(r"://([^/?#@:]*):.*@", re.DOTALL)
_QUERY: Final = re.compile(
    r"([?&;][^=&;#\s]*(?:key|pass|secret|token|credential|signature|authmechanismproperties)[^=&;#\s]*=)[^&;#\s]+",
    re.IGNORECASE,
)
"""A value in the query of an address whose name says that it is secret."""
_SCHEMES: Final = {
    "amqp-url": ("amqp", "amqps"),
    "mongodb-url": ("mongodb", "mongodb+srv"),
    "http-url": ("http", "https"),
}


def from_text(setting: Setting, text: str) -> Any:
    """Return the value that a variable or flag gives; ValueError says what is allowed.

    For a map this is the value of one key.
    """
    if setting.optional and not text.strip():
        return None
    if setting.is_list:
        parts = [part.strip() for part in text.split(",")]
        return _checked(setting, tuple(part for part in parts if part))
    return _checked(setting, _FROM_TEXT.get(setting.kind, str)(text.strip()))


def from_toml(setting: Setting, value: Any) -> Any:
    """Return the value that a file gives; ValueError says what is allowed."""
    if setting.is_list:
        return _checked(setting, _texts(value))
    if setting.kind == "cpus" and isinstance(value, int | float) and not isinstance(value, bool):
        value = format(Decimal(str(value)), "f")
    if setting.kind in ("bool", "int", "float", "slots", "size"):
        return _checked(setting, _typed(setting, value))
    return from_text(setting, _text(setting, value))


def shown(setting: Setting, value: Any) -> str:
    """Return a value as a TOML file would give it, with what is secret masked."""
    return _as_toml(setting, value, lambda text: _quoted(setting, text))


def written(setting: Setting, value: Any) -> str:
    """Return a value as a TOML file gives it, secrets too."""
    return _as_toml(setting, value, lambda text: json.dumps(text, ensure_ascii=False))


def _as_toml(setting: Setting, value: Any, quoted: Callable[[str], str]) -> str:
    if value is None:
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if setting.kind == "duration":
        return json.dumps(duration_text(value))
    if setting.kind == "size":
        return json.dumps(size_text(value))
    if isinstance(value, int | float):
        return format(value, "g") if isinstance(value, float) else str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(quoted, value)) + "]"
    return quoted(value)


def masked(setting: Setting | None, text: str) -> str:
    """Return a text as it may be shown: secrets hidden, and passwords in addresses."""
    if setting is not None and setting.secret and text:
        return MASK
    return _QUERY.sub(rf"\1{MASK}", _PASSWORD.sub(rf"://\1:{MASK}@", text))


def allowed(setting: Setting) -> str:
    """Return what a setting may be, in a few words, for the reference."""
    if setting.choices:
        return " or ".join(f"`{choice}`" for choice in setting.choices)
    words = {"slots": "map of whole numbers", "list": "list", "aliases": "list", "paths": "list"}
    words |= {"networks": "list"}
    words |= {"bool": "`true` or `false`", "int": "whole number", "float": "number"}
    words |= {"address": "`host:port`", "cpus": "number of CPUs", "memory": "size"}
    return words.get(setting.kind, setting.kind.replace("-url", " URL").replace("-name", " name"))


def duration_text(seconds: float) -> str:
    """Return seconds as people write them: `90s` is `1m30s`, and a whole hour `1h`."""
    text = format_duration(round(seconds * NANOS_PER_SECOND))
    text = text.removesuffix("0s") if text.endswith("m0s") else text
    return text.removesuffix("0m") if text.endswith("h0m") else text


def size_text(size: int) -> str:
    """Return bytes as people write them: `500K`, `1M`, `1000`."""
    for unit, power in (("G", 3), ("M", 2), ("K", 1)):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power}{unit}"
    return str(size)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `localhost:8000`, `:8000` (every interface) or `[::1]:8000`.

    Port 0 is any free one. Raises ValueError for anything else.
    """
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError("must be host:port, like localhost:8000, or :8000 for all interfaces")
    if not bracketed and (":" in host or not re.fullmatch(r"[^\s/\[\]@]*", host)):
        raise ValueError("must be host:port, with an IPv6 address in brackets, like [::1]:8000")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104  (what ":8000" asks for)


def _checked(setting: Setting, value: Any) -> Any:
    _check_range(setting, value)
    if setting.choices and value not in setting.choices:
        choices = " or ".join(setting.choices)
        raise ValueError(f"must be {choices}{suggestion(value, setting.choices)}")
    if value == "" and setting.default:
        raise ValueError("must not be empty")
    check = _CHECKS.get(setting.kind)
    if check is not None and value:
        check(value)
    return value


def _check_range(setting: Setting, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return
    if math.isnan(value):
        raise ValueError("must be a number")
    if setting.least is not None and value < setting.least:
        raise ValueError(f"must be at least {_bound(setting, setting.least)}")
    if setting.above is not None and value <= setting.above:
        raise ValueError(f"must be more than {_bound(setting, setting.above)}")
    if setting.most is not None and value > setting.most:
        raise ValueError(f"must be at most {_bound(setting, setting.most)}")


def _bound(setting: Setting, value: float) -> str:
    if setting.kind in ("duration", "size"):
        value = int(value) if setting.kind == "size" else value
        return shown(setting, value).strip('"')
    return format(value, ",.15g")


def _boolean(text: str) -> bool:
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueError("must be true or false")


def _whole(text: str) -> int:
    if not _INT.fullmatch(text):
        raise ValueError("must be a whole number")
    return int(text)


def _number(text: str) -> float:
    if not _FLOAT.fullmatch(text):
        raise ValueError("must be a number")
    return float(text)


def _seconds(text: str) -> float:
    seconds = duration_seconds(text)
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


def _size(text: str) -> int:
    try:
        return parse_memory(text)
    except ValueError:
        raise ValueError("must be a size, like 500K or 16M") from None


def _slots(text: str) -> int:
    count = _whole(text)
    if not 0 <= count <= MOST_SLOTS:
        raise ValueError(f"must be a number of slots, 0 to {MOST_SLOTS:,}")
    return count


_FROM_TEXT: Final[dict[str, Callable[[str], Any]]] = {
    "bool": _boolean,
    "int": _whole,
    "float": _number,
    "duration": _seconds,
    "size": _size,
    "slots": _slots,
}


_TOML_TYPES: Final[dict[str, tuple[type, ...]]] = {"bool": (bool,), "float": (int, float)}


def _typed(setting: Setting, value: Any) -> Any:
    """Return a value of TOML's own types; a size may be text too, an optional number empty."""
    if isinstance(value, str) and (setting.kind == "size" or (setting.optional and not value)):
        return from_text(setting, value)
    if type(value) not in _TOML_TYPES.get(setting.kind, (int,)):
        raise ValueError(_wanted(setting))
    if setting.kind == "slots":
        return _slots(str(value))
    return float(value) if setting.kind == "float" else value


def _text(setting: Setting, value: Any) -> str:
    if isinstance(value, str):
        return value
    raise ValueError(_wanted(setting))


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError('must be a list of texts, like ["a", "b"]')
    if not all(item.strip() for item in value):
        raise ValueError("must not contain empty strings")
    return tuple(item.strip() for item in value)


def _wanted(setting: Setting) -> str:
    words = {"bool": "true or false", "int": "a whole number", "float": "a number"}
    words |= {"slots": "a whole number", "size": 'a size, like "500K"'}
    words |= {"duration": 'a duration in quotes, like "90s", "1h30m" or "250ms"'}
    return "must be " + words.get(setting.kind, "a string in quotes")


def _check_url(kind: str) -> Callable[[str], None]:
    schemes = _SCHEMES[kind]

    def check(value: str) -> None:
        names = " or ".join(f"{scheme}://…" for scheme in schemes)
        try:
            parts = urlsplit(value)
            complete = parts.scheme in schemes and bool(parts.netloc)
            # MongoDB's may name several hosts, which is no single port.
            complete = complete and (kind == "mongodb-url" or parts.port != 0)
        except ValueError:
            complete = False
        if _unescaped(value):
            raise ValueError(
                "the user, the password and any other @ must be percent-encoded: @ is %40, / is %2F, : is %3A, % is %25"
            )
        if not complete or re.search(r"\s", value):
            raise ValueError(f"must be a complete URL, {names}")

    return check


_OPTION: Final = re.compile(r"[A-Za-z_][\w.-]*=[^&#]*")


def _unescaped(url: str) -> bool:
    """Return whether the user or password in a URL has characters that end it, or may have: in `user:1/2@host`, what
    stands before the slash reads like a host with its port. After `/?` it is one where nothing but options follow."""
    rest = url.partition("://")[2]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    path, _, query = rest.removeprefix(authority).partition("?")
    if "@" in authority:
        return authority.count("@") > 1 or "@" in path
    hosts = re.sub(r"\[[^]]*\](:[0-9]+)?", "", authority)
    if path and "@" not in path and all(map(_OPTION.fullmatch, query.split("&"))):
        hosts = re.sub(r":[0-9]+(?=,|$)", "", hosts)
    return "@" in path + query and ":" in hosts


def _check_aliases(values: tuple[str, ...]) -> None:
    for value in values:
        if not _VARIABLE.fullmatch(value):
            raise ValueError(f"{json.dumps(value)} must be NAME, or NAME:ALIAS")


def _check_paths(values: tuple[str, ...]) -> None:
    for value in values:
        if not value.startswith("/"):
            raise ValueError(f"{json.dumps(value)} must be an absolute path")


def _check_networks(values: tuple[str, ...]) -> None:
    for value in values:
        try:
            ipaddress.ip_network(value, strict=False)
        except ValueError:
            problem = "must be an IP address or a network, like 10.0.0.0/8"
            raise ValueError(f"{json.dumps(value)} {problem}") from None


def _check_database(value: str) -> None:
    if not _DATABASE.fullmatch(value):
        raise ValueError(
            'must be a valid MongoDB name: at most 63 characters, none of /\\. "$*<>:|?'
        )


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "address": parse_address,
    "cpus": limit_of_cpus,
    "memory": limit_of_memory,
    "aliases": _check_aliases,
    "paths": _check_paths,
    "networks": _check_networks,
    "mongodb-name": _check_database,
    **{kind: _check_url(kind) for kind in _SCHEMES},
}


def check_slot_name(name: str) -> None:
    """Raise ValueError where a key of `worker.queues` is no name of a task queue."""
    problem = queue_problem(name)
    if problem is not None:
        raise ValueError(problem)


def _quoted(setting: Setting, text: str) -> str:
    return json.dumps(masked(setting, text), ensure_ascii=False)
