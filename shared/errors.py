"""The errors of Haulier: one shallow tree, data as attributes, messages that a user can act on."""

from __future__ import annotations


class HaulierError(Exception):
    """Anything that Haulier itself refuses or cannot do."""


class CannotGoOn(HaulierError):
    """The process must end, for what it rests on is broken; the message says what to do."""


class StoreUnavailable(HaulierError):
    """The datastore does not answer now; trying again later may help."""


class BrokerUnavailable(HaulierError):
    """The broker does not answer now; trying again later may help."""


class BrokerMisconfigured(HaulierError):
    """The broker refuses for good (credentials, a queue with other properties): trying again does not help."""


class BrokerForbids(BrokerMisconfigured, BrokerUnavailable):
    """The broker does not let this user do so. At the start that ends the process; later on it is waited out, for
    rights that were withdrawn are given back."""


class StoreMisconfigured(HaulierError):
    """The datastore refuses for good (credentials, a newer schema): trying again does not help."""


class QueueMismatch(BrokerMisconfigured):
    """A queue exists with other properties than ours, left by another program on the same virtual host."""

    def __init__(self, queue: str, detail: str) -> None:
        super().__init__(
            f"queue {queue!r} exists with other properties ({detail}): "
            "delete it, or give Haulier a virtual host of its own"
        )
        self.queue = queue


class RuntimeUnavailable(HaulierError):
    """The engine that should run containers does not answer; the message says what to do."""


class Unreadable(HaulierError):
    """A message that no version of us can read or handle: it goes to the queue `dead` with this reason."""


class NotFound(HaulierError):
    """What was asked for does not exist, or must not be seen by who asked."""


class NotAllowed(HaulierError):
    """What was asked for makes no sense in the present state (HTTP 400)."""


class Conflict(HaulierError):
    """The same key was used for something else (HTTP 409)."""


class Forbidden(HaulierError):
    """Who asked may not do this (HTTP 403)."""
