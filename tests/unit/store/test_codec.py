from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st

from coordinator.store.codec import SEALED_PREFIX, Codec, FieldShape, fields_of, key_of, stored_key
from coordinator.store.indexes import INDEXES
from coordinator.store.port import Unstorable
from coordinator.store.search import target_of
from shared.encryption import Vault
from shared.errors import Unreadable, WrongKey
from shared.model import language
from shared.model.documents import (
    DOCUMENTS,
    DeliveryDocument,
    Document,
    JobDocument,
    NodeDocument,
    TaskDocument,
)
from tests.contract.documents import intent, items, job, node, task

VAULT = Vault(Fernet.generate_key().decode())
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | TEXT
VALUES = SCALARS | st.lists(SCALARS, max_size=5) | st.dictionaries(TEXT, SCALARS, max_size=5)


def test_what_stores_see() -> None:
    shapes = {name: field.shape for name, field in fields_of(JobDocument).items()}
    assert shapes["id"] is shapes["parent_id"] is FieldShape.TEXT
    assert shapes["created_at"] is shapes["ended_at"] is FieldShape.INTEGER
    assert shapes["progress"] is FieldShape.NUMBER
    assert shapes["tags"] is shapes["permissions"] is FieldShape.LIST
    assert shapes["created_by"] is shapes["schedule"] is FieldShape.STRUCT
    assert shapes["definition"] is shapes["result"] is FieldShape.CLOSED
    assert shapes["then"] is FieldShape.THEN
    assert fields_of(TaskDocument)["open"].shape is FieldShape.FLAG
    assert (
        fields_of(TaskDocument)["definition"].shape
        is fields_of(TaskDocument)["scope"].shape
        is FieldShape.CLOSED
    )
    assert fields_of(NodeDocument)["queues"].shape is FieldShape.MAP


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_sealed_is_a_field_and_closed(kind: Any) -> None:
    for name in kind.sealed:
        assert fields_of(kind)[name].shape is FieldShape.CLOSED


def test_indexes_are_over_what_stores_see() -> None:
    for index in INDEXES:
        for name in (*index.fields, *(name for name, _ in index.where)):
            target = target_of(index.kind, name.removeprefix("-"))
            in_a_struct = target.key is not None and target.field.shape is FieldShape.STRUCT
            assert in_a_struct or target.field.shape in {
                FieldShape.TEXT,
                FieldShape.INTEGER,
                FieldShape.NUMBER,
                FieldShape.FLAG,
            }, index


@pytest.mark.parametrize("vault", [None, VAULT])
@given(value=VALUES)
def test_free_values_come_back(vault: Vault | None, value: Any) -> None:
    codec = Codec(vault)
    document = items("i", [value])
    assert repr(codec.decode(type(document), codec.encode(document))) == repr(document)


@given(st.dictionaries(TEXT, VALUES, max_size=5))
def test_arguments_of_intents_come_back(args: dict[str, Any]) -> None:
    document = job("j", then=[intent("i"), msgspec.structs.replace(intent("k"), args=args)])
    stored = Codec().encode(document)
    assert repr(Codec().decode(JobDocument, stored)) == repr(document)


@given(TEXT)
def test_keys_come_back(key: str) -> None:
    stored = stored_key(key)
    assert key_of(stored) == key
    assert stored
    assert not set(stored) & set(".$\"'\\[]\x00")


@given(TEXT, TEXT)
def test_different_keys_stay_different(one: str, other: str) -> None:
    assert (stored_key(one) == stored_key(other)) == (one == other)


def test_absent_is_left_out() -> None:
    stored = Codec().encode(job("j"))
    assert "parent_id" not in stored
    assert "then" not in stored


def test_sealed_is_text_that_says_so() -> None:
    stored = Codec(VAULT).encode(job("j", result="r", error="e"))
    assert stored["definition"].startswith(SEALED_PREFIX)
    assert stored["result"].startswith(SEALED_PREFIX)
    assert stored["error"] == "e"
    without_key = Codec().decode(JobDocument, stored)
    assert "'definition' is encrypted, but no encryption.key" in without_key.locked
    other_key = Codec(Vault(Fernet.generate_key().decode())).decode(JobDocument, stored)
    assert "neither" in other_key.locked


def test_what_an_older_version_lacks_or_a_newer_adds_does_no_harm() -> None:
    stored = Codec().encode(task("t")) | {"new_field": 1}
    del stored["seed"]
    assert Codec().decode(TaskDocument, stored) == task("t")


USES: list[Callable[[Any], object]] = [
    lambda locked: locked.tasks,
    lambda locked: locked["tasks"],
    lambda locked: locked or {},
    lambda locked: [*locked],
    lambda locked: f"{locked}",
    lambda locked: locked + "text",
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize(
    ("rests", "error"),
    [
        (SEALED_PREFIX + "no token", WrongKey),
        (b"\xc1", Unreadable),
        (b"\x01", Unreadable),
    ],
)
def test_what_can_not_be_opened_is_missed_by_who_uses_it_and_nobody_else(
    rests: str | bytes, error: type[Exception], use: Callable[[Any], object]
) -> None:
    stored = Codec(VAULT).encode(job("j", result="r", state="RUNNING")) | {"definition": rests}
    found = Codec(VAULT).decode(JobDocument, stored)
    assert (found.state, found.result) == ("RUNNING", "r")
    with pytest.raises(error, match="job j"):
        use(found.definition)
    assert "job j" in found.locked
    assert found.opened() == msgspec.structs.replace(found, definition=language.JobDefinition())
    assert found.opened().locked == ""


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_what_is_sealed_has_a_value_for_where_it_is_missing(kind: type[Document]) -> None:
    fields = {field.name: field for field in msgspec.structs.fields(kind)}
    assert not [name for name in kind.sealed if fields[name].required]


@pytest.mark.parametrize("spoilt", [{"name": None}, {"tags": [1]}])
def test_what_is_not_a_document_is_unreadable(spoilt: dict[str, Any]) -> None:
    stored = Codec().encode(job("j")) | spoilt
    with pytest.raises(Unreadable, match="stored job j"):
        Codec().decode(JobDocument, stored)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        (job("j", progress=math.nan), "progress"),
        (job("j", position=2**63), "position"),
        (job("j", error="\udfff"), "error"),
        (task("t", scope={"a": 2**64}), "scope"),
        (task("t", scope={"a": object()}), "scope"),
        (node("n", queues={"q": "\udfff"}), "queues"),
        (node("n", queues={"\udfff": 1}), "queues"),
        (job("j", then=[intent("i", a="\udfff")]), "then"),
        (job("j", tags=["\udfff"]), "tags"),
    ],
)
def test_what_can_not_be_stored_is_named(document: Any, field: str) -> None:
    with pytest.raises(Unstorable, match=f"^{field}: "):
        Codec().encode(document)


def test_pages_of_the_deliveries_of_a_job_are_read_in_order() -> None:
    fields = [index.fields for index in INDEXES if index.kind is DeliveryDocument]
    assert ("job_id", "-created_at", "-id") in fields
