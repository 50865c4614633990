"""What a worker process keeps on its host for the process that comes after it (engine spec, promise 15).

Each process locks a numbered folder of its own below `worker.data`: the lowest whose lock it can get. In it are its
node's id and, until they are stored, the ends of its runs. A process that was killed leaves both to the next one that
gets the lock, which so knows that it is dead, what to remove, and which ends are still to be told.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec

import msgspec
import psutil
import structlog

from shared.errors import RuntimeUnavailable, Unreadable
from shared.model.messages import HandedBack, MessageCodec, RunEnded
from shared.supervision import Tasks, waiting
from shared.threads import in_thread_of

log = structlog.get_logger(__name__)

End = RunEnded | HandedBack

_P = ParamSpec("_P")

MOST_FOLDERS: Final = 1_000
"""Worker processes that can share a data folder."""

MOST_PREDECESSORS: Final = 100
"""Dead processes that are named at once; of earlier ones only the leases speak."""

COMPACTED_AT: Final = 64 * 1024 * 1024
"""Bytes that the file of ends may take before those that are stored are taken out."""

WRITTEN_WITHIN: Final = 2.0
"""Seconds that somebody waits for the disk; then it writes beside."""

_NETWORK: Final = ("nfs", "cifs", "smb", "9p", "fuse", "ceph", "gluster", "lustre", "afs")
"""How the types of file systems begin on which a lock, or who else uses it, is not to be relied on."""

_HEAD: Final = struct.Struct("<II")
"""Before each entry: the length of its nonce, and of its end (0: that one is stored)."""


class _Record(msgspec.Struct, frozen=True, rename="camel"):
    """Whose folder it is: the last is the process that has it, the others are those before it that no coordinator has
    heard of yet."""

    nodes: list[str]
    machine: str
    boot: str


class FolderThread:
    """A thread that does things to a folder in the order in which they are asked for. A disk that hangs holds up nobody
    else: a process with runs that are not written down is slower to replace, and nothing worse."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="data folder")
        self._tasks = Tasks()

    async def done(self, function: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs) -> None:
        """Do something, and wait until it is done, at most `WRITTEN_WITHIN` seconds."""
        doing = self.soon(function, *args, **kwargs)
        with waiting():
            await asyncio.wait({doing}, timeout=WRITTEN_WITHIN)

    def soon(
        self, function: Callable[_P, None], *args: _P.args, **kwargs: _P.kwargs
    ) -> asyncio.Task[None]:
        """Do something, and don't wait for it."""
        return self._tasks.start(
            in_thread_of(self._thread, function, *args, **kwargs), "write to the data folder"
        )

    async def close(self) -> None:
        """End. What was begun goes on by itself."""
        self._thread.shutdown(wait=False)
        await self._tasks.cancel()


