"""Finds the job, task or schedule of a request. What the caller is not allowed to see does not exist."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import path_id
from coordinator.store.port import Viewer
from shared.errors import Forbidden, NotAllowed, NotFound
from shared.model import language
from shared.model.documents import (
    GUEST,
    JobDocument,
    RoleDocument,
    ScheduleDocument,
    TaskDocument,
    UserDocument,
)
from shared.model.queries import In


def may_see(permissions: Sequence[language.Permission], viewer: Viewer | None) -> bool:
    """Tell whether something with these permissions may be seen with these eyes."""
    if viewer is None or not permissions:
        return True
    return any(
        each.user == viewer.username if each.user else each.role in viewer.roles
        for each in permissions
    )


async def visible_job(request: web.Request, id: str) -> JobDocument:
    """Return a job; `NotFound` where it is not there or may not be seen."""
    job = await api_of(request).store.get(JobDocument, id)
    if job is None or job.deleted_at is not None or not may_see(job.permissions, caller().viewer):
        raise NotFound("job not found")
    return job


async def job_in_path(request: web.Request) -> JobDocument:
    """Return the job that the path names."""
    return await visible_job(request, path_id(request))


async def task_in_path(request: web.Request) -> tuple[TaskDocument, JobDocument]:
    """Return the task that the path names, and its job."""
    task = await api_of(request).store.get(TaskDocument, path_id(request))
    if task is None:
        raise NotFound("task not found")
    try:
        return task, await visible_job(request, task.job_id)
    except NotFound:
        raise NotFound("task not found") from None


async def schedule_in_path(request: web.Request) -> ScheduleDocument:
    """Return the scheduled job that the path names."""
    schedule = await api_of(request).store.get(ScheduleDocument, path_id(request))
    if schedule is None or not may_see(schedule.permissions, caller().viewer):
        raise NotFound("scheduled job not found")
    return schedule


def require_admin() -> None:
    """Raise `Forbidden` unless the caller may manage users."""
    if not caller().admin:
        raise Forbidden("only users with the role admin may do this")


async def check_permissions(api: Api, permissions: Sequence[language.Permission]) -> None:
    """Raise `NotAllowed` where a permission names a user or a role that does not exist."""
    users = {each.user for each in permissions if each.user} - {GUEST.username}
    roles = {each.role for each in permissions if each.role}
    known_users = (
        {
            user.username
            for user in await api.store.find(UserDocument, {"username": In(tuple(users))})
        }
        if users
        else set()
    )
    known_roles = (
        {role.name for role in await api.store.find(RoleDocument, {"name": In(tuple(roles))})}
        if roles
        else set()
    )
    unknown = sorted(users - known_users) + sorted(roles - known_roles)
    if unknown:
        raise NotAllowed(f"permissions: there is no user or role {unknown[0]!r}")
