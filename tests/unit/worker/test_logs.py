"""A run's log on its way: cut into parts, spooled, numbered, shipped in order."""

from __future__ import annotations

import asyncio
import errno
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.broker.memory import MemoryBroker
from shared.model.messages import LogWritten, MessageCodec
from shared.model.queues import LOGS_QUEUE
from shared.supervision import beside
from worker import log_shipper, sender
from worker.log_shipper import (
    IN_MEMORY,
    MESSAGE_BYTES,
    PART_BYTES,
    SEARCHED_HERE,
    UNASKED,
    LineParts,
    LogShipper,
    Spool,
)


class Letterbox:
    """Takes log messages as a post does; holds them back while it is shut."""

    def __init__(self) -> None:
        self.messages: list[LogWritten] = []
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def room_for_logs(self) -> None:
        pass

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


@pytest.mark.slow
async def test_a_spool_that_is_never_empty_does_not_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipper, "FILE_BYTES", 1 << 20)
    spool = Spool(tmp_path, 1 << 30)
    for number in range(30):
        await spool.put(f"{number}".ljust(100_000, "x"))
    for number in range(30, 1_000):
        await spool.put(f"{number}".ljust(100_000, "x"))
        taken = await spool.take()
        assert taken is not None
        assert taken.rstrip("x") == f"{number - 30}"
        assert sum(file.size for file in spool._files) < 6_000_000
    await spool.close()


async def test_a_spool_whose_disk_is_full_gives_back_nothing_that_it_did_not_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool(tmp_path, 1 << 30)
    with monkeypatch.context() as patch:
        patch.setattr(log_shipper.SpoolFile, "append", full)
        with pytest.raises(OSError, match="No space"):
            await spool.put("x" * (IN_MEMORY + 1))
    assert await spool.take() is None
    await spool.put("later")
    assert await spool.take() == "later"


async def test_a_prompt_is_sent_though_its_line_does_not_end(tmp_path: Path) -> None:
    post = Letterbox()
    ship = shipper(post, tmp_path, secrets=("hunter22",))
    ship.begin(1)
    await ship.write(b"first\nwaiting for the database, hunter22 ... ")
    async with asyncio.timeout(2):
        while "..." not in "".join(post.parts().values()):  # noqa: ASYNC110 - the letterbox tells nobody
            await asyncio.sleep(0.02)
    await ship.write(b"done\n")
    assert await whole(ship, post) == "first\nwaiting for the database, [REDACTED] ... done\n"


async def test_a_log_past_its_limit_is_dropped_and_the_last_line_says_so(tmp_path: Path) -> None:
    post = Letterbox()
    ship = LogShipper(post, "t", "j", "n", [], tmp_path, 1 << 28, most=300_000)  # type: ignore[arg-type]  # a Letterbox
    ship.begin(1)
    for _ in range(100):
        await ship.write(b"x" * 9_999 + b"\n")
    text = await whole(ship, post)
    *kept, last = text.splitlines()
    assert kept == ["x" * 9_999] * 30
    assert last == "[683.6 KiB of this log dropped: it is longer than 293 KiB (worker.limits.log)]"


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

    for at in range(0, len(data), 9_973):
        await ship.write(data[at : at + 9_973])
    asyncio.get_running_loop().call_later(0.1, post.open.set)
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


