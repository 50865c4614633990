"""Mounts of three types: what they hold, how long they live, and what they must never reach."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from shared.config.tree import Bind
from shared.model.language import Mount, SmallTask
from tests.contract.runtime_runs import IMAGE, Log
from tests.integration.docker.conftest import Start

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


@pytest.mark.parametrize(
    "opts",
    [
        {"type": "none", "o": "bind", "device": "/etc"},
        {"type": "tmpfs", "o": "size=1m,rbind", "device": "/etc"},
        {"type": "ext4", "device": "/dev/vda"},
        {"type": "overlay", "o": "lowerdir=/etc,upperdir=/tmp/u,workdir=/tmp/w", "device": "x"},
        {"device": "/etc"},
    ],
)
async def test_a_volume_is_no_way_around_the_rules_of_binds(
    subject: Any, opts: dict[str, str]
) -> None:
    ran = await subject.ran(run="ls /x", mounts=[Mount(type="volume", target="/x", opts=opts)])
    assert ran.outcome.error is not None
    assert "not allowed" in ran.outcome.error


async def test_a_volume_with_options_of_the_driver(subject: Any) -> None:
    opts = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m"}
    ran = await subject.ran(
        run="grep ' /x ' /proc/mounts", mounts=[Mount(type="volume", target="/x", opts=opts)]
    )
    assert "size=2048k" in ran.log.text


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
            rules.real_path(str(other), "mounts[0]")
