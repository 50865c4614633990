"""The networks that a task's containers are joined to, and the warm sandboxes that own one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Coroutine, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import structlog
from docker.errors import APIError, NotFound

from shared.model.language import TaskDefinition
from shared.supervision import Tasks
from shared.threads import in_thread
from worker.runtime.docker import labels, pause_image
from worker.runtime.docker.container_spec import Network
from worker.runtime.docker.engine import Engine, EngineGoneError, explain
from worker.runtime.port import RunLostError, TaskError

Lines = list[list[str]]

_OWN_COUNTS = frozenset({"used", "inuse", "tw"})
_LONGEST = 256 * 1024


def _all(lines: Lines) -> list[tuple[str, ...]]:
    return [tuple(line) for line in lines]


def _counts(lines: Lines) -> list[tuple[str, ...]]:
    """Return how many sockets there are of each kind, those in time-wait too; what else is there is the machine's."""
    found = []
    for line in lines:
        pairs = zip(line[1::2], line[2::2], strict=False)
        found.append((line[0], *(f"{key} {value}" for key, value in pairs if key in _OWN_COUNTS)))
    return found


def _first(lines: Lines) -> list[tuple[str, ...]]:
    return sorted((line[0],) for line in lines if line)


def _without_counters(lines: Lines) -> list[tuple[str, ...]]:
    """Return an IPv6 route without its use: destination, source, next hop, flags, device."""
    return sorted((*line[:5], *line[8:]) for line in lines)


_COMPARED: dict[str, Callable[[Lines], list[tuple[str, ...]]]] = {
    "sockstat": _counts,  # the tables of sockets themselves take milliseconds to read
    "sockstat6": _counts,
    "dev": _first,  # the rest of a line counts packets
    "route": _all,
    "if_inet6": _all,
    "ipv6_route": _without_counters,
    "ip_tables_names": _all,
    "ip6_tables_names": _all,
    "arp": lambda lines: [tuple(line) for line in lines if len(line) > 2 and line[2] == "0x6"],
}
"""Files of /proc/net, and what of each must be as it was. Of arp only what was set by hand."""


class Namespace:
    """The network namespace of a process, for as long as that lives."""

    def __init__(self, process: int) -> None:
        """Raise OSError where the process cannot be seen."""
        self._folder = os.open(f"/proc/{process}", os.O_DIRECTORY | os.O_CLOEXEC)
        self._before: dict[str, list[tuple[str, ...]]] = {}

    def program(self) -> str:
        """Return the name of the process's program. Raises OSError when it has ended."""
        return self._read("comm").strip()

    def remember(self) -> None:
        """Take what it looks like now for clean. Raises OSError."""
        self._before = self._look()

    def clean(self) -> bool:
        """Return whether it looks as it did: no socket left, time-wait included, and nothing else new."""
        try:
            return self._look() == self._before
        except OSError:
            return False

    def close(self) -> None:
        """Let go of it."""
        os.close(self._folder)

    def _look(self) -> dict[str, list[tuple[str, ...]]]:
        self._read("comm")  # fails when the process has ended
        found = {}
        for name, compared in _COMPARED.items():
            try:
                lines = [line.split() for line in self._read(f"net/{name}").splitlines()]
            except FileNotFoundError:  # not in this kernel
                continue
            found[name] = compared(lines)
        return found

    def _read(self, name: str) -> str:
        with os.fdopen(os.open(name, os.O_RDONLY, dir_fd=self._folder), "rb") as file:
            return file.read(_LONGEST).decode("ascii", "replace")