@pytest.mark.slow
async def test_a_long_log_waits_while_coordinators_do_not_store_and_a_short_one_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "LOGS_WAITING", 20)
    monkeypatch.setattr(sender, "_FIRST_DELAY", 0.01)
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    post = sender.Sender(broker, MessageCodec())
    ships = [LogShipper(post, f"t{n}", "j", "n", [], tmp_path, 1 << 28) for n in range(3)]
    for ship in ships:
        ship.begin(1)
    flood = b"x" * 99 + b"\n"
    for ship in ships[:2]:
        await ship.write(flood * 200_000)
    await asyncio.sleep(0.5)
    most = 20 + 2 * (UNASKED // MESSAGE_BYTES + 1)
    waiting = await broker.ready(LOGS_QUEUE)
    assert waiting is not None
    assert 20 <= waiting <= most
    async with asyncio.timeout(5):
        await ships[2].write(flood * 2_000)
        await ships[2].end()
    slot = await broker.slot(LOGS_QUEUE)

    async def store() -> None:
        while True:
            await (await slot.take()).ack()

    async with asyncio.timeout(20), beside(store(), "store"):
        assert [(await ship.end())[0] for ship in ships[:2]] == [306, 306]
    await broker.close()


async def test_a_search_that_is_cut_short_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()
    feed = LineParts.feed

    def slow(self: LineParts, data: bytes) -> list[str]:
        began.set()
        go_on.wait(10)
        return feed(self, data)

    monkeypatch.setattr(LineParts, "feed", slow)
    post = Letterbox()
    ship = shipper(post, tmp_path, secrets=("secret",))
    ship.begin(1)
    text = "line\n" * SEARCHED_HERE
    async with beside(ship.write(text.encode()), "write") as writing:
        await asyncio.to_thread(began.wait)
        writing.cancel()
        await asyncio.sleep(0)
        go_on.set()
        await asyncio.wait({writing})
    assert await whole(ship, post) == text


async def test_a_search_that_is_cancelled_twice_is_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(_: LineParts, data: bytes) -> list[str]:
        began.set()
        go_on.wait(10)
        return [data.decode()]

    monkeypatch.setattr(LineParts, "feed", slow)
    ship = shipper(Letterbox(), tmp_path, secrets=("secret",))
    writing = asyncio.create_task(ship.write(b"line\n" * SEARCHED_HERE))
    await asyncio.to_thread(began.wait)
    for _ in range(2):
        writing.cancel()
        await asyncio.sleep(0)
    await asyncio.wait({writing}, timeout=5)
    go_on.set()
    assert writing.cancelled()


async def test_a_log_made_to_match_is_not_searched_on_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread, fed_in, feed = threading.get_ident(), set[int](), LineParts.feed

    def noted(lines: LineParts, data: bytes) -> list[str]:
        fed_in.add(threading.get_ident())
        return feed(lines, data)

    monkeypatch.setattr(LineParts, "feed", noted)
    post = Letterbox()
    ship = shipper(post, tmp_path, secrets=("aaaa",))
    ship.begin(1)
    for _ in range(3):
        await ship.write(b"a" * SEARCHED_HERE * 4)
    assert loop_thread not in fed_in
    assert await whole(ship, post) == "[REDACTED]"


async def test_a_log_that_is_dropped_on_a_disk_that_hangs_holds_up_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_shipper, "IN_MEMORY", 0)
    post, mended = Letterbox(), threading.Event()
    close = log_shipper.SpoolFile.close

    def slowly(file: log_shipper.SpoolFile) -> None:
        assert mended.wait(5), "the event loop does not wait for it"
        close(file)

    monkeypatch.setattr(log_shipper.SpoolFile, "close", slowly)
    ship = shipper(post, tmp_path)
    await ship.write(b"x" * (PART_BYTES + 1))
    dropping = asyncio.create_task(ship.drop())
    await asyncio.wait({dropping}, timeout=0.1)
    assert not dropping.done()
    mended.set()
    await dropping
    assert len(ship._spool) == 0


def held_disk(patch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Have what is written to a spool's files wait. Return what says that it does, and what lets it go on."""
    begun, goes_on = threading.Event(), threading.Event()
    append = log_shipper.SpoolFile.append

    def slowly(file: log_shipper.SpoolFile, data: bytes) -> None:
        begun.set()
        assert goes_on.wait(10)
        append(file, data)

    patch.setattr(log_shipper.SpoolFile, "append", slowly)
    return begun, goes_on


async def test_a_cancelled_call_of_a_spool_keeps_its_turn_until_it_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two threads in one file would mix up what they write and read."""
    begun, goes_on = held_disk(monkeypatch)
    spool = Spool(tmp_path / "spool", 1 << 24)
    first = "a" * (IN_MEMORY + 1)
    putting = asyncio.create_task(spool.put(first))
    assert await asyncio.to_thread(begun.wait, 10)
    putting.cancel()
    taking = asyncio.create_task(spool.take())
    await asyncio.wait({putting, taking}, timeout=0.1)
    assert not taking.done()
    goes_on.set()
    assert await taking == first


async def test_what_is_put_as_its_writer_is_cancelled_is_sent_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, goes_on = held_disk(monkeypatch)
    monkeypatch.setattr(log_shipper, "IN_MEMORY", 0)
    post = Letterbox()
    shipping = shipper(post, tmp_path)
    line = b"x" * (PART_BYTES - 1) + b"\n"
    writing = asyncio.create_task(shipping.write(line))
    assert await asyncio.to_thread(begun.wait, 10)
    writing.cancel()
    goes_on.set()
    await asyncio.wait({writing})
    shipping.begin(1)
    await shipping.end_by_itself()
    assert "".join(post.parts().values()) == line.decode()
