"""A cluster robbed of its rights at the broker or the datastore, or of its descriptors, goes on by itself once it has
them back."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlsplit

import psutil
import pymongo
import pytest

from devservices import mongodb_node
from devservices.mongodb_node import Node as MongoNode
from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import Cluster, Coordinator, idle_connections, wait_for
from tests.acceptance.rabbit import ask
from tests.services.fixtures import Vhost
from tests.services.management import ALL_RIGHTS

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("cluster"),
    pytest.mark.timeout(240),
]

MENDED_WITHIN = 40.0
"""Seconds after the mend within which the next job is completed."""

DESCRIPTORS = 1024
LEASE = 17.0

NONE = {"configure": "^$", "write": "^$", "read": "^$"}


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "ledger")


def goes_on(server: Coordinator, ledger: Ledger) -> None:
    """See that a job submitted now completes in time, with its log, and that both processes are up."""
    began = time.monotonic()
    job_id = server.submit(ledger.job(ledger.task("echo hello")))
    assert server.wait_job(job_id, MENDED_WITHIN)["state"] == "COMPLETED"
    assert "hello" in server.log_of(job_id)
    left = MENDED_WITHIN - (time.monotonic() - began)
    wait_for(lambda: both_up(server), left, "both nodes UP")
    for part in ("/health", "/health/live"):
        assert server.call("GET", part)[0] == 200, part


def both_up(server: Coordinator) -> bool:
    """Whether the coordinator and the worker are; there may be nodes that were before."""
    return [node["status"] for node in server.get("/nodes")].count("UP") == 2


# --- rights -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("withdrawn", ["to the virtual host", "to everything in it"])
def test_rights_are_withdrawn_and_given_back(
    cluster: Cluster, ledger: Ledger, rabbitmq_vhost: Vhost, withdrawn: str
) -> None:
    server, worker = cluster.add_coordinator(), cluster.add_worker()
    cluster.wait_ready()
    goes_on(server, ledger)
    user = urlsplit(rabbitmq_vhost.url).username or ""
    path = f"permissions/{quote(rabbitmq_vhost.name, safe='')}/{user}"
    if withdrawn == "to everything in it":
        ask(rabbitmq_vhost, "PUT", path, NONE)
    else:
        ask(rabbitmq_vhost, "DELETE", path)
    close_connections(rabbitmq_vhost)
    waits = server.submit(ledger.job(ledger.task()))
    time.sleep(12)
    assert server.call("GET", "/health/live")[0] == 200, "the fault is not its own"
    ask(rabbitmq_vhost, "PUT", path, ALL_RIGHTS)
    began = time.monotonic()
    goes_on(server, ledger)
    left = MENDED_WITHIN - (time.monotonic() - began)
    assert server.wait_job(waits, left)["state"] == "COMPLETED"
    assert ledger.repeated == {}
    for part in (server, worker):
        assert "a loop failed" not in part.text()


def close_connections(vhost: Vhost) -> None:
    """Close every connection to a virtual host."""
    names = wait_for(lambda: connections(vhost), 20, "its connections")
    for name in names:
        with contextlib.suppress(OSError):  # it is gone
            ask(vhost, "DELETE", f"connections/{quote(name, safe='')}")


def connections(vhost: Vhost) -> list[str]:
    path = f"vhosts/{quote(vhost.name, safe='')}/connections"
    return [connection["name"] for connection in ask(vhost, "GET", path)]


WORKS = [{"role": "readWrite", "db": "haulier"}]
LINES = 30
"""It logged 600 lines a second."""


@pytest.fixture
def administrator(
    cluster: Cluster, own_mongodb: MongoNode
) -> Iterator[pymongo.MongoClient[dict[str, object]]]:
    """The administrator of the cluster's own MongoDB, in which the cluster is the user `haulier`."""
    url = mongodb_node.url_of([own_mongodb])
    with pymongo.MongoClient[dict[str, object]](url) as client:
        client.admin.command("createUser", "root", pwd="pw", roles=["root"])
        client.admin.command("createUser", "haulier", pwd="pw", roles=WORKS)
    own_mongodb.stop()
    key = own_mongodb.folder / "members"
    key.write_text("c2VjcmV0IG9mIHRoZSBtZW1iZXJz")
    key.chmod(0o600)
    options = ("--auth", "--keyFile", str(key))
    replace(own_mongodb, options=options).start()
    cluster.settings |= {
        "HAULIER_DATASTORE_MONGODB_URL": url.replace("//", "//haulier:pw@") + "&authSource=admin",
        "HAULIER_DATASTORE_MONGODB_DATABASE": "haulier",
    }
    with pymongo.MongoClient[dict[str, object]](url, username="root", password="pw") as client:
        yield client
        cluster.stop()


