"""Handing in jobs: keys, waiting, dry runs, faults with their places, schedules, permissions."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.definitions import each, job, says, seconds, subjob, task
from tests.acceptance.processes import Server, Standalone, wait_for

pytestmark = pytest.mark.xdist_group("shell")

Make = Callable[..., Standalone]

JSON = {"Content-Type": "application/json"}
YAML = {"Content-Type": "text/yaml"}


def post(
    server: Server, path: str, body: object, headers: dict[str, str] | None = None, **more: Any
) -> tuple[int, Any]:
    """Post JSON."""
    return server.call("POST", path, json.dumps(body), {**JSON, **(headers or {})}, **more)


# --- Idempotency-Key ----------------------------------------------------------------------------------------------


def test_the_same_key_and_body_give_the_first_job(shell: Standalone) -> None:
    key = {"Idempotency-Key": "one-key"}
    definition = job(task(), name="once")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(shell, "/jobs", definition, key), range(8)))
    assert {status for status, _ in answers} == {200}
    (job_id,) = {body["id"] for _, body in answers}
    shell.wait_job(job_id)
    assert post(shell, "/jobs", definition, key)[1]["id"] == job_id
    assert shell.get("/jobs?q=once")["totalItems"] == 1
    status, body = post(shell, "/jobs", job(task(), name="another"), key)
    assert status == 409
    assert "Idempotency-Key" in body["message"]


# --- wait ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("run", "state"), [("true", "COMPLETED"), ("exit 3", "FAILED")])
def test_a_submission_that_waits_gets_the_whole_job(
    shell: Standalone, run: str, state: str
) -> None:
    status, body = post(shell, "/jobs", job(task(run), wait={"timeout": "30s"}))
    assert (status, body["state"]) == (200, state)
    assert body == shell.job(body["id"])
    assert len(body["execution"]) == 1


def test_a_wait_that_is_too_short_answers_408_and_the_job_goes_on(
    shell: Standalone, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    waiting = task(f"until [ -e {gate} ]; do sleep 0.05; done")
    definition = job(waiting, name="outlives", wait={"timeout": "400ms"})
    status, body = post(shell, "/jobs", definition)
    assert (status, body) == (408, {"message": "timeout waiting for job to complete"})
    (found,) = shell.get("/jobs?q=outlives")["items"]
    assert found["state"] == "RUNNING"
    gate.touch()
    assert shell.wait_job(found["id"])["state"] == "COMPLETED"


# --- dry runs and faults ------------------------------------------------------------------------------------------

FAULTY = """\
name: faulty
tasks:
  - name: one
    image: alpine
    runn: echo
    retry:
      limt: 3
      limit: 99
  - image: alpine
    timeout: soon
    env:
      A: "{{ 1 + }}"
  - name: three
    parallel: {tasks: []}
    each: {list: "1..3"}