def is_own(process: int) -> bool:
    """Return whether a process is in another network namespace than this one. Raises OSError."""
    return Path(f"/proc/{process}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()


_log = structlog.get_logger(__name__)

MOST_SANDBOXES = 32
"""Sandboxes kept at once, however many slots there are."""
FAILURES = 3
"""Failures to make one, in a row, after which this is given up: tasks get networks of their own."""
FINISHED_WITHIN = 30.0
"""Seconds that sandboxes which are being made or removed have to be done with when the worker ends."""
_BECOMING = 5.0
"""Seconds that a started container's process has to become its program, on a busy machine."""
_LOCAL_NAMES = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n"


class Sandbox(msgspec.Struct):
    """A container that owns a network namespace, and what a task that joins it gets to see of it."""

    id: str
    namespace: Namespace
    hostname: str
    hosts: bytes
    resolv_conf: bytes
    uses: int = 0

    def files(self) -> dict[str, bytes]:
        """Return what each task gets a copy of, by its path in the container."""
        return {
            "/etc/hosts": self.hosts,
            "/etc/resolv.conf": self.resolv_conf,
            "/etc/hostname": f"{self.hostname}\n".encode(),
        }


def in_sandbox(sandbox: Sandbox) -> Network:
    """Return how a container joins a sandbox."""
    return Network(f"container:{sandbox.id}")


class Sandboxes:
    """A sandbox for each slot, made in the background."""

    def __init__(
        self, engine: Engine, node_id: str, own: OwnNetwork, *, size: int, uses: int
    ) -> None:
        self._engine = engine
        self._node_id = node_id
        self._own = own
        self._size = min(size, MOST_SANDBOXES)
        self._uses = uses
        self._free: list[Sandbox] = []
        self._all = 0
        self._failures = 0
        self._background = Tasks()
        self._open = False

    def open(self) -> None:
        """Begin to make them. Called again, nothing more."""
        self._open = True
        self._fill()

    def take(self) -> Sandbox | None:
        """Return one for a task; None where none is ready: the task then has a network of its own."""
        if self._free:
            sandbox = self._free.pop()
            sandbox.uses += 1
            return sandbox
        self._fill()
        return None

    async def give_back(self, sandbox: Sandbox) -> None:
        """Take one back when the task's last container has ended."""
        clean = await in_thread(sandbox.namespace.clean)
        if clean and sandbox.uses < self._uses and self._open:
            self._free.append(sandbox)
        else:
            self.discard(sandbox)

    def discard(self, sandbox: Sandbox) -> None:
        """Have one replaced."""
        self._all -= 1
        sandbox.namespace.close()
        self._do(self._remove(sandbox.id))
        self._fill()

    async def close(self) -> None:
        """Remove them all, as far as an engine that hangs lets that be: other workers remove the rest."""
        self._open = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FINISHED_WITHIN):
                await self._background.finish()
        remove = self._engine.api.remove_container
        await asyncio.gather(
            *(self._engine.asked(remove, sandbox.id, force=True, v=True) for sandbox in self._free)
        )
        for sandbox in self._free:
            sandbox.namespace.close()
        self._free.clear()

    # --- inside ---

    def _fill(self) -> None:
        while self._open and self._all < self._size and self._failures < FAILURES:
            self._all += 1
            self._do(self._make())

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        self._background.start(work, "network sandbox")

    async def _make(self) -> None:
        name = labels.fresh_name()
        try:
            network = await self._own.ready()
            sandbox = await self._engine.call(self._start, name, network)
        except (APIError, RunLostError, OSError, LookupError) as error:
            self._all -= 1
            # An engine that is away comes back; what it refuses it goes on refusing.
            self._failures += not isinstance(error, EngineGoneError)
            _log.warning("no network sandbox could be made", error=str(error))
            await self._remove(name)
            return
        self._failures = 0
        if self._open:
            self._free.append(sandbox)
        else:
            sandbox.namespace.close()
            await self._remove(sandbox.id)

    def _start(self, name: str, network: str) -> Sandbox:
        api = self._engine.api
        identity = api.create_container_from_config(  # type: ignore[no-untyped-call]  # the SDK's stubs
            _body(self._node_id, network), name
        )["Id"]
        api.start(identity)
        found = api.inspect_container(identity)
        process = int(found["State"]["Pid"])
        namespace = Namespace(process)
        try:
            _check_seen(namespace, process)
            namespace.remember()
            return Sandbox(
                id=identity,
                namespace=namespace,
                hostname=found["Config"]["Hostname"],
                hosts=_hosts(found),
                resolv_conf=Path(found["ResolvConfPath"]).read_bytes(),
            )
        except BaseException:
            namespace.close()
            raise

    async def _remove(self, identity: str) -> None:
        with contextlib.suppress(APIError, EngineGoneError):
            await self._engine.call(self._engine.api.remove_container, identity, force=True, v=True)


def _check_seen(namespace: Namespace, process: int) -> None:
    until = time.monotonic() + _BECOMING
    while namespace.program() != pause_image.PROGRAM:  # it is still the one that starts it
        if time.monotonic() > until:
            raise LookupError("the engine's processes cannot be seen from here")
        time.sleep(0.005)
    if not is_own(process):
        raise LookupError("the engine gives no network namespaces")


