"""The messages between coordinators and workers (engine spec, Queues and The run of a task).

Tolerant: unknown fields are ignored and new ones have defaults, so that versions can mix. A message is only a way
to hear of something: the truth is in the store.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any, ClassVar, Final, Protocol, TypeVar, get_args

import msgspec

from shared.errors import ApplicationError, UnknownKind, Unreadable
from shared.model import language
from shared.model.documents import Micros, RunUsage
from shared.model.states import NodeKind, NodeStatus, RunRole


class Message(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True, tag_field="kind"):
    """Anything sent. `sealed` fields rest encrypted in a message's body where a key is configured."""

    sealed: ClassVar[tuple[str, ...]] = ()


# --- jobs: commands -----------------------------------------------------------------------------------------------


class JobChanged(Message, kw_only=True, tag="job"):
    """API, timers → coordinators, on `jobs`: this job has intents: follow them."""

    job_id: str


# --- a task's queue -----------------------------------------------------------------------------------------------


class TaskMessage(Message, kw_only=True, tag="task"):
    """Coordinator → a worker: run this if you are granted it. Every publish of a task is the same message."""

    sealed = ("task", "secrets")

    task_id: str
    job_id: str
    restarts: int = 0
    attempt: int = 1
    run: int = 0
    """Number of its last run when this was sent; a hint, given back in the claim."""
    task: language.TaskDefinition
    secrets: list[str] = []
    """Values to redact from the log, longest first."""
    trace: str = ""
    """The `traceparent` of what its runs are a part of."""


# --- claims: worker → coordinators --------------------------------------------------------------------------------


class Claim(Message, kw_only=True, tag="claim"):
    """May I run this? The same nonce is asked again until it is answered."""

    task_id: str
    job_id: str = ""
    nonce: str
    node_id: str
    beat: int
    """Number of the node's last beat."""
    run: int = 0
    """The task message's `run`, a hint."""


class WhoIsDead(Message, kw_only=True, tag="whoIsDead"):
    """Which of these nodes are dead? Asked before what they left behind is removed; answered by `DeadNodes`."""

    node_id: str
    nodes: list[str]


# --- completed, error: worker → coordinators ----------------------------------------------------------------------


class RunEnded(Message, kw_only=True, tag="ended"):
    """The end of a run: `ok` on `completed`, else on `error`. Applied only if (task, run, nonce) is what counts."""

    sealed = ("result", "error")

    task_id: str
    job_id: str
    run: int
    nonce: str
    node_id: str
    ok: bool
    result: str | None = None
    error: str | None = None
    exit_code: int | None = None
    usage: RunUsage | None = None
    log_parts: int = 0
    """Number of parts of this run's log, the last one included."""
    last_part: str | None = None
    """Contents of the last part, number `log_parts`; None where the log was empty or is already all sent."""
    ended_at: Micros = 0


class HandedBack(Message, kw_only=True, tag="handedBack"):
    """The worker cannot go on with a run (drain, lost disk, an answer that came late): it costs the task nothing."""

    task_id: str
    job_id: str
    run: int
    nonce: str
    node_id: str
    reason: str = ""
    vanished: bool = False
    """The container is gone, with nobody of ours having removed it: the run is lost and counts as a redelivery."""


class PulseProbe(Message, kw_only=True, tag="probe"):
    """Coordinator → coordinators, through each queue of the pulse. `sent_at` by the store's clock."""

    queue: str
    sent_at: Micros
    sender: str


# --- logs, progress -----------------------------------------------------------------------------------------------


class LogWritten(Message, kw_only=True, tag="log"):
    """Parts of a run's log: consecutive numbers from `first` on. Already redacted."""

    task_id: str
    job_id: str
    run: int
    nonce: str = ""
    first: int
    parts: list[str]
    created_at: Micros = 0


class Progressed(Message, kw_only=True, tag="progress"):
    """A run's progress, 0 to 100."""

    task_id: str
    job_id: str
    run: int
    nonce: str = ""
    progress: float


# --- heartbeat ----------------------------------------------------------------------------------------------------


class Held(msgspec.Struct, kw_only=True, rename="camel", omit_defaults=True):
    """A run as its worker sees it."""

    task_id: str
    nonce: str
    role: RunRole
    run: int = 0
    beat: int = 0
    """The node's last beat when this nonce was first asked for."""
    ended_beat: int = 0
    """The node's last beat when it ended; 0 where it goes on, or the worker does not say."""


class Beat(Message, kw_only=True, tag="beat"):
    """Every node, every 5 s and at once on every new connection. Workers list every nonce they know of."""

    node_id: str
    node_kind: NodeKind
    number: int
    name: str = ""
    hostname: str = ""
    version: str = ""
    started_at: Micros = 0
    cpu_percent: float = 0.0
    queues: dict[str, int] = {}
    port: int | None = None
    status: NodeStatus = NodeStatus.UP
    draining: bool = False
    held: list[Held] = []
    held_deliveries: list[str] = []
    """Ids of tasks whose delivery the worker holds."""
    predecessors: list[str] = []
    """Nodes of processes that ended before this one on its host, without having been able to say so. What they were
    granted and is not listed in `held` as ended is lost."""


