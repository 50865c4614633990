"""What a task's container is: isolated, limited, labelled, and gone afterwards."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from devservices.docker_engine import OCI_RUNTIME
from shared.config.schema import WorkerLimits
from shared.errors import RuntimeUnavailable
from shared.model.language import Limits, Mount, SmallTask
from tests.contract.runtime_runs import IMAGE, Log, Subject, all_dead
from tests.integration.docker.conftest import Start, named_for
from worker.runtime.docker import shared_files_probe

pytestmark = pytest.mark.docker


@pytest.fixture
def nobodys_image(api: Any) -> Any:
    """An image whose containers run as nobody."""
    name = f"haulier-test-{uuid4().hex[:8]}:1"
    container = api.create_container(IMAGE, ["true"])["Id"]
    api.commit(
        container,
        repository=name.split(":")[0],
        tag="1",
        changes="USER 65534:65534\nLABEL haulier.node=dead",
    )
    api.remove_container(container)
    yield name
    api.remove_image(name, force=True)


async def test_another_user_writes_and_replaces_the_output(
    subject: Subject, nobodys_image: str
) -> None:
    script = (
        "id -u; echo a > $TORK_OUTPUT; echo b > x; mv -f x $TORK_OUTPUT; echo 5 > $TORK_PROGRESS"
    )
    ran = await subject.ran(run=script, image=nobodys_image, files={"f": "f"})
    assert ran.outcome.error is None, ran
    assert ran.outcome.result == "b\n"
    assert ran.log.text == "65534\n"


async def test_a_private_output_of_another_user_is_read(
    subject: Subject, nobodys_image: str
) -> None:
    script = "rm $TORK_OUTPUT; umask 077; echo mine > $TORK_OUTPUT"
    ran = await subject.ran(run=script, image=nobodys_image)
    assert ran.outcome.result == "mine\n"


async def test_the_safe_defaults(subject: Subject, api: Any) -> None:
    async with subject.prepared(Log(), run="true", name="x"):
        (found,) = [c for c in named_for(api, subject.node_id) if c["Image"] == IMAGE]
        host = api.inspect_container(found["Id"])["HostConfig"]
    assert found["Labels"]["haulier.job"] == "job1"
    assert len(found["Labels"]["haulier.task"]) == 32
    assert host["Init"] is True
    assert host["Privileged"] is False
    assert host["PidsLimit"] == 4096
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host["CapAdd"]


async def test_settings_and_limits_are_passed_on(start: Start, api: Any) -> None:
    subject = await start(
        limits=WorkerLimits(cpus="1.5", memory="64m"), cap_drop=("NET_RAW",), pids_limit=100
    )
    own = Limits(memory="128m", pids=50)
    async with subject.prepared(Log(), run="true"), subject.prepared(Log(), run="true", limits=own):
        hosts = [
            api.inspect_container(found["Id"])["HostConfig"]
            for found in named_for(api, subject.node_id)
            if found["Image"] == IMAGE
        ]
    seen = {(host["NanoCpus"], host["Memory"] // 2**20, host["PidsLimit"]) for host in hosts}
    assert seen == {(1_500_000_000, 64, 100), (1_500_000_000, 128, 50)}
    assert hosts[0]["CapDrop"] == ["NET_RAW"]


async def test_an_out_of_memory_kill_is_said_to_be_one(subject: Subject) -> None:
    script = "exec tail /dev/zero"
    ran = await subject.ran(run=script, limits=Limits(memory="16m"))
    assert ran.outcome.exit_code == 137
    assert ran.outcome.error is not None
    assert "killed: out of memory" in ran.outcome.error


async def test_a_limit_that_the_engine_refuses(subject: Subject) -> None:
    ran = await subject.ran(run="true", limits=Limits(cpus="4000"))
    assert ran.outcome.error is not None
    assert "CPUs" in ran.outcome.error


async def test_an_image_that_starts_by_itself(subject: Subject, api: Any) -> None:
    name = f"haulier-test-{uuid4().hex[:8]}:1"
    container = api.create_container(IMAGE, ["true"])["Id"]
    api.commit(
        container,
        repository=name.split(":")[0],
        tag="1",
        changes='ENTRYPOINT ["echo", "by"]\nCMD ["itself"]',
    )
    api.remove_container(container)
    try:
        assert (await subject.ran(image=name)).log.text == "by itself\n"
        assert (await subject.ran(image=name, cmd=["me"])).log.text == "by me\n"
    finally:
        api.remove_image(name)


async def test_an_image_that_is_not_there(subject: Subject) -> None:
    ran = await subject.ran(run="true", image="127.0.0.1:9/no/such:image")
    assert ran.outcome.error is not None
    assert "127.0.0.1:9/no/such:image" in ran.outcome.error
    assert ran.outcome.lost is False


async def test_no_image(subject: Subject) -> None:
    ran = await subject.ran(run="true", image="")
    assert ran.outcome.error == "image: required for a task that runs in a container"


async def test_gpus_where_there_are_none(subject: Subject) -> None:
    ran = await subject.ran(run="true", gpus="all")
    assert ran.outcome.error is not None
    assert "gpu" in ran.outcome.error.lower()


async def test_a_container_removed_by_somebody_is_lost(subject: Subject, api: Any) -> None:
    log = Log()
    async with subject.prepared(log, run="echo ready; sleep 60") as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        (found,) = [c for c in named_for(api, subject.node_id) if c["Image"] == IMAGE]
        await asyncio.to_thread(api.remove_container, found["Id"], force=True)
        outcome = await work
    assert outcome.lost is True
    assert outcome.error


async def test_a_container_killed_by_somebody_has_failed(subject: Subject, api: Any) -> None:
    log = Log()
    async with subject.prepared(log, run="echo ready; sleep 60") as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        (found,) = [c for c in named_for(api, subject.node_id) if c["Image"] == IMAGE]
        await asyncio.to_thread(api.kill, found["Id"])
        outcome = await work
    assert outcome.lost is False
    assert outcome.error == "exit code 137 (SIGKILL)\nready"


async def test_a_task_that_closes_its_outputs_is_waited_for(subject: Subject) -> None:
    script = "exec >&- 2>&-; sleep 1.5; echo late > $TORK_OUTPUT"
    ran = await subject.ran(run=script)
    assert ran.outcome.result == "late\n"


async def test_nothing_is_left_in_the_engine(start: Start, api: Any) -> None:
    subject = await start(warm_sandboxes=False)
    ran = await subject.ran(
        run="true",
        mounts=[Mount(type="volume", target="/data")],
        pre=[SmallTask(image=IMAGE, run="true")],
    )
    assert ran.outcome.error is None
    mine = {"label": f"haulier.node={subject.node_id}"}
    assert api.containers(all=True, filters=mine) == []
    assert not api.volumes(filters=mine)["Volumes"]
    await subject.runtime.close()
    assert api.networks(filters=mine) == []
    assert not cgroups_of(subject.node_id)


def cgroups_of(node_id: str) -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/haulier/{node_id}/*/"))


async def test_a_cancelled_preparation_leaves_nothing(start: Start, api: Any) -> None:
    subject = await start(warm_sandboxes=False)
    work = asyncio.create_task(
        subject.runtime.prepare(subject.assignment(subject.task(run="true")), Log())
    )
    await asyncio.sleep(0.003)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert named_for(api, subject.node_id) == []


async def test_a_sweep_touches_nothing_that_is_not_ours(
    subject: Subject, api: Any, nobodys_image: str
) -> None:
    foreign = api.create_container(nobodys_image, ["true"])["Id"]
    try:
        await subject.runtime.sweep(
            lambda nodes: all_dead([node for node in nodes if node == "dead"]), subject.node_id
        )
        assert api.inspect_container(foreign)["Config"]["Labels"]["haulier.node"] == "dead"
    finally:
        api.remove_container(foreign)


async def test_a_sweep_removes_volumes_networks_and_sandboxes(start: Start, api: Any) -> None:
    dead = await start()
    task = dead.task(run="true", mounts=[Mount(type="volume", target="/d")])
    left = await dead.runtime.prepare(dead.assignment(task), Log())
    api.create_network("haulier-left", labels={"haulier.node": dead.node_id})
    alive = await start()

    async def only(nodes: Any) -> Any:
        return [node for node in nodes if node == dead.node_id]

    assert await alive.runtime.sweep(only, alive.node_id) >= 4
    mine = {"label": f"haulier.node={dead.node_id}"}
    assert api.containers(all=True, filters=mine) == []
    assert not api.volumes(filters=mine)["Volumes"]
    assert api.networks(filters=mine) == []
    await left.remove()


async def test_a_privileged_container_only_by_configuration(start: Start, api: Any) -> None:
    subject = await start(privileged=True)
    async with subject.prepared(Log(), run="true"):
        (found,) = named_for(api, subject.node_id)
        assert api.inspect_container(found["Id"])["HostConfig"]["Privileged"] is True


async def test_no_device_of_the_hosts_can_be_read_through_the_output(subject: Subject) -> None:
    ran = await subject.ran(run="rm $TORK_OUTPUT && mknod $TORK_OUTPUT c 1 8")
    assert ran.outcome.error == "the output is not a regular file"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
async def test_a_folder_where_nothing_may_run_falls_back_to_archives(
    start: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "noexec"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noexec", "none", str(folder)]
    await asyncio.to_thread(subprocess.run, mount, check=True)
    try:
        subject = await start(data=folder)
        ran = await subject.ran(run="cat f; echo out > $TORK_OUTPUT", files={"f": "in"})
        await subject.runtime.close()
    finally:
        await asyncio.to_thread(subprocess.run, ["umount", str(folder)], check=True)
    assert ran.outcome.result == "out\n"
    assert ran.log.text == "in"


async def test_a_folder_that_grows_too_large_ends_its_task(start: Start) -> None:
    subject = await start(limits=WorkerLimits(scratch=5 * 2**20))
    fill = "mkdir -p /tork/a/b; cd /tork/a/b; dd if=/dev/zero of=big bs=1M count=8 2>/dev/null; sleep 60"
    ran = await subject.ran(run=fill)
    assert ran.outcome.error == (
        "/tork holds more than the 5 MiB that this worker allows (worker.limits.scratch)"
    )
    many = "cd /tork; i=0; while [ $i -lt 1500 ]; do : > f$i; i=$((i+1)); done; sleep 60"
    error = (await subject.ran(run=many)).outcome.error or ""
    assert "files, of which each counts as 4 KiB at least" in error
    outside = await subject.ran(run=fill.replace("/tork/", "/var/") + "& sleep 2.5; kill $!")
    assert outside.outcome.error is None


async def test_two_thousand_folders_in_one_another_are_removed(
    start: Start, tmp_path: Path
) -> None:
    subject = await start(limits=WorkerLimits(scratch=0))
    nest = "cd /tork; i=0; while [ $i -lt 2000 ]; do mkdir d; cd -P d; i=$((i+1)); done; chmod 0 /tork/d"
    ran = await subject.ran(run=nest)
    assert ran.outcome.error is None, ran
    assert not list((tmp_path / "worker/runs" / subject.node_id).iterdir())


async def test_a_read_only_root(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> bool:
        return False

    script = "touch /x || echo no; touch /tmp/y /tork/z f; echo $(cat g) > $TORK_OUTPUT"
    for shared in (True, False):
        if not shared:
            monkeypatch.setattr(shared_files_probe, "shares_files", nothing)
        subject = await start(readonly_root=True)
        ran = await subject.ran(run=script, files={"g": "given"})
        assert ran.outcome.result == "given\n", (shared, ran)
        assert "no\n" in ran.log.text


async def test_another_oci_runtime_of_the_engines(start: Start, api: Any) -> None:
    known = api.info()["Runtimes"]
    others = [name for name in (OCI_RUNTIME, "io.containerd.runc.v2") if name in known]
    if not others:
        pytest.skip("the engine, which is not ours, has only one OCI runtime")
    subject = await start(oci_runtime=others[0])
    log = Log()
    async with subject.prepared(log, run="echo fine") as run:
        (made,) = [c for c in named_for(api, subject.node_id) if c["Image"] == IMAGE]
        found = await asyncio.to_thread(api.inspect_container, made["Id"])
        assert found["HostConfig"]["Runtime"] == others[0]
        assert (await run.run()).error is None
    with pytest.raises(
        RuntimeUnavailable, match=r"runtime\.docker\.oci_runtime: the engine has no"
    ):
        await start(oci_runtime="runsc-of-nobody")


async def test_a_profile_of_system_calls(start: Start, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    subject = await start(seccomp=str(profile))
    ran = await subject.ran(run="mkdir /x || echo refused")
    assert ran.log.text.endswith("refused\n"), ran
    with pytest.raises(RuntimeUnavailable, match=r"runtime\.docker\.seccomp"):
        await start(seccomp=str(tmp_path / "missing.json"))


async def test_no_task_can_forge_packets_unless_allowed(start: Start) -> None:
    effective = "sed -n 's/^CapEff:\t//p' /proc/self/status"
    usual = await (await start()).ran(run=effective)
    allowed = await (await start(cap_drop=())).ran(run=effective)
    assert int(allowed.log.text, 16) ^ int(usual.log.text, 16) == 1 << 13  # CAP_NET_RAW


async def test_no_task_ran_for_no_time(subject: Subject) -> None:
    usages = [(await subject.ran(cmd=["true"])).outcome.usage for _ in range(8)]
    assert all(usage and 0 < usage.wall_seconds < 5 for usage in usages), usages


async def test_a_task_runs_no_shorter_than_by_its_own_clock(subject: Subject) -> None:
    script = "cut -d' ' -f1 /proc/uptime; sleep 0.3; cut -d' ' -f1 /proc/uptime"
    for _ in range(5):
        ran = await subject.ran(run=script)
        began, ended = (float(line) for line in ran.log.text.split())
        assert ran.outcome.usage is not None
        assert ran.outcome.usage.wall_seconds >= ended - began - 0.02  # hundredths, both
