"""Ships a run's log: numbered parts, confirmed, in order; the last part travels with the end of the run.

When the broker is slow or away, parts wait on disk up to a limit; past that the container is slowed.
"""

from __future__ import annotations

import asyncio
import codecs
import tempfile
from collections import deque
from pathlib import Path

import structlog

from shared.model.messages import LogWritten
from shared.model.quantities import amount
from shared.redaction import Redactor, StreamRedactor
from shared.supervision import Loop, start_task, to_its_end, waiting
from shared.threads import in_thread
from worker.sender import Sender

log = structlog.get_logger(__name__)


IN_MEMORY = 1024 * 1024
"""Bytes that wait in memory before the file is used."""

_LENGTH = 8


FILE_BYTES = 64 * 1024 * 1024
"""Bytes after which another file is begun: one that was read is deleted, however much comes behind it."""


class Spool:
    """First in, first out. What is in it is lost with the process, as the run that wrote it is."""

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder = folder
        self._limit = limit
        self._memory: deque[bytes] = deque()
        self._in_memory = 0
        self._files: deque[SpoolFile] = deque()
        self._one_at_a_time = asyncio.Lock()

    def __len__(self) -> int:
        return self._in_memory + sum(map(len, self._files))

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may."""
        return len(self) >= self._limit

    async def put(self, text: str) -> None:
        """Add a text at the end."""
        data = text.encode()
        if not self._files and self._in_memory + len(data) <= IN_MEMORY:
            self._memory.append(data)
            self._in_memory += len(data)
            return
        async with self._one_at_a_time:
            await in_thread(self._append, data)

    async def take(self) -> str | None:
        """Take the text that was added first; None where there is none."""
        if self._memory:
            data = self._memory.popleft()
            self._in_memory -= len(data)
            return data.decode()
        async with self._one_at_a_time:
            if not any(map(len, self._files)):
                return None
            return (await in_thread(self._read)).decode()

    async def close(self) -> None:
        """Drop what is left."""
        self._memory.clear()
        self._in_memory = 0
        with waiting():
            async with self._one_at_a_time:
                if self._files:
                    await in_thread(self._drop)

    def _drop(self) -> None:
        while self._files:
            self._files.popleft().close()

    def _append(self, data: bytes) -> None:
        if not self._files or self._files[-1].size >= FILE_BYTES:
            self._files.append(SpoolFile(self._folder))
        self._files[-1].append(data)

    def _read(self) -> bytes:
        data = self._files[0].read()
        if not len(self._files[0]):
            self._files.popleft().close()
        return data


class SpoolFile:
    """A part of a spool that is on disk, in a file without a name."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (it lives as long as the spool)
        self._read_at = 0
        self.size = 0

    def __len__(self) -> int:
        return self.size - self._read_at

    def append(self, data: bytes) -> None:
        """Add one text at the end."""
        self._file.seek(self.size)
        self._file.write(len(data).to_bytes(_LENGTH, "big") + data)
        self.size += _LENGTH + len(data)

    def read(self) -> bytes:
        """Take the text that was added first."""
        self._file.seek(self._read_at)
        length = int.from_bytes(self._file.read(_LENGTH), "big")
        data = self._file.read(length)
        self._read_at += _LENGTH + length
        return data

    def close(self) -> None:
        """Delete it."""
        self._file.close()


FLUSH_AFTER = 0.4
"""Seconds after which whole lines are sent, however few."""

REST_AFTER = 1.0
"""Seconds after which the beginning of a line is sent too: a prompt, then silence."""

MESSAGE_BYTES = 256 * 1024
"""Parts travel together in messages of about so many bytes."""

UNASKED = 1024 * 1024
"""Characters of a log that are sent without asking whether coordinators keep up: a short log never waits for others."""


