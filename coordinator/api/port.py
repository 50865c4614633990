"""The port through which the API gives commands to the rest of the coordinator."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from shared.model import language
from shared.model.documents import Actor, JobDocument, ScheduleDocument
from shared.model.messages import StateChanged


class Commands(Protocol):
    """Commands of users. Each is stored when the call returns, even without a broker (engine spec, promise 1)."""

    async def submit(
        self,
        definition: language.JobDefinition,
        actor: Actor,
        *,
        key: str | None = None,
        body_hash: str | None = None,
        trace: str = "",
    ) -> JobDocument:
        """Store a new job, as a part of `trace` (a `traceparent`).

        With `key` (an Idempotency-Key) the same key and hash of the same actor answer the first
        job; another hash raises `Conflict`. `NotAllowed` where a permission names nobody who exists."""

    def preview(self, definition: language.JobDefinition, actor: Actor) -> JobDocument:
        """Return the job that `submit` would store, storing nothing."""

    async def check_permissions(self, permissions: Sequence[language.Permission]) -> None:
        """Raise `NotAllowed` where a permission names a user or a role that does not exist."""

    async def rerun(
        self,
        job: JobDocument,
        definition: language.JobDefinition,
        actor: Actor,
        *,
        position: int,
        kept: Sequence[str],
        hidden_by: Actor | None = None,
        trace: str = "",
    ) -> JobDocument:
        """Store a new job made from `job`, which begins at `position`; the tasks of `job` with the ids `kept` count as
        done in it. `hidden_by`: whose what is hidden in it is, if not the actor's."""

    async def cancel(self, job: JobDocument) -> None:
        """Cancel; `NotAllowed` ("job is not running")."""

    async def restart(self, job: JobDocument) -> None:
        """Go on from the task that failed; `NotAllowed` ("job is COMPLETED and can not be restarted")."""

    async def delete(self, job: JobDocument) -> None:
        """Delete an ended job; `NotAllowed` while it runs."""

    async def drain(self, node_id: str, on: bool) -> None:
        """Drain or resume a worker; `NotFound`, `NotAllowed` for a coordinator."""

    async def preview_schedule(
        self, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        """Return the schedule that `schedule` would store, storing nothing."""

    async def schedule(self, definition: language.JobDefinition, actor: Actor) -> ScheduleDocument:
        """Store a schedule, active from now on."""

    async def pause_schedule(self, schedule: ScheduleDocument) -> None:
        """Pause; `NotAllowed` ("scheduled job is not active")."""

    async def resume_schedule(self, schedule: ScheduleDocument) -> None:
        """Resume; `NotAllowed` ("scheduled job is not paused")."""

    async def run_schedule(self, schedule: ScheduleDocument) -> JobDocument:
        """Make a job of it now, besides its firings."""

    async def change_schedule(
        self, schedule: ScheduleDocument, definition: language.JobDefinition, actor: Actor
    ) -> ScheduleDocument:
        """Have it make other jobs of `actor`'s, at other times, from now on; `Conflict` where somebody else changes it
        too."""

    async def delete_schedule(self, schedule: ScheduleDocument) -> None:
        """Delete; jobs already made stay."""

    def events(self) -> AsyncIterator[StateChanged]:
        """State changes of jobs and tasks from now on, from whichever coordinator made them; slow readers lose the
        oldest rather than hold others up. Closing the iterator unsubscribes."""
