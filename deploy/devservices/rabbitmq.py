"""A RabbitMQ node of our own, with the management plugin, on free ports of the loopback.

Its name server (epmd), cookie, data and log are its own too, so that it meets no other node.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

from devservices import addresses, compose, packages, places
from devservices.places import LOOPBACK
from devservices.processes import ServiceError, await_answer, halt, launch, running

NAME = "rabbitmq"
URL = "HAULIER_TEST_RABBITMQ_URL"
MANAGEMENT_URL = "HAULIER_TEST_RABBITMQ_MANAGEMENT_URL"

SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"
"""Debian's script itself: the one on the path would switch to another user and data folder."""

GREETING = b"AMQP\x00\x00\x09\x01"
"""The protocol header of AMQP 0-9-1; a server answers it with a method frame (type 1)."""


def env() -> dict[str, str]:
    """The AMQP address and that of the management API."""
    found = addresses.given(URL, MANAGEMENT_URL) or addresses.recall(_folder())
    if URL in found:
        found.setdefault(MANAGEMENT_URL, _usual_management(found[URL]))
    return found


def answers() -> bool:
    """Whether both the AMQP port and the management API serve."""
    found = env()
    return URL in found and _speaks_amqp(found[URL]) and _overview(found[MANAGEMENT_URL])


def ours() -> bool:
    """Whether our node, or the compose file's, runs."""
    return running(_folder()) or compose.ours(NAME)


def start() -> None:
    """Have a RabbitMQ that answers. Raises ServiceError where there can be none."""
    if answers():
        return
    if addresses.given(URL):
        raise ServiceError(f"no RabbitMQ with its management API answers at {URL}")
    if not packages.can_have(SERVER) and compose.available():
        _start_by_compose()
        return
    packages.ensure({SERVER: "rabbitmq-server"})
    _end_node()
    folder = places.folder(NAME)
    port, management, names, links = (places.free_port() for _ in range(4))
    _configure(folder, port, management)
    addresses.remember(folder, _loopback_addresses(port, management))
    launch(folder, [SERVER], _environment(folder, port, names, links))
    (folder / "epmd.port").write_text(str(names))
    await_answer("RabbitMQ", folder, answers)


def stop() -> None:
    """End our node and its name server, and remove its data."""
    compose.down(NAME)
    _end_node()


def _folder() -> Path:
    return places.SERVICES / NAME


def _end_node() -> None:
    halt(_folder(), patience=60)
    with contextlib.suppress(OSError):
        names = (_folder() / "epmd.port").read_text()
        subprocess.run(["epmd", "-port", names, "-kill"], capture_output=True, check=False)
    places.forget(NAME)


def _start_by_compose() -> None:
    port, management = places.free_port(), places.free_port()
    compose.up(NAME, {"RABBITMQ_PORT": str(port), "RABBITMQ_MANAGEMENT_PORT": str(management)})
    addresses.remember(places.folder(NAME), _loopback_addresses(port, management))


def _loopback_addresses(port: int, management: int) -> dict[str, str]:
    return {
        URL: f"amqp://guest:guest@{LOOPBACK}:{port}/",
        MANAGEMENT_URL: f"http://guest:guest@{LOOPBACK}:{management}",
    }


def _configure(folder: Path, port: int, management: int) -> None:
    (folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
    (folder / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = {LOOPBACK}:{port}\n"
        f"management.tcp.ip = {LOOPBACK}\n"
        f"management.tcp.port = {management}\n"
        # Queue figures every second instead of five: tests wait for them.
        "collect_statistics_interval = 1000\n"
    )


def _environment(folder: Path, port: int, names: int, links: int) -> dict[str, str]:
    return {
        "HOME": str(folder),
        "RABBITMQ_NODENAME": f"haulier-{port}@localhost",
        "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        "RABBITMQ_DIST_PORT": str(links),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "ERL_EPMD_ADDRESS": LOOPBACK,
        "ERL_EPMD_PORT": str(names),
    }


def _usual_management(url: str) -> str:
    """Where a RabbitMQ that was given has its management API, unless that was given too."""
    parts = urlsplit(url)
    return f"http://{parts.username or 'guest'}:{parts.password or 'guest'}@{parts.hostname}:15672"


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
