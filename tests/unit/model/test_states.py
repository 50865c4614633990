"""Words: text on the wire and at rest, and tolerant of what only a newer version knows."""

from __future__ import annotations

import msgspec
import pytest

from coordinator.store.codec import Codec
from shared.errors import Unreadable
from shared.model.documents import DeliveryDocument, ScheduleDocument, TaskDocument
from shared.model.messages import Beat, Held, decode, encode
from shared.model.states import (
    DeliveryState,
    Hold,
    JobState,
    NodeKind,
    NodeStatus,
    RunRole,
    ScheduleState,
    TaskKind,
    TaskState,
    Word,
)

WORDS = (
    DeliveryState, Hold, JobState, NodeKind, NodeStatus, RunRole, ScheduleState, TaskKind, TaskState
)  # fmt: skip


@pytest.mark.parametrize("word", [word for words in WORDS for word in words], ids=repr)
def test_a_word_is_its_text_everywhere(word: Word) -> None:
    text = str.__str__(word)
    assert type(text) is str
    assert (word, hash(word), f"{word}") == (text, hash(text), text)
    assert msgspec.json.encode(word) == msgspec.json.encode(text)
    assert msgspec.msgpack.encode(word) == msgspec.msgpack.encode(text)


def _task(**fields: object) -> TaskDocument:
    plain = {"id": "t", "jobId": "j", "rootId": "j", "path": "1", "position": 1, "name": "n"}
    return msgspec.convert({**plain, "kind": "each", **fields}, TaskDocument)


def test_a_stored_word_comes_back_as_what_it_is() -> None:
    codec = Codec()
    stored = codec.encode(_task(state="PENDING", hold="window"))
    assert (stored["state"], stored["kind"], stored["hold"]) == ("PENDING", "each", "window")
    found = codec.decode(TaskDocument, {**stored, "state": "RUNNING"})
    assert (found.state, found.kind, found.hold) == (TaskState.RUNNING, TaskKind.EACH, Hold.WINDOW)
    assert {type(found.state), type(found.kind)} == {TaskState, TaskKind}


def test_a_word_of_a_newer_version_is_kept_as_it_is() -> None:
    codec = Codec()
    stored = {**codec.encode(_task()), "state": "SUSPENDED", "kind": "loop"}
    found = codec.decode(TaskDocument, stored)
    assert (found.state, found.kind) == ("SUSPENDED", "loop")
    assert type(found.state) is TaskState
    assert codec.encode(found) == stored
    assert TaskState("SUSPENDED") not in list(TaskState)


def test_a_message_with_an_unknown_word_is_read() -> None:
    held = Held(task_id="t", nonce="n", role=RunRole.ENDED)
    beat = Beat(
        node_id="w", node_kind=NodeKind.WORKER, number=1, status=NodeStatus.DOWN, held=[held]
    )
    body = encode(beat)
    assert b'"status":"DOWN"' in body
    assert b'"role":"ended"' in body
    newer = decode(body.replace(b'"DOWN"', b'"TIRED"').replace(b'"ended"', b'"paused"'))
    assert isinstance(newer, Beat)
    assert (newer.status, newer.held[0].role) == ("TIRED", "paused")
    with pytest.raises(Unreadable):
        decode(body.replace(b'"ended"', b"7"))


def test_what_is_stored_begins_in_a_state_of_its_own_words() -> None:
    assert DeliveryDocument(id="d", job_id="j", url="u").state is DeliveryState.PENDING
    schedule = msgspec.convert(
        {"id": "s", "definition": {}, "name": "n", "cron": "@daily"}, ScheduleDocument
    )
    assert schedule.state is ScheduleState.ACTIVE
