"""Loads the configuration: defaults, file, environment, command line; later ones win."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shared.config.cross_checks import problems, role_problems, role_warnings
from shared.config.flat_settings import Setting, settings
from shared.config.problems import ConfigProblem, ConfigurationError
from shared.config.schema import Config
from shared.config.sources import (
    Given,
    Harvest,
    Override,
    find_file,
    read_environment,
    read_file,
    read_flags,
)
from shared.config.values import shown

DEFAULT = "default"


class Loaded(msgspec.Struct, frozen=True):
    """A valid configuration, ready to start with."""

    config: Config
    origins: dict[str, str]
    """Where each value came from, by path; keys of maps have their own (`worker.queues.video`)."""
    warnings: list[str]
    file: Path | None
    """The file that was read, if any."""


class _Layers(msgspec.Struct):
    """Values so far, and where they came from."""

    values: dict[str, Any]
    origins: dict[str, str]

    def apply(self, given: Given) -> None:
        path = given.setting.path
        if given.key is None:
            self.values[path] = given.value
            self.origins[path] = given.origin
            return
        if self.origins.pop(path, None) is not None:
            # What a user names takes the place of the default map, key by key from then on.
            self.values[path] = {}
        self.values[path][given.key] = given.value
        self.origins[f"{path}.{given.key}"] = given.origin


def load(
    argv_overrides: Sequence[Override] = (),
    environ: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    home: Path | None = None,
    *,
    file: str | None = None,
    role: str | None = None,
    cpus: int | None = None,
) -> Loaded:
    """Return the effective configuration.

    `file` is the one that the command line names, `role` the process to be started (`standalone`,
    `coordinator`, `worker`; None checks no role), `cpus` the slots of a worker that is told none.
    What is None is taken from the process. Raises `ConfigurationError` with every problem.
    """
    environ = os.environ if environ is None else environ
    home = _home(environ) if home is None else home
    path = find_file(file, environ, cwd or Path.cwd(), home)
    harvests = [read_file(path)] if path is not None else []
    harvests += [read_environment(environ), read_flags(argv_overrides)]
    layers = _defaults(environ, home, cpus or len(os.sched_getaffinity(0)))
    for harvest in harvests:
        for given in harvest.given:
            layers.apply(given)
    config = _build(layers.values)
    problems = [problem for harvest in harvests for problem in harvest.problems]
    problems += _misfits(config, layers, role, problems)
    if problems:
        raise ConfigurationError(problems)
    return Loaded(config, layers.origins, _warnings(harvests, config, layers, role), path)


def _home(environ: Mapping[str, str]) -> Path:
    named = environ.get("HOME")
    if named:
        return Path(named)
    try:
        return Path.home()
    except RuntimeError:
        # A user id without a name, as containers have: what has no home starts at the root.
        return Path("/")


def _defaults(environ: Mapping[str, str], home: Path, cpus: int) -> _Layers:
    values = {path: setting.default for path, setting in settings().items()}
    named = environ.get("XDG_DATA_HOME", "")
    data = (Path(named) if named.startswith("/") else home / ".local" / "share") / "haulier"
    values["datastore.sqlite.path"] = str(data / "haulier.db")
    values["worker.data"] = str(data / "worker")
    values["worker.queues"] = {"default": cpus}
    return _Layers(values, dict.fromkeys(values, DEFAULT))


def _build(values: Mapping[str, Any]) -> Config:
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *above, name = path.split(".")
        group = tree
        for step in above:
            group = group.setdefault(step, {})
        group[name] = _without_zeros(value) if isinstance(value, dict) else value
    return msgspec.convert(tree, Config)


def _without_zeros(slots: dict[str, int]) -> dict[str, int]:
    """Return the queues that have slots; where none has, all, so that the check can say so."""
    return {name: count for name, count in slots.items() if count} or slots


def _misfits(
    config: Config, layers: _Layers, role: str | None, found: Sequence[ConfigProblem]
) -> Iterator[ConfigProblem]:
    blamed = {problem.key for problem in found}
    if "" in blamed:  # a file that can't be read: what it sets isn't known
        return
    of_role = role_problems(config, role) if role else ()
    for path, problem in [*problems(config), *of_role]:
        if not any(path == key or key.startswith(path + ".") for key in blamed):
            yield _misfit(settings()[path], problem, layers)


def _misfit(setting: Setting, problem: str, layers: _Layers) -> ConfigProblem:
    if setting.is_map:
        keys = [key for key in layers.origins if key.startswith(setting.path + ".")]
        return ConfigProblem(
            setting.path, None, ", ".join(layers.origins[key] for key in keys), problem
        )
    value = shown(setting, layers.values[setting.path])
    return ConfigProblem(setting.path, value, layers.origins[setting.path], problem)


def _warnings(
    harvests: Sequence[Harvest], config: Config, layers: _Layers, role: str | None
) -> list[str]:
    of_sources = [warning for harvest in harvests for warning in harvest.warnings]
    of_role = role_warnings(config, role) if role else ()
    unused = [str(_misfit(settings()[path], why, layers)) for path, why in of_role]
    return of_sources + unused
