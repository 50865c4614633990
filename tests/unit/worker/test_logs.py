"""A run's log on its way: cut into parts, spooled, numbered, shipped in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.model.messages import LogWritten
from worker.log_shipper import IN_MEMORY, PART_BYTES, LineParts, LogShipper, Spool


class Letterbox:
    """Takes log messages as a post does; holds them back while it is shut."""

    def __init__(self) -> None:
        self.messages: list[LogWritten] = []
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def log(self, message: LogWritten) -> None:
        await self.open.wait()
        self.messages.append(message)
        self.arrived.set()

    def parts(self) -> dict[int, str]:
        """Return the parts by number; the same number twice fails."""
        found: dict[int, str] = {}
        for message in self.messages:
            for number, part in enumerate(message.parts, message.first):
                assert number not in found
                found[number] = part
        return found


def shipper(
    post: Letterbox, folder: Path, limit: int = 1 << 28, *, secrets: tuple[str, ...] = ()
) -> LogShipper:
    return LogShipper(post, "task", "job", "nonce", list(secrets), folder, limit)  # type: ignore[arg-type]  # a Letterbox


async def whole(ship: LogShipper, post: Letterbox) -> str:
    """End the log, and return all of it, checking that the parts are numbered without a gap."""
    count, last = await ship.end()
    parts = post.parts()
    if last is not None:
        assert count not in parts
        parts[count] = last
    assert sorted(parts) == list(range(1, count + 1))
    return "".join(parts[number] for number in sorted(parts))


@given(st.lists(st.binary(max_size=200), max_size=40))
def test_however_bytes_are_cut_the_text_is_the_same(pieces: list[bytes]) -> None:
    lines = LineParts([])
    parts = [part for piece in pieces for part in lines.feed(piece)]
    parts.append(lines.end())
    assert "".join(parts) == b"".join(pieces).decode("utf-8", "replace")


def test_a_part_is_whole_lines_unless_one_line_is_longer() -> None:
    lines = LineParts([])
    line = "x" * 99 + "\n"
    parts = lines.feed(line.encode() * 5000)
    assert parts
    assert all(part.endswith("\n") and len(part) <= PART_BYTES for part in parts)
    [first, *_] = LineParts([]).feed(b"y" * (3 * PART_BYTES))
    assert first == "y" * PART_BYTES


def test_a_secret_that_falls_on_two_pieces_is_redacted() -> None:
    lines = LineParts(["hunter22"])
    assert lines.feed(b"the word is hun") == []
    assert lines.feed(b"ter22, said twice: hunter22\n") == []
    assert lines.end() == "the word is [REDACTED], said twice: [REDACTED]\n"


@given(st.lists(st.text(max_size=50), max_size=20))
async def test_a_spool_gives_back_what_was_put_in_order(texts: list[str]) -> None:
    spool = Spool(Path("/nonexistent"), 1 << 20)
    for text in texts:
        await spool.put(text)
    taken = [await spool.take() for _ in texts]
    assert taken == texts
    assert await spool.take() is None
    assert len(spool) == 0


async def test_a_spool_keeps_little_in_memory_and_the_rest_on_disk(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", 1 << 24)
    texts = [f"{number} ".ljust(100_000, "é") for number in range(50)]
    for text in texts:
        await spool.put(text)
    assert spool._in_memory <= IN_MEMORY
    assert [await spool.take() for _ in texts] == texts
    await spool.put("again")
    assert await spool.take() == "again"


async def test_a_short_log_travels_with_the_end_alone(tmp_path: Path) -> None:
    post = Letterbox()
    ship = shipper(post, tmp_path)
    ship.begin(1)
    await ship.write(b"hello\n")
    assert await ship.end() == (1, "hello\n")
    assert post.messages == []


async def test_an_empty_log_has_no_part(tmp_path: Path) -> None:
    ship = shipper(Letterbox(), tmp_path)
    ship.begin(1)
    assert await ship.end() == (0, None)


async def test_lines_are_sent_while_the_task_goes_on(tmp_path: Path) -> None:
    post = Letterbox()
    ship = shipper(post, tmp_path)
    ship.begin(3)
    await ship.write(b"first\nsecond\nhalf a li")
    async with asyncio.timeout(5):
        await post.arrived.wait()
    [message] = post.messages
    assert (message.run, message.first, message.parts) == (3, 1, ["first\nsecond\n"])
    await ship.write(b"ne\n")
    assert await ship.end() == (2, "half a line\n")


async def test_what_comes_before_the_grant_is_kept(tmp_path: Path) -> None:
    post = Letterbox()
    ship = shipper(post, tmp_path)
    await ship.write(b"pulling\n" * 20_000)
    assert post.messages == []
    ship.begin(1)
    await ship.write(b"started\n")
    assert await whole(ship, post) == "pulling\n" * 20_000 + "started\n"


async def test_a_long_log_arrives_whole_and_in_order_through_a_slow_post(tmp_path: Path) -> None:
    post = Letterbox()
    post.open.clear()
    ship = shipper(post, tmp_path)
    ship.begin(1)
    expected = "".join(f"line {number}\n" for number in range(300_000))
    data = expected.encode()

    async def write() -> None:
        for at in range(0, len(data), 9_973):
            await ship.write(data[at : at + 9_973])

    writing = asyncio.create_task(write())
    await asyncio.sleep(0)
    post.open.set()
    await writing
    assert await whole(ship, post) == expected


async def test_a_full_spool_holds_the_writer_up_until_there_is_room(tmp_path: Path) -> None:
    post = Letterbox()
    post.open.clear()
    ship = shipper(post, tmp_path, limit=4 * PART_BYTES)
    ship.begin(1)
    line = b"z" * 999 + b"\n"
    writing = asyncio.create_task(ship.write(line * 1000))
    done, _ = await asyncio.wait({writing}, timeout=0.3)
    assert not done
    post.open.set()
    async with asyncio.timeout(10):
        await writing
    assert await whole(ship, post) == (line * 1000).decode()


async def test_a_log_without_an_end_is_sent_to_its_last_line(tmp_path: Path) -> None:
    post = Letterbox()
    ship = shipper(post, tmp_path)
    ship.begin(1)
    await ship.write(b"one\ntwo without a break")
    await ship.end_by_itself()
    assert post.parts() == {1: "one\ntwo without a break"}


@pytest.mark.parametrize("begun", [True, False])
async def test_a_dropped_log_sends_nothing_more(tmp_path: Path, begun: bool) -> None:
    post = Letterbox()
    post.open.clear()
    ship = shipper(post, tmp_path)
    if begun:
        ship.begin(1)
    await ship.write(b"x" * PART_BYTES * 3)
    await ship.drop()
    post.open.set()
    await asyncio.sleep(0)
    assert post.messages == []
