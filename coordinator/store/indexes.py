"""The indexes that the engine's queries need, declared once for all adapters."""

from __future__ import annotations

import msgspec

from shared.model.documents import (
    AuditDocument,
    AuditIntentDocument,
    DeliveryDocument,
    Document,
    ItemsDocument,
    JobDocument,
    LogPartDocument,
    NodeDocument,
    QueueDocument,
    ScheduleDocument,
    TaskDocument,
    TokenDocument,
    TombstoneDocument,
    UserDocument,
)


class Index(msgspec.Struct, frozen=True):
    """An index over fields (Python names, with a dot what is in a struct; `-` before one that falls).

    `unique` holds among documents in which all fields of `where` have these values and all `fields`
    are present; a non-unique index with `where` may be partial in the same way. A `sparse` one holds
    only documents in which its first field is present: it costs the others nothing.
    """

    kind: type[Document]
    fields: tuple[str, ...]
    unique: bool = False
    where: tuple[tuple[str, object], ...] = ()
    sparse: bool = False


INDEXES: tuple[Index, ...] = (
    Index(JobDocument, ("-created_at", "-id")),
    Index(JobDocument, ("state", "-created_at", "-id")),
    Index(JobDocument, ("parent_id",), sparse=True),
    Index(JobDocument, ("root_id", "state")),
    Index(JobDocument, ("delete_at",), sparse=True),
    Index(JobDocument, ("ended_at",), sparse=True),
    Index(JobDocument, ("schedule.id", "-created_at", "-id"), sparse=True),
    Index(TombstoneDocument, ("buried_at",)),
    Index(TaskDocument, ("job_id", "position", "created_at")),
    Index(TaskDocument, ("job_id", "created_at", "id")),
    Index(TaskDocument, ("job_id", "open", "depth", "created_at")),
    Index(TaskDocument, ("job_id", "var", "-completed_at", "-attempt", "-id")),
    Index(TaskDocument, ("parent_id", "open"), sparse=True),
    Index(TaskDocument, ("parent_id", "state"), sparse=True),
    Index(TaskDocument, ("slot_of", "hold", "index"), sparse=True),
    Index(TaskDocument, ("window_of", "hold", "created_at", "index"), sparse=True),
    Index(TaskDocument, ("slot_of", "open"), sparse=True),
    Index(TaskDocument, ("window_of", "open"), sparse=True),
    Index(TaskDocument, ("state", "published_at")),
    Index(TaskDocument, ("hold", "due_at"), sparse=True),
    Index(TaskDocument, ("hold", "slot_of"), where=(("hold", "concurrency"),)),
    Index(TaskDocument, ("hold", "window_of"), where=(("hold", "window"),)),
    Index(TaskDocument, ("node_id", "state"), sparse=True),
    Index(TaskDocument, ("queue", "published_at"), where=(("state", "SCHEDULED"),)),
    Index(TaskDocument, ("queue", "-published_at"), where=(("state", "RUNNING"),)),
    Index(TaskDocument, ("slot_of", "slot"), unique=True, where=(("active", True),)),
    Index(TaskDocument, ("window_of", "window"), unique=True, where=(("active", True),)),
    Index(ItemsDocument, ("task_id", "first")),
    Index(ItemsDocument, ("job_id",)),
    Index(LogPartDocument, ("task_id", "run", "number")),
    Index(LogPartDocument, ("job_id", "-created_at", "-number")),
    Index(LogPartDocument, ("task_id", "-created_at", "-number")),
    Index(LogPartDocument, ("created_at",)),
    Index(NodeDocument, ("closed", "left_nothing")),
    Index(QueueDocument, ("used_at",)),
    Index(DeliveryDocument, ("state", "due_at")),
    Index(DeliveryDocument, ("state", "user", "due_at"), where=(("state", "PENDING"),)),
    Index(DeliveryDocument, ("job_id", "-created_at", "-id")),
    Index(DeliveryDocument, ("line", "sequence", "created_at", "id"), sparse=True),
    Index(ScheduleDocument, ("state", "next_at")),
    Index(ScheduleDocument, ("-created_at", "-id")),
    Index(ScheduleDocument, ("name",)),
    Index(UserDocument, ("username",), unique=True),
    Index(TokenDocument, ("username", "created_at")),
    Index(TokenDocument, ("expires_at",)),
    Index(AuditIntentDocument, ("at",)),
    Index(AuditDocument, ("-at", "-id")),
    Index(AuditDocument, ("username", "-at", "-id")),
    Index(AuditDocument, ("action", "-at", "-id")),
    Index(AuditDocument, ("target", "-at", "-id")),
    Index(AuditDocument, ("chain", "number")),
    Index(AuditDocument, ("sealed_at",)),
)
"""Every document with intents is besides indexed by when the first of them is due
(`Store.overdue`).
"""
