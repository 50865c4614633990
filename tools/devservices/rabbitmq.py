"""RabbitMQ for tests: the one that was given, else a node of our own, else the compose file's."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from devservices import addresses, compose, packages, places
from devservices.places import LOOPBACK
from devservices.processes import ServiceError, running
from devservices.rabbitmq_node import SERVER, Node, end_node, serves

NAME = "rabbitmq"
URL = "HAULIER_TEST_RABBITMQ_URL"
MANAGEMENT_URL = "HAULIER_TEST_RABBITMQ_MANAGEMENT_URL"


def env() -> dict[str, str]:
    """The AMQP address and that of the management API."""
    found = addresses.given(URL, MANAGEMENT_URL) or addresses.recall(_folder())
    if URL in found:
        found.setdefault(MANAGEMENT_URL, _usual_management(found[URL]))
    return found


def answers() -> bool:
    """Whether both the AMQP port and the management API serve."""
    found = env()
    return URL in found and serves(found[URL], found[MANAGEMENT_URL])


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
    require()
    stop()
    node = Node(places.folder(NAME))
    addresses.remember(node.folder, {URL: node.url, MANAGEMENT_URL: node.management_url})
    node.start()


def require() -> None:
    """Have the server's program, also for tests that make nodes of their own. Or ServiceError."""
    packages.ensure({SERVER: "rabbitmq-server"})


def stop() -> None:
    """End our node and its name server, and remove its data."""
    compose.down(NAME)
    end_node(_folder())
    places.forget(NAME)


def _folder() -> Path:
    return places.SERVICES / NAME


def _start_by_compose() -> None:
    port, management = places.free_port(), places.free_port()
    compose.up(NAME, {"RABBITMQ_PORT": str(port), "RABBITMQ_MANAGEMENT_PORT": str(management)})
    user = f"haulier:haulier@{LOOPBACK}"
    values = {URL: f"amqp://{user}:{port}/", MANAGEMENT_URL: f"http://{user}:{management}"}
    addresses.remember(places.folder(NAME), values)


def _usual_management(url: str) -> str:
    """Where a RabbitMQ that was given has its management API, unless that was given too."""
    parts = urlsplit(url)
    return f"http://{parts.username or 'guest'}:{parts.password or 'guest'}@{parts.hostname}:15672"
