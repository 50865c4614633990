"""The limits of a task's containers: what it asks for, the worker's defaults, and its ceilings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from shared.config.schema import Docker, WorkerLimits
from shared.model.language import Limits
from shared.model.quantities import parse_cpus, parse_memory
from worker.runtime.port import TaskError


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
