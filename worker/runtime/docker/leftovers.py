"""Lists what Haulier has created in a Docker engine, and for which node. Changes nothing."""

from __future__ import annotations

from shared.config import Config
from worker.runtime.docker import labels
from worker.runtime.docker.engine import Engine

_OURS = {"label": [labels.NODE]}

_Thing = tuple[str, str]
"""A container, volume or network by its name, and the node that it was made for."""


async def labelled_things(config: Config) -> list[_Thing]:
    """Return all that is in the configured engine. Raises `RuntimeUnavailable`."""
    engine = Engine(config.runtime.docker.host, config.runtime.docker.config)
    try:
        await engine.connect()
        return await engine.watch(_list, engine)
    finally:
        await engine.close()


def _list(engine: Engine) -> list[_Thing]:
    api = engine.api
    found: list[tuple[str, dict[str, str] | None]] = [
        ((container["Names"] or [""])[0].lstrip("/"), container["Labels"])
        for container in api.containers(all=True, filters=_OURS)
    ]
    found += [
        (volume["Name"], volume["Labels"]) for volume in api.volumes(filters=_OURS)["Volumes"] or []
    ]
    found += [(network["Name"], network["Labels"]) for network in api.networks(filters=_OURS)]
    return [
        (name, marks[labels.NODE])
        for name, marks in found
        if name.startswith(labels.NAME_PREFIX) and marks
    ]
