"""Reads a configuration of Tork's, and gives the settings that mean the same here."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from shared.config.flat_settings import settings
from shared.config.values import from_text, from_toml, written
from shared.errors import ApplicationError

Converted = dict[str, Any]
_Rule = str | Callable[[Any], Converted]


class Translation(msgspec.Struct, frozen=True):
    """What a configuration of Tork's comes to: our settings with their values, and a warning for each key that has no
    counterpart."""

    values: Converted
    warnings: list[str]


def _datastore(value: Any) -> Converted:
    return {"datastore.type": "mongodb"} if value == "postgres" else {"datastore.type": "sqlite"}


def _bodylimit(value: Any) -> Converted:
    return {"coordinator.middleware.body_limit": str(value).upper().removesuffix("B")}


def _redact(value: Any) -> Converted:
    return {"redaction.keys": ()} if value is False else {}


_MIDDLEWARE: Final = "coordinator.middleware"
_RULES: Final[Mapping[str, _Rule]] = {
    "logging.level": lambda value: {"logging.level": str(value).lower()},
    "logging.format": "logging.format",
    "broker.type": lambda value: {"broker.type": "memory" if value == "inmemory" else value},
    "broker.rabbitmq.url": "broker.rabbitmq.url",
    "broker.rabbitmq.management.url": "broker.rabbitmq.management_url",
    "broker.rabbitmq.queue.type": "broker.rabbitmq.queue_type",
    "datastore.type": _datastore,
    "datastore.retention.logs.duration": "datastore.retention.logs",
    "datastore.retention.jobs.duration": "datastore.retention.jobs",
    "datastore.encryption.key": "encryption.key",
    "coordinator.address": "coordinator.address",
    "coordinator.name": "coordinator.name",
    **{
        f"coordinator.api.endpoints.{name}": f"coordinator.api.{name}"
        for name in ("jobs", "tasks", "nodes", "queues", "metrics", "users")
    },
    **{
        f"coordinator.queues.{name}": f"coordinator.queues.{name}"
        for name in ("completed", "error", "jobs", "logs", "progress")
    },
    "middleware.web.cors.enabled": f"{_MIDDLEWARE}.cors.enabled",
    "middleware.web.cors.origins": f"{_MIDDLEWARE}.cors.origins",
    "middleware.web.cors.methods": f"{_MIDDLEWARE}.cors.methods",
    "middleware.web.cors.headers": f"{_MIDDLEWARE}.cors.headers",
    "middleware.web.cors.credentials": f"{_MIDDLEWARE}.cors.credentials",
    "middleware.web.basicauth.enabled": f"{_MIDDLEWARE}.basic_auth.enabled",
    "middleware.web.keyauth.enabled": f"{_MIDDLEWARE}.key_auth.enabled",
    "middleware.web.keyauth.key": f"{_MIDDLEWARE}.key_auth.key",
    "middleware.web.ratelimit.enabled": f"{_MIDDLEWARE}.rate_limit.enabled",
    "middleware.web.ratelimit.rps": f"{_MIDDLEWARE}.rate_limit.rate",
    "middleware.web.bodylimit": _bodylimit,
    "middleware.web.logger.enabled": f"{_MIDDLEWARE}.request_log.enabled",
    "middleware.web.logger.skip": f"{_MIDDLEWARE}.request_log.skip",
    "middleware.job.redact.enabled": _redact,
    "middleware.task.hostenv.vars": "worker.hostenv",
    "worker.address": "worker.address",
    "worker.name": "worker.name",
    "worker.limits.cpus": "worker.limits.cpus",
    "worker.limits.memory": "worker.limits.memory",
    "worker.limits.timeout": "worker.limits.timeout",
    "mounts.bind.allowed": "mounts.bind.allowed",
    "mounts.bind.sources": "mounts.bind.sources",
    "runtime.type": "runtime.type",
    "runtime.shell.cmd": "runtime.shell.cmd",
    "runtime.shell.uid": "runtime.shell.uid",
    "runtime.shell.gid": "runtime.shell.gid",
    "runtime.docker.config": "runtime.docker.config",
    "runtime.docker.privileged": "runtime.docker.privileged",
    "runtime.docker.image.ttl": "runtime.docker.image_ttl",
    "runtime.podman.privileged": "runtime.docker.privileged",
}
"""Tork's key → ours, or what gives our settings for its value."""

