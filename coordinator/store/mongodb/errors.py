"""MongoDB's errors as ours."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from bson.errors import BSONError
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

from coordinator.store.port import Unstorable
from shared.errors import StoreMisconfigured, StoreUnavailable

DUPLICATE_KEY = 11000


TOO_LARGE = frozenset({10334, 17419, 17420, 4031700})
"""BSONObjectTooLarge, and an update or pipeline whose outcome would be."""


FOR_GOOD = frozenset({13, 18, 8000})
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
def mongodb_start_errors() -> Iterator[None]:
    """Raise our errors for the driver's, when whoever starts us can mend what will not pass."""
    try:
        yield
    except (ConfigurationError, InvalidURI, InvalidName, ValueError, UserWarning) as error:
        raise StoreMisconfigured(f"datastore.mongodb: {_short(error)}") from error
    except OperationFailure as error:
        if error.code in FOR_GOOD:
            raise StoreMisconfigured(
                f"MongoDB rejected the credentials in datastore.mongodb.url: {_short(error)}"
            ) from error
        raise StoreUnavailable(f"MongoDB is not responding: {_short(error)}") from error
    except (TimeoutError, PyMongoError) as error:
        raise StoreUnavailable(f"MongoDB is not responding: {_short(error)}") from error


def raise_unless_duplicates(error: BulkWriteError) -> None:
    """Raise what a bulk write met, unless that was only documents that unique indexes refused."""
    others = [each for each in error.details["writeErrors"] if each["code"] != DUPLICATE_KEY]
    if any(each["code"] in TOO_LARGE for each in others):
        raise Unstorable(f"MongoDB rejected the document: {others[0]['errmsg']}") from error
    troubles = [*others, *error.details.get("writeConcernErrors", [])]
    if troubles:
        raise StoreUnavailable(f"MongoDB is not responding: {troubles[0]['errmsg']}") from error


def _short(error: BaseException) -> str:
    """Return what a message begins with: the driver adds its settings and its whole view of the servers."""
    text = _SETTINGS.sub("", str(error))
    for addition in (", full error:", ", Topology Description:", ", Timeout: "):
        text = text.partition(addition)[0]
    return text or type(error).__name__
