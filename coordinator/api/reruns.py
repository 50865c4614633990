"""Makes a new job like another one, from its beginning or from one of its steps (REST API spec, `rerun`)."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import web

from coordinator.api.audit import made_job
from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import HttpError, answer, flag, read_json_body, trace_of
from coordinator.api.submissions import read_in_turn
from coordinator.api.view_data import redactor, summary
from coordinator.api.visibility import job_in_path
from coordinator.permission_names import as_named
from shared.errors import WrongKey
from shared.model import language
from shared.model.documents import Actor, JobDocument, Micros, TaskDocument
from shared.model.states import GOOD
from shared.model.views import View
from shared.model.views.redacted import as_written, hides, secrets_of
from shared.redaction import Redactor

_AT_ONCE: Final = 1000
_GIVEN_WHOLE: Final = ("tasks", "webhooks")
_EVALUATED: Final = (*_GIVEN_WHOLE, "output")
"""Fields of a job with templates."""
_WAYS_OUT: Final = {
    "tasks": "give tasks too",
    "webhooks": "give webhooks too, or none ([])",
}


class RerunRequest(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"from_": "from"}
):
    """What to change. `inputs` and `secrets` replace those of the same name, `tasks` and `webhooks` all of them.

    `from`: the name or the position of the step to begin with; what came before is kept."""

    inputs: dict[str, str] = {}
    secrets: dict[str, str] = {}
    tasks: list[dict[str, Any]] | None = None
    webhooks: list[dict[str, Any]] | None = None
    from_: str | int | None = None
    dryRun: bool = False  # noqa: N815 - its name on the wire


class StepView(View, frozen=True, kw_only=True):
    """A step, and why it is kept or runs."""

    position: int
    name: str
    reason: str


class RerunView(View, frozen=True, kw_only=True):
    """What a rerun would keep, and what would run."""

    kept: list[StepView]
    run: list[StepView]


async def rerun_job(request: web.Request) -> web.StreamResponse:
    """Make a new job like this one; with `dryRun`, answer what it would keep and run."""
    api, job = api_of(request), await job_in_path(request)
    asked = RerunRequest()
    if request.body_exists:
        asked = await read_json_body(request, RerunRequest)
    if job.locked:
        raise WrongKey(job.locked)
    definition = await _definition(api, job, asked)
    await api.commands.check_permissions(definition.permissions)
    position = _position(definition, asked.from_)
    owner = job.hidden_by or job.created_by
    hidden_by = None
    if not owner.is_same(caller().actor):
        its_redactor = await redactor(api, job)
        _refuse_hidden(job, owner, asked, its_redactor, keeps=position > 1)
        definition = _named_as_shown(definition, its_redactor)
        hidden_by = owner if _hiding(asked, job.definition, its_redactor) else None
    kept = await _kept(api, job, definition, position)
    if asked.dryRun or flag(request, "dryRun"):
        # What the caller wrote is answered as it is: to hide it would confirm guesses.
        shown = await redactor(api, job) if asked.tasks is None else Redactor()
        names = [
            shown.redact(task.name or f"task {n}") for n, task in enumerate(definition.tasks, 1)
        ]
        return answer(_plan(job, names, position))
    made = await api.commands.rerun(
        job,
        definition,
        caller().actor,
        position=position,
        kept=kept,
        hidden_by=hidden_by,
        trace=trace_of(request),
    )
    await made_job(request, made.id)
    return answer(await summary(api, made))


async def _definition(api: Api, job: JobDocument, asked: RerunRequest) -> language.JobDefinition:
    """Return the definition of the new job. Raises `InvalidDocument` as a submission does."""
    # Those of a sub-job are its parent's, and stand in no definition.
    whole = msgspec.structs.replace(
        job.definition, wait=None, permissions=as_named(job.permissions)
    )
    changed = msgspec.to_builtins(as_written(whole))
    for name, values in (("inputs", asked.inputs), ("secrets", asked.secrets)):
        if values:
            changed[name] = {**changed.get(name, {}), **values}
    for name in _GIVEN_WHOLE:
        if (given := getattr(asked, name)) is not None:
            changed[name] = given
    return await read_in_turn(api, msgspec.json.encode(changed), "json")


def _named_as_shown(definition: language.JobDefinition, shown: Redactor) -> language.JobDefinition:
    """Return a definition that tells nothing hidden by what a rerun can't change: templates see the name."""
    return msgspec.structs.replace(
        definition,
        name=shown.redact(definition.name),
        description=shown.redact(definition.description),
        tags=[shown.redact(tag) for tag in definition.tags],
    )


