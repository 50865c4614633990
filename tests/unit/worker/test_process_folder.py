"""What a worker process leaves to the one that comes after it on its host."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import psutil
import pytest

from shared.errors import RuntimeUnavailable
from shared.model.messages import (
    HandedBack,
    MessageCodec,
    RunEnded,
    SendEnd,
    Succeeded,
)
from tests.unit.worker.plant import Plant
from worker import process_folder
from worker.process_folder import ProcessFolder
from worker.runtime.port import Outcome


def folder_of(data: Path, node: str) -> ProcessFolder:
    return ProcessFolder(data, node, MessageCodec(None))


def end_of(nonce: str, size: int = 3) -> RunEnded:
    return RunEnded(
        task_id=f"task of {nonce}",
        job_id="job",
        run=1,
        nonce=nonce,
        node_id="first",
        ok=True,
        result="r" * size,
    )


def test_processes_that_share_a_data_folder_have_numbered_folders_of_their_own(
    tmp_path: Path,
) -> None:
    made = [folder_of(tmp_path, str(number)) for number in range(3)]
    for folder in made:
        folder.take()
    assert [folder.path.name for folder in made] == ["1", "2", "3"]
    made[1].close()
    fourth = folder_of(tmp_path, "3")
    fourth.take()
    assert fourth.path.name == "2", "the lowest that is free"
    assert fourth.predecessors == ["1"]


def test_the_next_process_hears_of_all_before_it_until_that_is_answered(tmp_path: Path) -> None:
    for node in ("first", "second"):
        folder = folder_of(tmp_path, node)
        folder.take()
        folder.close()
    third = folder_of(tmp_path, "third")
    third.take()
    assert third.predecessors == ["first", "second"]
    third.answered(["first"])
    third.close()
    fourth = folder_of(tmp_path, "fourth")
    fourth.take()
    assert fourth.predecessors == ["second", "third"]


def test_ends_that_are_not_stored_are_left_to_it(tmp_path: Path) -> None:
    first = folder_of(tmp_path, "first")
    assert first.take() == []
    for nonce in ("a", "b", "c"):
        first.keep(end_of(nonce))
    first.strike_out("b")
    back = HandedBack(task_id="t", job_id="j", run=2, nonce="d", node_id="first", reason="drain")
    first.keep(back)
    first.strike_out("nobody's")
    first.close()
    second = folder_of(tmp_path, "second")
    assert second.take() == [end_of("a"), end_of("c"), back]
    second.strike_out("a")
    second.close()
    assert folder_of(tmp_path, "third").take() == [end_of("c"), back]


def test_an_entry_that_was_cut_short_loses_no_other(tmp_path: Path) -> None:
    first = folder_of(tmp_path, "first")
    first.take()
    first.keep(end_of("a"))
    whole = (first.path / "ends").stat().st_size
    first.keep(end_of("b"))
    first.close()
    data = (first.path / "ends").read_bytes()
    for length in range(whole, len(data)):
        (first.path / "ends").write_bytes(data[:length])
        again = folder_of(tmp_path, "second")
        assert again.take() == [end_of("a")]
        again.close()


def test_the_file_of_ends_is_no_longer_than_what_is_left_to_be_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process_folder, "COMPACTED_AT", 10_000)
    folder = folder_of(tmp_path, "first")
    folder.take()
    folder.keep(end_of("old"))
    for number in range(200):
        folder.keep(end_of(str(number), size=1_000))
        folder.strike_out(str(number))
    assert (folder.path / "ends").stat().st_size < 15_000
    folder.close()
    again = folder_of(tmp_path, "second")
    assert again.take() == [end_of("old")]
    again.strike_out("old")
    assert (again.path / "ends").stat().st_size == 0


@pytest.mark.parametrize("refused", ["open", "write", "half a write"])
def test_a_disk_that_refuses_the_new_file_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setattr(process_folder, "COMPACTED_AT", 1_000)
    folder = folder_of(tmp_path, "first")
    folder.take()
    folder.keep(end_of("old"))
    open_file, write, first = os.open, os.pwrite, folder._file

    def full_open(path: Path, flags: int, mode: int = 0o777) -> int:
        if refused == "open" and path.name == "ends.new":
            raise OSError(errno.EIO, "Input/output error")
        return open_file(path, flags, mode)

    def full_write(file: int, data: bytes, at: int) -> int:
        if file == first or refused == "open":
            return write(file, data, at)
        if refused == "write":
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data[: len(data) // 2], at)

    with monkeypatch.context() as disk:
        disk.setattr(os, "open", full_open)
        disk.setattr(os, "pwrite", full_write)
        for number in range(20):
            folder.keep(end_of(str(number), size=1_000))
            folder.strike_out(str(number))
    folder.keep(end_of("new"))
    folder.close()
    again = folder_of(tmp_path, "second")
    left = {end.nonce for end in again.take()}
    assert {"old", "new"} <= left
    again.close()


@pytest.mark.parametrize("what", ["_boot", "_machine"])
def test_after_a_start_of_the_machine_or_on_another_only_the_lease_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = folder_of(tmp_path, "first")
    first.take()
    first.keep(end_of("a"))
    first.close()
    monkeypatch.setattr(process_folder, what, lambda: "another")
    second = folder_of(tmp_path, "second")
    assert second.take() == []
    assert second.predecessors == []


def test_on_a_network_file_system_only_the_lease_speaks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = folder_of(tmp_path, "first")
    first.take()
    first.close()
    mounted = type("Disk", (), {"mountpoint": str(tmp_path), "fstype": "nfs4"})
    monkeypatch.setattr(psutil, "disk_partitions", lambda **_: [mounted])
    second = folder_of(tmp_path, "second")
    second.take()
    assert second.predecessors == []


def test_a_process_that_ended_in_order_is_nobodys_predecessor(tmp_path: Path) -> None:
    first = folder_of(tmp_path, "first")
    first.take()
    first.leave()
    first.close()
    second = folder_of(tmp_path, "second")
    second.take()
    assert second.predecessors == []


def test_a_folder_that_can_not_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "1").write_text("not a folder")
    with pytest.raises(RuntimeUnavailable, match=r"worker\.data: .* cannot be used"):
        folder_of(tmp_path, "first").take()


async def test_a_daemon_goes_on_where_one_ended_that_was_killed(tmp_path: Path) -> None:
    killed = Plant(tmp_path, node="killed")
    await killed.start()
    killed.folder.keep(end_of("told to nobody"))
    killed.folder.close()  # as its death does
    plant = Plant(tmp_path)
    plant.runtime.left = ["killed", "somebody else"]
    await plant.start()
    assert plant.runtime.swept_for == ["killed"], "what is left of it, and of nobody else"
    beat = await plant.next_beat(lambda _: True)
    assert beat.predecessors == ["killed"]
    assert [(held.nonce, held.role) for held in beat.held] == [("told to nobody", "ended")]
    await plant.tell(SendEnd(nonces=["told to nobody"]))
    assert await plant.next(RunEnded) == end_of("told to nobody")
    await plant.tell(Succeeded(nodes=["killed"]))
    await plant.stored(end_of("told to nobody"))
    await plant.next_beat(lambda beat: beat.predecessors == [] and beat.held == [])
    await plant.close()
    await killed.close()


async def test_an_end_is_kept_before_it_is_told_and_until_it_is_stored(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    await plant.start()
    run = await plant.running()
    run.end(Outcome(result="done"))
    end = await plant.next(RunEnded)
    kept = tmp_path / "1" / "ends"
    assert end.nonce.encode() in kept.read_bytes()
    await plant.stored(end)
    told = plant.daemon.beats.number
    await plant.next_beat(lambda beat: beat.held == [] and beat.number > told)
    assert kept.read_bytes() == b""
    await plant.close()
