"""Amounts of CPU, memory and GPUs as Docker's command line writes them: `.5` CPUs, `512m` of memory, `device=0`."""

import csv
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final

_CPUS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{0,18})?|\.[0-9]{1,18}")
_MEMORY: Final = re.compile(
    r"([0-9]{1,19}(?:\.[0-9]{0,18})?|\.[0-9]{1,18}) ?([kmgtp]?)i?b?", re.IGNORECASE
)
_POWERS: Final = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4, "p": 5}
_LARGEST: Final = 2**63 - 1


def parse_cpus(text: str) -> int:
    """Return billionths of a CPU (Docker's NanoCpus) of `.5`, `1`, `2.25`; ValueError for others."""
    if not _CPUS.fullmatch(text):
        raise ValueError(f'"{text[:40]}" is not a number of CPUs: use a form like ".5" or "2"')
    return int(Decimal(text) * 1_000_000_000)


def parse_memory(text: str) -> int:
    """Return the bytes of `512m`, `1.5g`, `64MiB`, `1048576`; units count in 1024s, as for Docker.

    Raises ValueError for anything else.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(
            f'"{text[:40]}" is not an amount of memory: use a form like "512m" or "1.5g"'
        )
    size = int(Decimal(match[1]) * Decimal(1024) ** _POWERS[match[2].lower()])
    if size > _LARGEST:
        raise ValueError(f'"{text}" is more memory than can be counted')
    return size


def no_less_than(least: str, parse: Callable[[str], int]) -> Callable[[str], int]:
    """Return a `parse` that also raises ValueError for less than `least`."""

    def parsed(text: str) -> int:
        found = parse(text)
        if found < parse(least):
            raise ValueError(f"must be at least {least}")
        return found

    return parsed


limit_of_cpus: Final = no_less_than("0.01", parse_cpus)
"""`parse_cpus` for a limit, which Docker takes from 0.01 on."""

limit_of_memory: Final = no_less_than("6m", parse_memory)
"""`parse_memory` for a limit, which Docker takes from 6 MiB on."""


def amount(size: int) -> str:
    """Return a number of bytes in words: `512 MiB`, `1.5 GiB`, `12 bytes`."""
    for unit, power in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"


def past_limit(limit: int) -> str:
    """Return what is said of what has more than `limit` bytes, exactly."""
    return f"larger than the limit of {amount(limit) if limit % 2**20 == 0 else f'{limit} bytes'}"


_GPU_KEYS: Final = frozenset({"count", "device", "driver", "capabilities", "options"})
_LONGEST_GPUS: Final = 1000


def parse_gpus(text: str) -> dict[str, str]:
    """Return the keys and values of Docker's `--gpus`; ValueError for what they can't be."""
    if len(text) > _LONGEST_GPUS or not text.isprintable():
        raise ValueError(f"must be at most {_LONGEST_GPUS} printable characters")
    found: dict[str, str] = {}
    for part in next(csv.reader([text])):
        key, equals, value = part.strip().partition("=")
        if not equals and "device" in found:  # `device=0,1` without the quotes that Docker asks for
            key, value = "device", f"{found['device']},{key}"
        elif not equals:
            key, value = "count", key
        no_count = key == "count" and value != "all" and not re.fullmatch("[0-9]{1,9}", value)
        if key not in _GPU_KEYS or no_count:
            raise ValueError('must be as in Docker\'s --gpus: "all", "2" or "device=0"')
        found[key] = value
    if found.get("count", "0").strip("0") and "device" in found:
        raise ValueError("give a count or devices, not both")
    return found
