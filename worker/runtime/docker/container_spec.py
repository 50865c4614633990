"""Builds the engine's specification of a container, and of its mounts, from its task. Pure."""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.config.tree import Docker, WorkerLimits
from shared.model.language import Limits, Mount, SmallTask, TaskDefinition
from shared.model.quantities import parse_cpus, parse_memory
from worker.runtime.docker.binds import BindRules
from worker.runtime.port import TaskError, check_texts

TORK = "/tork"
SCRIPT = f"{TORK}/entrypoint"
WORKDIR = f"{TORK}/workdir"

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_COMMAND_FLAG = re.compile(r"-[a-z]*c")


class Network(msgspec.Struct, frozen=True):
    """What a container is joined to. `aliases`: the names it answers to there."""

    mode: str
    endpoints: Mapping[str, Any] = {}
    more: tuple[str, ...] = ()
    """Networks it is joined to between its creation and its start."""
    aliases: tuple[str, ...] = ()


class Common(msgspec.Struct, frozen=True):
    """What all containers of a run have in common."""

    labels: Mapping[str, str]
    mounted: Mounted
    limits: Mapping[str, Any]
    cgroup_parent: str = ""


def container_limits(own: Limits | None, default: WorkerLimits, settings: Docker) -> dict[str, Any]:
    """Return the HostConfig's limits. Raises TaskError for one that is no amount."""
    own = own or Limits()
    cpus, memory = own.cpus or default.cpus, own.memory or default.memory
    pids = settings.pids_limit if own.pids is None else own.pids
    found: dict[str, Any] = {"PidsLimit": pids if pids > 0 else -1}
    try:
        if cpus:
            found["NanoCpus"] = parse_cpus(cpus)
        if memory:
            found["Memory"] = parse_memory(memory)
    except ValueError as error:
        raise TaskError(f"limits: {error}") from None
    return found


def workdir(small: SmallTask) -> str:
    """Return the working directory that a task asks for; empty for the image's."""
    named = small.workdir if isinstance(small, TaskDefinition) else ""
    if not named:
        return WORKDIR if small.files else ""
    if not named.startswith("/") or "\0" in named:
        raise TaskError(f"workdir: {named!r} is not an absolute path")
    return posixpath.normpath(named)


def command(small: SmallTask) -> dict[str, Any]:
    """Return Entrypoint and Cmd; neither where the image starts by itself."""
    if small.run:
        before = list(small.entrypoint) or ["sh", "-c"]
        return {"Entrypoint": before, "Cmd": list(small.cmd) or [_script_after(before)]}
    told: dict[str, Any] = {}
    if small.entrypoint:
        told["Entrypoint"] = list(small.entrypoint)
    if small.cmd:
        told["Cmd"] = list(small.cmd)
    return told


def _script_after(before: list[str]) -> str:
    """Return the script's path; for a shell, as a command that keeps the log in order.

    An engine reads stdout and stderr side by side, and mixes up what is written close together. A
    shell can have the script write both to one. `exec`, so that signals reach the script.
    """
    program = posixpath.basename(before[0])
    takes_command = len(before) > 1 and _COMMAND_FLAG.fullmatch(before[-1])
    return f"exec {SCRIPT} 2>&1" if program in _SHELLS and takes_command else SCRIPT


def container_config(
    small: SmallTask, common: Common, env: Mapping[str, str], network: Network, settings: Docker
) -> dict[str, Any]:
    """Return the body of the request that creates a container, without the mounts of its own."""
    told = command(small)
    check_texts(env, [*told.get("Entrypoint", []), *told.get("Cmd", [])])
    if not small.image:
        raise TaskError("image: required for a task that runs in a container")
    body = {
        "Image": small.image,
        **told,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "WorkingDir": workdir(small),
        "Labels": dict(common.labels),
        "AttachStdout": True,
        "AttachStderr": True,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": _host_config(small, common, network, settings),
    }
    if network.endpoints:
        body["NetworkingConfig"] = {"EndpointsConfig": dict(network.endpoints)}
    return body


def _host_config(
    small: SmallTask, common: Common, network: Network, settings: Docker
) -> dict[str, Any]:
    host = {
        "Mounts": list(common.mounted.mounts),
        "Tmpfs": dict(common.mounted.tmpfs),
        "NetworkMode": network.mode,
        "Init": settings.init,
        "Privileged": settings.privileged,
        "CapAdd": list(settings.cap_add),
        "CapDrop": list(settings.cap_drop),
        "SecurityOpt": ["no-new-privileges"] if settings.no_new_privileges else [],
        "LogConfig": {"Type": "none", "Config": {}},
        **common.limits,
    }
    if common.cgroup_parent:
        host["CgroupParent"] = common.cgroup_parent
    if isinstance(small, TaskDefinition) and small.gpus:
        host["DeviceRequests"] = device_requests(small.gpus)
    return host


