"""Mounts of three types: what they hold, how long they live, and what they must never reach."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from shared.config.schema import Bind
from shared.model.language import Mount, SmallTask
from tests.contract.runtime_runs import ENOUGH, IMAGE, Log
from tests.integration.docker.conftest import Start
from tests.swapping import swapping
from worker.runtime.docker import shared_files_probe

pytestmark = pytest.mark.docker


async def test_a_volume_has_the_images_content_and_is_shared_with_pre_and_post(
    subject: Any, api: Any
) -> None:
    ran = await subject.ran(
        run="ls /etc/passwd; cat /etc/from-pre; echo main > /etc/from-main",
        mounts=[Mount(type="volume", target="/etc")],
        pre=[SmallTask(image=IMAGE, run="echo pre > /etc/from-pre")],
        post=[SmallTask(image=IMAGE, run="cat /etc/from-main")],
    )
    assert ran.outcome.error is None, ran
    assert ran.log.text == "/etc/passwd\npre\nmain\n"
    assert not api.volumes(filters={"label": f"haulier.node={subject.node_id}"})["Volumes"]


async def test_tmpfs_with_options(subject: Any) -> None:
    mounts = [Mount(type="tmpfs", target="/t", opts={"size": "1m"})]
    ran = await subject.ran(run="grep ' /t ' /proc/mounts", mounts=mounts)
    assert "tmpfs" in ran.log.text
    assert "size=1024k" in ran.log.text


async def test_files_for_a_directory_in_a_volume(subject: Any) -> None:
    mounts = [Mount(type="volume", target="/work")]
    ran = await subject.ran(run="cat a/f", workdir="/work/in", files={"a/f": "here"}, mounts=mounts)
    assert ran.log.text == "here"


@pytest.mark.parametrize("target", ["/tork", "/tork/", "/", "/x/..", "//tork/stdout", "relative"])
async def test_targets_that_are_never_mounted_over(subject: Any, target: str) -> None:
    ran = await subject.ran(run="true", mounts=[Mount(type="volume", target=target)])
    assert ran.outcome.error is not None
    assert ran.outcome.error.startswith("mounts[0]: the target")


async def test_binds_are_refused_unless_allowed(subject: Any, tmp_path: Path) -> None:
    mounts = [Mount(type="bind", source=str(tmp_path), target="/x")]
    ran = await subject.ran(run="true", mounts=mounts)
    assert ran.outcome.error == (
        "mounts[0]: bind mounts are not allowed by this worker (mounts.bind)"
    )


async def test_an_allowed_bind_is_there_and_can_be_read_only(start: Start, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("of the host")
    subject = await start(bind=Bind(allowed=True, sources=(str(source),)))
    ran = await subject.ran(
        run="cat /a/file; echo new > /a/new; touch /b/no",
        mounts=[
            Mount(type="bind", source=str(source), target="/a"),
            Mount(type="bind", source=str(source), target="/b", opts={"readonly": "true"}),
        ],
    )
    assert "of the host" in ran.log.text
    assert "Read-only file system" in ran.log.text
    assert (source / "new").read_text() == "new\n"


async def test_binds_are_judged_by_their_real_paths(start: Start, tmp_path: Path) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    allowed.mkdir()
    secret.mkdir()
    (allowed / "link").symlink_to(secret)
    (tmp_path / "way-in").symlink_to(allowed)
    subject = await start(bind=Bind(allowed=True, sources=(str(tmp_path / "way-in"),)))

    async def error(source: str) -> str | None:
        mounts = [Mount(type="bind", source=source, target="/x")]
        outcome = (await subject.ran(run="true", mounts=mounts)).outcome
        return None if outcome.error is None else str(outcome.error)

    assert await error(str(allowed)) is None
    for source in (f"{allowed}/link", f"{allowed}/../secret", str(secret), str(tmp_path), "/"):
        told = await error(source)
        assert told is not None
        assert "is not in the worker's allowed sources" in told, source
    assert "No such file" in (await error(f"{allowed}/missing") or "")


async def test_the_engines_socket_only_where_it_is_named(
    start: Start, tmp_path: Path, docker_host: str
) -> None:
    engine = socket_of(docker_host)
    (tmp_path / "link").symlink_to(engine)

    async def errors(sources: tuple[str, ...]) -> dict[str, str | None]:
        subject = await start(bind=Bind(allowed=True, sources=sources))
        found = {}
        for source in (engine, str(tmp_path / "link"), str(Path(engine).parent), "/"):
            mounts = [Mount(type="bind", source=source, target="/x")]
            run = await subject.runtime.prepare(
                subject.assignment(subject.task(run="true", mounts=mounts)), Log()
            )
            found[source] = (await run.run()).error
            await run.remove()
        return found

    for sources in ((), ("/",)):
        assert all("engine's socket" in (told or "") for told in (await errors(sources)).values())
    named = await errors((engine,))
    assert named[engine] is None
    assert named[str(tmp_path / "link")] is None
    assert named["/"] is not None


async def test_the_workers_own_files_are_not_mounted(start: Start, tmp_path: Path) -> None:
    subject = await start(bind=Bind(allowed=True, sources=(str(tmp_path),)))
    for source in (tmp_path, tmp_path / "worker/runs", tmp_path / "worker"):
        mounts = [Mount(type="bind", source=str(source), target="/x")]
        ran = await subject.ran(run="true", mounts=mounts)
        assert "worker's files" in (ran.outcome.error or "")


SWAP = "rmdir /a/sub; ln -s / /a/sub"


async def test_nothing_is_reached_by_a_folder_that_a_pre_task_replaces(
    start: Start, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("the host's")
    subject = await start(bind=Bind(allowed=True, sources=(str(allowed),)))
    mounts = [
        Mount(type="bind", source=str(allowed), target="/a"),
        Mount(type="bind", source=f"{allowed}/sub", target="/b"),
        Mount(
            type="volume",
            target="/c",
            opts={"type": "none", "o": "bind", "device": f"{allowed}/sub"},
        ),
    ]
    ran = await subject.ran(
        run=f"cat /b{tmp_path}/secret /c{tmp_path}/secret /b/etc/shadow; ls /b",
        mounts=mounts,
        pre=[SmallTask(image=IMAGE, run=SWAP)],
    )
    assert (allowed / "sub").is_symlink(), "the pre task could not do it"
    assert "the host's" not in ran.log.text
    assert "root:" not in ran.log.text
    later = await subject.ran(
        run="ls /b", mounts=[Mount(type="bind", source=f"{allowed}/sub", target="/b")]
    )
    assert "is not in the worker's allowed sources" in (later.outcome.error or "")


async def test_nothing_outside_is_read_while_a_neighbour_swaps_a_folder_and_a_link(
    start: Start, tmp_path: Path
) -> None:
    allowed, secret = tmp_path / "allowed", tmp_path / "secret"
    for folder, text in ((allowed / "sub", "ours"), (secret, "the host's")):
        folder.mkdir(parents=True)
        (folder / "word").write_text(text)
    subject = await start(bind=Bind(allowed=True, sources=(str(allowed),)), slots=4)
    mounts = [Mount(type="bind", source=f"{allowed}/sub", target="/b")]
    read: set[str] = set()
    tries = 0
    async with asyncio.timeout(ENOUGH):
        with swapping(allowed / "sub", secret):
            while tries < 40 or read != {"ours", ""}:
                runs = [subject.ran(run="cat /b/word", mounts=mounts) for _ in range(10)]
                read |= {ran.log.text for ran in await asyncio.gather(*runs)}
                tries += len(runs)
                assert read <= {"ours", ""}


async def test_what_was_opened_is_mounted_though_its_path_leads_elsewhere(
    start: Start, tmp_path: Path
) -> None:
    allowed = tmp_path / "allowed"
    (allowed / "sub").mkdir(parents=True)
    (allowed / "sub/word").write_text("ours")
    (allowed / "file").write_text("one file")
    subject = await start(bind=Bind(allowed=True, sources=(str(allowed),)))
    mounts = [
        Mount(type="bind", source=f"{allowed}/sub", target="/b"),
        Mount(type="bind", source=f"{allowed}/file", target="/f", opts={"readonly": "true"}),
    ]
    log = Log()
    async with subject.prepared(
        log, run="cat /b/word /f; ls /b; echo new > /b/new; echo x > /f", mounts=mounts
    ) as run:
        (allowed / "sub").rename(allowed / "moved")
        (allowed / "sub").symlink_to("/")
        (allowed / "file").unlink()
        (allowed / "file").symlink_to("/etc/passwd")
        await run.run()
    assert log.text.startswith("oursone fileword\n"), log.text
    assert "Read-only file system" in log.text
    assert (allowed / "moved/new").read_text() == "new\n"


async def test_an_allowed_folder_inside_another_cannot_be_made_to_lead_elsewhere(
    start: Start, tmp_path: Path
) -> None:
    secret, outer = tmp_path / "secret", tmp_path / "outer"
    secret.mkdir()
    (outer / "inner").mkdir(parents=True)
    sources = (str(outer), str(outer / "inner"))
    subject = await start(bind=Bind(allowed=True, sources=sources))
    (outer / "inner").rmdir()
    (outer / "inner").symlink_to(secret)
    again = await start(bind=Bind(allowed=True, sources=sources))  # its list leads to the secret
    for asked in (subject, again):
        for source in (secret, outer / "inner"):
            ran = await asked.ran(
                run="true", mounts=[Mount(type="bind", source=str(source), target="/x")]
            )
            assert "allowed source" in (ran.outcome.error or "")


async def test_without_the_workers_mounts_only_listed_folders_can_be_mounted(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_files_probe, "mounts_what_we_open", lambda *_: False)
    allowed = tmp_path / "allowed"
    (allowed / "sub").mkdir(parents=True)
    (allowed / "word").write_text("ours")
    subject = await start(bind=Bind(allowed=True, sources=(str(allowed),)))
    itself = await subject.ran(
        run="cat /x/word", mounts=[Mount(type="bind", source=str(allowed), target="/x")]
    )
    assert itself.log.text == "ours"
    below = await subject.ran(
        run="true", mounts=[Mount(type="bind", source=f"{allowed}/sub", target="/x")]
    )
    assert "mounts.bind.sources" in (below.outcome.error or "")


async def test_mounts_in_a_bind_are_there_and_stay_on_the_host(
    start: Start, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts")
    inner = tmp_path / "allowed/disk"
    inner.mkdir(parents=True)
    at_root("mount", "-t", "tmpfs", "tmpfs", str(inner))
    try:
        (inner / "word").write_text("on the disk")
        subject = await start(bind=Bind(allowed=True, sources=(str(tmp_path / "allowed"),)))
        mounts = [Mount(type="bind", source=f"{tmp_path}/allowed", target="/x")]
        for _ in range(2):
            ran = await subject.ran(run="cat /x/disk/word", mounts=mounts)
            assert ran.log.text == "on the disk", ran
        assert inner.is_mount()
    finally:
        at_root("umount", str(inner))


async def test_a_run_leaves_no_descriptor_open(start: Start, tmp_path: Path) -> None:
    (tmp_path / "allowed").mkdir()
    (tmp_path / "allowed/f").write_text("")
    subject = await start(bind=Bind(allowed=True, sources=(str(tmp_path / "allowed"),)))
    good = Mount(type="bind", source=str(tmp_path / "allowed"), target="/x")
    file = Mount(type="bind", source=f"{tmp_path}/allowed/f", target="/f")
    bad = Mount(type="bind", source="/etc", target="/y")
    for mounts in ([good, file], [good, bad]):
        await subject.ran(run="true", mounts=mounts)
    assert not [path for path in open_paths() if path.startswith(f"{tmp_path}/allowed")]


@pytest.mark.parametrize(
    "opts",
    [
        {"type": "none", "o": "bind", "device": "/etc"},
        {"type": "tmpfs", "o": "size=1m,rbind", "device": "/etc"},
        {"type": "ext4", "device": "/dev/vda"},
        {"type": "overlay", "o": "lowerdir=/etc,upperdir=/tmp/u,workdir=/tmp/w", "device": "x"},
        {"device": "/etc"},
        {"type": "nfs", "o": "addr=127.0.0.1,rw", "device": ":/"},
        {"type": "cifs", "o": "username=x", "device": "//127.0.0.1/share"},
        {"type": "NFS4", "device": "127.0.0.1:/"},
    ],
)
async def test_a_volume_is_no_way_around_the_rules_of_binds(
    subject: Any, opts: dict[str, str]
) -> None:
    ran = await subject.ran(run="ls /x", mounts=[Mount(type="volume", target="/x", opts=opts)])
    assert ran.outcome.error is not None
    assert "not allowed" in ran.outcome.error
    assert "mounts.bind" in ran.outcome.error


async def test_a_volume_with_options_of_the_driver(subject: Any) -> None:
    opts = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}
    ran = await subject.ran(
        run="grep ' /x ' /proc/mounts", mounts=[Mount(type="volume", target="/x", opts=opts)]
    )
    assert "size=2048k" in ran.log.text


def at_root(*command: str) -> None:
    subprocess.run(command, check=True)


def open_paths() -> list[str]:
    return [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]


def socket_of(docker_host: str) -> str:
    if not docker_host.startswith("unix://"):
        pytest.skip("the engine has no socket here")
    return os.path.realpath(docker_host.removeprefix("unix://"))


def test_sockets_are_told_by_what_they_are(tmp_path: Path) -> None:
    from worker.runtime.docker.binds import BindRules
    from worker.runtime.port import TaskError

    with socket.socket(socket.AF_UNIX) as server:
        engine, other = tmp_path / "engine.sock", tmp_path / "hard.sock"
        server.bind(str(engine))
        other.hardlink_to(engine)
        rules = BindRules(True, (), engine, tmp_path / "private", True)
        with pytest.raises(TaskError, match="engine's socket"):
            rules.source(str(other), "mounts[0]")
