"""What can go wrong, as actions on a plant. Each does its harm, lets it last, and puts right what nobody else would:
a killed process is started again, as its service manager would do."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from random import Random
from typing import Any, Protocol
from urllib.parse import quote

import pymongo
from pymongo.errors import PyMongoError

from devservices import mongodb_node
from devservices.processes import running
from tests.acceptance.processes import Process, idle_connections
from tests.chaos.plant import Plant
from tests.services.management import ALL_RIGHTS, Management

Strike = Callable[[Plant, Random], str]
"""Does it, and returns what it did it to."""


BEGINS_WITHIN = 180.0
"""Seconds in which a process is ready that begins beside other faults."""

AFTER_RESTART = 10.0
AFTER_FAULT = 60.0
AFTER_OUTAGE = 90.0
"""Seconds within which all is put right (engine spec, promises 15 and 2)."""


class Part(Enum):
    """What a fault strikes. Faults of different parts may strike at once."""

    WORKER = auto()
    FAR_WORKER = auto()
    COORDINATOR = auto()
    BROKER = auto()
    STORE = auto()
    ENGINE = auto()


@dataclass(frozen=True)
class Fault:
    """`within`: so many seconds after it all is as it was: more where it was an outage of broker, store or all
    coordinators. `repeats`: a run may have to be made again because of it. `loses_logs`: parts of logs that were on
    their way are gone with it, of which their tasks must say that they are not whole. `needs`: a part of the plant that
    not every machine can have."""

    name: str
    part: Part
    strike: Strike
    within: float = AFTER_FAULT
    repeats: bool = False
    loses_logs: bool = False
    needs: str = ""

    def can_strike(self, plant: Plant) -> bool:
        """Whether the plant has what it needs."""
        return not self.needs or getattr(plant, self.needs) is not None


def kill_worker(plant: Plant, random: Random) -> str:
    """A worker is gone with its folder, and another one comes that knows nothing of it."""
    worker = random.choice(plant.near_workers)
    worker.kill()
    folder = plant.folder / worker.log.stem
    folder.rename(folder.with_suffix(f".{time.time_ns()}"))
    worker.start(BEGINS_WITHIN)
    return worker.log.stem


def kill_worker_of_host(plant: Plant, random: Random) -> str:
    """A worker dies, and its host starts it again at once."""
    return _killed(random.choice(plant.near_workers))


def kill_coordinator(plant: Plant, random: Random) -> str:
    """A coordinator is gone, and comes back."""
    return _killed(random.choice(plant.coordinators))


def kill_all_coordinators(plant: Plant, random: Random) -> str:
    """Nobody decides anything for a while."""
    for server in plant.coordinators:
        server.kill()
    time.sleep(random.uniform(2, 10))
    for server in plant.coordinators:
        server.launch()
    for server in plant.coordinators:
        server.wait_ready(BEGINS_WITHIN)
    return "all"


def _killed(part: Process) -> str:
    part.kill()
    part.start(BEGINS_WITHIN)
    return part.log.stem


def freeze_worker(plant: Plant, random: Random) -> str:
    """A worker stands still, its scripts go on."""
    return _frozen(random.choice(plant.near_workers), random.uniform(3, 20))


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
    return _restarted(random.choice(plant.near_workers))


def restart_coordinator(plant: Plant, random: Random) -> str:
    """A coordinator is asked to stop, and started again."""
    return _restarted(random.choice(plant.coordinators))


def _restarted(part: Process) -> str:
    code = part.terminate(120)
    assert code == 0, f"{part.log.stem} ended with {code}:\n{part.text()[-3000:]}"
    part.start(BEGINS_WITHIN)
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


class Freezable(Protocol):
    """What can be made to stand still."""

    def freeze(self) -> object: ...
    def thaw(self) -> object: ...


def _stand_still(part: Freezable, seconds: float) -> str:
    part.freeze()
    try:
        time.sleep(seconds)
    finally:
        part.thaw()
    return f"{seconds:.0f} s"


def freeze_broker(plant: Plant, random: Random) -> str:
    """RabbitMQ stands still."""
    return f"RabbitMQ {_stand_still(plant.broker, random.uniform(3, 25))}"


def delete_queue(plant: Plant, random: Random) -> str:
    """Somebody deletes a queue, with what is in it."""
    queue = _any_queue(plant, random)
    _management(plant, "DELETE", f"queues/%2F/{quote(queue)}")
    return queue


def purge_queue(plant: Plant, random: Random) -> str:
    """Somebody empties a queue, again and again while it has something: otherwise there is hardly ever anything."""
    queue = _any_queue(plant, random)
    lost = 0
    for _ in range(20):
        lost += _management(plant, "GET", f"queues/%2F/{quote(queue)}").get("messages_ready", 0)
        _management(plant, "DELETE", f"queues/%2F/{quote(queue)}/contents")
        time.sleep(0.2)
    return f"{queue}: about {lost} messages"


def _any_queue(plant: Plant, random: Random) -> str:
    """Return one whose messages may be lost; of those that each process has of its own, as often as of the others.
    `dead` is for people, and nobody writes the same log twice."""
    queues: list[str] = sorted(each["name"] for each in _management(plant, "GET", "queues/%2F"))
    shared = [name for name in queues if "-" not in name and name not in ("dead", "logs")]
    own = [name for name in queues if name.startswith("x-")]
    return random.choice([*shared, random.choice(own)])


def cut_connections(plant: Plant, random: Random) -> str:
    """RabbitMQ closes a half of all connections."""
    connections = _management(plant, "GET", "connections")
    chosen = random.sample(connections, len(connections) // 2)
    _close(plant, chosen)
    return f"{len(chosen)} of {len(connections)}"


def withdraw_rights(plant: Plant, random: Random) -> str:
    """The user at RabbitMQ may do nothing for a while, or not even enter the virtual host."""
    path = "permissions/%2F/guest"
    nothing = random.choice([None, dict.fromkeys(ALL_RIGHTS, "^$")])
    _management(plant, "PUT" if nothing else "DELETE", path, nothing)
    try:
        _close(plant, _management(plant, "GET", "connections"))
        time.sleep(random.uniform(3, 12))
    finally:
        _management(plant, "PUT", path, ALL_RIGHTS)
    return "all in the virtual host" if nothing else "the virtual host"


def make_vhost_anew(plant: Plant, random: Random) -> str:
    """The virtual host is deleted with all its queues, and made again."""
    management = Management(plant.broker.management_url)
    management.delete_vhost("/")
    time.sleep(random.uniform(0, 5))
    management.add_vhost("/")
    return "/"


def _close(plant: Plant, connections: list[dict[str, Any]]) -> None:
    for connection in connections:
        with contextlib.suppress(OSError):  # it went by itself
            _management(plant, "DELETE", f"connections/{quote(connection['name'], safe='')}")


def _management(plant: Plant, method: str, path: str, body: object = None) -> Any:
    answer = Management(plant.broker.management_url).send(method, f"/{path}", body)
    return json.loads(answer or b"null")


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
    return f"{node.host} {_stand_still(node, random.uniform(5, 20))}"


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


def hang_engine(plant: Plant, random: Random) -> str:
    """The Docker engine takes requests, and answers none."""
    assert plant.engine is not None
    return _stand_still(plant.engine, random.uniform(5, 20))


def use_up_coordinators_descriptors(plant: Plant, random: Random) -> str:
    """Idle connections take all that a coordinator may still open."""
    server = random.choice(plant.coordinators)
    return _used_up(server, int(server.url.rpartition(":")[2]), random)


def use_up_workers_descriptors(plant: Plant, random: Random) -> str:
    """Idle connections take all that a worker may still open."""
    worker = random.choice(plant.near_workers)
    return _used_up(worker, worker.health_port, random)


def _used_up(part: Process, port: int, random: Random) -> str:
    """A process may open only a few more, which connections take that say nothing."""
    process, seconds = part.process.pid, random.uniform(5, 20)
    found = resource.prlimit(process, resource.RLIMIT_NOFILE)
    few = random.randrange(5)
    limit = max(int(each.name) for each in Path(f"/proc/{process}/fd").iterdir()) + 1 + few
    resource.prlimit(process, resource.RLIMIT_NOFILE, (limit, found[1]))
    try:
        with idle_connections(port, 50):
            time.sleep(seconds)
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, found)
    return f"{part.log.stem} {seconds:.0f} s"


WORKER, FAR_WORKER, COORDINATOR, BROKER, STORE, ENGINE = Part
"""In the order of their definition."""

FAULTS = (
    Fault("worker killed", WORKER, kill_worker, repeats=True),
    Fault(
        "worker killed and begun again", WORKER, kill_worker_of_host, AFTER_RESTART, repeats=True
    ),
    Fault("worker frozen", WORKER, freeze_worker),
    Fault("worker restarted", WORKER, restart_worker),
    Fault("worker's descriptors used up", WORKER, use_up_workers_descriptors),
    Fault("link cut", FAR_WORKER, cut_link, needs="link"),
    Fault("link cut for long", FAR_WORKER, cut_link_for_long, repeats=True, needs="link"),
    Fault("link slow", FAR_WORKER, slow_link, needs="link"),
    Fault("coordinator killed", COORDINATOR, kill_coordinator),
    Fault("all coordinators killed", COORDINATOR, kill_all_coordinators, AFTER_OUTAGE),
    Fault("coordinator frozen", COORDINATOR, freeze_coordinator),
    Fault("coordinator restarted", COORDINATOR, restart_coordinator),
    Fault("coordinator's descriptors used up", COORDINATOR, use_up_coordinators_descriptors),
    Fault("clock set", COORDINATOR, jump_clock, needs="clock"),
    Fault("broker restarted", BROKER, restart_broker, AFTER_OUTAGE),
    Fault("broker killed", BROKER, kill_broker, AFTER_OUTAGE),
    Fault("broker frozen", BROKER, freeze_broker, AFTER_OUTAGE),
    Fault("queue deleted", BROKER, delete_queue),
    Fault("queue purged", BROKER, purge_queue),
    Fault("connections cut", BROKER, cut_connections),
    Fault("rights withdrawn", BROKER, withdraw_rights, AFTER_OUTAGE),
    Fault("virtual host made anew", BROKER, make_vhost_anew, AFTER_OUTAGE, loses_logs=True),
    Fault("primary stepped down", STORE, step_down, AFTER_OUTAGE),
    Fault("primary killed", STORE, kill_primary, AFTER_OUTAGE),
    Fault("primary frozen", STORE, freeze_primary, AFTER_OUTAGE),
    Fault("majority of the store lost", STORE, lose_majority, AFTER_OUTAGE),
    Fault("disk full", STORE, fill_disk, AFTER_OUTAGE, needs="small"),
    Fault("engine hangs", ENGINE, hang_engine, needs="engine"),
)