def device_requests(text: str) -> list[dict[str, Any]]:
    """Return the engine's DeviceRequests. Raises TaskError for what Docker would not take."""
    if not text:
        return []
    request: dict[str, Any] = {
        "Driver": "",
        "Count": 0,
        "DeviceIDs": None,
        "Capabilities": [["gpu"]],
        "Options": {},
    }
    counted = False
    for part in next(csv.reader([text])):
        key, equals, value = part.strip().partition("=")
        if not equals:
            key, value = "count", key
        counted |= key in ("count", "device")
        _set(request, key, value)
    if not counted:
        request["Count"] = 1
    if request["Count"] and request["DeviceIDs"]:
        raise TaskError("gpus: give a count or devices, not both")
    return [request]


def _set(request: dict[str, Any], key: str, value: str) -> None:
    if key == "count":
        request["Count"] = _count(value)
    elif key == "device":
        request["DeviceIDs"] = value.split(",")
    elif key == "driver":
        request["Driver"] = value
    elif key == "capabilities":
        request["Capabilities"] = [["gpu", *(c for c in value.split(",") if c != "gpu")]]
    elif key == "options":
        request["Options"] = dict(option.partition("=")[::2] for option in value.split(","))
    else:
        raise TaskError(f"gpus: unknown key {key!r}")


def _count(value: str) -> int:
    if value == "all":
        return -1
    if not value.isdecimal():
        raise TaskError(f'gpus: {value!r} is not a count: write "all", "2" or "device=0"')
    return int(value)


_WORKDIR = "/tork/workdir"
_NETWORK_FILESYSTEMS = frozenset({"nfs", "nfs3", "nfs4", "cifs"})
_TRUE = frozenset({"", "1", "true", "yes", "on"})


class Mounted(msgspec.Struct):
    """All mounts of a task; `volumes` are to be made first: name and the driver's options."""

    mounts: list[dict[str, Any]] = []
    tmpfs: dict[str, str] = {}
    volumes: dict[str, dict[str, str]] = {}

    @property
    def targets(self) -> set[str]:
        """Where in the container they are."""
        return {str(mount["Target"]) for mount in self.mounts} | set(self.tmpfs)


def translate(mounts: list[Mount], name: str, rules: BindRules) -> Mounted:
    """Return a task's mounts; `name` begins the names of its volumes. Raises TaskError."""
    mounted = Mounted()
    for index, mount in enumerate(mounts):
        where = f"mounts[{index}]"
        target = _target(mount.target, where)
        if target in mounted.targets:
            raise TaskError(f"{where}: another mount already uses {target}")
        if mount.type == "tmpfs":
            mounted.tmpfs[target] = _tmpfs(mount, where)
        elif mount.type == "bind":
            mounted.mounts.append(_bind(mount, target, where, rules))
        elif mount.type == "volume":
            volume = f"{name}-{index}"
            mounted.volumes[volume] = _volume_options(mount, where, rules)
            mounted.mounts.append({"Type": "volume", "Source": volume, "Target": target})
        else:
            raise TaskError(f"{where}: unknown type {mount.type!r}")
    return mounted


def _target(target: str, where: str) -> str:
    if not target.startswith("/") or "\0" in target:
        raise TaskError(f"{where}: the target {target!r} is not an absolute path")
    path = "/" + posixpath.normpath(target).lstrip("/")
    if path == "/":
        raise TaskError(f"{where}: the target must not be the root of the container")
    below_tork = path == TORK or path.startswith(f"{TORK}/")
    if below_tork and path != _WORKDIR and not path.startswith(f"{_WORKDIR}/"):
        raise TaskError(f"{where}: the target must not be {TORK}, where the task's own files are")
    return path


def _tmpfs(mount: Mount, where: str) -> str:
    if mount.source:
        raise TaskError(f"{where}: a tmpfs can't have a source")
    return ",".join(f"{key}={value}" if value else key for key, value in mount.opts.items())


def _bind(mount: Mount, target: str, where: str, rules: BindRules) -> dict[str, Any]:
    source = rules.real_path(mount.source, where)
    options = {key.lower(): value.lower() for key, value in mount.opts.items()}
    read_only = any(options.pop(key, "no") in _TRUE for key in ("readonly", "ro"))
    propagation = options.pop("propagation", options.pop("bind-propagation", "rprivate"))
    if options:
        raise TaskError(
            f"{where}: a bind mount supports only the options readonly and propagation, not {min(options)}"
        )
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": propagation},
    }


def _volume_options(mount: Mount, where: str, rules: BindRules) -> dict[str, str]:
    """Return the local driver's options, which must not reach the host's files unallowed."""
    if mount.source:
        raise TaskError(f"{where}: a volume can't have a source: it lives as long as its task")
    options = dict(mount.opts)
    kind, flags = options.get("type", "").lower(), options.get("o", "").lower().split(",")
    if "bind" in flags or "rbind" in flags:
        options["device"] = rules.real_path(options.get("device", ""), where)
    elif _reaches_the_host(options, kind):
        raise TaskError(f"{where}: opts: a volume of type {kind or 'none'!r} is not allowed")
    return options


def _reaches_the_host(options: Mapping[str, str], kind: str) -> bool:
    if kind == "tmpfs" or kind in _NETWORK_FILESYSTEMS:
        return False
    return bool(kind or options.get("device"))
