"""What is shown of documents: shapes, what is left out, what is redacted."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from shared.model import language
from shared.model.declared_secrets import secret_values
from shared.model.documents import (
    MICROS_PER_SECOND,
    Actor,
    JobDocument,
    LogPartDocument,
    NodeDocument,
    RunUsage,
    ScheduleDocument,
    TaskDocument,
)
from shared.model.views import (
    as_plain,
    job_summary,
    job_view,
    log_part_view,
    node_view,
    redactor_of,
    rfc3339,
    schedule_view,
    task_summary,
    task_view,
)
from shared.model.views.redacted import hides
from shared.redaction import REDACTED, Redactor

NONE = Redactor()
AT = 1_692_654_727_751_041


def job(definition: dict[str, Any] | None = None, **fields: Any) -> JobDocument:
    given = {"name": "sample job", "tasks": [{"name": "t", "run": "true"}], **(definition or {})}
    parsed = msgspec.convert(given, language.JobDefinition)
    return JobDocument(
        id="j1",
        definition=parsed,
        name=parsed.name,
        description=parsed.description,
        created_at=AT,
        task_count=1,
        **fields,
    )


def task(definition: dict[str, Any], kind: str = "container", **fields: Any) -> TaskDocument:
    parsed = msgspec.convert({"name": "t", **definition}, language.TaskDefinition)
    return TaskDocument(
        **{
            "id": "t1",
            "job_id": "j1",
            "root_id": "j1",
            "path": "1",
            "position": 1,
            "kind": kind,
            "name": parsed.name,
            "definition": parsed,
            "created_at": AT,
            **fields,
        }
    )


def test_times_are_rfc_3339_to_the_microsecond() -> None:
    assert rfc3339(AT) == "2023-08-21T21:52:07.751041Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000000Z"
    assert rfc3339(None) == ""


def test_a_summary_leaves_out_what_is_empty_but_no_number() -> None:
    assert as_plain(job_summary(job())) == {
        "id": "j1",
        "name": "sample job",
        "state": "PENDING",
        "createdAt": "2023-08-21T21:52:07.751041Z",
        "position": 0,
        "taskCount": 1,
        "progress": 0.0,
        "createdBy": {
            "id": "00000000000000000000000000000001",
            "username": "guest",
            "name": "Guest",
            "createdAt": "1970-01-01T00:00:00.000000Z",
            "disabled": False,
        },
    }


def test_a_job_shows_tasks_as_submitted_and_its_context() -> None:
    given = {
        "tasks": [{"name": "t", "run": "echo", "env": {"A": "{{inputs.a}}"}, "priority": 0}],
        "inputs": {"a": "1"},
        "secrets": {"token": "hunter2"},
        "autoDelete": {"after": "1h"},
        "permissions": [{"user": "ann"}],
    }
    shown = as_plain(job_view(job(given), NONE, results={"x": "y"}))
    assert shown["tasks"] == given["tasks"]
    assert shown["execution"] == []
    assert "executionTruncated" not in shown
    assert shown["context"] == {
        "job": {"id": "j1", "name": "sample job"},
        "inputs": {"a": "1"},
        "secrets": {"token": REDACTED},
        "tasks": {"x": "y"},
    }
    assert shown["secrets"] == {"token": REDACTED}
    assert shown["autoDelete"] == {"after": "1h"}
    assert shown["permissions"] == [{"user": "ann"}]


SECRETIVE = {
    "description": "with hunter2",
    "inputs": {"dbPassword": "literal", "plain": "ok hunter2"},
    "secrets": {"token": "hunter2", "state": "PENDING"},
    "tasks": [
        {
            "name": "t hunter2",
            "run": "echo hunter2",
            "cmd": ["hunter2"],
            "env": {"MY_SECRET": "literal", "REF_SECRET": "{{ secrets.token }}", "X": "a hunter2"},
            "files": {"hunter2.txt": "hunter2"},
            "registry": {"username": "u", "password": "{{secrets.token}}"},
            "mounts": [
                {"type": "volume", "target": "/x", "opts": {"ACCESS_KEY_ID": "k", "o": "hunter2"}}
            ],
            "pre": [{"env": {"PASSWORD": "deep"}, "run": "x"}],
        },
        {
            "name": "sub",
            "subjob": {
                "name": "s",
                "secrets": {"a": "{{secrets.token}}", "b": "inner-literal"},
                "tasks": [{"name": "i", "run": "echo inner-literal"}],
            },
        },
    ],
    "webhooks": [
        {
            "url": "http://x/?k=hunter2",
            "headers": {"X-Secret": "h", "X-Other": "hunter2"},
            "secret": "whsec",
        }
    ],
}


def test_what_is_declared_secret_is_found_wherever_it_stands() -> None:
    """Passwords of registries, keys of webhooks, secrets of sub-jobs, as deep as they may be."""

    def step(word: str, **more: Any) -> dict[str, Any]:
        return {"run": "x", "registry": {"username": "u", "password": word}, **more}

    inner = {
        "name": "inner",
        "secrets": {"a": "of-subjob", "b": "{{secrets.token}}"},
        "webhooks": [{"url": "http://x", "secret": "of-inner-webhook"}],
        "tasks": [step("of-inner-task", name="i")],
    }
    made = job(
        {
            "secrets": {"token": "of-job", "none": ""},
            "webhooks": [{"url": "http://x", "secret": "of-webhook"}],
            "tasks": [
                step("of-task", name="a", pre=[step("of-pre")], post=[step("of-post")])
                | {"sidecars": [{"name": "s", **step("of-sidecar")}]},
                {"name": "p", "parallel": {"tasks": [step("of-parallel", name="x")]}},
                {"name": "e", "each": {"list": "{{ 1..2 }}", "task": step("of-each", name="y")}},
                {"name": "s", "subjob": inner},
                step("{{secrets.token}}", name="t"),
            ],
        }
    )
    found = secret_values(made.definition)
    assert sorted(found) == sorted(
        f"of-{place}"
        for place in (
            *("job", "webhook", "task", "pre", "post", "sidecar", "parallel", "each"),
            *("subjob", "inner-webhook", "inner-task"),
        )
    )
    assert found == sorted(found, key=len, reverse=True)


def test_no_secret_leaves_and_templates_stay() -> None:
    made = job(SECRETIVE, error="boom hunter2", result="inner-literal")
    shown = as_plain(job_view(made, redactor_of(made.definition), results={"v": "hunter2"}))
    text = json.dumps(shown["tasks"]) + json.dumps(shown)
    for value in ("literal\\", '"literal"', '"k"', "deep", "whsec", '"h"'):
        assert value not in text
    assert "hunter2" not in text.replace("hunter2.txt", "")
    assert "inner-literal" not in text
    first = shown["tasks"][0]
    assert first["env"] == {
        "MY_SECRET": REDACTED,
        "REF_SECRET": "{{ secrets.token }}",
        "X": f"a {REDACTED}",
    }
    assert first["registry"] == {"username": "u", "password": REDACTED}
    assert first["mounts"][0]["opts"] == {"ACCESS_KEY_ID": REDACTED, "o": REDACTED}
    assert first["mounts"][0]["target"] == "/x"
    assert shown["tasks"][1]["subjob"]["secrets"] == {"a": "{{secrets.token}}", "b": REDACTED}
    assert shown["state"] == "PENDING"
    assert shown["error"] == f"boom {REDACTED}"
    assert shown["inputs"] == {"dbPassword": REDACTED, "plain": f"ok {REDACTED}"}


def test_a_file_that_is_a_template_shows_no_secret() -> None:
    stored = {"run": "x", "files": {"b": "hunter2"}, "fileTemplates": {"a": "hunter2 {{ job.id }}"}}
    redactor = Redactor(["hunter2"])
    written = {"a": {"template": f"{REDACTED} {{{{ job.id }}}}"}, "b": REDACTED}
    assert as_plain(task_view(task(stored), redactor))["files"] == written
    inner = task({"parallel": {"tasks": [{**stored, "pre": [stored]}]}}, "parallel")
    (shown,) = as_plain(task_view(inner, redactor))["parallel"]["tasks"]
    assert shown == {"run": "x", "files": written, "pre": [{"run": "x", "files": written}]}
    parts = msgspec.convert({"name": "j", "tasks": [stored]}, language.JobDefinition)
    assert hides(parts, "tasks", redactor)
    assert not hides(parts, "tasks", Redactor([]))


def test_a_summary_is_redacted_by_its_own_definition() -> None:
    summary = job_summary(job(SECRETIVE, result="x hunter2"))
    assert summary.result == f"x {REDACTED}"
    assert summary.description == f"with {REDACTED}"


def test_a_task_before_and_after_its_evaluation() -> None:
    definition = {"run": "echo", "env": {"A": "{{inputs.a}}"}, "retry": {"limit": 2}}
    waiting = as_plain(task_view(task(definition), NONE))
    assert waiting["env"] == {"A": "{{inputs.a}}"}
    assert waiting["state"] == "CREATED"
    assert waiting["retry"] == {"limit": 2, "attempts": 0}
    assert waiting["priority"] == 0
    assert waiting["progress"] == 0.0
    assert not {"exitCode", "usage", "logIncomplete", "queue", "nodeId"} & set(waiting)
    evaluated = msgspec.convert(
        {"name": "t", "run": "echo", "env": {"A": "1"}}, language.TaskDefinition
    )
    done = task(
        definition,
        evaluated=evaluated,
        state="COMPLETED",
        queue="default",
        node_id="n",
        exit_code=0,
        usage=RunUsage(wall_seconds=1.5),
        log_parts=2,
        attempt=2,
    )
    shown = as_plain(task_view(done, NONE, stored_parts=1))
    assert shown["env"] == {"A": "1"}
    assert shown["exitCode"] == 0
    assert shown["usage"] == {
        "wallSeconds": 1.5,
        "cpuSeconds": 0.0,
        "peakMemoryBytes": 0,
        "sampled": False,
    }
    assert (shown["queue"], shown["nodeId"]) == ("default", "n")
    assert shown["logIncomplete"] is True
    assert as_plain(task_view(done, NONE, stored_parts=2))["logIncomplete"] is False


def test_composites_show_their_figures() -> None:
    inner = {"name": "i", "run": "x"}
    parallel = as_plain(task_view(task({"parallel": {"tasks": [inner]}}, "parallel"), NONE))
    assert parallel["parallel"] == {"tasks": [inner], "completions": 0}
    assert "queue" not in parallel
    made = task({"each": {"list": "{{ [1] }}", "task": inner}}, "each", size=0)
    assert as_plain(
        task_view(made, NONE, counts={"COMPLETED": 2, "SKIPPED": 1, "FAILED": 4}, begun=7)
    )["each"] == {
        "list": "{{ [1] }}",
        "var": "item",
        "task": inner,
        "size": 0,
        "index": 7,
        "completions": 3,
        "concurrency": 0,
    }
    subjob = {"name": "s", "tasks": [inner], "detached": True}
    shown = as_plain(task_view(task({"subjob": subjob}, "subjob", subjob_id="s1"), NONE))
    assert shown["subjob"] == {"id": "s1", **subjob}


def test_a_task_summary() -> None:
    made = task({"run": "x", "var": "v"}, parent_id="p", result="hunter2", progress=12.5)
    shown = as_plain(task_summary(made, Redactor(["hunter2"])))
    assert shown == {
        "id": "t1",
        "jobId": "j1",
        "parentId": "p",
        "position": 1,
        "name": "t",
        "state": "CREATED",
        "progress": 12.5,
        "createdAt": "2023-08-21T21:52:07.751041Z",
        "var": "v",
        "result": REDACTED,
    }


def test_a_schedule() -> None:
    definition = job({"secrets": {"a": "hunter2"}, "inputs": {"x": "hunter2"}}).definition
    made = ScheduleDocument(id="s", definition=definition, name="n", cron="@hourly", next_at=AT)
    shown = as_plain(schedule_view(made))
    assert shown["state"] == "ACTIVE"
    assert (shown["cron"], shown["timezone"]) == ("@hourly", "UTC")
    assert shown["nextAt"] == "2023-08-21T21:52:07.751041Z"
    assert shown["inputs"] == {"x": REDACTED}
    assert shown["secrets"] == {"a": REDACTED}
    assert shown["tasks"] == [{"name": "t", "run": "true"}]


def node(**fields: Any) -> NodeDocument:
    return NodeDocument(
        **{
            "id": "n",
            "kind": "worker",
            "name": "Worker",
            "hostname": "h",
            "version": "1",
            "started_at": AT,
            "last_heartbeat_at": AT,
            "queue": "x-n",
            **fields,
        }
    )


def test_a_node_and_its_status() -> None:
    assert as_plain(node_view(node(port=8001), AT, 5.0)) == {
        "id": "n",
        "name": "Worker",
        "startedAt": "2023-08-21T21:52:07.751041Z",
        "cpuPercent": 0.0,
        "lastHeartbeatAt": "2023-08-21T21:52:07.751041Z",
        "queue": "x-n",
        "status": "UP",
        "hostname": "h",
        "port": 8001,
        "taskCount": 0,
        "version": "1",
    }
    assert node_view(node(), AT + 15 * MICROS_PER_SECOND, 5.0).status == "UP"
    assert node_view(node(draining=True), AT + 16 * MICROS_PER_SECOND, 5.0).status == "OFFLINE"
    assert node_view(node(status="DOWN", draining=True), AT, 5.0).status == "DOWN"
    assert node_view(node(draining=True), AT, 5.0).status == "DRAINING"


def test_a_log_part() -> None:
    part = LogPartDocument(
        id="p", task_id="t", job_id="j", run=1, number=3, contents="a\nb\n", created_at=AT
    )
    assert as_plain(log_part_view(part)) == {
        "id": "p",
        "number": 3,
        "taskId": "t",
        "contents": "a\nb\n",
        "createdAt": "2023-08-21T21:52:07.751041Z",
    }


def test_who_submitted_it() -> None:
    shown = as_plain(job_summary(job(created_by=Actor(id="u", username="ann", disabled=True))))
    assert shown["createdBy"]["username"] == "ann"
    assert shown["createdBy"]["disabled"] is True


def test_what_a_template_gave_to_a_variable_with_the_key_of_a_secret_is_hidden_in_its_task() -> (
    None
):
    """Also in its result, and where it was made of a secret; the secrets of the job stay hidden as a whole."""
    evaluated = {
        "env": {
            "API_TOKEN": "pre-eu-static",
            "DB_PASSWORD": "with-hunter2-inside",
            "A_TOKEN": "unter2-and",
        },
        "cmd": ["login", "--with=pre-eu-static", "with-hunter2-inside"],
    }
    made = msgspec.convert({"name": "t", **evaluated}, language.TaskDefinition)
    said = "pre-eu-static, with-hunter2-inside, hunter2-and-more, unter2-and"
    ran = task({"run": "r"}, evaluated=made, result=said)
    shown = task_view(ran, Redactor(["hunter2", "hunter2-and-more"]))
    assert shown.cmd == ["login", f"--with={REDACTED}", REDACTED]
    assert shown.result == ", ".join([REDACTED] * 4)
    assert task_summary(ran, Redactor(["hunter2", "hunter2-and-more"])).result == shown.result
    assert task_view(ran, Redactor((), ["PIN"])).result == said
