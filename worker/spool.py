"""A queue of texts that keeps a few in memory and the rest in a file."""

from __future__ import annotations

import asyncio
import tempfile
from collections import deque
from pathlib import Path
from typing import IO

IN_MEMORY = 1024 * 1024
"""Bytes that wait in memory before the file is used."""

_LENGTH = 8


class Spool:
    """First in, first out. What is in it is lost with the process, as the run that wrote it is."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._read_at = 0
        self._write_at = 0
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        return self._in_memory + self._write_at - self._read_at

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may."""
        return len(self) >= self._limit

    async def put(self, text: str) -> None:
        """Add a text at the end."""
        data = text.encode()
        if self._file is None and self._in_memory + len(data) <= IN_MEMORY:
            self._memory.append(data)
            self._in_memory += len(data)
            return
        async with self._one_at_a_time:
            await asyncio.to_thread(self._append, data)

    async def take(self) -> str | None:
        """Take the text that was added first; None where there is none."""
        if self._memory:
            data = self._memory.popleft()
            self._in_memory -= len(data)
            return data.decode()
        async with self._one_at_a_time:
            if self._file is None:
                return None
            return (await asyncio.to_thread(self._read)).decode()

    def close(self) -> None:
        """Drop what is left."""
        self._memory.clear()
        self._in_memory = 0
        self._drop_file()

    def _append(self, data: bytes) -> None:
        if self._file is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115  (it lives as long as the spool)
        self._file.seek(self._write_at)
        self._file.write(len(data).to_bytes(_LENGTH, "big") + data)
        self._write_at += _LENGTH + len(data)

    def _read(self) -> bytes:
        assert self._file is not None
        self._file.seek(self._read_at)
        length = int.from_bytes(self._file.read(_LENGTH), "big")
        data = self._file.read(length)
        self._read_at += _LENGTH + length
        if self._read_at == self._write_at:
            self._drop_file()
        return data

    def _drop_file(self) -> None:
        if self._file is not None:
            self._file.close()
        self._file = None
        self._read_at = self._write_at = 0
