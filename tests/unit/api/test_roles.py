"""Roles, users, tokens and sessions: who may do what, route by route, from the next request on."""

from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing, suppress
from http.cookies import SimpleCookie
from typing import Any

import aiohttp
import msgspec
import pytest

from coordinator.api import auth, passwords, tokens
from coordinator.api.app import ALL_ROUTES
from coordinator.api.roles import ROLES, covers
from haulier import Client
from haulier.errors import ApiError
from shared.config.schema import BasicAuth, KeyAuth
from shared.model.documents import (
    MICROS_PER_SECOND,
    JobDocument,
    NodeDocument,
    TokenDocument,
    UserDocument,
)
from shared.model.queries import Change
from shared.model.states import NodeKind
from tests.unit.api.conftest import Serve
from tests.unit.api.served import HELLO, YAML, Answer, Served, configured, signed_in

BASIC = BasicAuth(enabled=True, username="root", password="first")
ROOT = signed_in("root", "first")
RESTRICTED = HELLO + "permissions: [{user: ann}]\n"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """How refusals are slowed is not what these tests are about."""
    monkeypatch.setattr(auth, "SLOWED", 0.0)
    monkeypatch.setattr(auth, "LOOK_AGAIN", 0.05)


async def user(api: Served, name: str, *roles: str) -> dict[str, str]:
    """Make a user with these roles, and return how they ask."""
    body = {"username": name, "password": f"pw-{name}"}
    assert (await api.ask("POST", "/users", json=body, who=ROOT)).status == 200
    for role in roles:
        assert (await api.ask("PUT", f"/users/{name}/roles/{role}", who=ROOT)).status == 200
    return signed_in(name, f"pw-{name}")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


async def token(api: Served, who: dict[str, str], **fields: Any) -> dict[str, Any]:
    answer = await api.ask("POST", "/tokens", json={"name": "ci", **fields}, who=who)
    assert answer.status == 200, answer.text
    made = answer.json
    assert isinstance(made, dict)
    return made


# --- the matrix -------------------------------------------------------------------------------------------------------

PUBLIC = "public"
NEEDS = {
    "GET /health": PUBLIC,
    "GET /health/live": PUBLIC,
    "POST /login": PUBLIC,
    "POST /logout": PUBLIC,
    "GET /": "viewer",
    "GET /docs": "viewer",
    "GET /openapi.json": "viewer",
    "GET /schemas/job.json": "viewer",
    "GET /jobs": "viewer",
    "GET /jobs/{id}": "viewer",
    "GET /page/{version}/{name}": PUBLIC,
    "GET /jobs/counts": "viewer",
    "GET /jobs/{id}/tasks": "viewer",
    "GET /jobs/{id}/why": "viewer",
    "GET /jobs/{id}/deliveries": "viewer",
    "GET /jobs/{id}/log": "viewer",
    "GET /jobs/{id}/log/stream": "viewer",
    "GET /jobs/{id}/log/download": "viewer",
    "GET /tasks": "viewer",
    "GET /tasks/{id}": "viewer",
    "GET /tasks/{id}/why": "viewer",
    "GET /tasks/{id}/log": "viewer",
    "GET /tasks/{id}/log/stream": "viewer",
    "GET /events": "viewer",
    "GET /nodes": "viewer",
    "GET /queues": "viewer",
    "GET /queues/{name}": "viewer",
    "GET /queues/{name}/scale": "viewer",
    "GET /metrics": "viewer",
    "GET /scheduled-jobs": "viewer",
    "GET /scheduled-jobs/{id}": "viewer",
    "GET /roles": "viewer",
    "GET /tokens": "viewer",
    "POST /tokens": "viewer",
    "DELETE /tokens/{id}": "viewer",
    "PUT /users/me/password": "viewer",
    "POST /jobs": "user",
    "POST /jobs/{id}/rerun": "user",
    "PUT /jobs/{id}/cancel": "user",
    "PUT /jobs/{id}/restart": "user",
    "DELETE /jobs/{id}": "user",
    "POST /scheduled-jobs": "user",
    "PUT /scheduled-jobs/{id}": "user",
    "POST /scheduled-jobs/{id}/run": "user",
    "PUT /scheduled-jobs/{id}/pause": "user",
    "PUT /scheduled-jobs/{id}/resume": "user",
    "DELETE /scheduled-jobs/{id}": "user",
    "PUT /nodes/{id}/drain": "operator",
    "PUT /nodes/{id}/resume": "operator",
    "DELETE /queues/{name}": "operator",
    "GET /queues/dead/messages": "operator",
    "POST /queues/dead/messages/{id}/resend": "operator",
    "DELETE /queues/dead/messages/{id}": "operator",
    "GET /audit": "admin",
    "GET /users": "admin",
    "POST /users": "admin",
    "PUT /users/{name}": "admin",
    "DELETE /users/{name}": "admin",
    "POST /roles": "admin",
    "PUT /users/{name}/roles/{role}": "admin",
    "DELETE /users/{name}/roles/{role}": "admin",
}
"""What each route needs. A route that is not here has nobody who said who may ask for it."""
RESTRICTED_BY_JOB = [name for name in NEEDS if name.split()[1].startswith(("/jobs/{", "/tasks/{"))]


