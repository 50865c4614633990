"""Amounts of CPU and memory as Docker's command line writes them: `.5` CPUs, `512m` of memory."""

import re
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
