"""The connection to MongoDB: its settings, its clock, and calls whose errors are translated into ours."""

from __future__ import annotations

import asyncio
import os
import re
import time
import warnings
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import structlog
from bson.errors import BSONError
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import (
    BulkWriteError,
    ConfigurationError,
    DocumentTooLarge,
    DuplicateKeyError,
    InvalidName,
    InvalidURI,
    OperationFailure,
    PyMongoError,
)

from coordinator.store.clock import FollowingClock
from coordinator.store.port import Unstorable
from shared.config.schema import ClientTls
from shared.errors import StoreMisconfigured, StoreUnavailable
from shared.model.documents import Micros
from shared.supervision import Loop, start_task
from shared.tls import tls_refusal

log = structlog.get_logger(__name__)


DUPLICATE_KEY = 11000


TOO_LARGE = frozenset({10334, 17419, 17420, 4031700})
"""BSONObjectTooLarge, and an update or pipeline whose outcome would be."""


UNAUTHORIZED = 13
FOR_GOOD = frozenset({UNAUTHORIZED, 18, 8000})
"""Unauthorized, AuthenticationFailed, and Atlas's own for the latter."""


_SETTINGS = re.compile(r" \(configured timeouts: [^)]*\)")


@contextmanager
def mongodb_errors() -> Iterator[None]:
    """Raise our errors for the driver's; what a unique index or a bulk met is left to who knows
    what it means.
    """
    try:
        yield
    except (DuplicateKeyError, BulkWriteError):
        raise
    except (DocumentTooLarge, BSONError, OverflowError, UnicodeEncodeError) as error:
        raise Unstorable(f"MongoDB rejected the document: {_short(error)}") from error
    except TimeoutError:
        raise StoreUnavailable("MongoDB did not answer in time") from None
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in TOO_LARGE:
            raise Unstorable(f"MongoDB rejected the document: {_short(error)}") from error
        if isinstance(error, OperationFailure) and error.code in FOR_GOOD:
            raise StoreUnavailable(f"MongoDB refuses this user: {_short(error)}") from error
        raise StoreUnavailable(f"MongoDB is not responding: {_short(error)}") from error


@contextmanager
def mongodb_start_errors(tls: ClientTls) -> Iterator[None]:
    """Raise our errors for the driver's, when whoever starts us can mend what will not pass."""
    try:
        yield
    except (ConfigurationError, InvalidURI, InvalidName, ValueError, UserWarning) as error:
        raise StoreMisconfigured(f"datastore.mongodb.url: {_short(error)}") from error
    except OperationFailure as error:
        if (refusal := _refusal(error)) is not None:
            raise StoreMisconfigured(refusal) from error
        raise StoreUnavailable(f"MongoDB is not responding: {_short(error)}") from error
    except (TimeoutError, PyMongoError) as error:
        raise _absence(_short(error), tls) from error
    except OSError as error:  # of a file
        raise StoreMisconfigured(f"datastore.mongodb.url: {error}") from error


def _absence(text: str, tls: ClientTls) -> StoreMisconfigured | StoreUnavailable:
    """Return what it means that there is no server to work with: whether it may come, or somebody has to mend it."""
    if "No replica set members available" in text:  # those that answered have another name
        return StoreMisconfigured(
            f"datastore.mongodb.url: {text}: MongoDB's replication.replSetName is another, or not set"
        )
    server = f"MongoDB at {_server_in(text)}"
    if (refused := tls_refusal(text, server, "datastore.mongodb", tls)) is not None:
        return StoreMisconfigured(refused)
    if text.endswith("connection closed"):
        text += f" ({_WHY_CLOSED})"
    if '"Primary()"' in text:
        text += f" ({_WHY_NO_PRIMARY})"
    return StoreUnavailable(f"MongoDB is not responding: {text}")


_WHY_CLOSED = (
    "where it goes on: MongoDB may want TLS, or a certificate from datastore.mongodb.tls.cert that it can trust; its "
    "log says so"
)
_WHY_NO_PRIMARY = (
    "where it goes on: a new replica set needs rs.initiate(), an old one a majority of its members"
)


