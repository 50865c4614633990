"""Removes what dead nodes left: containers, volumes, networks and folders, found by their labels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any

from docker.errors import APIError

from worker.runtime.docker import labels
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.resources import DockerContext

_FILTER = {"label": [labels.NODE]}


async def sweep(
    services: DockerContext,
    dead: Callable[[Collection[str]], Awaitable[Collection[str]]],
    mine: str,
) -> int:
    """Remove all that dead nodes left. Returns how many things were removed."""
    things = await _things(services.engine)
    owners = {owner for _, owner, _ in things} | await asyncio.to_thread(services.folders.owners)
    owners -= {mine, services.node_id}
    if not owners:
        return 0
    gone = set(await dead(owners)) & owners
    removed = 0
    for _, owner, remove in things:  # containers first: they use the others
        if owner in gone:
            removed += await _remove(services.engine, remove)
    for owner in gone:
        removed += await asyncio.to_thread(services.folders.remove_all, owner)
        if services.cgroups is not None:
            await asyncio.to_thread(services.cgroups.beside(owner).remove_all)
    return removed


_Thing = tuple[str, str, Callable[[], Any]]
"""Its name, whose it is, how it is removed."""


async def _things(engine: Engine) -> list[_Thing]:
    return await engine.watch(_list, engine)


def _list(engine: Engine) -> list[_Thing]:
    api = engine.api
    found: list[_Thing] = []

    def add(name: str, marks: dict[str, str] | None, remove: Callable[[], Any]) -> None:
        if name.startswith(labels.NAME_PREFIX) and marks and labels.NODE in marks:
            found.append((name, marks[labels.NODE], remove))

    for container in api.containers(all=True, filters=_FILTER):
        name, identity = (container["Names"] or [""])[0].lstrip("/"), container["Id"]
        add(name, container["Labels"], _removal(api.remove_container, identity, v=True, force=True))
    for volume in api.volumes(filters=_FILTER)["Volumes"] or []:
        add(volume["Name"], volume["Labels"], _removal(api.remove_volume, volume["Name"]))
    for network in api.networks(filters=_FILTER):
        add(network["Name"], network["Labels"], _removal(api.remove_network, network["Id"]))
    return found


def _removal(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Callable[[], Any]:
    return lambda: function(*args, **kwargs)


async def _remove(engine: Engine, remove: Callable[[], Any]) -> int:
    try:
        await engine.call(remove)
    except APIError:  # it is gone, or cannot go yet: the next sweep sees
        return 0
    return 1
