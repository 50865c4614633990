"""Shows the configuration in effect, for people and programs, with secrets masked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from shared.config.flat_settings import Setting, settings
from shared.config.load import Loaded
from shared.config.values import shown


class ShownSetting(msgspec.Struct, frozen=True):
    """One effective value, safe to show: as TOML would write it, and where it came from."""

    key: str
    value: str
    origin: str


def effective(loaded: Loaded) -> Iterator[ShownSetting]:
    """Yield every setting in the order of the tree; a map's keys one by one."""
    for path, setting in settings().items():
        value = _value(loaded.config, path)
        if setting.is_map:
            yield from _entries(setting, value, loaded.origins)
        else:
            yield ShownSetting(path, shown(setting, value), loaded.origins[path])


def as_toml(loaded: Loaded) -> str:
    """Return TOML that gives this configuration, masked values aside, with origins as comments."""
    lines = list(effective(loaded))
    width = max(len(line.key) + len(line.value) for line in lines if len(line.value) < 40) + 3
    return "\n".join(f"{f'{line.key} = {line.value}':<{width}}  # {line.origin}" for line in lines)


def settings_as_json(loaded: Loaded) -> dict[str, dict[str, Any]]:
    """Return `{key: {value, origin}}`, values as texts, numbers, booleans and lists."""
    return {
        line.key: {"value": _plain(line.value), "origin": line.origin} for line in effective(loaded)
    }


def _value(config: msgspec.Struct, path: str) -> Any:
    value: Any = config
    for step in path.split("."):
        value = getattr(value, step)
    return value


def _entries(
    setting: Setting, values: dict[str, int], origins: dict[str, str]
) -> Iterator[ShownSetting]:
    for key, value in values.items():
        plain = key.replace("_", "").replace("-", "").isalnum() and key.isascii()
        name = key if plain else json.dumps(key, ensure_ascii=False)
        origin = origins.get(f"{setting.path}.{key}") or origins[setting.path]
        yield ShownSetting(f"{setting.path}.{name}", shown(setting, value), origin)


def _plain(text: str) -> Any:
    return json.loads(text)
