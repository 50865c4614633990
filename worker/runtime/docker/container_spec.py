"""Builds the engine's specification of a container, of its limits and of its mounts, from its task."""

from __future__ import annotations

import contextlib
import json
import os
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from shared.config.schema import Docker, WorkerLimits
from shared.model.language import Limits, Mount, SmallTask, TaskDefinition
from shared.model.quantities import parse_cpus, parse_gpus, parse_memory
from worker.runtime.docker.binds import BindRules, BindSource
from worker.runtime.port import TaskError
from worker.runtime.stages import check_texts

TORK = "/tork"
SCRIPT = f"{TORK}/entrypoint"
WORKDIR = f"{TORK}/workdir"

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_TMP = "/tmp"  # noqa: S108 - in the container
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
    security: tuple[str, ...] = ()
    """The engine's security options."""


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
        "SecurityOpt": list(common.security),
        "LogConfig": {"Type": "none", "Config": {}},
        **common.limits,
    }
    host |= _hardened(common, settings)
    if common.cgroup_parent:
        host["CgroupParent"] = common.cgroup_parent
    if isinstance(small, TaskDefinition) and small.gpus:
        host["DeviceRequests"] = device_requests(small.gpus)
    return host


def _hardened(common: Common, settings: Docker) -> dict[str, Any]:
    """Return what is only sent where the configuration asks for it."""
    found: dict[str, Any] = {}
    if settings.oci_runtime:
        found["Runtime"] = settings.oci_runtime
    if settings.userns:
        found["UsernsMode"] = settings.userns
    if settings.readonly_root:
        found["ReadonlyRootfs"] = True
        if _TMP not in common.mounted.targets:
            found["Tmpfs"] = {**common.mounted.tmpfs, _TMP: ""}
    return found


def security_options(settings: Docker) -> tuple[str, ...]:
    """Return the engine's security options, with the contents of a profile. Raises OSError, ValueError."""
    found = ["no-new-privileges"] if settings.no_new_privileges else []
    if settings.seccomp == "unconfined":
        found.append("seccomp=unconfined")
    elif settings.seccomp:
        profile = Path(settings.seccomp).expanduser().read_bytes()
        found.append(f"seccomp={json.dumps(json.loads(profile))}")
    if settings.apparmor:
        found.append(f"apparmor={settings.apparmor}")
    return tuple(found)


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
    try:
        told = parse_gpus(text)
    except ValueError as error:
        raise TaskError(f"gpus: {error}") from None
    for key, value in told.items():
        _set(request, key, value)
    if not told.keys() & {"count", "device"}:
        request["Count"] = 1
    return [request]


def _set(request: dict[str, Any], key: str, value: str) -> None:
    if key == "count":
        request["Count"] = -1 if value == "all" else int(value)
    elif key == "device":
        request["DeviceIDs"] = value.split(",")
    elif key == "driver":
        request["Driver"] = value
    elif key == "capabilities":
        request["Capabilities"] = [["gpu", *(c for c in value.split(",") if c != "gpu")]]
    else:
        request["Options"] = dict(option.partition("=")[::2] for option in value.split(","))


_WORKDIR = "/tork/workdir"
_PRIVATE = frozenset({"private", "rprivate"})
_TRUE = frozenset({"", "1", "true", "yes", "on"})


class Mounted(msgspec.Struct):
    """All mounts of a task; `volumes` are to be made first: name and the driver's options."""

    mounts: list[dict[str, Any]] = []
    tmpfs: dict[str, str] = {}
    targets: set[str] = set()
    """Where in the container they are."""
    volumes: dict[str, dict[str, str]] = {}
    opened: list[int] = []
    """Descriptors of what is mounted, which the engine gets at until the run is removed."""
    files: list[tuple[dict[str, Any], BindSource]] = []
    """Mounts of opened files, which still need a source that the engine can mount."""

    def bind(
        self, source: BindSource, volume: str, mount: dict[str, Any], propagation: str
    ) -> None:
        """Add a bind; `mount` says where and how."""
        if source.descriptor >= 0 and source.is_folder:
            self.volumes[volume] = self.volume_of(source)
            of_volume = {"VolumeOptions": {"NoCopy": True}}
            self.mounts.append({"Type": "volume", "Source": volume, **mount, **of_volume})
            return
        of_bind = {"BindOptions": {"Propagation": propagation}}
        bind = {"Type": "bind", "Source": source.path, **mount, **of_bind}
        self.mounts.append(bind)
        if source.descriptor >= 0:
            self.opened.append(source.descriptor)
            self.files.append((bind, source))

    def volume_of(self, source: BindSource) -> dict[str, str]:
        """Return the local driver's options for a folder of the host's, with what is mounted in it.

        Private, so that what is unmounted with the volume stays mounted on the host.
        """
        if source.descriptor < 0:
            return {"type": "none", "o": "rbind,rprivate", "device": source.path}
        self.opened.append(source.descriptor)
        return {"type": "none", "o": "rbind,rprivate", "device": source.device}

    def close(self) -> None:
        """Let go of what was opened. More than one thread may do that."""
        with contextlib.suppress(IndexError):
            while True:
                os.close(self.opened.pop())


