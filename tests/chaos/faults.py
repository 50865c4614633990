"""What can go wrong, as actions on a plant. Each does its harm, lets it last, and puts right what nobody else would:
a killed process is started again, as its service manager would do."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import quote
from urllib.request import (
    HTTPBasicAuthHandler,
    HTTPPasswordMgrWithDefaultRealm,
    Request,
    build_opener,
)

import pymongo
from pymongo.errors import PyMongoError

from devservices import mongodb_node
from devservices.processes import running
from tests.acceptance.processes import Process
from tests.chaos.plant import Plant

Strike = Callable[[Plant, Random], str]
"""Does it, and returns what it did it to."""


@dataclass(frozen=True)
class Fault:
    """`repeats`: a run may have to be made again because of it. `outage`: of broker, store or all coordinators, so
    that 90 s from its end on count instead of 60. `needs`: a part of the plant that not every machine can have."""

    name: str
    strike: Strike
    repeats: bool = False
    outage: bool = False
    needs: str = ""

    def can_strike(self, plant: Plant) -> bool:
        """Whether the plant has what it needs."""
        return not self.needs or getattr(plant, self.needs) is not None


def kill_worker(plant: Plant, random: Random) -> str:
    """A worker is gone, and another one comes."""
    return _killed(random.choice(plant.workers))


def kill_coordinator(plant: Plant, random: Random) -> str:
    """A coordinator is gone, and comes back."""
    return _killed(random.choice(plant.coordinators))


def kill_all_coordinators(plant: Plant, random: Random) -> str:
    """Nobody decides anything for a while."""
    for server in plant.coordinators:
        server.kill()
    time.sleep(random.uniform(2, 10))
    for server in plant.coordinators:
        server.start()
    return "all"


def _killed(part: Process) -> str:
    part.kill()
    part.start()
    return part.log.stem


def freeze_worker(plant: Plant, random: Random) -> str:
    """A worker stands still, its scripts go on."""
    return _frozen(random.choice(plant.workers), random.uniform(3, 20))


def freeze_coordinator(plant: Plant, random: Random) -> str:
    """A coordinator stands still beside one that goes on."""
    return _frozen(random.choice(plant.coordinators), random.uniform(3, 25))


def _frozen(part: Process, seconds: float) -> str:
    part.signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        part.signal(signal.SIGCONT)
    return f"{part.log.stem} {seconds:.0f} s"


def restart_worker(plant: Plant, random: Random) -> str:
    """A worker is asked to stop, and started again."""
    return _restarted(random.choice(plant.workers))


def restart_coordinator(plant: Plant, random: Random) -> str:
    """A coordinator is asked to stop, and started again."""
    return _restarted(random.choice(plant.coordinators))


def _restarted(part: Process) -> str:
    code = part.terminate(120)
    assert code == 0, f"{part.log.stem} ended with {code}:\n{part.text()[-3000:]}"
    part.start()
    return part.log.stem


def restart_broker(plant: Plant, random: Random) -> str:
    """RabbitMQ stops in order, and starts."""
    plant.broker.stop()
    time.sleep(random.uniform(0, 5))
    plant.broker.start()
    return "RabbitMQ"


def kill_broker(plant: Plant, random: Random) -> str:
    """RabbitMQ crashes, and starts."""
    plant.broker.kill()
    time.sleep(random.uniform(0, 5))
    plant.broker.start()
    return "RabbitMQ"


def freeze_broker(plant: Plant, random: Random) -> str:
    """RabbitMQ stands still."""
    seconds = random.uniform(3, 25)
    plant.broker.freeze()
    try:
        time.sleep(seconds)
    finally:
        plant.broker.thaw()
    return f"RabbitMQ {seconds:.0f} s"


def delete_queue(plant: Plant, random: Random) -> str:
    """Somebody deletes a queue, with what is in it."""
    queue = random.choice(["default", "claims", "heartbeat", "jobs", "progress"])
    _management(plant, "DELETE", f"queues/%2F/{quote(queue)}")
    return queue


def cut_connections(plant: Plant, random: Random) -> str:
    """RabbitMQ closes a half of all connections."""
    connections = _management(plant, "GET", "connections")
    chosen = random.sample(connections, len(connections) // 2)
    for connection in chosen:
        try:
            _management(plant, "DELETE", f"connections/{quote(connection['name'], safe='')}")
        except OSError:
            continue  # it went by itself
    return f"{len(chosen)} of {len(connections)}"


def _management(plant: Plant, method: str, path: str) -> Any:
    url = f"http://127.0.0.1:{plant.broker.management_port}/api/{path}"
    passwords = HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, url, "guest", "guest")
    with build_opener(HTTPBasicAuthHandler(passwords)).open(
        Request(url, method=method), timeout=30
    ) as answer:
        return json.loads(answer.read() or b"null")


def step_down(plant: Plant, random: Random) -> str:
    """The primary hands over."""
    node = plant.primary()
    with (
        pymongo.MongoClient[dict[str, Any]](
            host="127.0.0.1", port=node.port, directConnection=True
        ) as client,
        contextlib.suppress(PyMongoError),
    ):  # it may close the connection of who asks
        client.admin.command("replSetStepDown", 10, secondaryCatchUpPeriodSecs=5)
    return node.host


def kill_primary(plant: Plant, random: Random) -> str:
    """The primary crashes, another is elected, and it comes back."""
    node = plant.primary()
    node.kill()
    plant.primary()
    node.start()
    return node.host


def freeze_primary(plant: Plant, random: Random) -> str:
    """The primary stands still for longer than the others wait for it."""
    node = plant.primary()
    seconds = random.uniform(5, 20)
    node.freeze()
    try:
        time.sleep(seconds)
    finally:
        node.thaw()
    return f"{node.host} {seconds:.0f} s"


def lose_majority(plant: Plant, random: Random) -> str:
    """Two of three members are gone: there is no store for a while."""
    gone = random.sample(plant.members, 2)
    for node in gone:
        node.kill()
    time.sleep(random.uniform(3, 10))
    for node in gone:
        node.start()
    assert mongodb_node.has_primary(plant.store_url) or plant.primary()
    return " ".join(node.host for node in gone)


def cut_link(plant: Plant, random: Random) -> str:
    """A worker's link is cut, and nobody is told."""
    return _cut(plant, random.uniform(5, 15))


