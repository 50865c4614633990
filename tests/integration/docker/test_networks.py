"""Networks, sidecars, and the warm sandboxes that tasks without either share one after another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from shared.model.language import Sidecar, SidecarProbe, SmallTask
from tests.contract.runtime_runs import IMAGE, Log, Subject
from tests.integration.docker.conftest import Start, named_for
from worker.runtime.docker import networks

pytestmark = pytest.mark.docker

SERVE = "mkdir -p /www && echo served > /www/index.html && exec httpd -f -p 8080 -h /www"


@pytest.fixture
def network(api: Any) -> Iterator[str]:
    """A network of the operator's."""
    name = f"test-{uuid4().hex[:8]}"
    api.create_network(name, driver="bridge")
    yield name
    api.remove_network(name)


async def test_a_task_answers_to_its_slugged_name(subject: Subject, network: str) -> None:
    log, served = Log(), "echo ready; " + SERVE
    async with subject.prepared(log, name="My Web  Server!", run=served, networks=[network]) as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        fetch = "for i in 1 2 3 4 5 6 7 8 9; do wget -qO- http://my-web-server:8080/ && exit; sleep 0.5; done"
        ran = await subject.ran(
            run="exit 0", networks=[network], pre=[SmallTask(image=IMAGE, run=fetch)]
        )
        assert ran.log.text.endswith("served\n"), ran
        await run.stop("enough")
        await work


async def test_networks_that_are_refused(subject: Subject) -> None:
    async def error(*networks: str) -> str:
        return str((await subject.ran(run="true", networks=list(networks))).outcome.error)

    assert "runtime.docker.host_network" in await error("host")
    assert "is not a valid network name" in await error("container:abc")
    assert "does not exist" in await error("no-such-network")
    assert "can't be combined with other networks" in await error("none", "bridge")
    assert (await subject.ran(run="true", networks=["none"])).outcome.error is None


async def test_the_hosts_network_where_it_is_allowed(start: Start) -> None:
    subject = await start(host_network=True)
    ran = await subject.ran(run="ls /sys/class/net", networks=["host"])
    assert "docker0" in ran.log.text.split() or "eth0" in ran.log.text.split()


async def test_another_tasks_network_is_refused(subject: Subject, api: Any) -> None:
    name = f"haulier-{uuid4().hex[:8]}"
    api.create_network(name, labels={"haulier.node": "another"})
    try:
        ran = await subject.ran(run="true", networks=[name])
        assert ran.outcome.error == f"network {name!r} belongs to another task"
    finally:
        api.remove_network(name)


@pytest.fixture
def internal(api: Any) -> Iterator[str]:
    """The network of a cluster's own services."""
    name = f"test-{uuid4().hex[:8]}"
    api.create_network(name, driver="bridge", labels={"haulier.internal": "true"})
    yield name
    api.remove_network(name)


async def test_which_networks_a_task_may_join(
    start: Start, api: Any, network: str, internal: str
) -> None:
    async def error(subject: Subject, name: str) -> str | None:
        return (await subject.ran(run="true", networks=[name])).outcome.error

    usual = await start()
    assert await error(usual, network) is None
    assert "label haulier.internal" in str(await error(usual, internal))
    assert "runtime.docker.networks" in str(await error(usual, internal))
    for other in (network, internal, "host"):
        identity = api.inspect_network(other)["Id"]
        assert "does not exist" in str(await error(usual, identity))
    listing = await start(networks=(f"{internal[:-1]}*",))
    assert await error(listing, internal) is None
    assert await error(listing, network) == (
        f"network {network!r} is not allowed by this worker (runtime.docker.networks)"
    )