def host_path(mount: Mount) -> str:
    """Return the path on the host that a mount names; empty where it names none."""
    if mount.type == "bind":
        return mount.source
    return mount.opts.get("device", "") if mount.type == "volume" and _is_bind(mount.opts) else ""


def add_mounts(
    mounted: Mounted, numbered: Iterable[tuple[int, Mount]], name: str, rules: BindRules
) -> None:
    """Add mounts of a task, each with its place in the task's list; `name` begins the names of its volumes. Raises
    TaskError, RunLostError."""
    for index, mount in numbered:
        where = f"mounts[{index}]"
        target = _target(mount.target, where)
        if target in mounted.targets:
            raise TaskError(f"{where}: another mount already uses {target}")
        mounted.targets.add(target)
        if mount.type == "tmpfs":
            mounted.tmpfs[target] = _tmpfs(mount, where)
        elif mount.type == "bind":
            _bind(mount, target, where, rules, mounted, f"{name}-{index}")
        elif mount.type == "volume":
            volume = f"{name}-{index}"
            mounted.volumes[volume] = _volume_options(mount, where, rules, mounted)
            mounted.mounts.append({"Type": "volume", "Source": volume, "Target": target})
        else:
            raise TaskError(f"{where}: unknown type {mount.type!r}")


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


def _bind(
    mount: Mount, target: str, where: str, rules: BindRules, mounted: Mounted, volume: str
) -> None:
    options = {key.lower(): value.lower() for key, value in mount.opts.items()}
    read_only = any(options.pop(key, "no") in _TRUE for key in ("readonly", "ro"))
    propagation = options.pop("propagation", options.pop("bind-propagation", "rprivate"))
    if options:
        raise TaskError(
            f"{where}: a bind mount supports only the options readonly and propagation, not {min(options)}"
        )
    source = rules.source(mount.source, where, by_path=propagation not in _PRIVATE)
    mounted.bind(source, volume, {"Target": target, "ReadOnly": read_only}, propagation)


def _volume_options(mount: Mount, where: str, rules: BindRules, mounted: Mounted) -> dict[str, str]:
    """Return the local driver's options, which must not reach the host or the network unallowed."""
    if mount.source:
        raise TaskError(f"{where}: a volume can't have a source: it lives as long as its task")
    options = dict(mount.opts)
    kind = options.get("type", "").lower()
    if _is_bind(options):
        source = rules.source(options.get("device", ""), where)
        if not source.is_folder:
            os.close(source.descriptor)
            raise TaskError(f"{where}: opts: a volume is a folder, and {source.path} is none")
        return mounted.volume_of(source)
    if kind != "tmpfs" and (kind or options.get("device")):
        rules.check_any(where, f"opts: a volume of type {kind or 'none'!r}")
    return options


def _is_bind(options: Mapping[str, str]) -> bool:
    """Return whether the local driver's options for a volume make it a folder of the host's."""
    flags = {flag.strip() for flag in options.get("o", "").lower().split(",")}
    return not flags.isdisjoint({"bind", "rbind"})


# --- limits: what a task asks for, the worker's defaults, and its ceilings --------------------------------------------


def container_limits(own: Limits | None, default: WorkerLimits, settings: Docker) -> dict[str, Any]:
    """Return the HostConfig's limits. Raises TaskError for one that is no amount."""
    own, most = own or Limits(), default.max
    found: dict[str, Any] = {
        "PidsLimit": _pids(own.pids, settings.pids_limit, most.pids) or -1,
        "NanoCpus": _amount("cpus", own.cpus, default.cpus, most.cpus, parse_cpus),
        "Memory": _amount("memory", own.memory, default.memory, most.memory, parse_memory),
    }
    return {name: amount for name, amount in found.items() if amount}


def _amount(name: str, own: str, default: str, ceiling: str, parse: Callable[[str], int]) -> int:
    """Return the limit on an amount; 0 where there is none. Raises TaskError."""
    try:
        most, asked = parse(ceiling or "0"), parse(own or "0")
        usual = parse(default or "0")
    except ValueError as error:
        raise TaskError(f"limits: {error}") from None
    if not own:
        return min(usual, most) if usual and most else usual or most
    if most and not 0 < asked <= most:
        raise _over(name, own, ceiling)
    return asked


def _pids(own: int | None, default: int, most: int) -> int:
    if own is None:
        return min(default, most) if default and most else default or most
    if most and not 0 < own <= most:
        raise _over("pids", str(own), str(most))
    return max(own, 0)


def _over(name: str, asked: str, ceiling: str) -> TaskError:
    """Return the fault of a limit that is no limit, or higher than this worker allows."""
    return TaskError(
        f"limits.{name}: {asked} is not allowed: on this worker a task can have at most {ceiling} "
        f"(worker.limits.max.{name})"
    )