def _refusal(error: OperationFailure) -> str | None:
    """Return why this user is refused for good, None where it may not be."""
    if error.code not in FOR_GOOD:
        return None
    text = _short(error)
    if error.code == UNAUTHORIZED and "requires authentication" in text:
        return f"MongoDB asks for a user and a password, which datastore.mongodb.url lacks: {text}"
    if error.code == UNAUTHORIZED:
        return f"MongoDB: the user of datastore.mongodb.url needs the role readWrite in its database: {text}"
    return f"MongoDB rejected the credentials in datastore.mongodb.url: {text}"


def _server_in(text: str) -> str:
    found = re.search(r"[^\s,]+:\d+", text)
    return found[0] if found is not None else "datastore.mongodb.url"


def raise_unless_duplicates(error: BulkWriteError) -> None:
    """Raise what a bulk write met, unless that was only documents that unique indexes refused."""
    others = [each for each in error.details["writeErrors"] if each["code"] != DUPLICATE_KEY]
    if any(each["code"] in TOO_LARGE for each in others):
        raise Unstorable(f"MongoDB rejected the document: {others[0]['errmsg']}") from error
    troubles = [*others, *error.details.get("writeConcernErrors", [])]
    if troubles:
        raise StoreUnavailable(f"MongoDB is not responding: {troubles[0]['errmsg']}") from error


def _short(error: BaseException) -> str:
    """Return what a message begins with: the driver adds its settings and its whole view of the servers; the server,
    a command that it refuses, with times and values in it, so that no two lines of a log are alike."""
    text = _SETTINGS.sub("", str(error))
    for addition in (
        " to execute command",
        ", full error:",
        ", Topology Description:",
        ", Timeout: ",
    ):
        text = text.partition(addition)[0]
    return text or type(error).__name__


_T = TypeVar("_T")

SERVER_SELECTION = 3.0
OPERATION = 6.0
"""Seconds; the driver tries again within them where an operation may be made twice."""
_PATIENCE = OPERATION + 1.0
"""Seconds until a caller no longer waits for the driver."""
CLOCK_INTERVAL = 5.0
"""Seconds between looks at the server's clock."""
GOOD_LOOK = 0.05
"""Seconds that a look may take to be believed at once."""
OLD_LOOK = 30.0
"""Seconds after which any look is better than the last."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND_NS = 1000

OPTIONS: dict[str, Any] = {
    "w": "majority",
    "journal": True,
    "readPreference": "primary",
    "retryWrites": True,
    "retryReads": True,
    "serverSelectionTimeoutMS": int(SERVER_SELECTION * 1000),
    "connectTimeoutMS": int(SERVER_SELECTION * 1000),
    "timeoutMS": int(OPERATION * 1000),
    "heartbeatFrequencyMS": 5000,
    "appname": "haulier",
}
"""What our promises need, whatever the URL says.

A write is on the disks of a majority when it returns. Reads go to the primary with its local view:
a new primary has all that a majority has, at once, while a majority read there may lag behind an
answered write for a moment.
"""


@contextmanager
def _tls_options(tls: ClientTls) -> Iterator[dict[str, Any]]:
    """Yield the options of the driver for TLS. It reads certificate and key from one file, once, when it is made: that
    file is in memory."""
    options: dict[str, Any] = {"tls": True} if tls != ClientTls() else {}
    if tls.ca:
        options["tlsCAFile"] = tls.ca
    if not tls.key:
        if tls.cert:
            options["tlsCertificateKeyFile"] = tls.cert
        yield options
        return
    with os.fdopen(os.memfd_create("tls"), "wb", buffering=0) as both:
        for file in (tls.cert, tls.key):
            both.write(Path(file).read_bytes() + b"\n")
        yield {**options, "tlsCertificateKeyFile": f"/proc/self/fd/{both.fileno()}"}


class ServerClock:
    """The server's clock, as offset to the process's monotonic one."""

    def __init__(self) -> None:
        self._offset_ns: int | None = None
        self._looked_ns = 0
        self._clock = FollowingClock(self._source)

    def now(self) -> Micros:
        """Return the server's time, never running backwards; before the first look this machine's."""
        return self._clock.now()

    def looked(self, before_ns: int, server: Micros, after_ns: int) -> None:
        """Take a look into account: the server's time and the monotonic times before and after it."""
        took = (after_ns - before_ns) / 1e9
        age = (after_ns - self._looked_ns) / 1e9
        if self._offset_ns is None or took <= GOOD_LOOK or age > OLD_LOOK:
            self._offset_ns = server * MICROSECOND_NS - (before_ns + after_ns) // 2
            self._looked_ns = after_ns

    def _source(self) -> Micros:
        if self._offset_ns is None:
            return time.time_ns() // MICROSECOND_NS
        return (time.monotonic_ns() + self._offset_ns) // MICROSECOND_NS


