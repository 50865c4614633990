"""The networks that a task's containers are joined to."""

from __future__ import annotations

from docker.errors import APIError, NotFound

from shared.model.language import TaskDefinition
from worker.runtime.docker import labels
from worker.runtime.docker.container_spec import Network
from worker.runtime.docker.engine import Engine, explain
from worker.runtime.errors import TaskError

DEFAULT_NETWORK = "default"
"""The engine's own choice: a bridge, or none where it has no bridge."""
_ALONE = ("host", "none")


def check_networks(task: TaskDefinition, *, host_allowed: bool) -> None:
    """Refuse networks that a task may not join. Pure; raises TaskError."""
    for index, name in enumerate(task.networks):
        where = f"networks[{index}]"
        if ":" in name:
            raise TaskError(f"{where}: {name!r} is not a valid network name")
        if name == "host" and not host_allowed:
            raise TaskError(
                f"{where}: the host's network is not allowed by this worker "
                "(runtime.docker.host_network)"
            )
        if name in _ALONE and (len(set(task.networks)) > 1 or task.sidecars):
            raise TaskError(
                f"{where}: {name!r} can't be combined with other networks or with sidecars"
            )


async def look_up(task: TaskDefinition, engine: Engine) -> None:
    """Refuse networks that are not there, or are another task's. Raises TaskError."""
    for name in task.networks:
        try:
            found = await engine.call(engine.api.inspect_network, name)
        except NotFound:
            raise TaskError(f"network {name!r} does not exist on this worker's engine") from None
        except APIError as error:
            raise TaskError(f"network {name!r}: {explain(error)}") from None
        if labels.NODE in (found.get("Labels") or {}):
            raise TaskError(f"network {name!r} belongs to another task")


def joined_networks(networks: list[str], name: str, private: str = "") -> Network:
    """Return how a container named `name` joins `networks`, and the run's `private` one first."""
    names = list(dict.fromkeys([*([private] if private else []), *networks]))
    if not names:
        return Network(DEFAULT_NETWORK)
    alias = labels.slug(name)
    aliases = (alias,) if alias else ()
    first, *more = names
    endpoints = {first: {"Aliases": list(aliases)}} if aliases and has_aliases(first) else {}
    return Network(first, endpoints, tuple(more), aliases)


def has_aliases(network: str) -> bool:
    """Return whether containers can answer to names of their own on a network."""
    return network not in (DEFAULT_NETWORK, "bridge", *_ALONE)


async def join_more(engine: Engine, container_id: str, network: Network) -> None:
    """Join a created container to the rest of its networks. Raises TaskError."""
    for name in network.more:
        aliases = list(network.aliases) if has_aliases(name) else None
        try:
            await engine.call(
                engine.api.connect_container_to_network, container_id, name, aliases=aliases
            )
        except APIError as error:
            raise TaskError(f"network {name!r}: {explain(error)}") from None
