"""Messages between versions: what a newer one adds, an older one passes over."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from shared.errors import UnknownKind, Unreadable
from shared.model.messages import AnyMessage, EndStored, JobChanged, Message, decode, encode

KINDS = get_args(AnyMessage)


def test_a_field_of_a_newer_version_is_passed_over() -> None:
    body = msgspec.json.decode(encode(JobChanged(job_id="j")))
    assert decode(msgspec.json.encode({**body, "newer": {"a": [1]}})) == JobChanged(job_id="j")


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_no_kind_forbids_fields_that_it_does_not_know(kind: type[Message]) -> None:
    assert not kind.__struct_config__.forbid_unknown_fields


def test_a_kind_of_a_newer_version_is_told_from_what_is_no_message() -> None:
    with pytest.raises(UnknownKind, match="'newer'"):
        decode(b'{"kind":"newer","jobId":"j"}')
    for body in (b"", b"{}", b'{"kind":"job"}', b'{"kind":1}', b"[]"):
        with pytest.raises(Unreadable) as refused:
            decode(body)
        assert not isinstance(refused.value, UnknownKind)


def test_a_message_that_is_known_stays_itself() -> None:
    assert decode(encode(EndStored(nonces=["n"]))) == EndStored(nonces=["n"])
