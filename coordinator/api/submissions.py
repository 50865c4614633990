"""Receives submitted jobs: content types, long documents, idempotency keys, waiting (REST API spec, `POST /jobs`)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from contextlib import nullcontext, suppress
from functools import partial
from typing import Final

import msgspec
from aiohttp import web

from coordinator.api.audit import done_to
from coordinator.api.context import Api, api_of, caller, caller_id
from coordinator.api.http import HttpError, answer, flag, read_body, trace_of
from coordinator.api.view_data import (
    made_view,
    redactor_for,
    size_of_texts,
    summary,
    whole_job,
)
from coordinator.turns import TooManyWaiting
from shared.durations import duration_seconds
from shared.errors import NotFound
from shared.model import language
from shared.model.decoding import ContentType, decode_job
from shared.model.documents import Actor, JobDocument
from shared.model.messages import StateChanged
from shared.model.states import JOB_ENDED
from shared.model.views import hidden_values, job_view
from shared.supervision import Backoff
from shared.threads import in_thread

YAML_TYPES: Final = ("text/yaml", "application/x-yaml", "application/yaml")
JSON_TYPES: Final = ("application/json",)
_FORMATS: Final[dict[str, ContentType]] = {
    **dict.fromkeys((*YAML_TYPES, "text/x-yaml"), "yaml"),
    **dict.fromkeys(JSON_TYPES, "json"),
}
JOB_EXAMPLE: Final = {
    "name": "hello",
    "tasks": [{"name": "say hello", "image": "alpine:3.18.3", "run": "echo hello"}],
}
SCHEDULE_EXAMPLE: Final = {**JOB_EXAMPLE, "schedule": {"cron": "0 5 * * *"}}
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_SHORT: Final = 16_384
"""Bytes up to which a document waits for no turn."""
_FIRST_LOOK: Final = 0.5
_LOOK: Final = 5.0
"""Seconds between two looks whether a job that a client waits for has ended, and the client is still there."""


class Submission(msgspec.Struct, frozen=True):
    """A definition that was sent, and the hash of the bytes it came in."""

    definition: language.JobDefinition
    body_hash: str


async def read_submission(request: web.Request, *, scheduled: bool = False) -> Submission:
    """Return the definition in the body. 415, 413, 429, or `InvalidDocument` with all that is wrong."""
    form = _format(request)
    body = await read_body(request)
    definition = await read_in_turn(api_of(request), body, form, scheduled=scheduled)
    return Submission(definition, hashlib.sha256(body).hexdigest())


def _format(request: web.Request) -> ContentType:
    given = request.headers.get("Content-Type", "")
    form = _FORMATS.get(request.content_type if given else "")
    if form is None:
        allowed = ", ".join((*JSON_TYPES, *YAML_TYPES))
        told = f"Content-Type {given!r} is not understood" if given else "Content-Type is missing"
        hint = " (with curl: -H 'Content-Type: text/yaml')"
        raise HttpError(415, f"{told}: send one of {allowed}{hint}")
    if (request.charset or "utf-8").lower() not in ("utf-8", "utf8", "us-ascii"):
        raise HttpError(415, "charset: only utf-8 is supported")
    return form


async def read_in_turn(
    api: Api, body: bytes, form: ContentType, *, scheduled: bool = False
) -> language.JobDefinition:
    """Return the definition that the caller sent, read on a thread: long ones few at a time, so that no user has the
    others wait. `InvalidDocument` with all that is wrong; 429 where too many of theirs wait."""
    short = len(body) <= _SHORT
    turn = nullcontext() if short else api.long_documents.turn(caller_id())
    try:
        async with turn:
            return await in_thread(decode_job, body, form, scheduled=scheduled)
    except TooManyWaiting:
        message = "too many long documents at once; try again"
        raise HttpError(429, message, {"Retry-After": "1"}) from None


async def submit_job(request: web.Request) -> web.StreamResponse:
    """Store a new job and answer its summary; with `wait`, the job once it has ended."""
    api, actor = api_of(request), caller().actor
    dry = flag(request, "dryRun")
    key = _idempotency_key(request)
    sent = await read_submission(request)
    if dry:
        return await _preview(api, sent.definition, actor)
    job = await api.commands.submit(
        sent.definition,
        actor,
        key=key,
        body_hash=sent.body_hash if key is not None else None,
        trace=trace_of(request),
    )
    done_to(request, job.id, over=True)
    if sent.definition.wait is not None:
        ended = await _wait(request, job, duration_seconds(sent.definition.wait.timeout))
        return answer(await whole_job(api, ended))
    return answer(await summary(api, job))


def _idempotency_key(request: web.Request) -> str | None:
    key = request.headers.get("Idempotency-Key")
    if key is not None and not _KEY.fullmatch(key):
        raise HttpError(400, "Idempotency-Key: 1 to 255 printable ASCII characters without spaces")
    return key


async def _preview(api: Api, definition: language.JobDefinition, actor: Actor) -> web.Response:
    await api.commands.check_permissions(definition.permissions)
    redactor = await redactor_for(api, hidden_values(definition, api.key_patterns))
    job = api.commands.preview(definition, actor)
    view = partial(job_view, job, redactor)
    return answer(await made_view(api, redactor, partial(size_of_texts, job), view))


async def _wait(request: web.Request, job: JobDocument, timeout: float) -> JobDocument:
    """Return a job once it has ended: its event says so, or a look, of which there are ever fewer."""
    api, store = api_of(request), api_of(request).store
    deadline, looks, told = time.monotonic() + timeout, Backoff(_FIRST_LOOK, _LOOK), asyncio.Event()

    def heard(event: StateChanged) -> None:
        if event.job_id == job.id and event.state in JOB_ENDED and not event.task_id:
            told.set()

    async with api.listeners.listening(heard):
        while (left := deadline - time.monotonic()) > 0 and not _gone(request):
            told.clear()
            found = await store.find(JobDocument, {"id": job.id}, without=JobDocument.heavy)
            ended = not found or found[0].state in JOB_ENDED
            whole = await store.get(JobDocument, job.id) if ended else None
            if ended and (whole is None or whole.deleted_at is not None):
                raise NotFound("job was deleted after it ended")
            if whole is not None and whole.state in JOB_ENDED:
                return whole
            with suppress(TimeoutError):
                async with asyncio.timeout(min(left, looks.next())):
                    await told.wait()
    raise HttpError(408, "timeout waiting for job to complete")


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