class ProcessFolder:
    """The folder of this process; once `take` has it, one thread at a time may use it. What its disk refuses is logged,
    and costs only time: leases tell the same later."""

    def __init__(self, data: Path, node_id: str, codec: MessageCodec) -> None:
        self._data = data
        self._node_id = node_id
        self._codec = codec
        self._lock = -1
        self._file = -1
        self._size = 0
        self._kept: dict[str, tuple[int, int]] = {}
        """Nonce → where its end is in the file, and how long it is."""
        self.path = data
        self.predecessors: list[str] = []
        """Nodes of dead processes that had this folder, until a coordinator has closed them."""

    def take(self) -> list[End]:
        """Lock a folder, and return the ends that the processes before left untold. Raises `RuntimeUnavailable`."""
        try:
            self._lock_lowest()
            before = self._record()
            left = self._ends() if before else {}
            self.predecessors = before
            self._write_record()
            self._rewrite(left)
        except OSError as error:
            raise RuntimeUnavailable(
                f"worker.data: {self.path} cannot be used: {error.strerror}"
            ) from None
        return [end for data in left.values() if (end := self._decoded(data)) is not None]

    def keep(self, end: End) -> None:
        """Keep the end of a run, before it is told for the first time."""
        self._append(end.nonce, self._codec.encode(end))

    def strike_out(self, nonce: str) -> None:
        """Keep an end no longer: it is stored."""
        if self._kept.pop(nonce, None) is None:
            return
        if not self._kept:
            self._empty()
        else:
            self._append(nonce, b"")

    def answered(self, nodes: Sequence[str]) -> None:
        """Name these predecessors no longer: they are closed for good."""
        self.predecessors = [node for node in self.predecessors if node not in nodes]
        with self._logged():
            self._write_record()

    def leave(self) -> None:
        """Note that this process ends with nothing left to do for the next one."""
        if not self._kept and not self.predecessors:
            with self._logged():
                (self.path / "process.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Give the lock up."""
        for descriptor in (self._file, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._file = self._lock = -1

    # --- the lock -------------------------------------------------------------------------------------------------

    def _lock_lowest(self) -> None:
        for number in range(1, MOST_FOLDERS + 1):
            self.path = self._data / str(number)
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self.path / "lock", flags, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            self._lock = descriptor
            return
        raise RuntimeUnavailable(f"worker.data: {self._data} has {MOST_FOLDERS} workers already")

    # --- whose it is ----------------------------------------------------------------------------------------------

    def _record(self) -> list[str]:
        """Return the nodes of the processes before, where it is certain that they are dead: those of this machine,
        since its start, on a disk of its own."""
        try:
            record = msgspec.json.decode((self.path / "process.json").read_bytes(), type=_Record)
        except (FileNotFoundError, msgspec.MsgspecError):
            return []
        here = (record.machine, record.boot) == (_machine(), _boot())
        return record.nodes[-MOST_PREDECESSORS:] if here and not _is_on_network(self.path) else []

    def _write_record(self) -> None:
        record = _Record([*self.predecessors, self._node_id], _machine(), _boot())
        new = self.path / "process.json.new"
        new.write_bytes(msgspec.json.encode(record))
        new.replace(self.path / "process.json")

    # --- ends -----------------------------------------------------------------------------------------------------

    def _ends(self) -> dict[str, bytes]:
        """Return the ends in the file by their nonces; the last entry may be cut short."""
        try:
            data = (self.path / "ends").read_bytes()
        except FileNotFoundError:
            return {}
        found: dict[str, bytes] = {}
        at = 0
        while at + _HEAD.size <= len(data):
            name, length = _HEAD.unpack_from(data, at)
            start = at + _HEAD.size + name
            at = start + length
            if at > len(data):
                break
            nonce = data[start - name : start].decode("ascii", "replace")
            if length:
                found[nonce] = data[start:at]
            else:
                found.pop(nonce, None)
        return found

    def _decoded(self, data: bytes) -> End | None:
        try:
            end = self._codec.decode(data)
        except Unreadable as error:  # of another version, or sealed with a key that is gone
            log.warning("the end of a run of an earlier process can't be read", reason=str(error))
            return None
        return end if isinstance(end, RunEnded | HandedBack) else None

    def _append(self, nonce: str, data: bytes) -> None:
        with self._logged():
            if self._size > COMPACTED_AT and self._size > 2 * self._live():
                self._compact()
            end = _write(self._file, nonce, data, self._size)
            if data:
                self._kept[nonce] = (end - len(data), len(data))
            self._size = end

    def _live(self) -> int:
        return sum(length for _, length in self._kept.values())

    def _compact(self) -> None:
        kept = {nonce: os.pread(self._file, n, at) for nonce, (at, n) in self._kept.items()}
        self._rewrite(kept)

    def _rewrite(self, ends: dict[str, bytes]) -> None:
        """Put a new file in place of the old one once it is whole. Raises `OSError`: the old one then stays."""
        new = self.path / "ends.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        file, size, kept = os.open(new, flags, 0o600), 0, {}
        try:
            for nonce, data in ends.items():
                size = _write(file, nonce, data, size)
                kept[nonce] = (size - len(data), len(data))
            new.replace(self.path / "ends")
        except OSError:
            os.close(file)
            raise
        if self._file >= 0:
            os.close(self._file)
        self._file, self._size, self._kept = file, size, kept

    def _empty(self) -> None:
        with self._logged():
            os.ftruncate(self._file, 0)
            self._size = 0

    @contextlib.contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            log.warning(
                "the data folder can't be written to", path=str(self.path), reason=str(error)
            )


def _write(file: int, nonce: str, data: bytes, at: int) -> int:
    """Write an entry to a place of the file; return where it ends. Raises `OSError` where it is not written whole."""
    name = nonce.encode()
    entry = _HEAD.pack(len(name), len(data)) + name + data
    if os.pwrite(file, entry, at) < len(entry):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return at + len(entry)


def _machine() -> str:
    with contextlib.suppress(OSError):
        return Path("/etc/machine-id").read_text().strip()
    return ""


def _boot() -> str:
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return str(psutil.boot_time())


def _is_on_network(path: Path) -> bool:
    """Return whether a folder is on a file system that other machines may use too."""
    real = path.resolve()
    mounts = [
        disk for disk in psutil.disk_partitions(all=True) if real.is_relative_to(disk.mountpoint)
    ]
    nearest = max(mounts, key=lambda disk: len(disk.mountpoint), default=None)
    return nearest is not None and nearest.fstype.lower().startswith(_NETWORK)