"""

PLACES = {
    "tasks[0].runn": 5,
    "tasks[0].retry.limt": 7,
    "tasks[0].retry.limit": 8,
    "tasks[1].name": 9,
    "tasks[1].timeout": 10,
    "tasks[1].env.A": 12,
}


def test_a_dry_run_gives_all_faults_with_their_lines(shell: Standalone) -> None:
    status, body = shell.call("POST", "/jobs?dryRun=true", FAULTY, YAML)
    assert status == 400
    found = {fault["path"]: fault["line"] for fault in body["faults"]}
    assert PLACES.items() <= found.items(), found
    assert any(path.startswith("tasks[2]") for path in found)
    assert 'did you mean "limit"' in body["message"]
    assert 'did you mean "run"' in body["message"]


def test_a_dry_run_answers_what_would_be_stored_and_stores_nothing(shell: Standalone) -> None:
    before = shell.get("/jobs")["totalItems"]
    definition = job(task(name="{{ inputs.a }}"), inputs={"a": "b"}, secrets={"s": "hidden-value"})
    status, body = post(shell, "/jobs?dryRun=true", definition)
    assert (status, body["state"]) == (200, "PENDING")
    assert body["tasks"][0]["name"] == "{{ inputs.a }}"
    assert body["secrets"] == {"s": "[REDACTED]"}
    assert shell.get("/jobs")["totalItems"] == before
    assert shell.call("GET", f"/jobs/{body['id']}")[0] == 404


@pytest.mark.parametrize("permission", [{"user": "ghost"}, {"role": "ghost"}])
@pytest.mark.parametrize("path", ["/jobs", "/scheduled-jobs"])
def test_a_dry_run_and_a_submission_check_permissions_alike(
    shell: Standalone, path: str, permission: dict[str, str]
) -> None:
    definition = job(task(), permissions=[{"user": "guest"}, permission])
    if path == "/scheduled-jobs":
        definition["schedule"] = {"cron": "0 2 * * *"}
    before = shell.get(path)["totalItems"]
    (noun,) = permission
    refused = {"message": f"permissions[1].{noun}: there is no {noun} 'ghost'"}
    assert post(shell, f"{path}?dryRun=true", definition) == (400, refused)
    assert post(shell, path, definition) == (400, refused)
    assert shell.get(path)["totalItems"] == before


def test_validate_says_the_same_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "faulty.yaml"
    file.write_text(FAULTY)
    done = subprocess.run(
        [sys.executable, "-m", "haulier.cli", "validate", str(file)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    for path, line in PLACES.items():
        assert f"{file}:{line}:" in done.stderr
        assert path in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("key", ["image", "run", "queue", "retry", "timeout", "env", "limits"])
@pytest.mark.parametrize("kind", ["parallel", "each", "subjob"])
def test_a_composite_takes_no_field_of_a_container(shell: Standalone, kind: str, key: str) -> None:
    value = {
        "env": {"A": "b"},
        "retry": {"limit": 1},
        "timeout": "1s",
        "limits": {"pids": 9},
    }.get(key, "x")
    composite = {
        "parallel": {"tasks": [task()]},
        "each": {"list": "[1]", "task": task()},
        "subjob": {"name": "s", "tasks": [task()]},
    }[kind]
    status, body = post(shell, "/jobs", job({"name": "c", kind: composite, key: value}))
    assert status == 400
    assert f"tasks[0].{key}" in body["message"]
    empty: Any = {} if key == "env" else "" if isinstance(value, str) else None
    status, _ = post(shell, "/jobs?dryRun=true", job({"name": "c", kind: composite, key: empty}))
    assert status == 200


def test_a_submitted_job_reads_back_as_it_was_and_can_be_submitted_again(
    shell: Standalone,
) -> None:
    definition = job(
        says("{{ inputs.a }}", var="x", retry={"limit": 2}, priority=0, **{"if": "true"}),
        each("1..2", task(name="n {{ item.value }}")),
        subjob(task(), inputs={"i": "{{ tasks.x }}"}),
        inputs={"a": "1"},
        defaults={"timeout": "1m"},
        output="{{ tasks.x }}",
    )
    first = shell.wait_job(shell.submit(definition))
    assert first["tasks"] == definition["tasks"]
    again = {k: first[k] for k in ("name", "tasks", "inputs", "defaults", "output")}
    second = shell.wait_job(shell.submit(again))
    assert (second["state"], second["result"]) == ("COMPLETED", "1")


# --- schedules ----------------------------------------------------------------------------------------------------


def fired(server: Server, schedule_id: str) -> list[Any]:
    """Return the jobs that a schedule made, oldest first."""
    jobs = server.get("/jobs?size=20")["items"]
    made = [found for found in jobs if found.get("schedule", {}).get("id") == schedule_id]
    return sorted(made, key=lambda found: seconds(found["createdAt"]))


def test_a_schedule_fires_is_paused_resumed_and_deleted(shell: Standalone) -> None:
    definition = job(
        says("{{ inputs.a }}", var="v"),
        name="every two seconds",
        tags=["cron"],
        inputs={"a": "1"},
        output="{{ tasks.v }}",
        schedule={"cron": "@every 2s"},
    )
    status, made = post(shell, "/scheduled-jobs", definition)
    assert status == 200
    path = f"/scheduled-jobs/{made['id']}"
    assert (made["state"], made["cron"], made["timezone"]) == ("ACTIVE", "@every 2s", "UTC")
    assert 0 < seconds(made["nextAt"]) - seconds(made["createdAt"]) <= 2.01
    wait_for(lambda: len(fired(shell, made["id"])) >= 3, 12, "three firings")
    first, second, third = fired(shell, made["id"])[:3]
    for early, late in ((first, second), (second, third)):
        assert 1.0 < seconds(late["createdAt"]) - seconds(early["createdAt"]) < 3.5
    done = shell.wait_job(first["id"])
    assert (done["state"], done["result"], done["tags"]) == ("COMPLETED", "1", ["cron"])
    due = first["schedule"]["time"]
    assert done["schedule"] == {"id": made["id"], "cron": "@every 2s", "time": due}
    assert 1.9 < seconds(due) - seconds(made["createdAt"]) < 2.1
    assert second["schedule"]["previous"] == due

    assert shell.call("PUT", f"{path}/pause") == (200, {"status": "OK"})
    assert shell.call("PUT", f"{path}/pause") == (400, {"message": "scheduled job is not active"})
    paused = shell.get(path)
    assert paused["state"] == "PAUSED"
    assert "nextAt" not in paused
    before = len(fired(shell, made["id"]))
    other = post(shell, "/scheduled-jobs", job(task(), schedule={"cron": "@every 1s"}))[1]
    wait_for(lambda: len(fired(shell, other["id"])) >= 3, 15, "three firings of another")
    assert len(fired(shell, made["id"])) == before
    assert shell.call("DELETE", f"/scheduled-jobs/{other['id']}") == (200, {"status": "OK"})

    assert shell.call("PUT", f"{path}/resume") == (200, {"status": "OK"})
    assert shell.call("PUT", f"{path}/resume") == (400, {"message": "scheduled job is not paused"})
    wait_for(lambda: len(fired(shell, made["id"])) > before, 10, "a firing after the resume")
    assert made["id"] in {found["id"] for found in shell.get("/scheduled-jobs")["items"]}

    assert shell.call("DELETE", path) == (200, {"status": "OK"})
    assert shell.call("GET", path)[0] == shell.call("DELETE", path)[0] == 404
    assert shell.job(first["id"])["state"] == "COMPLETED"


def test_a_schedule_goes_on_after_a_crash_in_its_zone(standalone: Make) -> None:
    server = standalone()
    schedule = {"cron": "@every 1s", "timezone": "Europe/Berlin"}
    made = post(server, "/scheduled-jobs", job(task(), schedule=schedule))[1]
    assert (made["timezone"], made["state"]) == ("Europe/Berlin", "ACTIVE")
    wait_for(lambda: fired(server, made["id"]), 10, "a firing")
    server.kill()
    server.start()
    before = len(fired(server, made["id"]))
    wait_for(lambda: len(fired(server, made["id"])) > before, 10, "a firing after the crash")


@pytest.mark.parametrize(
    "schedule",
    [
        {"cron": "61 * * * *"},
        {"cron": "* * * *"},
        {"cron": ""},
        {"cron": "@every"},
        {"cron": "* * * * *", "timezone": "Mars/Olympus"},
        {},
    ],
)
def test_a_schedule_that_never_fires_is_refused(
    shell: Standalone, schedule: dict[str, str]
) -> None:
    status, body = post(shell, "/scheduled-jobs", job(task(), schedule=schedule))
    assert status == 400
    assert "schedule" in body["message"]


def test_a_schedule_belongs_to_scheduled_jobs_only(shell: Standalone) -> None:
    status, body = post(shell, "/jobs", job(task(), schedule={"cron": "@hourly"}))
    assert (status, "schedule" in body["message"]) == (400, True)
    status, body = post(shell, "/scheduled-jobs", job(task()))
    assert (status, "schedule" in body["message"]) == (400, True)


# --- permissions --------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(standalone: Make) -> Standalone:
    """A server that knows its users: root, ann (operators) and bob."""
    server = standalone(
        HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_ENABLED="true",
        HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_USERNAME="root",
        HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_PASSWORD="root-password",
    )
    for name in ("ann", "bob"):
        user = {"username": name, "password": f"{name}-password", "name": name.title()}
        assert post(server, "/users", user, as_user("root"))[0] == 200
    assert post(server, "/roles", {"name": "operators"}, as_user("root"))[0] == 200
    assert server.call("PUT", "/users/ann/roles/operators", headers=as_user("root"))[0] == 200
    return server


def as_user(name: str) -> dict[str, str]:
    """Return the headers of a user."""
    text = base64.b64encode(f"{name}:{name}-password".encode()).decode()
    return {"Authorization": f"Basic {text}"}


@pytest.mark.parametrize("permission", [{"user": "ann"}, {"role": "operators"}])
def test_permissions_hide_a_job_from_all_others(
    guarded: Standalone, permission: dict[str, str]
) -> None:
    definition = job(subjob(task("echo hidden")), name="classified", permissions=[permission])
    status, made = post(guarded, "/jobs", definition, as_user("ann"))
    assert (status, made["createdBy"]["username"]) == (200, "ann")

    def answer(path: str, user: str, method: str = "GET") -> tuple[int, Any]:
        return guarded.call(method, path, headers=as_user(user))

    path = f"/jobs/{made['id']}"
    shown = wait_for(
        lambda: (found := answer(path, "ann")[1])["state"] == "COMPLETED" and found, 20, "its end"
    )
    task_id = shown["execution"][0]["id"]
    inner = shown["execution"][0]["subjob"]["id"]
    for hidden in (path, f"{path}/log", f"{path}/tasks", f"{path}/log/download",
                   f"/tasks/{task_id}", f"/tasks/{task_id}/log", f"/jobs/{inner}"):  # fmt: skip
        assert guarded.call("GET", hidden, headers=as_user("bob"))[0] == 404, hidden
    for method, command in (("PUT", "/cancel"), ("PUT", "/restart"), ("DELETE", "")):
        assert answer(path + command, "bob", method)[0] == 404
    assert answer("/jobs?q=classified", "bob")[1]["totalItems"] == 0
    assert answer("/jobs?q=classified", "ann")[1]["totalItems"] == 1
    assert answer(f"/jobs/{inner}", "ann")[0] == 200
    assert guarded.call("GET", path)[0] == 401


@pytest.mark.parametrize(
    "permission", [{"user": "nobody"}, {"role": "nothing"}, {"user": "guest", "role": "x"}, {}]
)
def test_a_permission_that_cannot_be_is_refused(
    shell: Standalone, permission: dict[str, str]
) -> None:
    status, body = post(shell, "/jobs", job(task(), permissions=[permission]))
    assert status == 400
    assert "permissions[0]" in body["message"]
