"""Reads settings from the file, the environment and the command line into one common form."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.config.flat_settings import Setting, groups, settings
from shared.config.problems import ConfigProblem, bad_value, unknown_key
from shared.config.values import check_slot_name, from_text, from_toml
from shared.errors import ApplicationError
from shared.model.problems import suggestion

FILE_NAME: Final = "haulier.toml"
PREFIX: Final = "HAULIER_"
LARGEST_FILE: Final = 1024 * 1024

NOT_SETTINGS: Final = frozenset(
    {
        "HAULIER_CONFIG",
        "HAULIER_SERVER",
        "HAULIER_KEY",
        "HAULIER_CA",
        "HAULIER_CERT",
        "HAULIER_CERT_KEY",
        "HAULIER_OUTPUT",
        "HAULIER_PROGRESS",
        "HAULIER_JOB_ID",
        "HAULIER_TASK_ID",
        "HAULIER_ATTEMPT",
    }
)
"""Variables of ours that are no settings: the command's own, and what a task sees."""


class Override(msgspec.Struct, frozen=True):
    """A value from the command line. `path` may name a key of a map: `worker.queues.video`."""

    flag: str
    path: str
    text: str


class Given(msgspec.Struct, frozen=True):
    """A value that a source gives: to a setting, or to one key of a map."""

    setting: Setting
    key: str | None
    value: Any
    origin: str


class Harvest(msgspec.Struct):
    """The values that a source gave, and its problems."""

    given: list[Given] = []
    problems: list[ConfigProblem] = []
    warnings: list[str] = []

    def take(self, setting: Setting, key: str | None, raw: Any, origin: str) -> None:
        """Read one raw value: a text, or one of TOML's where it comes from a file."""
        path = setting.path if key is None else f"{setting.path}.{key}"
        try:
            if key is not None:
                check_slot_name(key)
            value = (
                from_text(setting, raw.text)
                if isinstance(raw, RawText)
                else from_toml(setting, raw)
            )
        except ValueError as error:
            shown = raw.text if isinstance(raw, RawText) else raw
            self.problems.append(bad_value(setting, path, shown, origin, str(error)))
        else:
            self.given.append(Given(setting, key, value, origin))

    def take_file(self, setting: Setting, raw: Any, origin: str) -> None:
        """Read the value from the file that `raw` names, without the line end behind it."""
        path = f"{setting.path}_file"
        named = raw.text if isinstance(raw, RawText) else raw
        if not isinstance(named, str) or not named.strip():
            self.problems.append(ConfigProblem(path, None, origin, "must name a file"))
            return
        try:
            text = _value_in(Path(named.strip()))
        except ApplicationError as error:
            self.problems.append(ConfigProblem(path, named, origin, str(error)))
            return
        if setting.is_list:
            text = text.replace("\n", ",")
        self.take(setting, None, RawText(text), f"{origin}, file {named}")


FILE_SUFFIX: Final = "_file"
LARGEST_VALUE: Final = 64 * 1024


def _value_in(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_VALUE + 1)
        text = data.decode().rstrip("\r\n")
    except OSError as error:
        raise ApplicationError(
            f"can't be read: {(error.strerror or str(error)).lower()}"
        ) from error
    except UnicodeDecodeError as error:
        raise ApplicationError(f"not UTF-8 (at byte {error.start})") from error
    if len(data) > LARGEST_VALUE:
        raise ApplicationError("too large for a setting: more than 64 KiB")
    if not text.strip():
        raise ApplicationError("is empty")
    return text


def _named_by_file(path: str) -> Setting | None:
    """Return the setting whose file `path` names: `encryption.key_file` is `encryption.key`'s."""
    setting = settings().get(path.removesuffix(FILE_SUFFIX)) if path.endswith(FILE_SUFFIX) else None
    return setting if setting is not None and setting.may_be_file else None


def _check_given_once(harvest: Harvest, files: Sequence[Setting], origin: str) -> None:
    """Note a problem where a source gives a setting both itself and in a file."""
    plain = {given.setting.path for given in harvest.given if ", file " not in given.origin}
    for setting in files:
        if setting.path in plain:
            problem = f"can't be given together with {setting.path}{FILE_SUFFIX}"
            harvest.problems.append(ConfigProblem(setting.path, None, origin, problem))


class RawText(msgspec.Struct, frozen=True):
    """A raw value that is text: from a variable or a flag."""

    text: str


def find_file(chosen: str | None, environ: Mapping[str, str], cwd: Path, home: Path) -> Path | None:
    """Return the file to read: the chosen one, HAULIER_CONFIG, or the first of the usual places.

    A chosen one need not exist: reading it says so.
    """
    named = chosen or environ.get("HAULIER_CONFIG")
    if named:
        if named == "~" or named.startswith("~/"):
            return home / named[2:]
        return cwd / named
    places = (cwd, home / ".config" / "haulier", Path("/etc/haulier"))
    return next((place / FILE_NAME for place in places if _exists(place / FILE_NAME)), None)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        # A folder that may not be searched: what is in it can't be meant for us.
        return False