class LogShipper:
    """The log of one run. It keeps what comes before the grant, and numbers parts from 1 from then on."""

    def __init__(
        self,
        sender: Sender,
        task_id: str,
        job_id: str,
        nonce: str,
        secrets: list[str],
        folder: Path,
        limit: int,
        most: int = 0,
    ) -> None:
        """`limit`: bytes of it that wait on disk; `most`: bytes of it that are sent at all; 0: any number."""
        self._sender = sender
        self._task_id = task_id
        self._job_id = job_id
        self._nonce = nonce
        self._secrets = secrets
        self._lines = LineParts(secrets)
        self._length = LogLength(most)
        self._spool = Spool(folder, limit)
        self._run = 0
        self._sent = 0
        self._unasked = UNASKED
        self._order = asyncio.Lock()
        self._more = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ending = False
        self._flush_due: asyncio.TimerHandle | None = None
        self._rest_due: asyncio.TimerHandle | None = None
        self._rest_waited = False
        self._held: list[str] = []
        """Parts that are not in the spool yet: its disk may be full."""
        self._in_hand: list[str] = []
        """Parts that are taken from the spool and not confirmed."""
        self._loop: Loop | None = None

    def redacted(self, text: str) -> str:
        """Return a text about the run, such as its error, without its secrets."""
        return Redactor(self._secrets).redact(text)

    def redacted_log(self, text: str) -> str:
        """Return a part of the log, from anywhere in it, without its secrets."""
        redactor = StreamRedactor(self._secrets)
        return redactor.feed(text) + redactor.flush()

    def begin(self, run: int) -> None:
        """Ship from now on, as run number `run`: the claim was granted."""
        self._run = run
        self._loop = Loop("ship a log", self._ship, about=self._task_id)
        self._loop.start()

    async def write(self, data: bytes) -> None:
        """Take bytes of the log; waits while the spool is full."""
        async with self._order:
            await self._feed(self._length.within(data))
            await self._put_held()
        if self._flush_due is None:
            loop = asyncio.get_running_loop()
            self._flush_due = loop.call_later(FLUSH_AFTER, self._flush)
        await self._room.wait()

    async def _feed(self, data: bytes) -> None:
        """Search for secrets, in a thread where it may take long. Cancelled once, it is done first: nothing is lost."""
        if not self._secrets or len(data) <= SEARCHED_HERE:
            self._held += self._lines.feed(data)
            return
        search = start_task(in_thread(self._lines.feed, data), f"search the log of {self._task_id}")
        try:
            await to_its_end(search)
        finally:
            if search.done() and not search.cancelled():  # it is not, where cancelled once more
                self._held += search.result()

    async def end(self) -> tuple[int, str | None]:
        """Return the number of parts and the last one's contents, all earlier ones being confirmed.

        An empty log has none; a last part that is empty does not count."""
        self._cancel_flush()
        async with self._order:
            last = self._end_of_lines()
            await self._put_held()
        await self._finish()
        if not last:
            return self._sent, None
        return self._sent + 1, last

    async def end_by_itself(self) -> None:
        """Send all of it, the last part too, where no end of the run will be reported."""
        self._cancel_flush()
        async with self._order:
            if last := self._end_of_lines():
                self._held.append(last)
            await self._put_held()
        await self._finish()

    def _end_of_lines(self) -> str:
        if words := self._length.words():
            self._held += self._lines.feed(words.encode())
        return self._lines.end()

    async def drop(self) -> int:
        """Forget all that is not sent; return the number of the last part that was to be."""
        self._cancel_flush()
        if self._loop is not None:
            await self._loop.close()
        await self._spool.close()
        self._room.set()
        return self._sent

    def _flush(self) -> None:
        self._flush_due = None
        self._more.set()

    def _flush_rest(self) -> None:
        self._rest_due = None
        self._rest_waited = True
        self._more.set()

    def _cancel_flush(self) -> None:
        for due in (self._flush_due, self._rest_due):
            if due is not None:
                due.cancel()
        self._flush_due = self._rest_due = None

    async def _put_held(self) -> None:
        while self._held:
            put = start_task(self._spool.put(self._held[0]), f"keep the log of {self._task_id}")
            try:
                await to_its_end(put)
            finally:
                if put.done() and not put.cancelled() and put.exception() is None:
                    del self._held[0]
            if self._spool.full:
                self._room.clear()
            self._more.set()

    async def _finish(self) -> None:
        self._ending = True
        self._more.set()
        if self._loop is not None:
            with waiting():
                await self._loop.wait()
        await self._spool.close()

    async def _ship(self) -> None:
        while True:
            if not self._ending:
                await self._take_complete()
            while parts := await self._next_parts():
                await self._send(parts)
            if self._ending and not len(self._spool):
                return
            with waiting():
                await self._more.wait()
            self._more.clear()

    async def _take_complete(self) -> None:
        """Move the whole lines that have waited long enough into the spool, behind what is on its way there."""
        async with self._order:
            if self._flush_due is None and (complete := self._lines.complete()):
                self._held.append(complete)
            if self._rest_waited:
                self._rest_waited = False
                if rest := self._lines.rest():
                    self._held.append(rest)
            elif self._rest_due is None and self._lines.waits:
                loop = asyncio.get_running_loop()
                self._rest_due = loop.call_later(REST_AFTER, self._flush_rest)
            await self._put_held()

    async def _next_parts(self) -> list[str]:
        size = sum(map(len, self._in_hand))
        while size < MESSAGE_BYTES and (part := await self._take()) is not None:
            self._in_hand.append(part)
            size += len(part)
        return self._in_hand

    async def _take(self) -> str | None:
        """Return the next part from the spool; what its disk does not give back is given up, for the end must come."""
        try:
            return await self._spool.take()
        except OSError as error:
            log.exception("a part of a log is lost", task=self._task_id)
            await self._spool.close()
            return f"[a part of this log is lost: its worker's disk: {error.strerror}]\n"

    async def _send(self, parts: list[str]) -> None:
        if self._unasked <= 0:
            await self._sender.room_for_logs()
            self._unasked = UNASKED
        self._unasked -= sum(map(len, parts))
        message = LogWritten(
            task_id=self._task_id,
            job_id=self._job_id,
            run=self._run,
            nonce=self._nonce,
            first=self._sent + 1,
            parts=parts,
        )
        await self._sender.log(message)
        self._sent += len(parts)
        self._in_hand = []
        if not self._spool.full:
            self._room.set()