_WHY: Final[Mapping[str, str]] = {
    "datastore.postgres.dsn": "Haulier keeps its data in MongoDB: set datastore.mongodb.url",
    "broker.rabbitmq.consumer.timeout": "it is a setting of RabbitMQ itself, consumer_timeout in rabbitmq.conf",
    "broker.rabbitmq.durable.queues": "all queues are durable",
    "cli.banner.mode": "there is no banner",
    "client.endpoint": "the haulier command takes --server or HAULIER_SERVER",
    "coordinator.api.endpoints.health": "GET /health is always served",
    "middleware.web.logger.level": "requests are logged at the level info",
    "runtime.docker.sandbox": "containers get no new privileges (runtime.docker.no_new_privileges)",
}
"""Why a key has no counterpart, where there is more to say."""

_QUEUES: Final = "worker.queues."
_PRIVILEGED: Final = ("runtime.docker.privileged", "runtime.podman.privileged")
"""Both come to one setting: the one of the engine in use counts."""


def translate_settings(file: Path, environ: Mapping[str, str]) -> Translation:
    """Return what `file` and the `TORK_` variables of `environ`, which win, come to here.

    Raises `ApplicationError` where the file can't be read."""
    try:
        given = dict(_leaves(tomllib.loads(file.read_text()), ""))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ApplicationError(f"{file}: {_said(error)}") from None
    values: Converted = {}
    warnings: list[str] = []
    given |= dict(_of_variables(environ))
    engine = given.get("runtime.type") or "docker"
    for key, value in given.items():
        if value == "":
            continue  # as if it were not there, which is what it means to Tork
        if key in _PRIVILEGED and key != f"runtime.{engine}.privileged":
            warnings.append(f"{key} was left out: runtime.type is {engine}")
            continue
        try:
            found = _ours(key, value)
        except ValueError as error:
            warnings.append(f"{key} = {value!r} was left out: {error}")
            continue
        if found is None:
            why = _WHY.get(key)
            warnings.append(f"{key} has no counterpart" + (f": {why}" if why else ""))
        else:
            values |= found
    return Translation(values, warnings)


def _said(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def settings_file(values: Converted) -> str:
    """Return settings as a configuration file."""
    return "".join(
        f"{_key(path)} = {written(setting, value)}\n"
        for path, setting in settings().items()
        for path, value in _of(path, setting.is_map, values)
    )


def _of(path: str, is_map: bool, values: Converted) -> Iterator[tuple[str, Any]]:
    if not is_map:
        return iter([(path, values[path])] if path in values else [])
    return ((name, value) for name, value in values.items() if name.startswith(f"{path}."))


def _key(path: str) -> str:
    if not path.startswith(_QUEUES):
        return path
    return f'{_QUEUES}"{path.removeprefix(_QUEUES)}"'


def _ours(key: str, value: Any) -> Converted | None:
    if key.startswith(_QUEUES):
        return {key: from_toml(settings()["worker.queues"], _slots(value))}
    rule = _RULES.get(key)
    if rule is None:
        return None
    found = {rule: value} if isinstance(rule, str) else rule(value)
    return {path: _read(path, given) for path, given in found.items()}


def _slots(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise ValueError("must be a whole number of slots") from None


def _read(path: str, value: Any) -> Any:
    setting = settings()[path]
    if isinstance(value, str):
        return from_text(setting, value)
    return from_toml(setting, list(value) if isinstance(value, tuple) else value)


def _leaves(table: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _of_variables(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    known = {"TORK_" + key.upper().replace(".", "_"): key for key in (*_RULES, *_WHY)}
    queue = "TORK_" + _QUEUES.upper().replace(".", "_")
    for name in sorted(environ):
        if name.startswith(queue):
            yield _QUEUES + name.removeprefix(queue).lower(), environ[name]
        elif name in known:
            yield known[name], environ[name]
        elif name.startswith("TORK_") and name not in (
            "TORK_CONFIG",
            "TORK_OUTPUT",
            "TORK_PROGRESS",
        ):
            yield name, environ[name]