@pytest.mark.parametrize("warm", [True, False])
async def test_two_tasks_do_not_reach_each_other(start: Start, api: Any, warm: bool) -> None:
    subject, beside = await start(warm_sandboxes=warm), await start(warm_sandboxes=warm)
    serve = "hostname -i; echo ready; while true; do echo reached | nc -l -p 7777; done"
    log = Log()
    async with subject.prepared(log, run=serve) as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        address = log.text.split()[0]
        itself = "(echo itself | nc -l -p 7777 &); sleep 0.3; nc -w 2 127.0.0.1 7777"
        itself += f"; nc -w 2 {address} 7777 2>/dev/null || true"
        found = [(await other.ran(run=itself)).log.text for other in (subject, beside)]
        await run.stop("enough")
        await work
    assert found == ["itself\n", "itself\n"]
    loose = await start(warm_sandboxes=warm, own_network=False)
    assert (await loose.ran(run="true")).outcome.error is None


async def test_workers_of_an_engine_share_one_network(
    start: Start, api: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"haulier-{uuid4().hex[:8]}"  # not the one that tests beside this one are on
    monkeypatch.setattr(networks, "OWN_NETWORK", name)
    monkeypatch.setattr(networks, "INTERFACE", f"hl-{name[-8:]}")
    subjects = [await start(warm_sandboxes=False) for _ in range(4)]
    for _ in range(3):
        ran = await asyncio.gather(*(subject.ran(run="true") for subject in subjects))
        assert [one.outcome.error for one in ran] == [None] * 4
        (found,) = api.networks(names=[name])
        assert found["Options"]["com.docker.network.bridge.enable_icc"] == "false"
        api.remove_network(name)  # as a prune does
    assert (await subjects[0].ran(run="true")).outcome.error is None
    error = (await subjects[0].ran(run="true", networks=[name])).outcome.error
    assert "is internal" in str(error)
    api.remove_network(name)


async def test_a_sidecar_is_ready_before_the_task_and_gone_after_it(
    subject: Subject, api: Any
) -> None:
    sidecar = Sidecar(
        name="The Cache",
        image=IMAGE,
        run="sleep 1; " + SERVE,
        probe=SidecarProbe(path="/index.html", port=8080, timeout="30s"),
    )
    ran = await subject.ran(
        run="wget -qO- http://the-cache:8080/ > $TORK_OUTPUT",
        sidecars=[sidecar],
        post=[SmallTask(image=IMAGE, run="wget -T 2 -qO- http://the-cache:8080/ || echo gone")],
    )
    assert ran.outcome.error is None, ran
    assert ran.outcome.result == "served\n"
    assert ran.log.text.endswith("gone\n")
    left = api.networks(filters={"label": f"haulier.node={subject.node_id}"})
    assert [network["Name"] for network in left if "-net-" not in network["Name"]] == []


async def test_a_sidecar_that_ends_before_it_is_ready(subject: Subject) -> None:
    sidecar = Sidecar(
        name="db", image=IMAGE, run="echo no disk; exit 5", probe=SidecarProbe(port=1)
    )
    ran = await subject.ran(run="true", sidecars=[sidecar])
    assert ran.outcome.error == (
        "sidecar 'db': ended with exit code 5 before it was ready\nno disk"
    )


async def test_a_sidecar_that_is_never_ready(subject: Subject) -> None:
    sidecar = Sidecar(
        name="db",
        image=IMAGE,
        run=SERVE,
        probe=SidecarProbe(path="/missing", port=8080, timeout="1500ms"),
    )
    ran = await subject.ran(run="true", sidecars=[sidecar])
    assert ran.outcome.error == "sidecar 'db': not ready after 1500ms"


async def test_stopping_while_a_sidecar_gets_ready(subject: Subject, api: Any) -> None:
    sidecar = Sidecar(name="db", image=IMAGE, run="sleep 60", probe=SidecarProbe(port=1))
    async with subject.prepared(Log(), run="true", sidecars=[sidecar]) as run:
        work = asyncio.create_task(run.run())
        while not any("sidecar" in c["Names"][0] for c in named_for(api, subject.node_id)):  # noqa: ASYNC110 - the engine is asked
            await asyncio.sleep(0.05)
        await run.stop("cancelled")
        assert (await work).error == "cancelled"


# --- sandboxes ---


async def warm(subject: Any) -> Any:
    """Return the runtime's sandboxes when one is ready."""
    sandboxes = subject.runtime._services.sandboxes
    async with asyncio.timeout(30):
        while not sandboxes._free:  # noqa: ASYNC110 - nobody else waits for one
            await asyncio.sleep(0.05)
    return sandboxes


async def test_a_task_joins_a_sandbox_and_has_files_of_its_own(start: Start) -> None:
    subject = await start(slots=1)
    sandboxes = await warm(subject)
    before = sandboxes._free[0].id
    spoil = "echo 6.6.6.6 evil >> /etc/hosts; echo nameserver 6.6.6.6 > /etc/resolv.conf; echo x > /etc/hostname"
    assert (await subject.ran(run=spoil)).outcome.error is None
    ran = await subject.ran(
        run="cat /etc/hosts /etc/resolv.conf /etc/hostname; hostname; echo $HOSTNAME"
    )
    assert "6.6.6.6" not in ran.log.text
    assert "127.0.0.1\tlocalhost" in ran.log.text
    hostname, own = ran.log.text.split()[-2:]
    assert before.startswith(hostname)
    assert len(own) == 12
    assert own != hostname
    assert sandboxes._free[0].id == before


async def test_a_sandbox_is_replaced_after_a_number_of_uses(start: Start) -> None:
    subject = await start(slots=1, sandbox_uses=2)
    seen = set()
    for _ in range(4):
        sandboxes = await warm(subject)
        seen.add(sandboxes._free[0].id)
        assert (await subject.ran(run="true")).outcome.error is None
    assert len(seen) == 2


async def test_a_sandbox_with_a_socket_left_is_replaced(start: Start) -> None:
    subject = await start(slots=1)
    sandboxes = await warm(subject)
    before = sandboxes._free[0].id
    connect = "(echo hi | nc -l -p 7000 >/dev/null) & sleep 0.3; nc 127.0.0.1 7000 </dev/null; wait"
    assert (await subject.ran(run=connect)).outcome.error is None
    await warm(subject)
    assert before not in {sandbox.id for sandbox in sandboxes._free}


async def test_a_sandbox_that_vanished_costs_the_task_nothing(start: Start, api: Any) -> None:
    subject = await start(slots=1)
    sandboxes = await warm(subject)
    await asyncio.to_thread(api.remove_container, sandboxes._free[0].id, force=True)
    ran = await subject.ran(run="echo fine")
    assert ran.outcome.error is None
    assert ran.log.text == "fine\n"
    await warm(subject)
    async with subject.prepared(Log(), run="echo fine") as run:
        (sandbox,) = [c for c in named_for(api, subject.node_id) if c["Image"] != IMAGE]
        await asyncio.to_thread(api.remove_container, sandbox["Id"], force=True)
        assert (await run.run()).error is None


async def test_an_unknown_node_keeps_nothing_warm(start: Start, api: Any) -> None:
    subject = await start(known=False)
    assert (await subject.ran(run="true")).outcome.error is None
    assert named_for(api, subject.node_id) == []
    subject.runtime.warm_up()
    await warm(subject)
    assert named_for(api, subject.node_id)


async def test_sandboxes_are_off_by_configuration(start: Start, api: Any) -> None:
    subject = await start(warm_sandboxes=False)
    ran = await subject.ran(run="hostname; echo $HOSTNAME")
    assert len(set(ran.log.text.split())) == 1
    assert named_for(api, subject.node_id) == []


async def test_two_tasks_never_share_a_sandbox(start: Start) -> None:
    subject = await start(slots=1)
    await warm(subject)
    script = "hostname; sleep 1"
    one, other = await asyncio.gather(subject.ran(run=script), subject.ran(run=script))
    assert one.log.text != other.log.text
