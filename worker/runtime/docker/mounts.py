"""The mounts of a task, as the engine takes them."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

import msgspec

from shared.model.language import Mount
from worker.runtime.docker.binds import BindRules
from worker.runtime.errors import TaskError

TORK = "/tork"
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
