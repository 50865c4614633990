"""The engine itself: found, missing, too old, restarted in the middle, far away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
from docker import APIClient

from devservices import packages
from shared.errors import RuntimeUnavailable
from tests.contract.runtime_runs import IMAGE, Log
from tests.integration.docker.conftest import Start
from worker.runtime.docker import engine

pytestmark = pytest.mark.docker


class OwnEngine:
    """A dockerd for one test, in a network namespace of its own.

    In the machine's, one without a bridge would take the other engine's bridge away.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/sock"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [
                *("unshare", "--net", packages.find("dockerd") or "dockerd"),
                *("--host", self.host, "--pidfile", f"{self.folder}/pid"),
                *("--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"),
                *("--bridge", "none", "--iptables=false"),
            ],
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                APIClient(base_url=self.host).close()
            except Exception:
                assert time.monotonic() < deadline, "dockerd does not answer"
                time.sleep(0.1)
            else:
                return

    def load(self, image: bytes) -> None:
        client = APIClient(base_url=self.host, timeout=60)
        list(client.load_image(image))  # type: ignore[no-untyped-call]  # the SDK's stubs
        client.close()

    def end(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait()
        if number == signal.SIGKILL:
            self._kill_rest()

    def _kill_rest(self) -> None:
        """Kill the containerd and the shims that a killed dockerd leaves."""
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if (
                    process.name.isdecimal()
                    and str(self.folder) in (process / "cmdline").read_text()
                ):
                    os.kill(int(process.name), signal.SIGKILL)

    def close(self) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            client = APIClient(base_url=self.host)
            for container in client.containers(all=True):
                client.remove_container(container["Id"], force=True)
            client.close()
            self.end(signal.SIGTERM)
        self._kill_rest()


@pytest.fixture
def own_engine(api: Any) -> Iterator[OwnEngine]:
    """A started engine that a test may stop and kill."""
    if os.geteuid() != 0 or not packages.find("dockerd"):
        pytest.skip("an engine of one's own is started by root only")
    with tempfile.TemporaryDirectory(prefix="hd", dir="/tmp", ignore_cleanup_errors=True) as folder:
        engine = OwnEngine(Path(folder))
        engine.start()
        engine.load(b"".join(api.get_image(IMAGE)))
        yield engine
        engine.close()


async def test_a_run_whose_engine_restarts_is_lost_not_failed(
    start: Start, own_engine: OwnEngine
) -> None:
    subject = await start(host=own_engine.host)
    log = Log()
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.1; done"
    async with subject.prepared(log, run=script, networks=["none"]) as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        await asyncio.to_thread(own_engine.end, signal.SIGTERM)
        await asyncio.to_thread(own_engine.start)
        outcome = await asyncio.wait_for(work, 60)
    assert outcome.lost is True, outcome
    ran = await subject.ran(run="echo again", networks=["none"])
    assert ran.log.text == "again\n"
    assert ran.outcome.error is None


async def test_a_run_whose_engine_is_gone_for_good_is_lost(
    start: Start, own_engine: OwnEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_PATIENCE", 1.0)
    subject = await start(host=own_engine.host)
    log = Log()
    async with subject.prepared(log, run="echo ready; sleep 60", networks=["none"]) as run:
        work = asyncio.create_task(run.run())
        await log.until(lambda log: "ready" in log.text)
        await asyncio.to_thread(own_engine.end, signal.SIGKILL)
        assert (await asyncio.wait_for(work, 30)).lost is True


async def test_no_engine_is_said_with_the_ways_on(start: Start, tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable) as raised:
        await start(host=f"unix://{tmp_path}/none.sock")
    message = str(raised.value)
    assert "none.sock (runtime.docker.host)" in message
    assert "Start Docker" in message
    assert "--runtime shell --ignore-image" in message


async def test_ping_says_when_the_engine_is_gone(start: Start, own_engine: OwnEngine) -> None:
    subject = await start(host=own_engine.host)
    await subject.runtime.ping()
    await asyncio.to_thread(own_engine.end, signal.SIGTERM)
    with pytest.raises(RuntimeUnavailable, match="no Docker engine answers"):
        await subject.runtime.ping()

    async def none_is_dead(_: Collection[str]) -> Collection[str]:
        return ()

    with pytest.raises(RuntimeUnavailable, match="the Docker engine: "):
        await subject.runtime.sweep(none_is_dead, "this")


@pytest.fixture
async def far_host(docker_host: str) -> AsyncIterator[str]:
    """The engine behind a TCP port, as one that is far away would be."""

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to = await asyncio.open_unix_connection(docker_host.removeprefix("unix://"))

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                while data := await source.read(65536):
                    target.write(data)
                    await target.drain()
            with contextlib.suppress(OSError):
                target.close()

        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(copy(reader, to[1]), copy(to[0], writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()


async def test_an_engine_by_tcp(start: Start, far_host: str) -> None:
    subject = await start(host=far_host)
    ran = await subject.ran(run="echo hi; cat f; echo out > $TORK_OUTPUT", files={"f": "file\n"})
    assert ran.outcome.error is None
    assert ran.log.text == "hi\nfile\n"
    assert ran.outcome.result == "out\n"


def test_the_address_is_found_as_docker_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONTEXT", raising=False)
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    assert engine.find_address("", {"DOCKER_HOST": "tcp://1.2.3.4:5"}).host == "tcp://1.2.3.4:5"
    assert (
        engine.find_address("/a/sock", {"DOCKER_HOST": "tcp://1.2.3.4:5"}).host == "unix:///a/sock"
    )
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    (runtime / "docker.sock").touch()
    found = engine.find_address("", {"XDG_RUNTIME_DIR": str(runtime)})
    assert found.host in (f"unix://{runtime}/docker.sock", engine.USUAL)
    with pytest.raises(RuntimeUnavailable, match="cannot be read"):
        engine.find_address(
            "", {"DOCKER_HOST": "tcp://h:1", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/no"}
        )


def test_podmans_service_is_found_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    docker = {"DOCKER_HOST": "tcp://1.2.3.4:5"}
    assert engine.find_address("", docker, podman=True).host == "unix:///run/podman/podman.sock"
    assert engine.find_address("/a/sock", docker, podman=True).host == "unix:///a/sock"
    given = {**docker, "CONTAINER_HOST": "tcp://6.7.8.9:1"}
    assert engine.find_address("", given, podman=True).host == "tcp://6.7.8.9:1"
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman/podman.sock").touch()
    own = engine.find_address("", {"XDG_RUNTIME_DIR": str(tmp_path)}, podman=True)
    assert own.host == f"unix://{tmp_path}/podman/podman.sock"


def test_a_context_of_dockers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / ".docker/contexts/meta" / hashlib.sha256(b"far").hexdigest()
    folder.mkdir(parents=True)
    endpoint = {"docker": {"Host": "tcp://far:2375", "SkipTLSVerify": False}}
    (folder / "meta.json").write_text(
        json.dumps({"Name": "far", "Metadata": {}, "Endpoints": endpoint})
    )
    (tmp_path / ".docker/config.json").write_text(json.dumps({"currentContext": "far"}))
    (tmp_path / "config.json").write_text(json.dumps({"currentContext": "far"}))
    (tmp_path / "contexts").symlink_to(tmp_path / ".docker/contexts")
    found = engine.find_address("", {})
    assert found.host == "tcp://far:2375"
    assert "far" in found.origin