class MongoConnection:
    """A client of one database, from `open` to `close`."""

    def __init__(self, url: str, database: str, tls: ClientTls) -> None:
        self._url = url
        self._tls = tls
        self._name = database
        self._client: Any = None
        self._database: Any = None
        self._collections: dict[str, Any] = {}
        self._watch: Loop | None = None
        self._asked: set[asyncio.Future[Any]] = set()
        self.clock = ServerClock()

    def __getitem__(self, collection: str) -> Any:
        """Return a collection."""
        found = self._collections.get(collection)
        if found is None:
            if self._database is None:
                raise StoreUnavailable("the datastore is closed")
            found = self._collections[collection] = self._database[collection]
        return found

    def open(self) -> None:
        """Make the client; it connects when it is used. Raises `StoreMisconfigured`."""
        with mongodb_start_errors(self._tls), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # an option that the driver would ignore
            if self._client is None:
                with _tls_options(self._tls) as tls:
                    self._client = AsyncIOMotorClient(self._url, **OPTIONS, **tls)
            self._database = self._client[self._name]
            self._collections.clear()

    async def ask(self, call: asyncio.Future[_T] | Coroutine[Any, Any, _T]) -> _T:
        """Return what a call of the driver gives, with our errors for its own."""
        asked = call if isinstance(call, asyncio.Future) else start_task(call, "ask MongoDB")
        self._asked.add(asked)
        asked.add_done_callback(self._asked.discard)
        with mongodb_errors():
            async with asyncio.timeout(_PATIENCE):
                return await asked

    def hosts(self) -> tuple[str, ...]:
        """Return the hosts of all servers that the driver knows, whether they answer or not."""
        if self._client is None:
            return ()
        return tuple(host for host, _ in self._client.topology_description.server_descriptions())

    async def warn_of_lone_server(self) -> None:
        """Log a warning where the server is no member of a replica set."""
        if "setName" not in await self._database.command("hello"):
            remedy = "set replication.replSetName in /etc/mongod.conf, and run rs.initiate()"
            log.warning("MongoDB is no replica set, as it must be", remedy=remedy)

    async def look_at_clock(self) -> None:
        """Ask for the server's time once."""
        before = time.monotonic_ns()
        hello = await self._database.command("hello")
        after = time.monotonic_ns()
        self.clock.looked(before, _micros(hello["localTime"]), after)

    def watch_clock(self) -> None:
        """Go on asking for it."""
        self._watch = Loop(
            "MongoDB's clock", lambda: self.ask(self.look_at_clock()), every=CLOCK_INTERVAL
        )
        self._watch.start()

    async def close(self) -> None:
        """Finish what was asked for and close the client; a second time does nothing."""
        if self._watch is not None:
            await self._watch.close()
            self._watch = None
        if self._asked:
            await asyncio.wait(self._asked, timeout=_PATIENCE)
        if self._client is not None:
            self._client.close()
        self._client = self._database = None
        self._collections.clear()


def _micros(moment: datetime) -> Micros:
    since = moment.replace(tzinfo=UTC) - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
