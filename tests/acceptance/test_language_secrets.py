"""Secrets are real inside a task and [REDACTED] in every way out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.definitions import each, job, named, parallel, says, subjob, task
from tests.acceptance.processes import Standalone, wait_for
from tests.acceptance.receiving import receiver
from tests.acceptance.streams import streaming

pytestmark = pytest.mark.xdist_group("shell")

Make = Callable[..., Standalone]

SECRET = "open-sesame-1234567"
OTHER = "correct horse\nbattery ü staple"

ECHO = 'echo "it is $S"; printf %s "$S" > "$TORK_OUTPUT"'


def everything(server: Standalone, job_id: str) -> str:
    """Return all that the API answers of a job, as one text."""
    found = [server.get(f"/jobs/{job_id}"), server.get("/jobs?size=20")]
    found += [server.get(f"/jobs/{job_id}/log?size=100"), server.get(f"/jobs/{job_id}/tasks")]
    for ran in found[0]["execution"]:
        found += [server.get(f"/tasks/{ran['id']}"), server.get(f"/tasks/{ran['id']}/log?size=100")]
        if inner := ran.get("subjob", {}).get("id"):
            found.append(everything(server, inner))
    with streaming(f"{server.url}/jobs/{job_id}/log/stream") as stream:
        wait_for(lambda: "event: end" in stream.text, 20, "the end of the log")
        return json.dumps(found, ensure_ascii=False) + server.log_of(job_id) + stream.text


def test_a_secret_stands_in_nothing_that_leaves(standalone: Make, tmp_path: Path) -> None:
    server = standalone(HAULIER_LOGGING_LEVEL="debug")
    seen = tmp_path / "seen"
    with receiver() as hooks, streaming(f"{server.url}/events") as events:
        definition = job(
            task(f'printf %s "$S" > {seen}; {ECHO}', env={"S": "{{ secrets.a }}"}, var="leak"),
            task(name="says {{ secrets.a }}", env={"PLAIN": "x{{ secrets.b }}x"}),
            each("[secrets.a]", task(ECHO, name="in each", env={"S": "{{ item.value }}"})),
            subjob(
                task(ECHO, env={"S": "{{ inputs.i }}"}, name="in subjob", var="o"),
                inputs={"i": "{{ secrets.a }}"},
                output="{{ tasks.o }}",
                name="sub {{ secrets.a }}",
            ),
            task('echo "$S" >&2; exit 3', name="fails", env={"S": "{{ tasks.leak }}"}),
            name=f"job {SECRET}",
            description=f"about {SECRET}",
            inputs={"given": SECRET},
            secrets={"a": SECRET, "b": OTHER},
            webhooks=[
                {"url": hooks.url + "/{{ secrets.a }}", "headers": {"X-Key": "{{ secrets.a }}"}},
                {"url": hooks.url + "/tasks", "event": "task.StateChange"},
            ],
        )
        job_id = server.submit(definition)
        done = server.wait_job(job_id)
        assert done["state"] == "FAILED"
        told = wait_for(
            lambda: [r for r in hooks.at(f"/{SECRET}") if r.body["state"] == "FAILED"],
            20,
            "the webhook of the failure, at its real address",
        )
        wait_for(
            lambda: [e for e in events.events if e["jobId"] == job_id and e["state"] == "FAILED"],
            20,
            "the event of the failure",
        )
    assert seen.read_text() == SECRET
    assert told[0].headers["x-key"] == SECRET
    bodies = "".join(request.raw.decode() for request in hooks.requests)
    for way, text in {
        "answers": everything(server, job_id),
        "webhooks": bodies,
        "events": events.text,
        "the process's own log": server.text(),
    }.items():
        assert SECRET not in text, (way, around(text, SECRET))
        assert "battery ü staple" not in text, way
    assert "[REDACTED]" in done["error"]


def around(text: str, value: str) -> str:
    """Return where a value stands in a text."""
    at = text.find(value)
    return text[max(0, at - 200) : at + 100]


def test_the_next_task_gets_the_real_value_of_a_redacted_result(
    shell: Standalone, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    done = shell.wait_job(
        shell.submit(
            job(
                says("{{ secrets.s }}", var="r"),
                task(f'printf %s "$R" > {seen}', env={"R": "{{ tasks.r }}"}),
                secrets={"s": SECRET},
                output="got {{ tasks.r }}",
            )
        )
    )
    assert seen.read_text() == SECRET
    assert done["result"] == "got [REDACTED]"
    assert done["context"]["tasks"] == {"r": "[REDACTED]"}
    assert done["secrets"] == {"s": "[REDACTED]"}


@pytest.mark.parametrize(
    "script",
    [
        'printf %s "${S%567}"; sleep 0.4; printf %s\\\\n "567"',
        'printf o; sleep 0.2; printf pen-; sleep 0.2; echo sesame-1234567; echo "$S$S"',
        'head -c 65530 /dev/zero | tr "\\0" x; echo "$S"; head -c 70000 /dev/zero | tr "\\0" y',
        'i=0; while [ $i -lt 3000 ]; do echo "$i $S"; i=$((i+1)); done',
        'head -c 1048570 /dev/zero | tr "\\0" x; printf %s "$S"; echo; echo "$S" >&2',
    ],
)
def test_a_value_split_over_two_writes_or_parts_is_redacted_too(
    shell: Standalone, script: str
) -> None:
    definition = job(task(script, env={"S": "{{ secrets.s }}"}), secrets={"s": SECRET})
    job_id = shell.submit(definition)
    assert shell.wait_job(job_id)["state"] == "COMPLETED"
    log = shell.log_of(job_id)
    assert "[REDACTED]" in log
    assert SECRET not in log
    assert "sesame" not in log.replace("\n", "")


def test_what_a_template_gives_to_a_variable_with_the_key_of_a_secret_is_redacted(
    shell: Standalone,
) -> None:
    env = {"DB_PASSWORD": "{{ tasks.f }}-of-the-day", "API_TOKEN": "pre-{{ inputs.region }}-static"}
    definition = job(
        says("fetched", var="f"),
        task('echo "$DB_PASSWORD $API_TOKEN" | tee "$TORK_OUTPUT"', env=env, name="uses"),
        inputs={"region": "eu"},
    )
    job_id = shell.submit(definition)
    done = shell.wait_job(job_id)
    assert shell.log_of(job_id).count("[REDACTED] [REDACTED]") == 1
    (used,) = named(done, "uses")
    assert used["result"].strip() == "[REDACTED] [REDACTED]"
    assert set(used["env"].values()) == {"[REDACTED]"}


def test_a_value_of_several_lines_is_redacted_in_the_log(shell: Standalone) -> None:
    definition = job(task('echo "<$S>"', env={"S": "{{ secrets.s }}"}), secrets={"s": OTHER})
    job_id = shell.submit(definition)
    shell.wait_job(job_id)
    assert shell.log_of(job_id) == "<[REDACTED]>\n"


def test_a_short_value_is_redacted_only_where_it_is_a_whole_value(shell: Standalone) -> None:
    done = shell.wait_job(
        shell.submit(
            job(
                says("{{ secrets.s }}", name="whole"),
                says("x{{ secrets.s }}x", name="inside"),
                task('echo "abc$S"', env={"S": "{{ secrets.s }}"}),
                secrets={"s": "abc", "none": ""},
            )
        )
    )
    assert named(done, "whole")[0]["result"] == "[REDACTED]"
    assert named(done, "inside")[0]["result"] == "xabcx"
    assert shell.log_of(done["id"]) == "abcabc\n"


def test_names_that_sound_secret_are_redacted_declared_or_not(shell: Standalone) -> None:
    env = {"MY_PASSWORD": "p", "AWS_ACCESS_KEY_ID": "a", "secretly": "s", "PLAIN": "shown"}
    done = shell.wait_job(
        shell.submit(
            job(
                task('echo "$PLAIN"', env=env),
                inputs={"db_password": "p", "user": "u"},
                webhooks=[{"url": "http://localhost:9/", "headers": {"X-Secret": "v", "X": "w"}}],
            )
        )
    )
    shown = dict.fromkeys(env, "[REDACTED]") | {"PLAIN": "shown"}
    assert done["execution"][0]["env"] == done["tasks"][0]["env"] == shown
    assert done["inputs"] == {"db_password": "[REDACTED]", "user": "u"}
    assert done["context"]["inputs"]["db_password"] == "[REDACTED]"
    assert done["webhooks"][0]["headers"] == {"X-Secret": "[REDACTED]", "X": "w"}
    states = {done["state"], done["execution"][0]["state"]}
    assert states == {"COMPLETED"}


def test_ids_states_and_names_of_fields_are_never_touched(shell: Standalone) -> None:
    words = {"a": "COMPLETED", "b": "execution", "c": "state", "d": "guest", "e": "2026"}
    done = shell.wait_job(shell.submit(job(task(), secrets=words)))
    assert done["state"] == done["execution"][0]["state"] == "COMPLETED"
    assert done["createdBy"]["username"] == "guest"
    assert done["createdAt"].startswith("20")


def test_a_webhook_that_cannot_be_delivered_gives_no_secret_to_the_log(standalone: Make) -> None:
    server = standalone(HAULIER_COORDINATOR_WEBHOOKS_ATTEMPTS="1", HAULIER_LOGGING_LEVEL="debug")
    hooks = [
        {"url": "http://localhost:1/{{ secrets.s }}"},
        {"url": "http://{{ secrets.s }}.invalid/"},
        {"url": "{{ secrets.s }}"},
        {"url": "http://localhost:1/", "headers": {"X": "{{ secrets.s }}\n"}},
        {"url": "http://localhost:1/", "if": "secrets.s"},
        {"url": "http://localhost:1/", "if": "job.name + 1"},
        {"url": "http://localhost:1/{{ date(secrets.s) }}"},
    ]
    job_id = server.submit(job(task(), secrets={"s": SECRET}, webhooks=hooks, name=SECRET))
    server.wait_job(job_id)
    wait_for(lambda: server.text().count("a webhook was not delivered") >= 4, 30, "the failures")
    wait_for(lambda: "webhooks[6]" in server.text(), 30, "the one that cannot be evaluated")
    assert SECRET not in server.text()


def test_secrets_rest_encrypted_where_a_key_is_set(standalone: Make, tmp_path: Path) -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
    server = standalone(HAULIER_ENCRYPTION_KEY=key)
    inner = task(ECHO, env={"S": "{{ inputs.i }}"}, var="o")
    definition = job(
        parallel(task(ECHO, name="says {{ secrets.s }}", env={"S": "{{ secrets.s }}"}, var="v")),
        each("[secrets.s]", task(ECHO, env={"S": "{{ item.value }}"})),
        subjob(
            inner,
            inputs={"i": "{{ tasks.v }}"},
            output="{{ tasks.o }}",
            name="sub {{ secrets.s }}",
            webhooks=[{"url": "http://localhost:9/{{ secrets.s }}"}],
        ),
        task('echo "$S" >&2; exit 3', env={"S": "{{ secrets.s }}"}),
        secrets={"s": SECRET},
        output="{{ tasks.v }}",
        webhooks=[{"url": "http://localhost:9/{{ secrets.s }}"}],
    )
    done = server.wait_job(server.submit(definition))
    assert done["state"] == "FAILED"
    assert "exit code 3" in done["error"]
    assert server.terminate() == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    holding = {path.name: around_bytes(path, SECRET) for path in files}
    assert {name: found for name, found in holding.items() if found} == {}


def around_bytes(path: Path, value: str) -> str:
    """Return where a value stands in a file."""
    return (
        around(path.read_bytes().decode("latin-1"), value)
        if value.encode() in path.read_bytes()
        else ""
    )


def test_the_log_of_a_subjob_is_free_of_its_parents_secrets(shell: Standalone) -> None:
    inner = task('echo "$S"', env={"S": "{{ inputs.i }}"})
    definition: Any = job(
        subjob(subjob(inner, inputs={"i": "{{ inputs.i }}"}), inputs={"i": "{{ secrets.s }}"}),
        secrets={"s": SECRET},
    )
    done = shell.wait_job(shell.submit(definition))
    middle = shell.job(named(done, "subjob")[0]["subjob"]["id"])
    deepest = named(middle, "subjob")[0]["subjob"]["id"]
    assert shell.log_of(deepest) == "[REDACTED]\n"
    assert SECRET not in json.dumps(shell.job(deepest))


def test_a_detached_subjob_keeps_the_secrets_of_a_parent_that_is_deleted(
    shell: Standalone, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = f'until [ -e {gate} ]; do sleep 0.05; done; {ECHO}; echo "$S" >&2; exit 3'
    inner = task(script, name="says {{ inputs.i }}", env={"S": "{{ inputs.i }}"})
    definition = job(
        subjob(inner, detached=True, inputs={"i": "{{ secrets.s }}"}), secrets={"s": SECRET}
    )
    parent = shell.wait_job(shell.submit(definition))
    detached = named(parent, "subjob")[0]["subjob"]["id"]
    shell.wait_state(detached, "RUNNING")
    assert shell.call("DELETE", f"/jobs/{parent['id']}")[0] == 200
    wait_for(lambda: shell.call("GET", f"/jobs/{parent['id']}")[0] == 404, 20, "its deletion")
    gate.touch()
    done = shell.wait_job(detached)
    assert done["state"] == "FAILED"
    assert "[REDACTED]" in done["error"]
    assert shell.log_of(detached) == "it is [REDACTED]\n[REDACTED]\n"
    assert SECRET not in everything(shell, detached)