def _body(node_id: str, network: str) -> dict[str, Any]:
    return {
        "Image": pause_image.IMAGE,
        "Labels": {labels.NODE: node_id, labels.ROLE: "sandbox"},
        "HostConfig": {
            "NetworkMode": network,
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "PidsLimit": 16,
            "LogConfig": {"Type": "none", "Config": {}},
        },
    }


def _hosts(found: dict[str, Any]) -> bytes:
    joined = found["NetworkSettings"]["Networks"]  # one: the default one, whatever its name
    address = next((network["IPAddress"] for network in joined.values()), "")
    if not address:
        raise LookupError("the engine's default network gives no address")
    return f"{_LOCAL_NAMES}{address}\t{found['Config']['Hostname']}\n".encode()


DEFAULT_NETWORK = "default"
"""The engine's own choice: a bridge, or none where it has no bridge."""
_ALONE = ("host", "none")

INTERNAL = "haulier.internal"
"""The label of networks that no task may join: those of the cluster itself."""
OWN_NETWORK = f"{labels.NAME_PREFIX}tasks"
"""Haulier's own network: one for each engine, for an engine has addresses for some thirty networks only."""
INTERFACE = "hl-tasks"
"""The host's interface of that network, for rules of a firewall."""
_MADE_WITHIN = 5.0
"""Seconds that workers may need to agree on who makes it."""


class OwnNetwork:
    """Haulier's own network, on which containers don't reach one another. All workers of an engine share it: the first
    that needs it makes it, and again when somebody has removed it; nobody else removes it."""

    def __init__(self, engine: Engine, *, wanted: bool) -> None:
        self._engine = engine
        self._wanted = wanted

    async def ready(self) -> str:
        """Return the network that tasks without networks of their own join. Raises RunLostError."""
        if not self._wanted or self._engine.is_podman:  # which knows no such network
            return DEFAULT_NETWORK
        try:
            return await self._engine.call(self._ensure)
        except APIError as error:
            raise RunLostError(
                f"Haulier's own network can't be made: {explain(error)} (runtime.docker.own_network)"
            ) from None

    def _ensure(self) -> str:
        until = time.monotonic() + _MADE_WITHIN
        while not self._is_there(OWN_NETWORK):
            if not self._is_there("bridge"):  # an engine whose containers have no network at all
                return DEFAULT_NETWORK
            try:
                self._make()
            except APIError:  # another worker is making it, and has its interface already
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)
        return OWN_NETWORK

    def _is_there(self, name: str) -> bool:
        try:
            self._engine.api.inspect_network(name)
        except NotFound:
            return False
        return True

    def _make(self) -> None:
        self._engine.api.create_network(
            OWN_NETWORK,
            driver="bridge",
            check_duplicate=True,
            options={
                "com.docker.network.bridge.enable_icc": "false",
                "com.docker.network.bridge.name": INTERFACE,  # which no two networks have, whatever race there is
            },
            labels={labels.ROLE: "network", INTERNAL: ""},
        )


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


async def look_up(task: TaskDefinition, engine: Engine, allowed: Sequence[str]) -> None:
    """Refuse networks that are not there, another task's, or not `allowed`. Raises TaskError."""
    for name in task.networks:
        try:
            found = await engine.watch(engine.api.inspect_network, name)
        except NotFound:
            found = None
        except APIError as error:
            raise TaskError(f"network {name!r}: {explain(error)}") from None
        if found is None or found.get("Name", name) != name:  # by its id
            raise TaskError(f"network {name!r} does not exist on this worker's engine")
        marks = found.get("Labels") or {}
        if labels.NODE in marks:
            raise TaskError(f"network {name!r} belongs to another task")
        if name not in _ALONE:
            _check_allowed(name, allowed, internal=INTERNAL in marks)


def _check_allowed(name: str, allowed: Sequence[str], *, internal: bool) -> None:
    """Refuse a network that no pattern lists; without a list, an internal one. Raises TaskError."""
    if any(fnmatchcase(name, pattern) for pattern in allowed):
        return
    if allowed:
        raise TaskError(f"network {name!r} is not allowed by this worker (runtime.docker.networks)")
    if internal:
        raise TaskError(
            f"network {name!r} is internal (label {INTERNAL}): not allowed unless this worker lists it "
            "(runtime.docker.networks)"
        )


def joined_networks(
    networks: list[str], name: str, private: str = "", own: str = DEFAULT_NETWORK
) -> Network:
    """Return how a container named `name` joins `networks`, and the run's `private` one first; else the `own` one."""
    names = list(dict.fromkeys([*([private] if private else []), *networks]))
    if not names:
        return Network(own)
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