def test_every_route_is_in_the_matrix() -> None:
    assert {f"{route.method} {route.path}" for route in ALL_ROUTES} == set(NEEDS)


async def callers(api: Served) -> dict[str, dict[str, str]]:
    """How each kind of caller asks; `user` may see the restricted job, `other` may not."""
    expired = await token(api, ROOT, expires="1h")
    await api.store.change(
        Change(kind=TokenDocument, id=expired["id"], set={"expires_at": api.store.now() - 1})
    )
    return {
        "none": {},
        "wrong": signed_in("root", "wrong"),
        "expired": bearer(expired["token"]),
        "viewer": await user(api, "eve", "viewer"),
        "user": await user(api, "ann"),
        "other": await user(api, "bob"),
        "operator": await user(api, "olaf", "operator"),
        "admin": ROOT,
    }


def expected(name: str, caller: str) -> set[int]:
    """The refusals that a caller gets: none is {0}."""
    needed = NEEDS[name]
    if needed == PUBLIC:
        return {0}
    if caller in ("none", "wrong", "expired"):
        return {401}
    role = "user" if caller == "other" else caller
    if not covers(role, needed):
        return {403}
    return {404} if name in RESTRICTED_BY_JOB and caller in ("viewer", "other") else {0}


async def status_of(api: Served, method: str, path: str, who: dict[str, str]) -> int:
    """Return the status of a request whose body is of no use; of a stream only the beginning is read."""
    async with api.session.request(method, api.url + path, headers=who) as response:
        return response.status


async def test_every_route_with_every_caller(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    everyone = await callers(api)
    made = await api.ask("POST", "/jobs", data=RESTRICTED, headers=YAML, who=everyone["user"])
    job = made.json["id"]
    await api.task(job, id="t1")
    found: dict[str, int] = {}
    # What reads comes first, so that the job is there as long as somebody looks for it.
    for name in sorted(
        NEEDS, key=lambda name: (["GET", "POST", "PUT", "DELETE"].index(name.split()[0]), name)
    ):
        method, path = name.split()
        place = path.replace("{id}", "t1" if path.startswith("/tasks") else job)
        place = place.replace("{name}", "nobody").replace("{role}", "nothing")
        for caller, who in everyone.items():
            status = await status_of(api, method, place, who)
            wanted = expected(name, caller)
            seen = status if status in (401, 403, 404) else 0
            # An object that is not there is 404 for whoever may ask for it, and a login without a body is no login.
            if wanted == {0} and (status == 404 or NEEDS[name] == PUBLIC):
                continue
            if seen not in wanted:
                found[f"{caller}: {name}"] = status
    assert found == {}


# --- roles ------------------------------------------------------------------------------------------------------------


async def test_an_operator_controls_what_others_may_not_see(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, olaf = await user(api, "ann"), await user(api, "olaf", "operator")
    for who in (ROOT, olaf):
        job = await api.ask("POST", "/jobs", data=RESTRICTED, headers=YAML, who=ann)
        path = f"/jobs/{job.json['id']}"
        assert (await api.get(path, who=who)).status == 200
        assert job.json["id"] in (await api.get("/jobs?size=20", who=who)).text
        assert (await api.ask("PUT", f"{path}/cancel", who=who)).json == {"status": "OK"}


async def test_a_plain_user_drains_nothing(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    now = api.store.now()
    await api.store.insert(
        NodeDocument(
            id="w", kind=NodeKind.WORKER, name="W", hostname="h", version="1", started_at=now, last_heartbeat_at=now
        )
    )  # fmt: skip
    ann, olaf = await user(api, "ann"), await user(api, "olaf", "operator")
    refused = await api.ask("PUT", "/nodes/w/drain", who=ann)
    assert (refused.status, refused.message) == (403, "this needs the role operator; yours is user")
    assert (await api.ask("PUT", "/nodes/w/drain", who=olaf)).status == 200


async def test_the_strongest_role_counts_and_a_viewer_submits_nothing(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    eve = await user(api, "eve", "viewer")
    assert (await api.get("/jobs", who=eve)).status == 200
    refused = await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=eve)
    assert (refused.status, refused.message) == (403, "this needs the role user; yours is viewer")
    assert (await api.ask("PUT", "/users/eve/roles/user", who=ROOT)).status == 200
    assert (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=eve)).status == 200


async def two_steps(api: Served, job: str) -> None:
    """Give a job a step that is done, and another one."""
    stored = await api.job(job)
    step = stored.definition.tasks[0]
    definition = msgspec.structs.replace(stored.definition, tasks=[step, step])
    assert await api.store.change(Change(kind=JobDocument, id=job, set={"definition": definition}))
    await api.task(job, state="COMPLETED", run=1, definition=step)


async def test_a_rerun_tells_nobody_the_secrets_of_another(start: Serve) -> None:
    """Whoever may see a job could have other tasks print what its submitter alone knows."""
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    body = HELLO + "secrets: {k: hush-hush}\ninputs: {API_TOKEN: hidden, city: Bern}\n"
    job = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=ann)).json["id"]
    path, tasks = f"/jobs/{job}/rerun", [{"name": "t", "run": "rev", "env": {"K": "x"}}]

    async def status(who: dict[str, str], **asked: Any) -> int:
        return int((await api.ask("POST", path, json=asked, who=who)).status)

    for asked in ({}, {"tasks": tasks}, {"inputs": {"city": "Basel"}}, {"secrets": {"k": "v"}}):
        for who in (bob, ROOT):
            assert await status(who, **asked) == 400, asked
        assert await status(ann, **asked) == 200, asked
    refused = await api.ask("POST", path, json={}, who=bob)
    assert refused.message.startswith("secrets.k, inputs.API_TOKEN: give a value")
    own: dict[str, Any] = {"secrets": {"k": "mine"}, "inputs": {"API_TOKEN": "mine"}}
    assert await status(bob, **own) == 200
    await two_steps(api, job)
    refused = await api.ask("POST", path, json={**own, "from": 2}, who=bob)
    assert refused.message.startswith("from: results may hold secrets of ann")
    plain = (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=ann)).json["id"]
    path = f"/jobs/{plain}/rerun"
    assert await status(bob) == 200