def test_rights_at_the_datastore_are_withdrawn_and_given_back(
    cluster: Cluster,
    ledger: Ledger,
    administrator: pymongo.MongoClient[dict[str, object]],
    tmp_path: Path,
) -> None:
    server, _ = cluster.add_coordinator(), cluster.add_worker()
    cluster.wait_ready()
    goes_on(server, ledger)
    gate = tmp_path / "gate"
    waits = server.submit(ledger.job(ledger.task(f"until [ -e {gate} ]; do sleep 0.1; done")))
    ledger.wait_starts(2)
    before = len(server.text().splitlines())
    administrator.admin.command("updateUser", "haulier", roles=[])
    began, used = time.monotonic(), seconds_used(server)
    gate.touch()
    wait_for(lambda: server.call("GET", "/health")[0] == 503, 60, "it says that it is DOWN")
    _, said = server.call("GET", "/health")
    assert (said["status"], said["failing"]) == ("DOWN", "datastore")
    time.sleep(max(0.0, began + 12 - time.monotonic()))
    assert server.call("GET", "/health/live")[0] == 200, "the fault is not its own"
    assert len(server.text().splitlines()) - before < LINES
    assert seconds_used(server) - used < 6
    administrator.admin.command("updateUser", "haulier", roles=WORKS)
    goes_on(server, ledger)
    assert server.wait_job(waits, MENDED_WITHIN)["state"] == "COMPLETED"
    assert ledger.repeated == {}


def seconds_used(server: Coordinator) -> float:
    """Return how many seconds of a core a process has used."""
    times = psutil.Process(server.process.pid).cpu_times()
    return times.user + times.system


# --- descriptors ------------------------------------------------------------------------------------------------------


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open some thousand connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("robbed", ["worker", "coordinator"])
def test_idle_connections_take_every_descriptor(
    quick: Cluster, ledger: Ledger, robbed: str
) -> None:
    limited = ["sh", "-c", f'ulimit -n {DESCRIPTORS} && exec "$@"', "limited"]
    server, worker = quick.add_coordinator(), quick.add_worker()
    quick.wait_ready()
    part = worker if robbed == "worker" else server
    part.stop()
    part.prefix = limited
    part.start()
    goes_on(server, ledger)
    port = worker.health_port if robbed == "worker" else int(server.url.rpartition(":")[2])
    with idle_connections(port, 1500):
        time.sleep(LEASE + 5)
    goes_on(server, ledger)
    assert ledger.repeated == {}


@pytest.mark.parametrize("robbed", ["worker", "coordinator"])
def test_a_process_can_open_nothing_and_has_lost_its_connections(
    quick: Cluster, ledger: Ledger, rabbitmq_vhost: Vhost, robbed: str
) -> None:
    server, worker = quick.add_coordinator(), quick.add_worker()
    quick.wait_ready()
    goes_on(server, ledger)
    process = (worker if robbed == "worker" else server).process.pid
    found = resource.prlimit(process, resource.RLIMIT_NOFILE)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (0, found[1]))
    close_connections(rabbitmq_vhost)
    time.sleep(LEASE + 5)
    resource.prlimit(process, resource.RLIMIT_NOFILE, found)
    goes_on(server, ledger)
