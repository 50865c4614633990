"""The audit log: who did what and when, and that nobody can change it unnoticed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from coordinator.api.app import ALL_ROUTES
from coordinator.api.audit import AuditLog
from coordinator.audit_chain import AuditChain, audit_key, faults
from coordinator.store.sqlite import SqliteStore
from haulier.cli import cli
from shared.config.schema import BasicAuth
from shared.errors import StoreUnavailable
from shared.model.documents import MICROS_PER_SECOND, AuditDocument, AuditIntentDocument
from tests.unit.api.conftest import Serve
from tests.unit.api.served import HELLO, YAML, Served, configured, signed_in

BASIC = BasicAuth(enabled=True, username="root", password="first")
ROOT = signed_in("root", "first")
KEY = audit_key("k")


async def entries(api: Served, query: str = "", **options: Any) -> list[dict[str, Any]]:
    answer = await api.get(f"/audit?size=1000&{query}", **options)
    assert answer.status == 200, answer.text
    found = answer.json["items"]
    assert isinstance(found, list)
    return found


async def test_who_did_what(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    job = (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=ROOT)).json["id"]
    await api.ask("PUT", f"/jobs/{job}/cancel", who=ROOT)
    await api.ask("PUT", f"/jobs/{job}/cancel", who=ROOT)
    await api.ask("POST", "/users", json={"username": "ann", "password": "pw"}, who=ROOT)
    await api.ask("PUT", "/users/ann/roles/operator", who=ROOT)
    await api.get("/jobs", who=signed_in("ann", "wrong"))
    found = await entries(api, who=ROOT)
    assert [(each["action"], each.get("target"), each["status"]) for each in found] == [
        ("refused_login", "ann", 401),
        ("give_role", "ann/operator", 200),
        ("create_user", "ann", 200),
        ("cancel_job", job, 400),
        ("cancel_job", job, 200),
        ("submit_job", job, 200),
    ]
    assert {each.get("username", "") for each in found} == {"root", ""}
    assert {each["address"] for each in found} == {"127.0.0.1"}
    assert "pw" not in [each.get("target") for each in found]
    assert await api.store.count(AuditIntentDocument, {}) == 0


async def test_filters(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    job = (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=ROOT)).json["id"]
    await api.ask("PUT", f"/jobs/{job}/cancel", who=ROOT)
    for query, count in [
        ("user=root", 2),
        ("user=ann", 0),
        ("action=submit_job", 1),
        ("action=cancel", 1),
        ("action=jobs", 2),
        ("action=nothing", 0),
        (f"target={job}", 2),
        ("address=192.0.2.1", 0),
        ("since=1h", 2),
        ("since=2099-01-01T00:00:00Z", 0),
        ("until=1h", 0),
        ("since=1h&until=2099-01-01T00:00:00Z", 2),
    ]:
        assert len(await entries(api, query, who=ROOT)) == count, query
    assert (await api.get("/audit?since=soon", who=ROOT)).status == 400
    page = (await api.get("/audit?size=1&page=2", who=ROOT)).json
    assert (page["totalItems"], page["items"][0]["action"]) == (2, "submit_job")


async def test_a_dry_run_did_nothing(api: Served) -> None:
    await api.ask("POST", "/jobs?dryRun=true", data=HELLO, headers=YAML)
    assert await entries(api) == []


async def test_refused_logins_of_a_moment_are_counted_together(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    for _ in range(5):
        await api.get("/jobs", headers={"Authorization": "Bearer nonsense"})
    found = await entries(api, "action=refused_login", who=ROOT)
    assert len(found) < 5


async def test_what_a_role_does_not_allow_is_in_it(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    await api.ask("POST", "/users", json={"username": "eve", "password": "pw"}, who=ROOT)
    await api.ask("PUT", "/users/eve/roles/viewer", who=ROOT)
    eve = signed_in("eve", "pw")
    for method, path in (("POST", "/jobs"), ("PUT", "/nodes/w1/drain"), ("GET", "/audit")):
        assert (await api.ask(method, path, who=eve)).status == 403
    found = [each for each in await entries(api, "user=eve", who=ROOT) if each["status"] == 403]
    assert [(each["action"], each.get("target", "")) for each in found] == [
        ("list_audit", ""),
        ("drain_node", "w1"),
        ("submit_job", ""),
    ]
    assert {(each["how"], each["address"]) for each in found} == {("password", "127.0.0.1")}
    stored = await api.store.find(AuditDocument, {}, ("number",))
    assert list(faults(stored, [audit_key("")], 0)) == []


async def test_nobody_fills_the_log_with_refusals(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither one address that goes on trying, nor many; all are counted."""
    log = AuditLog(api.store, "k")
    now = start = api.store.now()
    monkeypatch.setattr(api.store, "now", lambda: now)

    async def refuse(address: str) -> None:
        attempt = AuditIntentDocument(id="", at=now, action="refused_login", address=address)
        await log.refused(attempt, 401)

    for _ in range(600):
        await refuse("192.0.2.1")
        now += MICROS_PER_SECOND
    await log.flush()
    stored = await api.store.find(AuditDocument, {})
    assert len(stored) < 20
    now += 60 * MICROS_PER_SECOND
    await log._take_up_left()
    await log.flush()
    assert sum(each.count for each in await api.store.find(AuditDocument, {})) == 600
    for number in range(3_000):
        await refuse(f"2001:db8::{number:x}")
    await log.flush()
    assert await api.store.count(AuditDocument, {}) < 250
    assert now - start < 700 * MICROS_PER_SECOND


