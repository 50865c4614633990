"""The problems of a configuration, each with its key, value and remedy."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec

from shared.config.flat_settings import Setting, groups, settings
from shared.config.values import masked
from shared.errors import ApplicationError
from shared.model.problems import suggestion

_SECRET_WORDS = ("key", "password", "secret", "token", "credential")
_LONGEST = 200


class ConfigProblem(msgspec.Struct, frozen=True):
    """One thing wrong. `value` is already safe to show, or None where there is none."""

    key: str
    value: str | None
    origin: str
    problem: str

    def __str__(self) -> str:
        key = self.key if self.value is None else f"{self.key} = {self.value}"
        return f"{key} ({self.origin}): {self.problem}" if key else f"{self.origin}: {self.problem}"


class ConfigurationError(ApplicationError):
    """An invalid configuration; `problems` lists everything that is wrong, at least one thing."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        lines = [f"configuration: {problem}" for problem in problems]
        super().__init__("\n".join(lines))
        self.problems = list(problems)


def bad_value(
    setting: Setting, key: str, value: object, origin: str, problem: str
) -> ConfigProblem:
    """Return the problem of a value that a setting can't have."""
    return ConfigProblem(key, show_given(setting, value), origin, problem)


def unknown_key(path: str, value: object, origin: str) -> ConfigProblem:
    """Return the problem of a key that is no setting, with the nearest one."""
    group, _, name = path.rpartition(".")
    secret = any(word in name.lower() for word in _SECRET_WORDS) or _holds_secrets(group)
    shown = None if secret or isinstance(value, dict) else show_given(None, value)
    return ConfigProblem(path, shown, origin, f"no such setting{near(path)}")


def _holds_secrets(group: str) -> bool:
    """Return whether a secret is among a group's own settings: a mistyped key may be meant for it."""
    return any(
        each.secret and each.path.rpartition(".")[0] == group for each in settings().values()
    )


def near(path: str) -> str:
    """Return what was meant by a path: a sibling, else any; where none is near, what there is."""
    group, _, name = path.rpartition(".")
    siblings = _children(group)
    if not suggestion(name, siblings):
        group, name = _nearest_group(path)
        siblings = _children(group)
    meant = _by_ending(path) or _meant(suggestion(name, siblings), group)
    if not group:
        meant = meant or _meant(suggestion(path, settings()), "")
    if meant:
        return f", did you mean {meant}?"
    return f"; {group or 'the top level'} holds {', '.join(siblings)}"


def _nearest_group(path: str) -> tuple[str, str]:
    """Return the longest group above `path` that there is, and the step below it."""
    steps = path.split(".")
    for depth in range(len(steps) - 1, 0, -1):
        group = ".".join(steps[:depth])
        if group in groups():
            return group, steps[depth]
    return "", steps[-1]


def _meant(hint: str, group: str) -> str:
    name = hint.split('"')[1] if hint else ""
    return f"{group}.{name}" if group and name else name


def show_given(setting: Setting | None, value: object) -> str:
    """Return a given value as it may be shown in a message: as text, masked, cut where long."""
    if setting is not None and setting.secret:
        return masked(setting, "secret")
    text = value if isinstance(value, str) else _as_toml(value)
    text = masked(setting, text)
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str) else text


def _as_toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return str(value)  # TOML's dates and times


def _children(group: str) -> list[str]:
    prefix = group + "." if group else ""
    known = [*settings(), *groups()]
    names = (path.removeprefix(prefix).split(".")[0] for path in known if path.startswith(prefix))
    return sorted(set(names))


def _by_ending(path: str) -> str:
    """Return the one setting that ends as `path` does, by two steps or by one."""
    steps = path.split(".")
    for ending in (".".join(steps[-2:]), steps[-1]):
        found = [known for known in settings() if f".{known}".endswith(f".{ending}")]
        if len(found) == 1:
            return found[0]
    return ""
