"""MongoDB for tests: the one that was given, else a replica set of one node, else compose's."""

from __future__ import annotations

from pathlib import Path

from devservices import addresses, compose, packages, places
from devservices.mongodb_node import CURL_LIBRARY, Node, has_primary, initiate, url_of
from devservices.places import LOOPBACK
from devservices.processes import ServiceError, halt, running

NAME = "mongodb"
URL = "HAULIER_TEST_MONGODB_URL"


def env() -> dict[str, str]:
    """The replica set's address."""
    return addresses.given(URL) or addresses.recall(_folder())


def answers() -> bool:
    """Whether the set has a primary, so that it takes writes."""
    return URL in env() and has_primary(env()[URL])


def ours() -> bool:
    """Whether our node, or the compose file's, runs."""
    return running(_folder()) or compose.ours(NAME)


def start() -> None:
    """Have a MongoDB that takes writes. Raises ServiceError where there can be none."""
    if answers():
        return
    if addresses.given(URL):
        raise ServiceError(f"no MongoDB primary answers at {URL}")
    if not packages.can_have(CURL_LIBRARY) and compose.available():
        _start_by_compose()
        return
    stop()
    node = Node(places.folder(NAME))
    node.start()
    initiate([node])
    addresses.remember(node.folder, {URL: url_of([node])})


def stop() -> None:
    """End our node and remove its data; the program stays for the next start."""
    compose.down(NAME)
    halt(_folder())
    places.forget(NAME)


def _folder() -> Path:
    return places.SERVICES / NAME


def _start_by_compose() -> None:
    port = places.free_port()
    compose.up(NAME, {"MONGODB_PORT": str(port)})
    values = {URL: f"mongodb://{LOOPBACK}:{port}/?directConnection=true"}
    addresses.remember(places.folder(NAME), values)
