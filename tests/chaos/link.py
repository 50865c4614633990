"""A link of its own between a process and RabbitMQ, that can be cut and slowed: a network namespace, a pair of
virtual Ethernet interfaces, and a forwarder at the near end. A cut link drops what is sent, and nobody is told."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devservices.packages import find
from tests.acceptance.processes import SHELL, Cluster, Worker

NUMBERS = itertools.count()


class Link:
    """Use `prefix` to start a process at the far end; RabbitMQ is at `host` and `port` there."""

    def __init__(self, port: int) -> None:
        number = next(NUMBERS)
        self.name = f"hl{os.getpid() % 100000}x{number}"
        self._near = f"{self.name[:11]}n"
        net = (os.getpid() + number) % 250
        self.host = f"10.{200 + number % 50}.{net}.1"
        self._far_host = f"10.{200 + number % 50}.{net}.2"
        self.prefix = ("ip", "netns", "exec", self.name)
        self.delay = 0.0
        """Seconds by which whatever comes is held up."""
        self._to = port
        self._server: socket.socket | None = None
        self.port = 0

    def open(self) -> None:
        """Lay it."""
        far = f"{self.name[:11]}f"
        _ip("netns", "add", self.name)
        _ip("link", "add", self._near, "type", "veth", "peer", "name", far, "netns", self.name)
        _ip("addr", "add", f"{self.host}/30", "dev", self._near)
        _ip("link", "set", self._near, "up")
        _ip("-n", self.name, "addr", "add", f"{self._far_host}/30", "dev", far)
        for interface in ("lo", far):
            _ip("-n", self.name, "link", "set", interface, "up")
        self._server = socket.create_server((self.host, 0))
        self.port = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take it away."""
        if self._server is not None:
            self._server.close()
        with contextlib.suppress(subprocess.CalledProcessError):
            _ip("netns", "del", self.name)

    def cut(self) -> None:
        """From now on nothing comes through."""
        _ip("link", "set", self._near, "down")

    def mend(self) -> None:
        """All comes through again."""
        _ip("link", "set", self._near, "up")

    def _accept(self) -> None:
        assert self._server is not None
        with contextlib.suppress(OSError):
            while True:
                there, _ = self._server.accept()
                threading.Thread(target=self._serve, args=(there,), daemon=True).start()

    def _serve(self, there: socket.socket) -> None:
        with (
            there,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._to)) as here,
        ):
            back = threading.Thread(target=self._pump, args=(here, there), daemon=True)
            back.start()
            self._pump(there, here)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.delay:
                    time.sleep(self.delay)
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def add_far_worker(cluster: Cluster, link: Link) -> Worker:
    """Launch a worker of the shell runtime at the far end of a link."""
    url = f"amqp://guest:guest@{link.host}:{link.port}/"
    settings = {**SHELL, **cluster.settings, "HAULIER_BROKER_RABBITMQ_URL": url}
    settings["HAULIER_BROKER_RABBITMQ_MANAGEMENT_URL"] = ""
    worker = Worker(cluster.folder, "worker-far", settings)
    worker.prefix = link.prefix
    cluster.workers.append(worker)
    worker.launch()
    return worker


def can_be_laid() -> bool:
    """Whether this machine lets us make network namespaces."""
    if find("ip") is None or os.geteuid() != 0 or not Path("/proc/self/ns/net").exists():
        return False
    name = f"hl{os.getpid()}probe"
    with contextlib.suppress(subprocess.CalledProcessError):
        _ip("netns", "add", name)
        _ip("netns", "del", name)
        return True
    return False


@contextlib.contextmanager
def link_to(port: int) -> Iterator[Link]:
    """A link to RabbitMQ's port on this machine; skips the test where there can be none."""
    if not can_be_laid():
        pytest.skip("needs network namespaces: root and iproute2")
    link = Link(port)
    try:
        link.open()
        yield link
    finally:
        link.close()
