"""The errors of Haulier: a shallow class tree, with messages that a user can act on."""

from __future__ import annotations


class ApplicationError(Exception):
    """Anything that Haulier itself refuses or cannot do."""


class CannotGoOn(ApplicationError):
    """The process must end, for what it rests on is broken; the message says what to do."""


class StoreUnavailable(ApplicationError):
    """The datastore is unavailable now; trying again later may help."""


class StoreCorrupt(CannotGoOn, StoreUnavailable):
    """The datastore is damaged. Nothing is read or written any more while the process ends."""


class BrokerUnavailable(ApplicationError):
    """The broker is unavailable now; trying again later may help."""


class BrokerMisconfigured(ApplicationError):
    """The broker refuses for good (credentials, a queue with other properties): trying again does not help."""


class BrokerForbids(BrokerMisconfigured, BrokerUnavailable):
    """The broker does not let this user do so. At the start that ends the process; later on it is waited out, for
    rights that were withdrawn are given back."""


class StoreMisconfigured(ApplicationError):
    """The datastore refuses for good (credentials, a newer schema): trying again does not help."""


class QueueMismatch(BrokerMisconfigured):
    """A queue, or an exchange, exists with other properties than ours, left by another program on the same virtual
    host."""

    def __init__(self, name: str, detail: str, what: str = "queue") -> None:
        super().__init__(
            f"{what} {name!r} exists with other properties ({detail}): "
            "delete it, or give Haulier its own virtual host"
        )


class RuntimeUnavailable(ApplicationError):
    """The engine that should run containers does not answer; the message says what to do."""


class Unreadable(ApplicationError):
    """A message that can't be read or handled: it goes to the queue `dead` with this reason."""


class WrongKey(ApplicationError):
    """Data is encrypted with a key that is not configured here."""


class UnknownKind(Unreadable):
    """A message of a kind that this version doesn't know; a newer version of another process may handle it."""


class NotFound(ApplicationError):
    """The requested thing does not exist, or the caller must not see it."""


class NotAllowed(ApplicationError):
    """The request is not possible in the present state (HTTP 400)."""


class Conflict(ApplicationError):
    """The same key was used for something else (HTTP 409)."""


class Forbidden(ApplicationError):
    """The caller is not allowed to do this (HTTP 403)."""


class Unstorable(ApplicationError):
    """A document that no datastore keeps: over 16 MiB, a number past 64 bits or not finite where
    stores can see it, text that is not Unicode. The message names the field; storing it again does
    not help.
    """