async def test_a_rerun_of_a_restricted_jobs_sub_job_is_restricted_too(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    above = await api.ask("POST", "/jobs", data=RESTRICTED, headers=YAML, who=ann)
    parent = await api.job(above.json["id"])
    assert parent.permissions
    plain = msgspec.structs.replace(parent.definition, permissions=[])
    child = msgspec.structs.replace(parent, id="c" * 32, definition=plain, parent_id="t1")
    await api.store.insert(child)
    made = (await api.ask("POST", f"/jobs/{child.id}/rerun", who=ann)).json["id"]
    assert (await api.get(f"/jobs/{made}", who=ann)).status == 200
    assert (await api.get(f"/jobs/{made}", who=bob)).status == 404
    assert (await api.job(made)).permissions == parent.permissions


async def test_a_user_who_was_created_anew_is_another_one(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = await user(api, "ann")
    body = HELLO + "secrets: {k: hush-hush}\n"
    job = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=ann)).json["id"]
    assert (await api.ask("DELETE", "/users/ann", who=ROOT)).status == 200
    ann = await user(api, "ann")
    refused = await api.ask("POST", f"/jobs/{job}/rerun", who=ann)
    assert refused.message.startswith("secrets.k: give a value")


async def test_permissions_name_users_as_they_were_created(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, cy = await user(api, "ann"), await user(api, "cy")
    body = HELLO + "permissions: [{user: ann}, {user: cy}]\n"
    scheduled = body + "schedule: {cron: '@hourly'}\n"

    async def make() -> list[str]:
        job = await api.ask("POST", "/jobs", data=body, headers=YAML, who=ann)
        again = await api.ask("POST", f"/jobs/{job.json['id']}/rerun", who=ann)
        made = await api.ask("POST", "/scheduled-jobs", data=scheduled, headers=YAML, who=ann)
        return [
            f"/jobs/{job.json['id']}",
            f"/jobs/{again.json['id']}",
            f"/scheduled-jobs/{made.json['id']}",
        ]

    async def seen(paths: list[str], who: dict[str, str]) -> list[int]:
        listed = [
            (await api.get(path, who=who)).json["totalItems"]
            for path in ("/jobs", "/scheduled-jobs")
        ]
        return [*[(await api.get(path, who=who)).status for path in paths], *listed]

    old = await make()
    assert await seen(old, ann) == await seen(old, cy) == [200, 200, 200, 2, 1]
    assert (await api.get(old[0], who=ann)).json["permissions"] == [{"user": "ann"}, {"user": "cy"}]
    assert (await api.ask("DELETE", "/users/cy", who=ROOT)).status == 200
    anew = await user(api, "cy")
    assert await seen(old, anew) == [404, 404, 404, 0, 0]
    copy = await api.ask("POST", f"{old[0]}/rerun", who=ann)
    assert (await api.get(f"/jobs/{copy.json['id']}", who=anew)).status == 404, "whom ann meant"
    assert await seen(await make(), anew) == [200, 200, 200, 2, 1]


async def test_a_user_of_before_is_whom_permissions_of_before_name(start: Serve) -> None:
    """An earlier version kept nothing but names."""
    api = await start(configured(basic_auth=BASIC))
    cy = await user(api, "cy")
    (stored,) = await api.store.find(UserDocument, {"username": "cy"})
    before = Change(kind=UserDocument, id=stored.id, set={"permitted_as": ""})
    assert await api.store.change(before)
    body = HELLO + "permissions: [{user: cy}]\n"
    job = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=cy)).json["id"]
    assert (await api.job(job)).permissions[0].user == "cy"
    assert (await api.get(f"/jobs/{job}", who=cy)).status == 200
    assert (await api.ask("DELETE", "/users/cy", who=ROOT)).status == 200
    assert (await api.get(f"/jobs/{job}", who=await user(api, "cy"))).status == 404