def _refuse_hidden(
    job: JobDocument, owner: Actor, asked: RerunRequest, shown: Redactor, *, keeps: bool
) -> None:
    """Refuse to give a job of somebody else's what its owner alone knows: other tasks could tell it."""
    inputs = job.definition.inputs or {}
    visible = shown.redact_map(inputs)
    hidden = [
        f"secrets.{name}" for name in job.definition.secrets or {} if name not in asked.secrets
    ]
    hidden += [
        f"inputs.{name}"
        for name, value in inputs.items()
        if visible[name] != value and name not in asked.inputs
    ]
    who = owner.username
    if hidden:
        raise HttpError(400, f"{', '.join(hidden)}: give a value: that of {who} is {who}'s own")
    if told := _told_by(asked, job.definition, shown):
        raise HttpError(
            400,
            f"{', '.join(told)}: what is hidden there is {who}'s own, and what you change could tell it: "
            f"{_WAYS_OUT.get(told[0], f'only {who} can change it')}",
        )
    if keeps and secrets_of(job):
        raise HttpError(
            400, f"from: results may hold secrets of {who}, so only {who} can keep them"
        )


def _told_by(asked: RerunRequest, job: language.JobDefinition, shown: Redactor) -> list[str]:
    """Return the fields kept of a job that hide something which what is changed could tell: all templates of a job
    see its inputs, its secrets and the results of its tasks."""
    changed = asked.inputs or asked.secrets or asked.tasks is not None or asked.webhooks
    return _hiding(asked, job, shown) if changed else []


def _hiding(asked: RerunRequest, job: language.JobDefinition, shown: Redactor) -> list[str]:
    """Return the fields kept of a job that hide something."""
    kept = [name for name in _EVALUATED if getattr(asked, name, None) is None]
    return [name for name in kept if hides(job, name, shown)]


def _position(definition: language.JobDefinition, wanted: str | int | None) -> int:
    """Return the position, from 1, of the step to begin with; 400 where there is no such."""
    if wanted is None:
        return 1
    for position, task in enumerate(definition.tasks, 1):
        if wanted in (position, str(position), task.name or f"task {position}"):
            return position
    raise HttpError(400, f"from: there is no step {wanted!r}; it has {len(definition.tasks)}")


async def _kept(
    api: Api, job: JobDocument, definition: language.JobDefinition, position: int
) -> list[str]:
    """Return the ids of what is kept of what came before: steps, and of what in them has a name the latest result.

    400 where a step did not complete, or is changed."""
    if position == 1:
        return []
    done: dict[int, str] = {}
    named: dict[str, TaskDocument] = {}
    async for task in _before(api, job, position):
        if task.parent_id is None:
            done[task.position] = task.id
        elif task.var and (task.var not in named or _ended(named[task.var]) < _ended(task)):
            named[task.var] = task
    for before in range(1, position):
        if before not in done:
            raise HttpError(
                400, f"from: step {before} did not complete, so nothing of it can be kept"
            )
        if definition.tasks[before - 1] != job.definition.tasks[before - 1]:
            raise HttpError(400, f"from: step {before} is changed, so what it did can't be kept")
    return [*done.values(), *(task.id for task in named.values())]


def _ended(task: TaskDocument) -> tuple[Micros, int, str]:
    """Return what says which of two tasks with a name has the result that counts."""
    return task.completed_at or 0, task.attempt, task.id


async def _before(api: Api, job: JobDocument, position: int) -> AsyncIterator[TaskDocument]:
    """Yield what was done before a position, the latest of a step last."""
    find = partial(api.store.find, without=TaskDocument.heavy)
    for before in range(1, position):
        where, skip = {"job_id": job.id, "position": before}, 0
        while some := await find(TaskDocument, where, ("created_at",), limit=_AT_ONCE, skip=skip):
            skip += len(some)
            for task in some:
                if task.state in GOOD:
                    yield task


def _plan(job: JobDocument, names: list[str], position: int) -> RerunView:
    kept = f"it completed in job {job.id}"
    steps = [
        StepView(
            position=number,
            name=name,
            reason=kept if number < position else _why_run(number, position),
        )
        for number, name in enumerate(names, 1)
    ]
    return RerunView(kept=steps[: position - 1], run=steps[position - 1 :])


def _why_run(number: int, position: int) -> str:
    if position == 1:
        return "all of the job runs again"
    return "it is where to begin" if number == position else "it comes after where to begin"
