"""A RabbitMQ node in a folder: started, stopped, killed and started again with the same data.

Its name server (epmd), cookie, data and log are its own too, so that it meets no other node.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from devservices.places import LOOPBACK, free_port
from devservices.processes import await_answer, halt, launch, running, send_signal

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's script itself: the one on the path would switch to another user and data folder."""

CONTROL = "/usr/lib/rabbitmq/bin/rabbitmqctl"

GREETING = b"AMQP\x00\x00\x09\x01"
"""The protocol header of AMQP 0-9-1; a server answers it with a method frame (type 1)."""

EPMD_PORT = "epmd.port"


@dataclass(frozen=True)
class Node:
    """One node with the management plugin, on ports of the loopback that were free when made."""

    folder: Path
    port: int = field(default_factory=free_port)
    management_port: int = field(default_factory=free_port)
    settings: str = ""
    """More lines for its rabbitmq.conf."""
    advanced: str = "[]."
    """Its advanced.config, an Erlang term: for what rabbitmq.conf has no key for."""

    @property
    def url(self) -> str:
        """Its AMQP address, default virtual host."""
        return f"amqp://guest:guest@{LOOPBACK}:{self.port}/"

    @property
    def management_url(self) -> str:
        """Its management API, with user and password."""
        return f"http://guest:guest@{LOOPBACK}:{self.management_port}"

    def start(self) -> None:
        """Start it and wait until it serves AMQP and the management API. Raises ServiceError."""
        names = free_port()
        self._configure()
        (self.folder / EPMD_PORT).write_text(str(names))
        launch(self.folder, [SERVER], self._environment(names))
        await_answer("RabbitMQ", self.folder, lambda: serves(self.url, self.management_url))

    def stop(self) -> None:
        """Stop it in order; its data stays."""
        halt(self.folder, patience=60)
        end_name_server(self.folder)

    def kill(self) -> None:
        """Kill it as a crash would.

        RabbitMQ 3 may then have lost a queue that was declared a moment before, with all that is
        in it (3.10: about one kill in twenty). `settle` is for those who must find theirs.
        """
        send_signal(self.folder, signal.SIGKILL)
        halt(self.folder)
        end_name_server(self.folder)

    def settle(self) -> None:
        """Have it write down what was declared, so that a kill does not lose it."""
        names = int((self.folder / EPMD_PORT).read_text())
        subprocess.run(
            [CONTROL, "eval", "dumped = mnesia:dump_log()."],
            env={**os.environ, **self._name(names)},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def freeze(self) -> None:
        """Hold all of it (SIGSTOP) until `thaw`."""
        send_signal(self.folder, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        send_signal(self.folder, signal.SIGCONT)

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = {LOOPBACK}:{self.port}\n"
            f"management.tcp.ip = {LOOPBACK}\n"
            f"management.tcp.port = {self.management_port}\n"
            # Queue figures every second instead of five: tests wait for them.
            "collect_statistics_interval = 1000\n"
            "management.sample_retention_policies.global.minute = 1\n"
            "management.sample_retention_policies.basic.minute = 1\n"
            "management.sample_retention_policies.detailed.minute = 1\n"
            f"{self.settings}"
        )
        (self.folder / "advanced.config").write_text(f"{self.advanced}\n")

    def _name(self, names: int) -> dict[str, str]:
        """What finds this node, and its cookie."""
        return {
            "HOME": str(self.folder),
            # By address, since a bare machine may not even resolve localhost.
            "RABBITMQ_NODENAME": f"haulier-{self.port}@{LOOPBACK}",
            "RABBITMQ_USE_LONGNAME": "true",
            "RABBITMQ_CONF_ENV_FILE": os.devnull,
            "ERL_EPMD_ADDRESS": LOOPBACK,
            "ERL_EPMD_PORT": str(names),
        }

    def _environment(self, names: int) -> dict[str, str]:
        return {
            **self._name(names),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(self.folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "enabled_plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "data"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }


def end_node(folder: Path) -> None:
    """End whatever node runs in this folder, and its name server."""
    if running(folder):
        halt(folder, patience=60)
    end_name_server(folder)


def end_name_server(folder: Path) -> None:
    """Erlang starts one as a daemon and leaves it behind."""
    with contextlib.suppress(OSError):
        names = (folder / EPMD_PORT).read_text()
        subprocess.run(["epmd", "-port", names, "-kill"], capture_output=True, check=False)


def serves(url: str, management_url: str) -> bool:
    """Whether both the AMQP port and the management API answer."""
    return _speaks_amqp(url) and _overview(management_url)


def _speaks_amqp(url: str) -> bool:
    parts = urlsplit(url)
    with contextlib.suppress(OSError):
        place = (parts.hostname or LOOPBACK, parts.port or 5672)
        with socket.create_connection(place, timeout=5) as line:
            if parts.scheme == "amqps":
                return True
            line.sendall(GREETING)
            return line.recv(1) == b"\x01"
    return False


def _overview(url: str) -> bool:
    parts = urlsplit(url)
    secret = b64encode(f"{parts.username}:{parts.password}".encode()).decode()
    request = urllib.request.Request(
        f"{parts.scheme}://{parts.hostname}:{parts.port}/api/overview",
        headers={"Authorization": f"Basic {secret}"},
    )
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return bool(answer.status == 200)
    return False