HIDES = """
name: hides
inputs: {image: alpine}
secrets: {p: hush-hush}
tasks:
  - name: t
    image: "{{ inputs.image }}"
    run: env
    env: {API_TOKEN: "%s"}
    registry: {username: ann, password: "{{ secrets.p }}"}
"""


async def test_a_rerun_sends_nothing_hidden_to_where_other_inputs_say(start: Serve) -> None:
    """What a key hides in a task is its submitter's too, and an input may be the image that gets it."""
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")

    async def rerun(token: str, who: dict[str, str], **asked: Any) -> int:
        body = HIDES % token
        job = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=ann)).json["id"]
        asked = {"secrets": {"p": "mine"}, "inputs": {"image": "evil/x"}, **asked}
        return int((await api.ask("POST", f"/jobs/{job}/rerun", json=asked, who=who)).status)

    assert await rerun("hidden", bob) == 400
    assert await rerun("hidden", bob, tasks=[{"name": "t", "image": "a", "run": "b"}]) == 200
    assert await rerun("hidden", ann) == 200
    assert await rerun("{{ secrets.p }}", bob) == 200, "bob's own"


HOOKED = """
name: j
inputs: {where: example.com}
tasks: [{name: t, image: a, run: b}]
webhooks:
  - url: "https://{{ inputs.where }}/"
    headers: {Authorization: Bearer of-ann}
"""
SUBJOB = """
name: j
inputs: {where: example.com}
tasks:
  - name: t
    subjob:
      name: s
      tasks: [{name: t, image: a, run: b}]
      webhooks: [{url: "https://{{ inputs.where }}/", secret: whsec_b2YtYW5u}]
"""


@pytest.mark.parametrize(
    ("change", "hidden"),
    [
        ({"inputs": {"where": "evil.example"}}, "webhooks"),
        ({"secrets": {"new": "evil.example"}}, "webhooks"),
        ({"tasks": [{"name": "t", "image": "evil", "run": "x"}]}, "webhooks"),
        ({"inputs": {"where": "evil.example"}, "webhooks": []}, ""),
        ({"inputs": {"where": "x"}, "webhooks": [{"url": "https://{{ inputs.where }}/"}]}, ""),
        ({}, ""),
    ],
)
async def test_a_rerun_sends_no_hidden_header_to_where_others_say(
    start: Serve, change: dict[str, Any], hidden: str
) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    submitted = await api.ask("POST", "/jobs", data=HOOKED, headers=YAML, who=ann)
    path = f"/jobs/{submitted.json['id']}/rerun"
    answer = await api.ask("POST", path, json=change, who=bob)
    if hidden:
        assert (answer.status, answer.message.partition(":")[0]) == (400, hidden)
        assert "of-ann" not in answer.text
    else:
        assert answer.status == 200, answer.text
        hooks = (await api.job(answer.json["id"])).definition.webhooks
        kept = [hook.headers for hook in hooks if hook.headers]
        assert kept == ([] if "webhooks" in change else [{"Authorization": "Bearer of-ann"}])
    assert (await api.ask("POST", path, json=change, who=ann)).status == 200


@pytest.mark.parametrize(
    ("job", "change", "named"),
    [
        (SUBJOB, {"inputs": {"where": "evil.example"}}, "tasks"),
        (SUBJOB, {"webhooks": [{"url": "https://evil.example/{{ tasks.t }}"}]}, "tasks"),
        (HOOKED + "secrets: {a: abcdef}\noutput: say abcdef {{ inputs.where }}",
         {"inputs": {"where": "x"}, "secrets": {"a": "x"}, "webhooks": []}, "output"),
    ],
)  # fmt: skip
async def test_a_rerun_tells_nothing_hidden_in_any_part_of_a_job(
    start: Serve, job: str, change: dict[str, Any], named: str
) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    submitted = await api.ask("POST", "/jobs", data=job, headers=YAML, who=ann)
    path = f"/jobs/{submitted.json['id']}/rerun"
    answer = await api.ask("POST", path, json=change, who=bob)
    assert (answer.status, answer.message.partition(":")[0]) == (400, named)


