"""What was sealed with a key that is gone is lost, and nothing beside it: it is listed, withdrawn and removed, and what
it was to do ends with the reason."""

from __future__ import annotations

import pytest

from coordinator.commands import JobCommands
from coordinator.due.overdue_intents import OverdueIntents
from coordinator.due.sweeper import Sweeper
from coordinator.effects import FlowDriver
from coordinator.engine import beats, repairs
from coordinator.store.port import Store
from shared.broker.memory import MemoryBroker
from shared.encryption import Vault
from shared.model import language
from shared.model.documents import Document, JobDocument, TaskDocument
from shared.model.messages import MessageCodec
from tests.contract.conftest import StorePlace
from tests.contract.documents import job, node, task
from tests.settings import default_bounds

STEP = language.TaskDefinition(name="step", run="true")
LOCKED = tuple(f"locked{number}" for number in range(6))


async def store_with(place: StorePlace, *locked: Document) -> Store:
    """Return a store in which these documents rest, sealed with a key that is gone since."""
    store = await place.open(Vault("first"))
    for each in locked:
        await store.insert(each)
    await store.close()
    await (await place.open(Vault("second", ["first"]))).close()
    return await place.open(Vault("second"))


def step(id: str, job_id: str, **fields: object) -> TaskDocument:
    return task(id, job_id, evaluated=STEP, **{"published_at": 1, **fields})


async def driver_of(store: Store) -> FlowDriver:
    broker = MemoryBroker(node_expiry=60.0)
    await broker.start()
    driver = FlowDriver(store, broker, default_bounds(), MessageCodec())
    await driver.start()
    return driver


async def states(store: Store) -> dict[str, tuple[str, str]]:
    """Return the state of each task, and its error."""
    found = await store.find(TaskDocument, {}, without=TaskDocument.heavy)
    return {each.id: (str(each.state), each.error or "") for each in found}


@pytest.mark.parametrize("state", ["PENDING", "SCHEDULED"])
async def test_what_can_not_be_sent_fails_and_all_else_is_sent(
    store_place: StorePlace, state: str
) -> None:
    """By a sweep where it was not confirmed, and by a process that starts again, whatever it was."""
    store = await store_with(
        store_place,
        job("ann", state="RUNNING", task_count=6),
        *(step(id, "ann", state=state) for id in LOCKED),
    )
    await store.insert(job("bob", state="RUNNING", task_count=1))
    await store.insert(step("fine", "bob", state=state, published_at=2))
    driver = await driver_of(store)
    if state == "PENDING":
        await Sweeper(driver, driver.outbox._broker, 5.0)._unconfirmed()
    else:
        await driver.handle(repairs.send_all_again())
    await driver.close()
    after = await states(store)
    assert after.pop("fine") == ("SCHEDULED", "")
    assert {state for state, _ in after.values()} == {"FAILED"}
    assert all("encryption.old_keys" in error for _, error in after.values())


async def test_the_runs_of_a_dead_node_are_all_lost(store_place: StorePlace) -> None:
    held = {"state": "RUNNING", "node_id": "n", "epoch": 1, "run": 1}
    store = await store_with(
        store_place,
        job("ann", state="RUNNING", task_count=1),
        step("locked", "ann", nonce="a", **held),
    )
    await store.insert(job("bob", state="RUNNING", task_count=1))
    await store.insert(step("fine", "bob", nonce="b", **held))
    await store.insert(node("n", epoch=1))
    driver = await driver_of(store)
    (dead,) = await store.find(type(node("n")), {"id": "n"})
    await driver.handle(beats.close_epoch(dead))
    await driver.close()
    after = await states(store)
    assert after["fine"] == ("SCHEDULED", "")
    assert after["locked"][0] == "FAILED"
    assert "encryption.old_keys" in after["locked"][1]


async def test_a_job_that_can_not_be_read_is_cancelled_and_removed(store_place: StorePlace) -> None:
    store = await store_with(
        store_place,
        job("locked", state="RUNNING", task_count=2, result="r"),
        step("begun", "locked", state="SCHEDULED"),
        step("held", "locked", state="CREATED", path="1", published_at=None),
    )
    driver = await driver_of(store)
    commands = JobCommands(driver, driver.outbox._broker, MessageCodec())
    for command in (commands.cancel, commands.delete):
        (found,) = await store.find(JobDocument, {"id": "locked"})
        assert found.locked
        await command(found)
        await driver._following.finish()
    work = OverdueIntents(driver)
    await work.look()
    await work.finish()
    assert await store.find(JobDocument, {}) == []
    assert await store.find(TaskDocument, {}) == []
    await driver.close()
