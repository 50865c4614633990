"""Views of nodes, logs, users and metrics."""

from __future__ import annotations

import msgspec

from shared.model.documents import (
    MICROS_PER_SECOND,
    AuditDocument,
    LogPartDocument,
    Micros,
    NodeDocument,
    RoleDocument,
    TokenDocument,
    UserDocument,
)
from shared.model.states import NodeStatus
from shared.model.views.redacted import NodeStatusText, RoleText, TimeText, View, rfc3339

MISSED_BEATS = 3
"""A node that was not heard of for this many beats is OFFLINE."""


class UserView(View, frozen=True, kw_only=True):
    """A user who can sign in."""

    id: str
    username: str
    name: str = ""
    roles: list[str] = msgspec.field(default_factory=list)
    created_at: TimeText
    disabled: bool


class RoleView(View, frozen=True, kw_only=True):
    """A role that permissions can name."""

    id: str
    name: str
    created_at: TimeText


class TokenView(View, frozen=True, kw_only=True):
    """A token of a user, for programs."""

    id: str
    name: str
    username: str
    role: RoleText
    created_at: TimeText
    expires_at: TimeText
    last_used_at: TimeText = ""


class NewTokenView(TokenView, frozen=True, kw_only=True):
    """A new token. `token` is what a program sends as `Authorization: Bearer`; it is shown only here."""

    token: str


class AuditView(View, frozen=True, kw_only=True):
    """Something that somebody did. `action` is an `operationId` of the OpenAPI document, or `refused_login`; `status`
    is how it was answered, 0 where the process died on the way; `count` how often, where several are one entry."""

    id: str
    at: TimeText
    username: str = ""
    how: str = ""
    token_id: str = ""
    address: str = ""
    action: str
    target: str = ""
    status: int
    count: int
    chain: str
    number: int
    signature: str


class LogPartView(View, frozen=True, kw_only=True):
    """Some lines of a task's log. The last may be only the beginning of one: then no line break ends it."""

    id: str
    number: int
    task_id: str
    contents: str
    created_at: TimeText


class NodeView(View, frozen=True, kw_only=True):
    """A coordinator or worker. `status` is UP, DOWN (its own check fails), OFFLINE or DRAINING."""

    id: str
    name: str
    started_at: TimeText
    cpu_percent: float
    last_heartbeat_at: TimeText
    queue: str = ""
    queues: dict[str, int] = msgspec.field(default_factory=dict)
    status: NodeStatusText
    hostname: str
    port: int | None = None
    task_count: int
    version: str


class JobFigures(View, frozen=True, kw_only=True):
    """Metrics of jobs."""

    running: int


class TaskFigures(View, frozen=True, kw_only=True):
    """Metrics of tasks."""

    running: int


class NodeFigures(View, frozen=True, kw_only=True):
    """Metrics of nodes: how many are online, and their average CPU load."""

    online: int
    cpu_percent: float


class MetricsView(View, frozen=True, kw_only=True):
    """Metrics of the whole system."""

    jobs: JobFigures
    tasks: TaskFigures
    nodes: NodeFigures


def user_view(user: UserDocument) -> UserView:
    """Return a user, without the password's hash."""
    return UserView(
        id=user.id,
        username=user.username,
        name=user.name,
        roles=user.roles,
        created_at=rfc3339(user.created_at),
        disabled=user.disabled,
    )


def role_view(role: RoleDocument) -> RoleView:
    """Return a role."""
    return RoleView(id=role.id, name=role.name, created_at=rfc3339(role.created_at))


def token_view(token: TokenDocument) -> TokenView:
    """Return a token, without its hash."""
    return TokenView(
        id=token.id,
        name=token.name,
        username=token.username,
        role=token.role,
        created_at=rfc3339(token.created_at),
        expires_at=rfc3339(token.expires_at),
        last_used_at=rfc3339(token.used_at),
    )


def new_token_view(token: TokenDocument, text: str) -> NewTokenView:
    """Return a token that was just made, with its text."""
    shown = token_view(token)
    return NewTokenView(
        **{name: getattr(shown, name) for name in shown.__struct_fields__}, token=text
    )


def audit_view(entry: AuditDocument) -> AuditView:
    """Return an entry of the audit log."""
    return AuditView(
        id=entry.id,
        at=rfc3339(entry.at),
        username=entry.username,
        how=entry.how,
        token_id=entry.token_id,
        address=entry.address,
        action=entry.action,
        target=entry.target,
        status=entry.status,
        count=entry.count,
        chain=entry.chain,
        number=entry.number,
        signature=entry.signature,
    )


def log_part_view(part: LogPartDocument) -> LogPartView:
    """Return a part of a log; it was redacted in the worker."""
    return LogPartView(
        id=part.id,
        number=part.number,
        task_id=part.task_id,
        contents=part.contents,
        created_at=rfc3339(part.created_at),
    )


def node_status(node: NodeDocument, now: Micros, beat: float) -> str:
    """Return how a node is at `now`; `beat`: seconds between two of its beats."""
    if node.last_heartbeat_at < now - round(MISSED_BEATS * beat * MICROS_PER_SECOND):
        return "OFFLINE"
    if node.status == NodeStatus.DOWN:
        return "DOWN"
    return "DRAINING" if node.draining else "UP"


def node_view(node: NodeDocument, now: Micros, beat: float) -> NodeView:
    """Return a node as it is at `now`; `beat`: seconds between two of its beats."""
    return NodeView(
        id=node.id,
        name=node.name,
        started_at=rfc3339(node.started_at),
        cpu_percent=node.cpu_percent,
        last_heartbeat_at=rfc3339(node.last_heartbeat_at),
        queue=node.queue or "",
        queues=node.queues,
        status=node_status(node, now, beat),
        hostname=node.hostname,
        port=node.port,
        task_count=node.task_count,
        version=node.version,
    )