async def test_sessions_are_in_it(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    await api.ask("POST", "/login", json={"username": "root", "password": "x"})
    await api.ask("POST", "/login", json={"username": "root", "password": "first"})
    await api.ask("POST", "/logout")
    actions = [each["action"] for each in await entries(api, who=ROOT)]
    assert actions[-2:] == ["login", "refused_login"]


async def test_what_a_dead_process_was_about_to_do_is_there(
    api: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = AuditIntentDocument(id="i", at=1, action="cancel_job", target="j", username="ann")
    await api.store.insert(old)
    other = AuditLog(api.store, "")
    await other._take_up_left()
    await other.flush()
    (found,) = await entries(api)
    assert (found["action"], found["username"], found["status"]) == ("cancel_job", "ann", 0)
    await other._take_up_left()
    assert await api.store.count(AuditDocument, {}) == 1


async def test_an_outage_loses_nothing(api: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = AuditLog(api.store, "k")
    insert_many, fails = api.store.insert_many, [True, True]

    async def uncertain(documents: Any) -> int:
        made = await insert_many(documents)
        if fails.pop() if fails else False:
            raise StoreUnavailable("stored or not, who knows")
        return made

    monkeypatch.setattr(api.store, "insert_many", uncertain)
    for number in range(3):
        intent = AuditIntentDocument(id=str(number), at=number, action="x")
        await writer.begin(intent)
        writer.end(intent, 200)
        if number < 2:
            with pytest.raises(StoreUnavailable):
                await writer.flush()
    await writer.flush()
    stored = await api.store.find(AuditDocument, {}, ("number",))
    assert [entry.number for entry in stored] == [1, 2, 3]
    assert list(faults(stored, [KEY], 0)) == []


# --- the chain --------------------------------------------------------------------------------------------------------


def chain(key: bytes = KEY) -> list[AuditDocument]:
    made = AuditChain("c", key)
    return [
        made.sealed(AuditIntentDocument(id=str(n), at=n, action="x", target=str(n)), 200, 10 * n)
        for n in range(1, 6)
    ]


def changed(entries: list[AuditDocument]) -> list[AuditDocument]:
    return [
        msgspec.structs.replace(each, target="y" if each.number == 3 else each.target)
        for each in entries
    ]


def resigned(entries: list[AuditDocument]) -> list[AuditDocument]:
    other = AuditChain("c", audit_key("other"))
    fake = [
        other.sealed(AuditIntentDocument(id=e.id, at=e.at, action="y"), 200, 10) for e in entries
    ]
    return [*entries[:2], fake[2], *entries[3:]]


CASES: list[tuple[str, Callable[[list[AuditDocument]], list[AuditDocument]], list[int]]] = [
    ("whole", lambda found: found, []),
    ("changed", changed, [3]),
    ("signed with another key", resigned, [3, 3, 4]),
    ("one is missing", lambda found: found[:2] + found[3:], [4]),
    ("the first is missing", lambda found: found[1:], [2]),
    ("swapped", lambda found: [found[0], found[2], found[1], *found[3:]], [2, 3, 4]),
]


@pytest.mark.parametrize(("case", "tamper", "wrong"), CASES, ids=[case[0] for case in CASES])
def test_what_is_done_to_a_chain_shows(
    case: str, tamper: Callable[[list[AuditDocument]], list[AuditDocument]], wrong: list[int]
) -> None:
    assert sorted(fault.number for fault in faults(tamper(chain()), [KEY], 0)) == wrong


def test_entries_past_their_retention_are_not_missed() -> None:
    assert list(faults(chain()[2:], [KEY], kept_since=21)) == []
    assert [fault.number for fault in faults(chain()[2:], [KEY], kept_since=20)] == [3]


def test_former_keys_still_count() -> None:
    assert list(faults(chain(), [audit_key("new"), KEY], 0)) == []
    assert len(list(faults(chain(), [audit_key("new")], 0))) == 5


async def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "haulier.db"
    monkeypatch.setenv("HAULIER_DATASTORE_SQLITE_PATH", str(path))

    async def stored(document: Sequence[AuditDocument]) -> None:
        store = SqliteStore(path)
        await store.start()
        await store.delete(AuditDocument, {})
        await store.insert_many(document)
        await store.close()

    async def verify() -> tuple[int, str]:
        arguments = ["audit-log", "verify", "--set", "datastore.retention.audit=0"]
        found = await asyncio.to_thread(CliRunner().invoke, cli, arguments, standalone_mode=False)
        return found.return_value, found.output

    whole = chain(audit_key(""))
    other = [msgspec.structs.replace(entry, id=f"d{entry.number}", chain="d") for entry in whole]
    await stored(whole)
    assert await verify() == (0, "whole: 5 entries\n")
    await stored([*whole, *other])
    assert (await verify())[0] == 1
    await stored(changed(whole))
    code, said = await verify()
    assert code == 1
    assert "the entry was changed" in said


async def test_dry_run_keeps_nothing_out_of_the_log_where_a_route_knows_none(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    made = await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=ROOT)
    expected = {"submit_job": 1}
    for route in ALL_ROUTES:
        if not route.audited:
            continue
        path = route.path.format(id=made.json["id"], name="nobody", role="nothing")
        await api.ask(route.method, f"{path}?dryRun=true", who=ROOT)
        declared = any(param.name == "dryRun" for param in route.params)
        name = route.handler.__name__
        expected[name] = expected.get(name, 0) + (not declared)
    found = Counter(each["action"] for each in await entries(api, who=ROOT))
    assert found == {name: count for name, count in expected.items() if count}


async def test_the_target_is_the_job_itself_however_short_its_id_was(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    job = (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=ROOT)).json["id"]
    short = f"/jobs/{job[:8]}"
    again = (await api.ask("POST", f"{short}/rerun", who=ROOT)).json["id"]
    assert (await api.ask("PUT", f"{short}/cancel", who=ROOT)).status == 200
    assert (await api.ask("DELETE", short, who=ROOT)).status == 200
    assert (await api.ask("DELETE", short, who=ROOT)).status == 404
    found = await entries(api, who=ROOT)
    assert [(each["action"], each["target"], each["status"]) for each in found] == [
        ("delete_job", job[:8], 404),
        ("delete_job", job, 200),
        ("cancel_job", job, 200),
        ("submit_job", again, 200),
        ("rerun_job", job, 200),
        ("submit_job", job, 200),
    ]


async def test_the_job_that_a_schedule_makes_by_hand_is_named(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    body = HELLO + "schedule: {cron: 0 5 * * *}\n"
    made = await api.ask("POST", "/scheduled-jobs", data=body, headers=YAML, who=ROOT)
    schedule = made.json["id"]
    job = (await api.ask("POST", f"/scheduled-jobs/{schedule}/run", who=ROOT)).json["id"]
    found = [(each["action"], each["target"]) for each in await entries(api, who=ROOT)]
    assert found[:2] == [("submit_job", job), ("run_schedule", schedule)]