def read_file(path: Path) -> Harvest:
    """Read a TOML file. A file that can't be read or is no TOML is a problem."""
    harvest = Harvest()
    try:
        tree = _parse(path)
    except ApplicationError as error:
        harvest.problems.append(ConfigProblem("", None, str(path), str(error)))
        return harvest
    files: list[Setting] = []
    for setting, key, raw in _walk(tree, "", str(path), harvest):
        if key == FILE_SUFFIX and not setting.is_map:
            files.append(setting)
            harvest.take_file(setting, raw, str(path))
        else:
            harvest.take(setting, key, raw, str(path))
    _check_given_once(harvest, files, str(path))
    return harvest


def _parse(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise ApplicationError("too large for a configuration file: more than 1 MiB")
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ApplicationError(
            f"can't be read: {(error.strerror or str(error)).lower()}"
        ) from error
    except UnicodeDecodeError as error:
        raise ApplicationError(f"not UTF-8 (at byte {error.start})") from error
    except tomllib.TOMLDecodeError as error:
        raise ApplicationError(f"not valid TOML: {error}") from error
    except (RecursionError, ValueError) as error:
        raise ApplicationError(f"not valid TOML: {error}") from error


def _walk(
    tree: dict[str, Any], prefix: str, origin: str, harvest: Harvest
) -> Iterator[tuple[Setting, str | None, Any]]:
    for name, value in tree.items():
        path = prefix + name
        setting = settings().get(path) if "." not in name else None
        in_file = _named_by_file(path) if setting is None and "." not in name else None
        if setting is not None:
            yield from _leaves(setting, value, origin, harvest)
        elif in_file is not None:
            yield in_file, FILE_SUFFIX, value
        elif path not in groups() or "." in name:
            harvest.problems.append(unknown_key(path, value, origin))
        elif isinstance(value, dict):
            yield from _walk(value, path + ".", origin, harvest)
        else:
            harvest.problems.append(
                ConfigProblem(
                    path, None, origin, "is a group of settings, not a setting" + _hint_type(path)
                )
            )


def _hint_type(path: str) -> str:
    return f": did you mean {path}.type?" if f"{path}.type" in settings() else ""


def _leaves(
    setting: Setting, value: Any, origin: str, harvest: Harvest
) -> Iterator[tuple[Setting, str | None, Any]]:
    if not setting.is_map:
        yield setting, None, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield setting, key, item
    else:
        problem = f"must be a table, like [{setting.path}] with a line default = 4"
        harvest.problems.append(bad_value(setting, setting.path, value, origin, problem))


def read_environment(environ: Mapping[str, str]) -> Harvest:
    """Read the variables that begin with HAULIER_. One that is no setting only warns."""
    harvest = Harvest()
    known = {setting.variable: setting for setting in settings().values() if not setting.is_map}
    maps = [setting for setting in settings().values() if setting.is_map]
    in_files = {
        setting.variable + FILE_SUFFIX.upper(): setting
        for setting in known.values()
        if setting.may_be_file
    }
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        target = _target_of_variable(name, known, maps)
        if name in in_files:
            harvest.take_file(in_files[name], RawText(environ[name]), f"environment {name}")
        elif target is None:
            harvest.warnings.append(_unknown_variable(name, known, maps))
        else:
            setting, key = target
            harvest.take(setting, key, RawText(environ[name]), f"environment {name}")
    named = [setting for name, setting in in_files.items() if name in environ]
    _check_given_once(harvest, named, "environment")
    return harvest


def _target_of_variable(
    name: str, known: Mapping[str, Setting], maps: Sequence[Setting]
) -> tuple[Setting, str | None] | None:
    if name in known:
        return known[name], None
    for setting in maps:
        key = name.removeprefix(setting.variable + "_")
        if key and key != name:
            return setting, key.lower()
    return None


def _unknown_variable(name: str, known: Mapping[str, Setting], maps: Sequence[Setting]) -> str:
    for setting in maps:
        if name.rstrip("_") == setting.variable:
            return f"environment {name} is ignored: set {setting.variable}_<NAME>, one for each"
    hint = suggestion(name, known).replace('"', "")
    return f"environment {name} is not a setting and is ignored{hint}"


def read_flags(overrides: Sequence[Override]) -> Harvest:
    """Read what the command line gives. A key that is no setting is a problem."""
    harvest = Harvest()
    for override in overrides:
        origin = f"flag {override.flag}"
        target = _target_of_path(override.path)
        in_file = _named_by_file(override.path)
        if in_file is not None:
            harvest.take_file(in_file, RawText(override.text), origin)
        elif target is not None:
            harvest.take(*target, RawText(override.text), origin)
        elif override.path in settings():
            problem = f"needs one key at a time: {override.path}.NAME=VALUE"
            harvest.problems.append(ConfigProblem(override.path, None, origin, problem))
        elif override.path in groups():
            problem = "is a group of settings, not a setting" + _hint_type(override.path)
            harvest.problems.append(ConfigProblem(override.path, None, origin, problem))
        else:
            harvest.problems.append(unknown_key(override.path, override.text, origin))
    return harvest


def _target_of_path(path: str) -> tuple[Setting, str | None] | None:
    setting = settings().get(path)
    if setting is not None and not setting.is_map:
        return setting, None
    for candidate in settings().values():
        if candidate.is_map and path.startswith(candidate.path + ".") and path != candidate.path:
            return candidate, path.removeprefix(candidate.path + ".")
    return None