# --- x-<node>: coordinators → one worker --------------------------------------------------------------------------


class Granted(Message, kw_only=True, tag="granted"):
    """Yes: this nonce is run number `run` of the task."""

    task_id: str
    nonce: str
    run: int


class Refused(Message, kw_only=True, tag="refused"):
    """No, and do not ask again: acknowledge the delivery and forget it."""

    task_id: str
    nonce: str
    reason: str


class BeatFirst(Message, kw_only=True, tag="beatFirst"):
    """Your node has no open lease that lasts: beat, then ask again."""

    task_id: str
    nonce: str


class Stop(Message, kw_only=True, tag="stop"):
    """Stop these runs: they no longer count. Nothing need be reported of them."""

    nonces: list[str]
    reason: str = ""


class EndStored(Message, kw_only=True, tag="stored"):
    """The ends of these runs are stored, or no longer count: forget them."""

    nonces: list[str]


class SendEnd(Message, kw_only=True, tag="sendEnd"):
    """You list these runs as ended and the store has no end: send it again."""

    nonces: list[str]


class NodeStored(Message, kw_only=True, tag="nodeStored"):
    """Your node is stored, and its epoch open: what you make on your host will be found when you are dead."""


class Succeeded(Message, kw_only=True, tag="succeeded"):
    """These predecessors of yours are closed for good, what they were granted lost or yours: name them no more."""

    nodes: list[str]


class DeadNodes(Message, kw_only=True, tag="deadNodes"):
    """Answer to `WhoIsDead`: of those asked for, these are dead."""

    asked: list[str]
    nodes: list[str]


class Drain(Message, kw_only=True, tag="drain"):
    """Take nothing new (`on`), or do so again."""

    on: bool


# --- events (topic) -----------------------------------------------------------------------------------------------


class StateChanged(Message, kw_only=True, tag="event"):
    """A job's or a task's state changed. `summary` is its summary as the API shows it, already redacted."""

    type: str
    job_id: str
    task_id: str | None = None
    state: str
    at: Micros
    summary: dict[str, Any] = {}


class Listening(Message, kw_only=True, tag="listening"):
    """A coordinator has someone listening to events until `until`."""

    until: Micros


ToCoordinators = (
    JobChanged
    | Claim
    | WhoIsDead
    | RunEnded
    | HandedBack
    | PulseProbe
    | LogWritten
    | Progressed
    | Beat
)
ToWorker = (
    Granted
    | Refused
    | BeatFirst
    | Stop
    | EndStored
    | SendEnd
    | NodeStored
    | Succeeded
    | DeadNodes
    | Drain
)
AnyMessage = ToCoordinators | ToWorker | TaskMessage | StateChanged | Listening

M = TypeVar("M")

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """Return the body of `message`, JSON in UTF-8."""
    return _encoder.encode(message)


def decode(body: bytes) -> Message:
    """Return the message in `body`; `Unreadable` says why it is none."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable(body, str(error)) from error


class _Kind(msgspec.Struct):
    kind: str


_KINDS: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyMessage))


def _unreadable(body: bytes, reason: str) -> Unreadable:
    """Return why a body is no message: its kind is one of a newer version's, or it is none at all."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        kind = msgspec.json.decode(body, type=_Kind).kind
        if kind not in _KINDS:
            return UnknownKind(f"this version knows no message of kind {kind!r}")
    return Unreadable(f"not a message of ours: {reason}")


SEALED = "sealed"


class Seal(Protocol):
    """What seals: `shared.encryption.Vault`."""

    def seal(self, plain: bytes) -> str:
        """Return `plain`, encrypted, as text."""

    def open(self, token: str) -> bytes:
        """Return what was sealed; raises a `ApplicationError` where no key of ours fits."""


class MessageCodec:
    """Encodes and decodes messages, with a vault or without."""

    def __init__(self, vault: Seal | None = None) -> None:
        self._vault = vault

    def encode(self, message: Message) -> bytes:
        """Return the body of a message."""
        body = encode(message)
        if self._vault is None or not message.sealed:
            return body
        return msgspec.json.encode({"kind": SEALED, "token": self._vault.seal(body)})

    def decode(self, body: bytes) -> Message:
        """Return the message in a body; `Unreadable` says why it is none."""
        if not body.startswith(b'{"kind":"sealed"'):
            return decode(body)
        if self._vault is None:
            raise Unreadable("the message is encrypted, and no encryption.key is configured here")
        try:
            return decode(self._vault.open(str(json.loads(body)["token"])))
        except (ValueError, KeyError, ApplicationError) as error:
            raise Unreadable(f"an encrypted message that can't be opened: {error}") from error
