"""Finds what Haulier made in an engine, by its labels, and removes what dead nodes left there and in folders."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from typing import Any

from docker.errors import APIError, NotFound

from shared.config import Config
from shared.threads import in_thread, in_thread_of
from worker.runtime.docker import labels
from worker.runtime.docker.engine import Engine, EngineHangsError
from worker.runtime.docker.resources import DockerContext
from worker.runtime.task_folder import REMOVING

_FILTER = {"label": [labels.NODE]}


async def sweep(
    services: DockerContext,
    dead: Callable[[Collection[str]], Awaitable[Collection[str]]],
    mine: str,
) -> int:
    """Remove all that dead nodes left, and what this one could not remove. Returns how many things were removed."""
    removed = await _remove_left(services)
    things = await _things(services.engine)
    owners = {owner for _, owner, _ in things} | await in_thread(services.folders.owners)
    owners -= {mine, services.node_id}
    if not owners:
        return removed
    gone = set(await dead(owners)) & owners
    for _, owner, remove in things:  # containers first: they use the others
        if owner in gone:
            removed += await _remove(services.engine, remove)
    for owner in gone:
        removed += await in_thread_of(REMOVING, services.folders.remove_all, owner)
        if services.cgroups is not None:
            await in_thread(services.cgroups.beside(owner).remove_all)
    return removed


async def _remove_left(services: DockerContext) -> int:
    """Try the removals again that failed; forget those of which there is nothing left."""
    removed = 0
    for removal in list(services.left):
        try:
            await services.engine.call(removal)
            removed += 1
        except NotFound:
            pass
        except (APIError, EngineHangsError):
            continue
        services.left.pop(removal, None)
    return removed


_Thing = tuple[str, str, Callable[[], Any]]
"""Its name, whose it is, how it is removed."""


async def labelled_things(config: Config) -> list[tuple[str, str]]:
    """Return each container, volume and network in the configured engine by its name, with the node that it was made
    for. Raises `RuntimeUnavailable`."""
    docker = config.runtime.docker
    engine = Engine(docker.host, docker.config, podman=config.runtime.type == "podman")
    try:
        await engine.connect()
        return [(name, owner) for name, owner, _ in await _things(engine)]
    finally:
        await engine.close()


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
    except (APIError, EngineHangsError):  # it is gone, or cannot go yet: the next sweep sees
        return 0
    return 1