def cut_link_for_long(plant: Plant, random: Random) -> str:
    """A worker's link is cut for longer than its lease: its tasks run again, and it hears of that when it is back."""
    return _cut(plant, random.uniform(60, 75))


def _cut(plant: Plant, seconds: float) -> str:
    assert plant.link is not None
    plant.link.cut()
    try:
        time.sleep(seconds)
    finally:
        plant.link.mend()
    return f"worker-far {seconds:.0f} s"


def slow_link(plant: Plant, random: Random) -> str:
    """A worker's link is slow."""
    assert plant.link is not None
    plant.link.delay = random.uniform(0.1, 0.5)
    try:
        time.sleep(15)
    finally:
        plant.link.delay = 0.0
    return "worker-far"


def jump_clock(plant: Plant, random: Random) -> str:
    """A coordinator's clock is set to another time, and back."""
    assert plant.clock is not None
    jump = random.choice(["+7200", "-7200", "+40", "-40"])
    plant.clock.write_text(jump)
    try:
        time.sleep(random.uniform(5, 15))
    finally:
        plant.clock.write_text("+0")
    return f"{plant.coordinators[-1].log.stem} {jump} s"


def fill_disk(plant: Plant, random: Random) -> str:
    """A member of the store has no room left. It ends of that, and starts when there is room."""
    assert plant.small is not None
    member = plant.members[-1]
    plant.small.fill()
    try:
        time.sleep(random.uniform(10, 20))
    finally:
        plant.small.clear()
    if not running(member.folder):
        member.start()
    return member.host


FAULTS = (
    Fault("worker killed", kill_worker, repeats=True),
    Fault("coordinator killed", kill_coordinator),
    Fault("all coordinators killed", kill_all_coordinators, outage=True),
    Fault("worker frozen", freeze_worker),
    Fault("coordinator frozen", freeze_coordinator),
    Fault("worker restarted", restart_worker),
    Fault("coordinator restarted", restart_coordinator),
    Fault("broker restarted", restart_broker, outage=True),
    Fault("broker killed", kill_broker, outage=True),
    Fault("broker frozen", freeze_broker, outage=True),
    Fault("queue deleted", delete_queue),
    Fault("connections cut", cut_connections),
    Fault("primary stepped down", step_down, outage=True),
    Fault("primary killed", kill_primary, outage=True),
    Fault("primary frozen", freeze_primary, outage=True),
    Fault("majority of the store lost", lose_majority, outage=True),
    Fault("link cut", cut_link, needs="link"),
    Fault("link cut for long", cut_link_for_long, repeats=True, needs="link"),
    Fault("link slow", slow_link, needs="link"),
    Fault("clock set", jump_clock, needs="clock"),
    Fault("disk full", fill_disk, outage=True, needs="small"),
)
