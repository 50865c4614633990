"""Reads documents of jobs on threads, few long ones at a time, so that no user has the others wait."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Final

from coordinator.api.context import Api, caller
from coordinator.api.http import HttpError
from coordinator.turns import TooManyWaiting
from shared.model import language
from shared.model.decoding import ContentType, decode_job
from shared.threads import in_thread

_SHORT: Final = 16_384
"""Bytes up to which a document waits for no turn."""


async def read_in_turn(
    api: Api, body: bytes, form: ContentType, *, scheduled: bool = False
) -> language.JobDefinition:
    """Return the definition that the caller sent. `InvalidDocument` with all that is wrong; 429 where too many of
    theirs wait."""
    short = len(body) <= _SHORT
    turn = nullcontext() if short else api.long_documents.turn(caller().actor.id)
    try:
        async with turn:
            return await in_thread(decode_job, body, form, scheduled=scheduled)
    except TooManyWaiting:
        message = "too many long documents at once; try again"
        raise HttpError(429, message, {"Retry-After": "1"}) from None
