"""Who may ask, and what they may see: what may not be seen is not there."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
import structlog.testing

from coordinator.api import auth
from coordinator.api.auth import FREE_REFUSALS, LONGEST_USERNAME
from coordinator.api.middleware import Buckets
from shared.config.schema import BasicAuth, Cors, KeyAuth, RateLimit
from shared.errors import NotAllowed
from shared.model import language
from shared.model.documents import ScheduleDocument, UserDocument
from shared.model.queries import Change
from tests.unit.api.conftest import Serve
from tests.unit.api.served import HELLO, YAML, Served, configured, signed_in

BASIC = BasicAuth(enabled=True, username="root", password="first")
ROOT = signed_in("root", "first")


async def people(api: Served) -> dict[str, dict[str, str]]:
    """Make ann (with the role dev) and bob, and return how each asks."""
    for name in ("ann", "bob"):
        body = {"username": name, "password": f"pw-{name}", "name": name.title()}
        answer = await api.ask("POST", "/users", json=body, who=ROOT)
        assert answer.status == 200, answer.text
        assert answer.json["username"] == name
        assert "password" not in answer.text
    assert (await api.ask("POST", "/roles", json={"name": "dev"}, who=ROOT)).status == 200
    assert (await api.ask("PUT", "/users/ann/roles/dev", who=ROOT)).json == {"status": "OK"}
    return {name: signed_in(name, f"pw-{name}") for name in ("ann", "bob")}


async def test_basic_auth(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    assert (await api.get("/health")).status == 200
    refused = await api.get("/jobs")
    assert refused.status == 401
    assert refused.headers["WWW-Authenticate"].startswith("Basic ")
    assert refused.message
    for name, password in [("root", "wrong"), ("nobody", "first"), ("root", ""), ("", "")]:
        assert (await api.get("/jobs", who=signed_in(name, password))).status == 401
    for header in ("Basic", "Basic !!!", "Basic YWJj", "Bearer x", "x" * 5000):
        assert (await api.get("/jobs", headers={"Authorization": header})).status == 401
    for path in ("/nowhere", "/", "/docs", "/openapi.json", "/metrics", "/queues"):
        assert (await api.get(path)).status == 401
    assert (await api.get("/jobs", who=ROOT)).status == 200
    browser = {"Accept": "text/html,*/*"}
    assert "<title>Haulier" in (await api.get("/", headers=browser)).text
    assert (await api.get("/jobs", headers=browser)).status == 401
    asked_by_the_page = await api.get("/jobs", headers={"X-Requested-With": "haulier"})
    assert asked_by_the_page.status == 401
    assert "WWW-Authenticate" not in asked_by_the_page.headers


async def test_who_submitted_it(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = (await people(api))["ann"]
    answer = await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=ann)
    by = answer.json["createdBy"]
    assert (by["username"], by["name"], by["disabled"]) == ("ann", "Ann", False)


async def test_permissions_hold_everywhere(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    ids = {}
    for name, permission in [("role", "role: dev"), ("user", "user: ann"), ("all", "")]:
        body = HELLO.replace("hello", name, 1) + f"permissions: [{{{permission}}}]\n" * bool(
            permission
        )
        answer = await api.ask("POST", "/jobs", data=body, headers=YAML, who=who["bob"])
        assert answer.status == 200, answer.text
        ids[name] = answer.json["id"]

    async def listed(name: str, query: str = "") -> list[str]:
        page = (await api.get(f"/jobs?{query}", who=who[name])).json
        return sorted(job["name"] for job in page["items"])

    assert await listed("ann") == ["all", "role", "user"]
    assert await listed("bob") == ["all"]
    assert await listed("bob", "q=role") == []
    hidden = ids["role"]
    await api.task(hidden, id="t1")
    for method, path in [
        ("GET", "/jobs/{}"),
        ("GET", "/jobs/{}/tasks"),
        ("GET", "/jobs/{}/log"),
        ("GET", "/jobs/{}/log/stream"),
        ("GET", "/jobs/{}/log/download"),
        ("PUT", "/jobs/{}/cancel"),
        ("PUT", "/jobs/{}/restart"),
        ("DELETE", "/jobs/{}"),
        ("GET", "/tasks/t1"),
        ("GET", "/tasks/t1/log"),
        ("GET", "/tasks/t1/log/stream"),
    ]:
        answer = await api.ask(method, path.format(hidden), who=who["bob"])
        assert answer.status == 404, (method, path)
    assert (await api.get(f"/jobs/{hidden}", who=who["ann"])).status == 200
    assert (await api.get("/tasks/t1", who=who["ann"])).status == 200
    assert (await api.ask("PUT", f"/jobs/{hidden}/cancel", who=who["ann"])).status == 200


async def test_a_short_id_tells_nothing_of_what_may_not_be_seen(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    body = HELLO + "permissions: [{user: ann}]\n"
    made = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=who["ann"])).json
    await api.task(made["id"], id="abcdef01" * 4)
    for path in (f"/jobs/{made['id'][:8]}", "/tasks/abcdef01", "/tasks/abcdef01/why"):
        assert (await api.get(path, who=who["ann"])).status == 200
        assert (await api.get(path, who=who["bob"])).status == 404
    assert (await api.get("/jobs/counts", who=who["bob"])).json == {"states": {}, "tags": {}}


async def test_a_page_of_many_scheduled_jobs_is_not_made_from_all_of_them(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    hidden = language.Permission(user="ann")
    await api.store.insert_many(
        [
            ScheduleDocument(
                id=f"s{number:04}",
                name="n",
                created_at=number,
                permissions=[hidden] if number % 2 else [],
            )
            for number in range(1_600)
        ]
    )
    read: list[int] = []
    find = api.store.find

    async def counted(kind: Any, *more: Any, **named: Any) -> Any:
        found = await find(kind, *more, **named)
        read.append(len(found) if kind is ScheduleDocument else 0)
        return found

    monkeypatch.setattr(api.store, "find", counted)
    first = (await api.get("/scheduled-jobs?size=10", who=who["bob"])).json
    assert sum(read) == 500
    assert (first["totalItems"], first["totalCapped"]) == (250, True)
    assert [each["id"] for each in first["items"][:2]] == ["s1598", "s1596"]
    last = (await api.get("/scheduled-jobs?size=10&page=80", who=who["bob"])).json
    assert [each["id"] for each in last["items"]][-1] == "s0000"
    assert (last["totalItems"], last.get("totalCapped", False)) == (800, False)
    assert max(read) == 500


async def test_permissions_of_scheduled_jobs(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    body = HELLO + "schedule: {cron: '@hourly'}\npermissions: [{user: ann}]\n"
    made = (await api.ask("POST", "/scheduled-jobs", data=body, headers=YAML, who=who["bob"])).json
    path = f"/scheduled-jobs/{made['id']}"
    assert (await api.get("/scheduled-jobs", who=who["bob"])).json["items"] == []
    assert (await api.get("/scheduled-jobs", who=who["ann"])).json["totalItems"] == 1
    assert (await api.get(path, who=who["bob"])).status == 404
    assert (await api.ask("DELETE", path, who=who["bob"])).status == 404
    assert (await api.ask("POST", f"{path}/run", who=who["bob"])).status == 404
    changed = await api.ask("PUT", path, data=body, headers=YAML, who=who["bob"])
    assert changed.status == 404
    assert (await api.get(path, who=who["ann"])).status == 200


async def test_permissions_of_events(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    secret = HELLO + "permissions: [{user: ann}]\n"
    hidden = (await api.ask("POST", "/jobs", data=secret, headers=YAML, who=who["ann"])).json["id"]
    plain = (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=who["ann"])).json["id"]
    async with aclosing(api.stream("/events", **who["bob"])) as stream:
        waiting = asyncio.ensure_future(anext(stream))
        await api.commands.listened.wait()
        await api.commands.become(hidden, "RUNNING")
        await api.commands.become(plain, "RUNNING")
        event = await waiting
        assert plain in event.data
        assert hidden not in event.data


async def test_whose_jobs_are_a_disabled_users_is_told(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    for name, path, schedule in [
        ("ann", "/jobs", ""),
        ("bob", "/jobs", ""),
        ("ann", "/scheduled-jobs", "schedule: {cron: '@hourly'}\n"),
    ]:
        made = await api.ask("POST", path, data=HELLO + schedule, headers=YAML, who=who[name])
        assert made.status == 200

    async def disabled() -> set[tuple[str, bool]]:
        found = set()
        for path in ("/jobs", "/scheduled-jobs"):
            for item in (await api.get(path, who=ROOT)).json["items"]:
                alone = (await api.get(f"{path}/{item['id']}", who=ROOT)).json
                for shown in (item["createdBy"], alone["createdBy"]):
                    found.add((shown["username"], shown["disabled"]))
        return found

    assert await disabled() == {("ann", False), ("bob", False)}
    await api.ask("PUT", "/users/ann", json={"disabled": True}, who=ROOT)
    assert await disabled() == {("ann", True), ("bob", False)}
    await api.ask("DELETE", "/users/ann", who=ROOT)
    again = {"username": "ann", "password": "pw-ann"}
    assert (await api.ask("POST", "/users", json=again, who=ROOT)).status == 200
    await api.ask("PUT", "/users/ann", json={"disabled": True}, who=ROOT)
    assert await disabled() == {("ann", False), ("bob", False)}, "she is another one"


async def test_users_are_managed_by_admins(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    who = await people(api)
    body = {"username": "eve", "password": "x"}
    for method, path, options in [
        ("POST", "/users", {"json": body}),
        ("GET", "/users", {}),
        ("POST", "/roles", {"json": {"name": "x"}}),
        ("PUT", "/users/bob/roles/dev", {}),
        ("DELETE", "/users/ann/roles/dev", {}),
    ]:
        assert (await api.ask(method, path, **options, who=who["ann"])).status == 403
    roles = (await api.get("/roles", who=who["ann"])).json
    assert [role["name"] for role in roles] == ["admin", "dev", "operator", "user", "viewer"]
    users = (await api.get("/users", who=ROOT)).json
    assert {user["username"]: user.get("roles", []) for user in users} == {
        "root": ["admin"],
        "ann": ["dev"],
        "bob": [],
    }
    assert (await api.ask("PUT", "/users/ann/roles/admin", who=ROOT)).status == 200
    assert (await api.get("/users", who=who["ann"])).status == 200
    assert (await api.ask("DELETE", "/users/ann/roles/admin", who=ROOT)).status == 200
    assert (await api.get("/users", who=who["ann"])).status == 403


async def test_users_without_authentication(api: Served) -> None:
    good = {"username": "ann", "password": "pw", "name": "Ann"}
    made = await api.ask("POST", "/users", json=good)
    assert made.status == 200
    assert made.json["name"] == "Ann"
    stored = (await api.store.find(UserDocument, {"username": "ann"}))[0]
    assert stored.password_hash.startswith("$argon2id$")
    taken = await api.ask("POST", "/users", json=good)
    assert (taken.status, taken.message) == (400, "username: ann is taken")
    wrong: list[Any] = [
        {},
        {"username": "x"},
        {"password": "x"},
        {"username": "", "password": "x"},
        {"username": "a b", "password": "x"},
        {"username": "a:b", "password": "x"},
        {"username": "guest", "password": "x"},
        {"username": "x" * 65, "password": "x"},
        {"username": "x", "password": "x" * 1025},
        {"username": 1, "password": "x"},
        {"username": "x", "password": "x", "admin": True},
        [],
    ]
    for bad in wrong:
        answer = await api.ask("POST", "/users", json=bad)
        assert answer.status == 400, bad
        assert answer.message
    assert (
        await api.ask("POST", "/users", data="{", headers={"Content-Type": "application/json"})
    ).status == 400
    assert (await api.ask("POST", "/users", data="{}", headers=YAML)).status == 415
    assert (await api.ask("POST", "/roles", json={"name": "dev"})).status == 200
    assert (await api.ask("POST", "/roles", json={"name": "dev"})).status == 400
    assert (await api.ask("POST", "/roles", json={})).status == 400
    for _ in range(2):
        assert (await api.ask("PUT", "/users/ann/roles/dev")).json == {"status": "OK"}
    assert (await api.get("/users")).json[0]["roles"] == ["dev"]
    for _ in range(2):
        assert (await api.ask("DELETE", "/users/ann/roles/dev")).json == {"status": "OK"}
    for path in ("/users/nobody/roles/dev", "/users/ann/roles/nothing"):
        assert (await api.ask("PUT", path)).status == 404


async def test_a_disabled_user_is_nobody(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = (await people(api))["ann"]
    assert (await api.get("/jobs", who=ann)).status == 200
    user = (await api.store.find(UserDocument, {"username": "ann"}))[0]
    await api.store.change(Change(kind=UserDocument, id=user.id, set={"disabled": True}))
    assert (await api.get("/jobs", who=ann)).status == 401


async def test_key_auth(start: Serve) -> None:
    api = await start(configured(key_auth=KeyAuth(enabled=True, key="k3y")))
    assert (await api.get("/health")).status == 200
    refused = await api.get("/jobs")
    assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, 'Bearer realm="haulier"')
    for header in ("Bearer k3", "Bearer k3y4", "Bearer", "Basic k3y", "k3y", "Bearer é"):
        assert (await api.get("/jobs", headers={"Authorization": header})).status == 401
    assert (await api.get("/jobs", headers={"Authorization": "bearer k3y"})).status == 200
    assert (await api.get("/")).status == 200


async def test_either_will_do_where_both_are_on(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC, key_auth=KeyAuth(enabled=True, key="k3y")))
    assert (await api.get("/jobs", headers={"Authorization": "Bearer k3y"})).status == 200
    assert (await api.get("/jobs", who=ROOT)).status == 200
    assert (await api.get("/")).status == 401


async def test_a_rate_limit(start: Serve) -> None:
    api = await start(configured(rate_limit=RateLimit(enabled=True, rate=0.5, burst=3)))
    for _ in range(3):
        assert (await api.get("/jobs")).status == 200
    refused = await api.get("/jobs")
    assert refused.status == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= 2
    assert refused.message


def test_buckets_fill_at_their_rate() -> None:
    now = [0.0]
    buckets = Buckets(rate=2, burst=2, clock=lambda: now[0])
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]
    assert buckets.take("b") == 0
    now[0] = 0.5
    assert buckets.take("a") == 0
    assert buckets.take("a") == pytest.approx(0.5)
    now[0] = 100
    assert [buckets.take("a") for _ in range(3)] == [0, 0, 0.5]


async def test_cors_is_off_by_default(api: Served) -> None:
    answer = await api.get("/jobs", headers={"Origin": "https://x.example"})
    assert "Access-Control-Allow-Origin" not in answer.headers


async def test_cors(start: Serve) -> None:
    cors = Cors(enabled=True, origins=("https://x.example",), credentials=True)
    api = await start(configured(cors=cors, basic_auth=BASIC))
    origin = {"Origin": "https://x.example"}
    asks = {**origin, "Access-Control-Request-Method": "PUT"}
    preflight = await api.ask("OPTIONS", "/jobs/x/cancel", headers=asks)
    assert preflight.status == 204
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://x.example"
    assert "PUT" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Idempotency-Key" in preflight.headers["Access-Control-Allow-Headers"]
    refused = await api.get("/jobs", headers=origin)
    assert refused.status == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://x.example"
    assert refused.headers["Access-Control-Allow-Credentials"] == "true"
    other = await api.get("/health", headers={"Origin": "https://evil.example"})
    assert "Access-Control-Allow-Origin" not in other.headers
    assert other.headers["Vary"] == "Origin"


async def test_cors_for_anyone(start: Serve) -> None:
    api = await start(configured(cors=Cors(enabled=True)))
    answer = await api.get("/health", headers={"Origin": "https://x.example"})
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


LONG = "a" * 100_000


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"username": LONG, "password": "x"}, "username: at most 64 characters"),
        ({"username": "root", "password": LONG}, "password: at most 1,024 bytes"),
        ({"key": LONG}, "key: at most 4,096 characters"),
    ],
)
async def test_a_login_with_what_can_be_no_credentials_is_refused_at_once(
    start: Serve, body: dict[str, str], field: str
) -> None:
    api = await start(configured(basic_auth=BASIC))
    with structlog.testing.capture_logs() as lines:
        for _ in range(FREE_REFUSALS + 2):
            answer = await api.ask("POST", "/login", json=body)
            assert (answer.status, answer.message) == (400, field)
    assert not [line for line in lines if LONG[:100] in repr(line)]
    audit = (await api.get("/audit", who=ROOT)).text
    assert LONG[:100] not in audit


async def test_a_name_in_a_header_is_logged_no_longer_than_a_name_can_be(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "SLOWED", 0.0)
    api = await start(configured(basic_auth=BASIC))
    with structlog.testing.capture_logs() as lines:
        for _ in range(FREE_REFUSALS + 2):
            assert (await api.get("/jobs", who=signed_in("a" * 2000, "x"))).status == 401
    slowed = [line["user"] for line in lines if line["event"] == "refused logins are slowed"]
    assert slowed
    assert set(slowed) == {"a" * LONGEST_USERNAME}
    found = (await api.get("/audit?action=refused_login", who=ROOT)).json["items"]
    assert {each["target"] for each in found} == {"a" * LONGEST_USERNAME}


async def test_a_first_user_whose_name_is_too_long_ends_the_start(start: Serve) -> None:
    long = BasicAuth(enabled=True, username="a" * (LONGEST_USERNAME + 1), password="first")
    with pytest.raises(NotAllowed, match="username: at most 64 characters"):
        await start(configured(basic_auth=long))