async def test_a_rerun_names_no_secret_of_another(start: Serve) -> None:
    """Templates see a job's name, and tasks of one's own can tell it in a disguised form."""
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    named = {"name": "uses sesame-open", "description": "sesame-open", "tags": ["t-sesame-open"]}
    body = {**named, "secrets": {"a": "sesame-open"}, "tasks": [{"name": "t", "run": "true"}]}
    job = (await api.ask("POST", "/jobs", json=body, who=ann)).json["id"]
    asked = {"secrets": {"a": "bobs-own"}, "tasks": [{"name": "t", "run": "rev {{ job.name }}"}]}
    made = await api.ask("POST", f"/jobs/{job}/rerun", json=asked, who=bob)
    assert made.status == 200
    assert "sesame" not in made.text
    stored = (await api.job(made.json["id"])).definition
    assert (stored.name, stored.description, stored.tags) == (
        "uses [REDACTED]",
        "[REDACTED]",
        ["t-[REDACTED]"],
    )
    guess = {"tasks": [{"name": "sesame-open", "run": "true"}], "dryRun": True}
    plan = await api.ask("POST", f"/jobs/{job}/rerun", json={**asked, **guess}, who=bob)
    assert plan.json["run"][0]["name"] == "sesame-open", "a plan confirms no guess"
    again = await api.ask("POST", f"/jobs/{job}/rerun", json={}, who=ann)
    assert (await api.job(again.json["id"])).definition.name == "uses sesame-open"


@pytest.mark.parametrize(("body", "kept"), [(HOOKED, "webhooks"), (SUBJOB, "tasks")])
async def test_a_rerun_of_a_rerun_tells_nothing_either(start: Serve, body: str, kept: str) -> None:
    """What is hidden in a job stays its submitter's, however many run it again as it is."""
    api = await start(configured(basic_auth=BASIC))
    ann, bob, cy = [await user(api, name) for name in ("ann", "bob", "cy")]
    change = {"inputs": {"where": "evil.example"}}

    async def rerun(id: str, who: dict[str, str], **asked: Any) -> Answer:
        answer: Answer = await api.ask("POST", f"/jobs/{id}/rerun", json=asked, who=who)
        return answer

    first = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=ann)).json["id"]
    copy = await rerun(first, bob)
    assert copy.json["createdBy"]["username"] == "bob"
    second = await rerun(copy.json["id"], cy)
    await api.store.delete(JobDocument, {"id": first})
    for id in (copy.json["id"], second.json["id"]):
        for who in (bob, cy):
            refused = await rerun(id, who, **change)
            assert (refused.status, refused.message.partition(":")[0]) == (400, kept)
            assert "is ann's own" in refused.message
        mine = await rerun(id, ann, **change)
        assert (await api.job(mine.json["id"])).hidden_by is None, "ann's again"
    own = {"webhooks": [], "tasks": [{"name": "t", "run": "b", "env": {"A_TOKEN": "of-bob"}}]}
    bobs = (await rerun(copy.json["id"], bob, **own)).json["id"]
    assert (await rerun(bobs, bob, **change)).status == 200, "nothing of ann's is in it"
    assert "is bob's own" in (await rerun(bobs, ann, **change)).message


async def test_a_schedule_that_somebody_changes_is_theirs(start: Serve) -> None:
    """Nobody has tasks of their own run in the name of another."""
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    body = HELLO + "schedule: {cron: '@hourly'}\n"
    made = await api.ask("POST", "/scheduled-jobs", data=body, headers=YAML, who=ann)
    assert made.json["createdBy"]["username"] == "ann"
    path = f"/scheduled-jobs/{made.json['id']}"
    changed = await api.ask("PUT", path, data=body, headers=YAML, who=bob)
    assert changed.json["createdBy"]["username"] == "bob"
    job = await api.ask("POST", f"{path}/run", who=ann)
    assert job.json["createdBy"]["username"] == "bob"


