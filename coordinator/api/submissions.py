"""Receives submitted jobs: content types, errors, idempotency keys, waiting (REST API spec, `POST /jobs`)."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from typing import Final

import msgspec
from aiohttp import web

from coordinator.api.context import Api, api_of, caller
from coordinator.api.http import HttpError, answer, flag, read_body
from coordinator.api.view_data import summary, whole_job
from coordinator.api.visibility import check_permissions
from shared.durations import duration_seconds
from shared.errors import NotFound
from shared.model import language
from shared.model.decoding import ContentType, decode_job
from shared.model.documents import Actor, JobDocument
from shared.model.views import job_view, redactor_of

YAML_TYPES: Final = ("text/yaml", "application/x-yaml", "application/yaml")
JSON_TYPES: Final = ("application/json",)
_FORMATS: Final[dict[str, ContentType]] = {
    **dict.fromkeys((*YAML_TYPES, "text/x-yaml"), "yaml"),
    **dict.fromkeys(JSON_TYPES, "json"),
}
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_LOOK: Final = 5.0
"""Seconds between two looks whether a client that waits is still there."""


class Submission(msgspec.Struct, frozen=True):
    """A definition that was sent, and the hash of the bytes it came in."""

    definition: language.JobDefinition
    body_hash: str


async def read_submission(request: web.Request, *, scheduled: bool = False) -> Submission:
    """Return the definition in the body. 415, 413, or `InvalidDocument` with all that is wrong."""
    form = _format(request)
    body = await read_body(request)
    async with api_of(request).decoding:
        definition = await asyncio.to_thread(decode_job, body, form, scheduled=scheduled)
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
    )
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
    await check_permissions(api, definition.permissions)
    job = api.commands.preview(definition, actor)
    redactor = redactor_of(definition, key_patterns=api.key_patterns)
    return answer(job_view(job, redactor))


async def _wait(request: web.Request, job: JobDocument, timeout: float) -> JobDocument:
    api = api_of(request)
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0 and not _gone(request):
        ended = await api.commands.wait_ended(job.id, min(left, _LOOK))
        if ended is not None:
            return ended
        present = await api.store.get(JobDocument, job.id)
        if present is None or present.deleted_at is not None:
            raise NotFound("job was deleted after it ended")
    raise HttpError(408, "timeout waiting for job to complete")


def _gone(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
