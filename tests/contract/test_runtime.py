"""What every runtime promises: the same bodies over local processes and over containers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import stat
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from shared.config import Config
from shared.config.schema import Docker, RuntimeSettings, WorkerLimits, WorkerSettings
from shared.model.language import SmallTask
from tests.chaos.disks import CHUNK, can_mount, small_disk
from tests.contract.runtime_runs import ENOUGH, TRACE, Log, Subject, all_dead, nobody_dead
from tests.services.need import need
from worker.runtime.docker import DockerRuntime, shared_files_probe
from worker.runtime.port import Runtime
from worker.runtime.shell import ShellRuntime

KINDS = [
    "shell",
    pytest.param("docker", marks=pytest.mark.docker),
    pytest.param("archives", marks=pytest.mark.docker),
    pytest.param("podman", marks=pytest.mark.slow),
]
STOP_TIMEOUT = 1.0


def settings(kind: str, data: Path) -> Config:
    host = need("podman")["HAULIER_TEST_PODMAN_HOST"] if kind == "podman" else ""
    return Config(
        runtime=RuntimeSettings(stop_timeout=STOP_TIMEOUT, docker=Docker(host=host)),
        worker=WorkerSettings(
            data=str(data),
            queues={"default": 2},
            hostenv=("HAULIER_TEST_PASSED", "HAULIER_TEST_LONG:SHORT", "HAULIER_TEST_UNSET"),
            limits=WorkerLimits(output=64 * 1024),
        ),
    )


def adapter(kind: str, data: Path, node_id: str) -> Runtime:
    config = settings(kind, data)
    return ShellRuntime(config, node_id) if kind == "shell" else DockerRuntime(config, node_id)


@pytest.fixture(params=KINDS)
async def subject(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Subject]:
    kind = request.param
    monkeypatch.setenv("HAULIER_TEST_PASSED", "passed on")
    monkeypatch.setenv("HAULIER_TEST_LONG", "under another name")
    monkeypatch.setenv("HAULIER_TEST_KEPT", "kept back")
    if kind == "archives":
        monkeypatch.setattr(shared_files_probe, "shares_files", _shares_nothing)
    node_id = uuid4().hex[:12]
    runtime = adapter(kind, tmp_path, node_id)
    await runtime.start()
    runtime.warm_up()
    yield Subject(kind, runtime, node_id)
    await runtime.close()


async def _shares_nothing(*_: object) -> bool:
    return False


# --- the script, its environment, its files ---


async def test_a_script_prints_to_the_log_in_order(subject: Subject) -> None:
    ran = await subject.ran(run="echo one; echo two >&2; echo three; printf four")
    assert ran.outcome.error is None
    assert ran.outcome.exit_code == 0
    assert ran.outcome.lost is False
    assert ran.log.data == b"one\ntwo\nthree\nfour"


async def test_a_task_sees_its_own_environment_and_not_the_workers(subject: Subject) -> None:
    env = {"GREETING": "hello", "TORK_OUTPUT": "/elsewhere", "HAULIER_TASK_ID": "another"}
    ran = await subject.ran(run="env", env=env)
    seen = dict(line.split("=", 1) for line in ran.log.text.splitlines() if "=" in line)
    assert seen["GREETING"] == "hello"
    assert seen["TORK_OUTPUT"] == seen["HAULIER_OUTPUT"] != "/elsewhere"
    assert seen["TORK_PROGRESS"] == seen["HAULIER_PROGRESS"]
    assert seen["HAULIER_JOB_ID"] == "job1"
    assert seen["HAULIER_ATTEMPT"] == "2"
    assert len(seen["HAULIER_TASK_ID"]) == 32
    assert seen["HAULIER_TEST_PASSED"] == "passed on"
    assert seen["SHORT"] == "under another name"
    assert seen["TRACEPARENT"] == TRACE
    assert not {"HAULIER_TEST_LONG", "HAULIER_TEST_KEPT", "HAULIER_TEST_UNSET"} & seen.keys()


async def test_a_script_of_any_length_with_a_line_that_names_its_program(subject: Subject) -> None:
    script = "#!/bin/cat\n" + "# a long line of comment\n" * 20_000
    ran = await subject.ran(run=script)
    assert ran.outcome.error is None
    assert ran.log.text == script


async def test_entrypoint_and_cmd(subject: Subject) -> None:
    by_entrypoint = await subject.ran(run="echo $0", entrypoint=["sh"])
    assert by_entrypoint.log.text.endswith("/entrypoint\n")
    with_cmd = await subject.ran(run="true", entrypoint=["echo", "-n"], cmd=["a b", "c"])
    assert with_cmd.log.text == "a b c"
    without_run = await subject.ran(entrypoint=["echo"], cmd=["x"])
    assert without_run.log.text == "x\n"
    only_cmd = await subject.ran(cmd=["echo", "y"])
    assert only_cmd.log.text == "y\n"


async def test_files_are_in_the_working_directory(subject: Subject) -> None:
    files = {"a.txt": "alpha", "deep/er/b.txt": "beta", "./c": ""}
    ran = await subject.ran(
        run="pwd; cat a.txt deep/er/b.txt; stat -c %a a.txt c; touch new deep/new", files=files
    )
    assert ran.outcome.error is None, ran.log.text
    where, rest = ran.log.text.split("\n", 1)
    assert where.endswith("/tork/workdir" if subject.kind != "shell" else "/workdir")
    assert rest == "alphabeta444\n444\n"


async def test_a_working_directory_is_made(subject: Subject, tmp_path: Path) -> None:
    directory = f"{tmp_path}/not/yet/there"
    ran = await subject.ran(run="pwd; cat f", workdir=directory, files={"f": "in it"})
    assert ran.outcome.error is None, ran
    assert ran.log.text == f"{directory}\nin it"
    assert not (tmp_path / "not").exists()


@pytest.mark.parametrize("name", ["", "dated"])
async def test_files_have_the_time_they_were_made(
    subject: Subject, tmp_path: Path, name: str
) -> None:
    workdir = f"{tmp_path}/{name}" if name else ""
    files = {"a.txt": "alpha", "deep/er/b.txt": "beta"}
    began = int(time.time())
    ran = await subject.ran(run="stat -c %Y a.txt deep deep/er/b.txt", files=files, workdir=workdir)
    assert ran.outcome.error is None, ran.log.text
    made = [int(line) for line in ran.log.text.splitlines()]
    assert len(made) == 3
    assert began <= min(made) <= max(made) <= time.time()


@pytest.mark.parametrize("name", ["../out", "/abs", "a/../../b"])
async def test_a_file_that_climbs_out_is_refused(subject: Subject, name: str) -> None:
    ran = await subject.ran(run="true", files={name: "x"})
    assert ran.outcome.error is not None
    assert "files" in ran.outcome.error


async def test_a_nul_in_a_value_is_an_error_not_a_crash(subject: Subject) -> None:
    ran = await subject.ran(run="true", env={"A": "x\0y"})
    assert ran.outcome.error == "the value of env.A contains a NUL character"


# --- output and progress ---


async def test_output_byte_for_byte(subject: Subject) -> None:
    ran = await subject.ran(run="printf '  caf\\303\\251\\n\\n' > $TORK_OUTPUT")
    assert ran.outcome.result == "  café\n\n"
    none = await subject.ran(run="true")
    assert none.outcome.result == ""


async def test_output_replaced_and_removed(subject: Subject) -> None:
    moved = await subject.ran(run="echo moved > x; mv x $TORK_OUTPUT", files={"f": ""})
    assert moved.outcome.result == "moved\n"
    removed = await subject.ran(run="rm $TORK_OUTPUT")
    assert removed.outcome.error is None
    assert removed.outcome.result == ""


async def test_output_past_the_limit_fails(subject: Subject) -> None:
    full = await subject.ran(run="head -c 65536 /dev/zero | tr '\\0' a > $TORK_OUTPUT")
    assert full.outcome.result == "a" * 65536
    over = await subject.ran(run="head -c 65537 /dev/zero | tr '\\0' a > $TORK_OUTPUT")
    assert over.outcome.error == "the output is larger than the limit of 65536 bytes"
    assert over.outcome.result is None


async def test_output_that_is_not_text_fails(subject: Subject) -> None:
    ran = await subject.ran(run="printf 'ok\\377' > $TORK_OUTPUT")
    assert ran.outcome.error is not None
    assert "not UTF-8 text (byte 2)" in ran.outcome.error


@pytest.mark.parametrize(
    "trick",
    ["ln -s /etc/passwd $TORK_OUTPUT", "mkfifo $TORK_OUTPUT", "mkdir $TORK_OUTPUT"],
)
async def test_output_that_is_no_plain_file_fails_at_once(subject: Subject, trick: str) -> None:
    ran = await subject.ran(run=f"rm $TORK_OUTPUT; {trick}")
    assert ran.outcome.error == "the output is not a regular file"


async def test_a_fifo_for_progress_hangs_nobody(subject: Subject) -> None:
    ran = await subject.ran(run="rm $TORK_PROGRESS; mkfifo $TORK_PROGRESS; sleep 1; echo done")
    assert ran.outcome.error is None
    assert ran.log.text == "done\n"


async def test_progress_is_told_within_two_seconds(subject: Subject) -> None:
    log = Log()
    script = "echo 40 > $TORK_PROGRESS; echo written; sleep 60"
    async with subject.prepared(log, run=script) as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "written" in log.text)
        began = time.monotonic()
        await log.until(lambda log: log.told == [40.0])
        assert time.monotonic() - began < 2
        await run.stop("enough")
        await work


async def test_nonsense_for_progress_is_not_told(subject: Subject) -> None:
    script = "for x in half -1 101 nan; do echo $x > $TORK_PROGRESS; sleep 0.6; done; echo 7 > $TORK_PROGRESS; sleep 2"
    ran = await subject.ran(run=script)
    assert ran.log.told == [7.0]


# --- ends ---


async def test_the_error_has_the_code_and_the_last_ten_lines(subject: Subject) -> None:
    ran = await subject.ran(run="seq 1 25; echo why >&2; echo x > $TORK_OUTPUT; exit 42")
    last = "\n".join([*map(str, range(17, 26)), "why"])
    assert ran.outcome.error == f"exit code 42\n{last}"
    assert ran.outcome.exit_code == 42
    assert ran.outcome.result is None


async def test_a_program_that_is_not_there(subject: Subject) -> None:
    ran = await subject.ran(cmd=["no-such-program", "x"])
    assert ran.outcome.error is not None
    # The init process of Podman does not say which program it looked for.
    assert "no-such-program" in ran.outcome.error or subject.kind == "podman"


async def test_a_timeout_ends_the_whole_tree(subject: Subject, tmp_path: Path) -> None:
    mark = f"{91_000 + os.getpid() % 900}.5"
    ran = await subject.ran(
        run=f"(sleep {mark} &); setsid sleep {mark} & sleep {mark}", timeout="2500ms"
    )
    assert ran.outcome.error == "timed out after 2.5s"
    assert not _processes_with(mark)


async def test_what_a_task_leaves_running_ends_with_it(subject: Subject) -> None:
    mark = f"{92_000 + os.getpid() % 900}.5"
    ran = await subject.ran(
        run=f"(setsid sleep {mark} >/dev/null 2>&1 &); sleep {mark} & echo over"
    )
    assert ran.outcome.error is None
    assert ran.log.text == "over\n"
    assert not _processes_with(mark)


def _processes_with(mark: str) -> list[str]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                line = (folder / "cmdline").read_bytes()
            except OSError:
                continue
            if line.startswith(b"sleep") and mark.encode() in line:
                found.append(folder.name)
    return found


async def test_stop_sends_sigterm_first(subject: Subject) -> None:
    log = Log()
    script = "trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    async with subject.prepared(log, run=script) as run:
        outcome = await subject.stopped(run, log, "ready", "cancelled")
        assert outcome.error == "cancelled"
        assert outcome.exit_code in (9, 143)  # 143: of a sh that waits for the script's
        assert "bye\n" in log.text
        await run.stop("again")


async def test_stop_kills_what_ignores_sigterm(subject: Subject) -> None:
    log = Log()
    script = "trap '' TERM; echo ready; while :; do sleep 0.1; done"
    # The script's own shell is the task's process: another one around it would heed the SIGTERM.
    async with subject.prepared(log, run=script, entrypoint=["sh"]) as run:
        began = time.monotonic()
        outcome = await subject.stopped(run, log, "ready", "cancelled")
        assert (outcome.error, outcome.exit_code) == ("cancelled", 137)
        assert time.monotonic() - began >= STOP_TIMEOUT


async def test_the_exit_code_of_what_a_timeout_killed(subject: Subject) -> None:
    script = "trap '' TERM; while :; do sleep 0.1; done"
    ran = await subject.ran(run=script, entrypoint=["sh"], timeout="1500ms")
    assert (ran.outcome.error, ran.outcome.exit_code) == ("timed out after 1.5s", 137)


async def test_the_exit_code_of_a_pre_task_past_its_time(subject: Subject) -> None:
    ran = await subject.ran(
        run="true",
        pre=[subject.small(SmallTask, run="exec sleep 60", timeout="1500ms")],
        post=[subject.small(SmallTask, run="echo after")],
    )
    assert ran.outcome.error == "pre task 1: timed out after 1500ms"
    assert ran.outcome.exit_code == 143  # it ends by SIGTERM, with no need of a SIGKILL
    assert ran.log.text == ""


async def test_stop_before_the_run_starts_nothing(subject: Subject) -> None:
    log = Log()
    async with subject.prepared(log, run="echo started") as run:
        await run.stop("not wanted")
        outcome = await run.run()
        assert outcome.error == "not wanted"
        assert log.text == ""


async def test_a_prepared_run_can_be_removed_instead(subject: Subject) -> None:
    async with subject.prepared(Log(), run="echo x"):
        pass
    assert await subject.ran(run="true")


async def test_cancelling_the_run_ends_it(subject: Subject) -> None:
    log, mark = Log(), f"{93_000 + os.getpid() % 900}.5"
    async with subject.prepared(log, run=f"echo ready; sleep {mark}") as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not _processes_with(mark)


# --- pre and post ---


async def test_pre_and_post_share_the_log_but_not_the_output(subject: Subject) -> None:
    ran = await subject.ran(
        run="echo main; echo kept > $TORK_OUTPUT",
        pre=[subject.small(SmallTask, run="echo pre; echo no > $TORK_OUTPUT")],
        post=[subject.small(SmallTask, run="echo post $A; echo no > $TORK_OUTPUT", env={"A": "b"})],
    )
    assert ran.outcome.error is None
    assert ran.outcome.result == "kept\n"
    assert ran.log.text == "pre\nmain\npost b\n"


async def test_stages_never_share_a_line(subject: Subject) -> None:
    """Case 6, within a task."""
    ran = await subject.ran(
        run="printf main",
        pre=[subject.small(SmallTask, run=run) for run in ("printf pre", "true", "echo whole")],
        post=[subject.small(SmallTask, run="printf post")],
    )
    assert ran.log.text == "pre\nwhole\nmain\npost"


async def test_a_failed_pre_or_post_fails_the_task(subject: Subject) -> None:
    bad = subject.small(SmallTask, name="check", run="echo no; exit 3")
    before = await subject.ran(run="echo main", pre=[bad])
    assert before.outcome.error == "pre task 'check': exit code 3\nno"
    assert before.log.text == "no\n"
    after = await subject.ran(run="echo main", post=[bad])
    assert after.outcome.error == "post task 'check': exit code 3\nno"
    not_after = await subject.ran(run="exit 1", post=[subject.small(SmallTask, run="echo post")])
    assert "post" not in not_after.log.text


async def test_a_pre_task_has_a_timeout_of_its_own(subject: Subject) -> None:
    slow = subject.small(SmallTask, name="slow", run="sleep 60", timeout="1s")
    ran = await subject.ran(run="echo main", pre=[slow])
    assert ran.outcome.error == "pre task 'slow': timed out after 1s"


# --- amounts ---


async def test_a_large_log_takes_no_memory(subject: Subject) -> None:
    class Counting(Log):
        count = 0

        async def write(self, data: bytes) -> None:
            self.count += len(data)
            assert len(data) <= 2**20

    log, size = Counting(), 150 * 2**20
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with (
        asyncio.timeout(ENOUGH),
        subject.prepared(log, run=f"head -c {size} /dev/zero") as run,
    ):
        outcome = await run.run()
    assert outcome.error is None
    assert log.count == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024


async def test_a_slow_reader_slows_the_task(subject: Subject) -> None:
    class Stuck(Log):
        freed = asyncio.Event()
        held = asyncio.Event()

        async def write(self, data: bytes) -> None:
            self.data += data
            if len(self.data) > 100_000:
                self.held.set()
                await self.freed.wait()

    log = Stuck()
    script = "yes | head -c 30000000; echo 99 > $TORK_PROGRESS; sleep 60"
    async with subject.prepared(log, run=script) as run:
        work = asyncio.create_task(run.run())
        async with asyncio.timeout(ENOUGH):
            await log.held.wait()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(log.until(lambda log: log.told != []), 3)
            log.freed.set()
            await log.until(lambda log: log.told == [99.0])
        await run.stop("enough")
        await work
    assert len(log.data) == 30_000_000


async def test_runs_side_by_side_do_not_mix(subject: Subject) -> None:
    async def one(number: int) -> None:
        ran = await subject.ran(run=f"echo log {number}; echo {number} > $TORK_OUTPUT")
        assert ran.outcome.result == f"{number}\n"
        assert ran.log.text == f"log {number}\n"

    await asyncio.gather(*(one(number) for number in range(6)))


async def test_usage(subject: Subject) -> None:
    busy = "i=0; while [ $i -lt 400000 ]; do i=$((i+1)); done"
    usage = (await subject.ran(run=busy)).outcome.usage
    assert usage is not None
    assert 0.1 < usage.wall_seconds < 30
    if not usage.sampled:
        assert usage.cpu_seconds > 0.1
        assert 2**18 < usage.peak_memory_bytes < 2**28
    assert usage.sampled == (subject.kind == "archives") or subject.kind == "podman"


# --- a worker that cannot go on ---


async def test_a_full_disk_is_no_fault_of_the_tasks(subject: Subject, tmp_path: Path) -> None:
    if subject.kind in ("archives", "podman"):
        pytest.skip("nothing is written on the worker's disk")
    if not can_mount():
        pytest.skip("this machine lets nobody mount")
    with small_disk(tmp_path / "runs" / subject.node_id, CHUNK) as disk:
        disk.fill()
        ran = await subject.ran(run="true", files={"big": "x" * 8192})
    assert ran.outcome.lost is True, ran
    assert ran.outcome.error is not None
    assert ran.outcome.error.endswith(": No space left on device")
    assert "cannot make /" in ran.outcome.error


# --- what is left ---


async def test_nothing_is_left_after_a_run(subject: Subject, tmp_path: Path) -> None:
    await subject.ran(
        run="mkdir -p $(dirname $TORK_OUTPUT)/x/y; touch $(dirname $TORK_OUTPUT)/x/y/z"
    )
    assert list((tmp_path / "runs" / subject.node_id).iterdir()) == []


async def test_the_leftovers_of_dead_nodes_are_swept(subject: Subject, tmp_path: Path) -> None:
    left = await subject.runtime.prepare(subject.assignment(subject.task(run="true")), Log())
    other = adapter(subject.kind, tmp_path, "other" + subject.node_id)
    await other.start()
    try:
        assert await other.sweep(nobody_dead, "other" + subject.node_id) == 0
        assert await other.sweep(only(subject.node_id), subject.node_id) == 0
        assert await other.sweep(only(subject.node_id), "other" + subject.node_id) >= 1
        assert not list((tmp_path / "runs").glob(f"{subject.node_id}/*"))
    finally:
        await other.close()
    await left.remove()


def only(node_id: str):  # type: ignore[no-untyped-def]
    async def dead(nodes):  # type: ignore[no-untyped-def]
        return [node for node in await all_dead(nodes) if node == node_id]

    return dead


async def test_a_runs_folder_is_entered_by_nobody_else(subject: Subject, tmp_path: Path) -> None:
    mode = stat.S_IMODE((tmp_path / "runs" / subject.node_id).stat().st_mode)
    assert mode == 0o700


# --- what the worker lacks ---


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let this process open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("code", [0, 3])
async def test_a_run_that_ends_while_its_worker_can_open_nothing_is_not_lost(
    subject: Subject, code: int
) -> None:
    script = f"echo begun; sleep 1; printf done > $TORK_OUTPUT; echo over; exit {code}"
    after = [subject.small(SmallTask, run="echo after")] if subject.kind == "shell" else []
    log = Log()
    async with asyncio.timeout(ENOUGH), subject.prepared(log, run=script, post=after) as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "begun" in log.text)
        with no_descriptors():
            await log.until(lambda log: "over" in log.text)
            await asyncio.sleep(1.5)  # so long the fault lasts
        outcome = await work
    assert not outcome.lost, outcome
    assert (outcome.exit_code, outcome.result) == (code, None if code else "done")
    assert log.text.count("begun") == 1
    assert ("after" in log.text) is (code == 0 and subject.kind == "shell")