class LogLength:
    """Lets the first bytes of a log through, whole lines of them, and counts what it drops after that."""

    def __init__(self, most: int) -> None:
        """`most`: bytes; 0 for any number."""
        self._most = most
        self._left = most
        self._dropped = 0
        self._at_line = True

    def within(self, data: bytes) -> bytes:
        """Return what of these bytes is still within the limit."""
        if not self._most or (not self._dropped and len(data) <= self._left):
            kept = data
        else:
            kept = b"" if self._dropped else data[: data.rfind(b"\n", 0, self._left) + 1]
            self._dropped += len(data) - len(kept)
        self._left -= len(kept)
        self._at_line = kept.endswith(b"\n") if kept else self._at_line
        return kept

    def words(self) -> str:
        """Say how much was dropped; empty where nothing was."""
        if not self._dropped:
            return ""
        dropped, most = amount(self._dropped), amount(self._most)
        said = f"[{dropped} of this log dropped: it is longer than {most} (worker.limits.log)]\n"
        return said if self._at_line else f"\n{said}"


SEARCHED_HERE = 4 * 1024
"""Bytes that are searched for secrets on the event loop; more in a thread: what is made to match takes long."""

PART_BYTES = 64 * 1024
"""A part is about so long at the most: a longer line is cut, so that memory is bounded whatever a task prints."""


class LineParts:
    """Cuts a stream of bytes into parts. What is not UTF-8 becomes U+FFFD."""

    def __init__(self, secrets: list[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._redactor = StreamRedactor(secrets)
        self._pending: list[str] = []
        self._length = 0

    def feed(self, data: bytes) -> list[str]:
        """Take bytes; return the parts that are full."""
        return self._take(self._redactor.feed(self._decoder.decode(data)))

    def end(self) -> str:
        """Return what is left, whole lines or not; nothing follows."""
        text = self._redactor.feed(self._decoder.decode(b"", final=True)) + self._redactor.flush()
        self._pending.append(text)
        return self.rest()

    @property
    def waits(self) -> bool:
        """Whether there is text that is not taken yet."""
        return self._length > 0

    def rest(self) -> str:
        """Return all that waits, the beginning of a line too."""
        text = "".join(self._pending)
        self._pending, self._length = [], 0
        return text

    def complete(self) -> str:
        """Return the whole lines that wait, and keep what comes after the last of them."""
        text = "".join(self._pending)
        cut = text.rfind("\n") + 1
        self._pending = [text[cut:]] if cut < len(text) else []
        self._length = len(text) - cut
        return text[:cut]

    def _take(self, text: str) -> list[str]:
        if not text:
            return []
        self._pending.append(text)
        self._length += len(text)
        parts: list[str] = []
        while self._length >= PART_BYTES:
            parts.append(self._cut())
        return parts

    def _cut(self) -> str:
        """Return the first part: up to the last line break that fits, or as much as fits of one long line."""
        text = "".join(self._pending)
        cut = text.rfind("\n", 0, PART_BYTES) + 1 or PART_BYTES
        self._pending = [text[cut:]]
        self._length = len(text) - cut
        return text[:cut]
