"""What every datastore promises of secrets at rest: the fields of `sealed`, with a key and without."""

from __future__ import annotations

import pytest

from shared.encryption import Vault
from shared.errors import StoreMisconfigured
from shared.model import language
from shared.model.documents import DeliveryDocument, ItemsDocument, JobDocument, TaskDocument
from shared.model.queries import Change, Not
from tests.contract.conftest import StorePlace
from tests.contract.documents import delivery, items, job, task

SECRET = "hunter2-correct-horse"


def secretive() -> list[JobDocument | TaskDocument | ItemsDocument | DeliveryDocument]:
    definition = language.JobDefinition(name="n", secrets={"key": SECRET})
    return [
        job("j", definition=definition, result=SECRET),
        task(
            "t",
            definition=language.TaskDefinition(
                name="t", subjob=language.SubJob(secrets={"key": SECRET})
            ),
            evaluated=language.TaskDefinition(name="t", env={"K": SECRET}),
            result=SECRET,
            scope={"item": {"index": "0", "value": SECRET}},
        ),
        items("i", [SECRET]),
        delivery("d", url=f"http://x/{SECRET}", headers={"H": SECRET}, secret=SECRET),
    ]


async def test_sealed_fields_rest_encrypted(store_place: StorePlace) -> None:
    store = await store_place.open(Vault("a passphrase"))
    for document in secretive():
        await store.insert(document)
        assert await store.get(type(document), document.id) == document
    again = await store.change(Change(kind=JobDocument, id="j", set={"result": f"{SECRET} again"}))
    assert again is not None
    assert again.result == f"{SECRET} again"
    await store.insert(task("v", var="v", state="COMPLETED", result=SECRET))
    assert await store.vars("j", None, 0) == {"v": SECRET}
    await store.close()
    raw = store_place.raw()
    assert b"sealed:" in raw
    assert SECRET.encode() not in raw


async def test_without_a_key_they_rest_as_they_are(store_place: StorePlace) -> None:
    store = await store_place.open()
    await store.insert_many(secretive())
    await store.close()
    assert SECRET.encode() in store_place.raw()


async def test_empty_values_are_not_sealed(store_place: StorePlace) -> None:
    store = await store_place.open(Vault("a passphrase"))
    await store.insert(items("i", []))
    await store.insert(delivery("d", url="", headers={}))
    assert await store.get(ItemsDocument, "i") == items("i", [])
    assert await store.get(DeliveryDocument, "d") == delivery("d", url="", headers={})
    await store.close()
    assert b"sealed:" not in store_place.raw()


async def test_the_presence_of_a_sealed_field_can_be_matched(store_place: StorePlace) -> None:
    store = await store_place.open(Vault("a passphrase"))
    await store.insert_many([job("a", result="r"), job("b")])
    assert [each.id for each in await store.find(JobDocument, {"result": Not(None)})] == ["a"]


async def test_keys_rotate(store_place: StorePlace) -> None:
    store = await store_place.open(Vault("first"))
    await store.insert(job("old", result=SECRET))
    await store.close()
    store = await store_place.open(Vault("second", ["first"]))
    await store.insert(job("new", result=SECRET))
    for id in ("old", "new"):
        found = await store.get(JobDocument, id)
        assert found is not None
        assert found.result == SECRET
        assert await store.change(
            Change(kind=JobDocument, id=id, set={"definition": found.definition})
        )
        assert await store.change(Change(kind=JobDocument, id=id, set={"result": found.result}))
    await store.close()
    store = await store_place.open(Vault("second"))
    for id in ("old", "new"):
        found = await store.get(JobDocument, id)
        assert found is not None
        assert found.result == SECRET


@pytest.mark.parametrize("vault", [None, Vault("another")])
async def test_another_key_or_none_is_refused_at_the_start(
    store_place: StorePlace, vault: Vault | None
) -> None:
    store = await store_place.open(Vault("a passphrase"))
    await store.close()
    with pytest.raises(StoreMisconfigured, match=r"encryption\.key"):
        await store_place.open(vault)
    again = await store_place.open(Vault("a passphrase"))
    await again.ping()


async def test_a_key_may_come_later_and_an_old_one_go_too_early(store_place: StorePlace) -> None:
    store = await store_place.open()
    await store.insert(job("plain", result=SECRET))
    await store.close()
    store = await store_place.open(Vault("first"))
    found = await store.get(JobDocument, "plain")
    assert found is not None
    assert found.result == SECRET
    await store.insert(job("sealed", result=SECRET))
    await store.close()
    store = await store_place.open(Vault("second", ["first"]))
    await store.close()
    store = await store_place.open(Vault("second"))
    sealed = await store.get(JobDocument, "sealed")
    assert sealed is not None
    assert "encryption.old_keys" in sealed.locked
    plain = await store.get(JobDocument, "plain")
    assert plain is not None
    assert not plain.locked