async def test_permissions_may_name_built_in_roles(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, eve = await user(api, "ann"), await user(api, "eve", "viewer")
    body = HELLO + "permissions: [{role: user}]\n"
    job = (await api.ask("POST", "/jobs", data=body, headers=YAML, who=ann)).json["id"]
    assert (await api.get(f"/jobs/{job}", who=ann)).status == 200
    assert (await api.get(f"/jobs/{job}", who=eve)).status == 404


# --- users ------------------------------------------------------------------------------------------------------------


async def test_a_user_is_changed_from_the_next_request_on(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = await user(api, "ann")
    assert (await api.get("/jobs", who=ann)).status == 200
    changed = await api.ask("PUT", "/users/ann", json={"name": "Ann", "password": "new"}, who=ROOT)
    assert (changed.status, changed.json["name"]) == (200, "Ann")
    assert (await api.get("/jobs", who=ann)).status == 401
    ann = signed_in("ann", "new")
    assert (await api.get("/jobs", who=ann)).status == 200
    off = await api.ask("PUT", "/users/ann", json={"disabled": True}, who=ROOT)
    assert off.json["disabled"] is True
    assert (await api.get("/jobs", who=ann)).status == 401
    await api.ask("PUT", "/users/ann", json={"disabled": False}, who=ROOT)
    assert (await api.get("/jobs", who=ann)).status == 200
    assert (await api.ask("DELETE", "/users/ann", who=ROOT)).json == {"status": "OK"}
    assert (await api.get("/jobs", who=ann)).status == 401
    assert (await api.ask("DELETE", "/users/ann", who=ROOT)).status == 404
    assert (await api.ask("PUT", "/users/ann", json={"name": "x"}, who=ROOT)).status == 404


@pytest.mark.parametrize(
    "body", [{"password": ""}, {"password": "x" * 1025}, {"roles": []}, {"disabled": "yes"}, []]
)
async def test_what_is_no_change_of_a_user(api: Served, body: Any) -> None:
    await api.ask("POST", "/users", json={"username": "ann", "password": "x"})
    assert (await api.ask("PUT", "/users/ann", json=body)).status == 400


async def test_admins_can_not_lock_themselves_out(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    for method, path, body in [
        ("DELETE", "/users/root", None),
        ("DELETE", "/users/root/roles/admin", None),
        ("PUT", "/users/root", {"disabled": True}),
    ]:
        assert (await api.ask(method, path, json=body, who=ROOT)).status == 400, (method, path)
    assert (await api.get("/users", who=ROOT)).status == 200


async def test_an_own_password(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    eve = await user(api, "eve", "viewer")
    path = "/users/me/password"
    wrong = await api.ask("PUT", path, json={"password": "n", "current": "x"}, who=eve)
    assert wrong.status == 400
    assert (await api.ask("PUT", path, json={"password": ""}, who=eve)).status == 400
    assert (await api.ask("PUT", path, json={"password": "new"}, who=eve)).json == {"status": "OK"}
    assert (await api.get("/jobs", who=eve)).status == 401
    assert (await api.get("/jobs", who=signed_in("eve", "new"))).status == 200


@pytest.mark.parametrize(
    ("how", "method", "path", "body"),
    [
        ("password", "PUT", "/users/ann", {"disabled": True}),
        ("password", "PUT", "/users/ann", {"password": "another"}),
        ("password", "DELETE", "/users/ann/roles/operator", None),
        ("token", "DELETE", "/users/ann", None),
        ("token", "DELETE", "/users/ann/roles/operator", None),
        ("token", "DELETE", "/tokens/{token}", None),
        ("session", "PUT", "/users/ann", {"password": "another"}),
    ],
)
async def test_a_stream_ends_when_its_reader_may_no_longer_read_it(
    start: Serve, how: str, method: str, path: str, body: Any
) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = await user(api, "ann", "operator")
    made = await token(api, ann)
    shown = {
        "password": ann,
        "token": bearer(made["token"]),
        "session": await session(api, {"username": "ann", "password": "pw-ann"}),
    }[how]
    api.session.cookie_jar.clear()
    async with asyncio.timeout(10), aclosing(api.stream("/events", **shown)) as stream:
        reading = asyncio.ensure_future(anext(stream, None))
        await api.commands.listened.wait()
        asked = await api.ask(method, path.format(token=made["id"]), json=body, who=ROOT)
        assert asked.status == 200
        with suppress(aiohttp.ClientPayloadError):  # cut off in the middle of the body
            assert await reading is None


async def test_a_stream_ends_with_its_readers_password_however_many_logins_wait(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = await user(api, "ann", "operator")
    hashed = (await api.store.find(UserDocument, {"username": "root"}))[0].password_hash
    go_on = threading.Event()
    async with asyncio.timeout(10), aclosing(api.stream("/events", **ann)) as stream:
        reading = asyncio.ensure_future(anext(stream, None))
        await api.commands.listened.wait()
        monkeypatch.setattr(passwords, "_verify", lambda *_: not go_on.wait(timeout=30))
        wrong = signed_in("ann", "wrong")
        flood = [asyncio.ensure_future(api.get("/jobs", who=wrong)) for _ in range(20)]
        try:
            (stored,) = await api.store.find(UserDocument, {"username": "ann"})
            fields = {"password_hash": hashed, "rev": stored.rev + 1}
            await api.store.change(Change(kind=UserDocument, id=stored.id, set=fields))
            with suppress(aiohttp.ClientPayloadError):  # cut off in the middle of the body
                assert await reading is None
        finally:
            go_on.set()
            await asyncio.gather(*flood)


async def test_a_changed_password_of_the_configuration_holds_after_the_restart(
    start: Serve,
) -> None:
    api = await start(configured(basic_auth=BASIC))
    changed = await api.ask("PUT", "/users/me/password", json={"password": "mine"}, who=ROOT)
    assert changed.status == 200
    again = await start(configured(basic_auth=BASIC), api.store)
    assert (await again.get("/users", who=signed_in("root", "mine"))).status == 200
    other = BasicAuth(enabled=True, username="root", password="second")
    last = await start(configured(basic_auth=other), api.store)
    assert (await last.get("/users", who=signed_in("root", "mine"))).status == 401
    assert (await last.get("/users", who=signed_in("root", "second"))).status == 200


# --- tokens -----------------------------------------------------------------------------------------------------------


async def test_a_token_is_shown_once_and_stored_hashed(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann = await user(api, "ann")
    made = await token(api, ann, role="viewer", expires="48h")
    assert (made["name"], made["role"], made["username"]) == ("ci", "viewer", "ann")
    stored = await api.store.get(TokenDocument, made["id"])
    assert stored is not None
    assert made["token"].split("_", 2)[2] not in stored.hash
    assert stored.expires_at - stored.created_at == 48 * 3600 * MICROS_PER_SECOND
    listed = await api.get("/tokens", who=ann)
    assert "token" not in listed.json[0]
    assert "lastUsedAt" not in listed.json[0]
    assert (await api.get("/jobs", who=bearer(made["token"]))).status == 200
    assert (await api.get("/tokens", who=ann)).json[0]["lastUsedAt"].endswith("Z")
    submitted = await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=bearer(made["token"]))
    assert submitted.status == 403


async def test_a_token_is_revoked_by_its_user_or_an_admin(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    first, second = await token(api, ann), await token(api, ann)
    assert (await api.get("/tokens", who=bob)).json == []
    assert len((await api.get("/tokens", who=ROOT)).json) == 2
    assert (await api.ask("DELETE", f"/tokens/{first['id']}", who=bob)).status == 404
    assert (await api.ask("DELETE", f"/tokens/{first['id']}", who=ann)).json == {"status": "OK"}
    assert (await api.ask("DELETE", f"/tokens/{second['id']}", who=ROOT)).status == 200
    for made in (first, second):
        assert (await api.get("/jobs", who=bearer(made["token"]))).status == 401


async def test_a_token_is_no_more_than_its_user(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    olaf = await user(api, "olaf", "operator")
    refused = await api.ask("POST", "/tokens", json={"name": "x", "role": "admin"}, who=olaf)
    assert refused.status == 403
    made = bearer((await token(api, olaf))["token"])
    assert (await api.ask("DELETE", "/queues/nothing", who=made)).status == 404
    assert (await api.ask("POST", "/tokens", json={"name": "x"}, who=made)).status == 403
    await api.ask("DELETE", "/users/olaf/roles/operator", who=ROOT)
    assert (await api.ask("DELETE", "/queues/nothing", who=made)).status == 403
    await api.ask("DELETE", "/users/olaf", who=ROOT)
    assert (await api.get("/jobs", who=made)).status == 401
    await user(api, "olaf")
    assert (await api.get("/jobs", who=made)).status == 401


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": " "},
        {"name": "x", "role": "king"},
        {"name": "x", "expires": "soon"},
        {"name": "x", "expires": "-1h"},
        {"name": "x", "expires": "2001-01-01T00:00:00Z"},
        {"name": "x", "expires": "9999-12-31T23:59:59Z"},
    ],
)
async def test_what_is_no_token(start: Serve, body: Any) -> None:
    api = await start(configured(basic_auth=BASIC))
    assert (await api.ask("POST", "/tokens", json=body, who=ROOT)).status == 400


async def test_tokens_of_the_shared_key_end_with_it(start: Serve) -> None:
    api = await start(configured(key_auth=KeyAuth(enabled=True, key="k3y")))
    made = bearer((await token(api, bearer("k3y"), role="viewer"))["token"])
    assert (await api.get("/jobs", who=made)).status == 200
    assert (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=made)).status == 403
    other = await start(configured(key_auth=KeyAuth(enabled=True, key="other")), api.store)
    assert (await other.get("/jobs", who=made)).status == 401


async def test_a_user_has_a_number_of_tokens_at_most(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MOST_TOKENS", 2)
    api = await start(configured(basic_auth=BASIC))
    ann, bob = await user(api, "ann"), await user(api, "bob")
    first, _ = await token(api, ann), await token(api, ann)
    refused = await api.ask("POST", "/tokens", json={"name": "x"}, who=ann)
    assert (refused.status, refused.message) == (
        400,
        "you have 2 tokens already: revoke one first",
    )
    assert await token(api, bob)
    await api.ask("DELETE", f"/tokens/{first['id']}", who=ann)
    assert await token(api, ann)


async def test_tokens_need_authentication(api: Served) -> None:
    assert (await api.ask("POST", "/tokens", json={"name": "x"})).status == 400


# --- sessions ---------------------------------------------------------------------------------------------------------


async def session(api: Served, body: dict[str, str]) -> dict[str, str]:
    answer = await api.ask("POST", "/login", json=body)
    assert answer.json == {"status": "OK"}
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    (found,) = SimpleCookie(cookie).values()
    return {"Cookie": f"{found.key}={found.value}"}


async def test_a_session(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    api.session.cookie_jar.clear()
    for body in ({}, {"username": "root", "password": "x"}, {"key": "k3y"}):
        assert (await api.ask("POST", "/login", json=body)).status == 401
    mine = await session(api, {"username": "root", "password": "first"})
    api.session.cookie_jar.clear()
    assert (await api.get("/jobs")).status == 401
    assert (await api.get("/users", who=mine)).status == 200
    assert (await api.get("/tokens", who=mine)).json == []
    as_token = bearer(mine["Cookie"].partition("=")[2])
    assert (await api.get("/users", who=as_token)).status == 401
    assert (await api.ask("POST", "/logout", who=mine)).status == 200
    assert (await api.get("/users", who=mine)).status == 401


async def test_sessions_end_with_the_password(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    mine = await session(api, {"username": "root", "password": "first"})
    path = "/users/me/password"
    assert (await api.ask("PUT", path, json={"password": "new"}, who=mine)).status == 400
    body = {"password": "new", "current": "first"}
    assert (await api.ask("PUT", path, json=body, who=mine)).status == 200
    api.session.cookie_jar.clear()
    assert (await api.get("/jobs", who=mine)).status == 401


async def test_a_session_by_the_key(start: Serve) -> None:
    api = await start(configured(key_auth=KeyAuth(enabled=True, key="k3y")))
    mine = await session(api, {"key": "k3y"})
    api.session.cookie_jar.clear()
    assert (await api.get("/users", who=mine)).status == 200


async def test_a_session_by_a_token_is_no_more_than_the_token(start: Serve) -> None:
    """It has the role of the token, makes no tokens, and ends when that is revoked or expires."""
    api = await start(configured(basic_auth=BASIC, key_auth=KeyAuth(enabled=True, key="k3y")))
    ann = await user(api, "ann")
    for owner in (ann, bearer("k3y")):
        made = await token(api, owner, role="viewer", expires="1h")
        mine = await session(api, {"key": made["token"]})
        api.session.cookie_jar.clear()
        assert (await api.get("/jobs", who=mine)).status == 200
        assert (await api.ask("POST", "/jobs", data=HELLO, headers=YAML, who=mine)).status == 403
        assert (await api.ask("POST", "/tokens", json={"name": "x"}, who=mine)).status == 403
        stored = await api.store.find(TokenDocument, {"of_token": made["id"]})
        assert stored[0].expires_at - stored[0].created_at <= 3600 * MICROS_PER_SECOND
        assert (await api.ask("DELETE", f"/tokens/{made['id']}", who=owner)).status == 200
        assert (await api.get("/jobs", who=mine)).status == 401
        assert (await api.ask("POST", "/login", json={"key": made["token"]})).status == 401
        api.session.cookie_jar.clear()


def test_the_roles_in_order() -> None:
    assert ROLES == ("viewer", "user", "operator", "admin")


async def test_the_client_manages_users_and_tokens(start: Serve) -> None:
    api = await start(configured(basic_auth=BASIC))
    address = api.url.replace("//", "//root:first@")
    async with Client(address) as client:
        await client.add_user("ann", "old")
        assert (await client.change_user("ann", name="Ann", password="new")).name == "Ann"
        made = await client.add_token("ci", role="viewer", expires="1h")
        assert [token.name for token in await client.tokens()] == ["ci"]
        async with Client(api.url, key=made.token) as program:
            assert (await program.jobs()).items == []
        await client.revoke_token(made.id)
        assert await client.tokens() == []
        await client.delete_user("ann")
        assert (await client.audit(size=1)).items[0].action == "delete_user"
        await client.change_password("second", current="first")
        with pytest.raises(ApiError):
            await client.users()
