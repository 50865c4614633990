"""The indexes that the engine's questions need, said once for every adapter."""

from __future__ import annotations

import msgspec

from shared.model.documents import Delivery, Document, Items, Job, LogPart, Schedule, Task, User


class Index(msgspec.Struct, frozen=True):
    """An index over fields (Python names; `-` before one that falls).

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
    Index(Job, ("-created_at", "-id")),
    Index(Job, ("state", "-created_at", "-id")),
    Index(Job, ("parent_id",), sparse=True),
    Index(Job, ("root_id", "state")),
    Index(Job, ("delete_at",), sparse=True),
    Index(Job, ("ended_at",), sparse=True),
    Index(Task, ("job_id", "position", "created_at")),
    Index(Task, ("job_id", "created_at", "id")),
    Index(Task, ("job_id", "open")),
    Index(Task, ("job_id", "var", "-completed_at")),
    Index(Task, ("parent_id", "open"), sparse=True),
    Index(Task, ("parent_id", "state"), sparse=True),
    Index(Task, ("slot_of", "hold", "index"), sparse=True),
    Index(Task, ("window_of", "hold", "created_at", "index"), sparse=True),
    Index(Task, ("slot_of", "open"), sparse=True),
    Index(Task, ("window_of", "open"), sparse=True),
    Index(Task, ("state", "published_at")),
    Index(Task, ("hold", "due_at"), sparse=True),
    Index(Task, ("hold", "slot_of"), where=(("hold", "concurrency"),)),
    Index(Task, ("hold", "window_of"), where=(("hold", "window"),)),
    Index(Task, ("node_id", "state"), sparse=True),
    Index(Task, ("queue", "published_at"), where=(("state", "SCHEDULED"),)),
    Index(Task, ("slot_of", "slot"), unique=True, where=(("active", True),)),
    Index(Task, ("window_of", "window"), unique=True, where=(("active", True),)),
    Index(Items, ("task_id", "first")),
    Index(Items, ("job_id",)),
    Index(LogPart, ("task_id", "run", "number")),
    Index(LogPart, ("job_id", "-created_at", "-number")),
    Index(LogPart, ("task_id", "-created_at", "-number")),
    Index(LogPart, ("created_at",)),
    Index(Delivery, ("state", "due_at")),
    Index(Delivery, ("job_id",)),
    Index(Schedule, ("state", "next_at")),
    Index(Schedule, ("-created_at", "-id")),
    Index(User, ("username",), unique=True),
)
"""Every document with intents is besides indexed by when the first of them is due
(`Store.overdue`).
"""
