"""The job language of single tasks: conditions, outputs, templates, defaults, priorities, time limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.definitions import job, named, parallel, results, says, seconds, subjob, task
from tests.acceptance.processes import Server, Standalone, wait_for

pytestmark = pytest.mark.xdist_group("shell")


def run(server: Server, *tasks: dict[str, Any], **fields: Any) -> Any:
    """Run a job to its end."""
    return server.wait_job(server.submit(job(*tasks, **fields)))


# --- if -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "state"),
    [
        ("false", "SKIPPED"),
        ("{{ false }}", "SKIPPED"),
        ("{{ 1 == 2 }}", "SKIPPED"),
        ("'  false '", "SKIPPED"),
        ("inputs.go == 'no'", "SKIPPED"),
        ("true", "COMPLETED"),
        ("0", "COMPLETED"),
        ("nil", "COMPLETED"),
        ("''", "COMPLETED"),
        ("'False'", "COMPLETED"),
        ("inputs.go", "COMPLETED"),
        ("inputs.missing", "COMPLETED"),
        ("tasks.earlier == 'x'", "COMPLETED"),
        ("tasks.earlier == 'y'", "SKIPPED"),
    ],
)
def test_only_the_text_false_skips_a_task(shell: Standalone, condition: str, state: str) -> None:
    done = run(
        shell,
        says("x", name="earlier", var="earlier"),
        task(**{"if": condition}),
        task(name="after"),
        inputs={"go": "yes"},
    )
    assert done["state"] == "COMPLETED", done
    (decided,) = named(done, "task")
    assert decided["state"] == state
    assert ("startedAt" in decided) == (state == "COMPLETED")
    assert named(done, "after")[0]["state"] == "COMPLETED"


def test_an_if_that_fails_fails_the_task(shell: Standalone) -> None:
    done = run(shell, task(**{"if": "int(inputs.x) > 1"}), inputs={"x": "no number"})
    assert done["state"] == "FAILED"
    assert "'task'" in str(done["error"])


def test_a_job_whose_tasks_are_all_skipped_completes(shell: Standalone) -> None:
    done = run(shell, task(**{"if": "false"}), task(**{"if": "false"}))
    assert (done["state"], done["position"], done["progress"]) == ("COMPLETED", 3, 100)


@pytest.mark.parametrize("kind", ["parallel", "each", "subjob"])
def test_a_composite_is_skipped_whole(shell: Standalone, kind: str) -> None:
    composite = {
        "parallel": {"tasks": [task("exit 1")]},
        "each": {"list": "1..3", "task": task("exit 1")},
        "subjob": {"name": "inner", "tasks": [task("exit 1")]},
    }[kind]
    done = run(shell, {"name": "whole", kind: composite, "if": "false"}, task(name="after"))
    assert done["state"] == "COMPLETED"
    assert [ran["state"] for ran in done["execution"]] == ["SKIPPED", "COMPLETED"]


# --- var and output -----------------------------------------------------------------------------------------------


def test_outputs_go_from_task_to_task_byte_for_byte(shell: Standalone) -> None:
    text = ' two lines\nwith {{ braces }}, ünïcode, "quotes" and a tab\t\n\n'
    done = run(
        shell,
        task('printf %s "$TEXT" > "$TORK_OUTPUT"', env={"TEXT": "{{ inputs.text }}"}, var="a"),
        says("{{ tasks.a }}", name="second", var="b"),
        inputs={"text": text},
        output="{{ tasks.b }}",
    )
    assert done["result"] == text
    assert done["context"]["tasks"] == {"a": text, "b": text}


def test_the_latest_of_a_var_wins_and_text_outside_braces_stays(shell: Standalone) -> None:
    done = run(
        shell,
        says("one", var="x"),
        says("{{ tasks.x }} two", var="x"),
        output="<{{ tasks.x }}> {{ tasks.none }}.",
    )
    assert done["result"] == "<one two> ."


def test_a_task_that_fails_has_no_result(shell: Standalone) -> None:
    done = run(shell, task('echo something > "$TORK_OUTPUT"; exit 3', var="x"))
    assert (done["state"], results(done)) == ("FAILED", [None])
    assert "tasks" not in done["context"] or not done["context"]["tasks"]


def test_an_output_past_a_mebibyte_fails_and_is_never_cut(shell: Standalone) -> None:
    fits = run(shell, task('head -c 1048576 /dev/zero | tr "\\0" x > "$TORK_OUTPUT"', var="x"))
    assert fits["state"] == "COMPLETED"
    assert len(results(fits)[0]) == 1048576
    over = run(shell, task('head -c 1048577 /dev/zero | tr "\\0" x > "$TORK_OUTPUT"', var="x"))
    assert over["state"] == "FAILED"
    assert "1 MiB" in str(over["error"])


def test_a_job_output_that_cannot_be_evaluated_fails_the_job(shell: Standalone) -> None:
    done = run(shell, says("x", var="x"), output="{{ int(tasks.x) }}")
    assert done["state"] == "FAILED"
    assert "output" in str(done["error"])


# --- templates ----------------------------------------------------------------------------------------------------


def test_templates_stand_in_every_place_of_a_task(shell: Standalone) -> None:
    done = run(
        shell,
        says("first", name="earlier", var="earlier"),
        task(
            "printf %s \"$A\" > $TORK_OUTPUT; echo '{{ inputs.x }}'; cat note",
            name="named {{ inputs.x }}",
            image="image-{{ inputs.x }}",
            env={"A": "{{ inputs.x }}-{{ tasks.earlier }}-{{ job.name }}-{{ secrets.s }}"},
            files={"note": "{{ not expanded }}\n"},
            var="var_{{ inputs.x }}",
            queue="{{ inputs.queue }}",
            description="{{ plain }}",
        ),
        inputs={"x": "1", "queue": "video"},
        secrets={"s": "abc"},
        output="{{ tasks.var_1 }}",
    )
    assert done["state"] == "COMPLETED", done
    ran = named(done, "named 1")[0]
    assert (ran["image"], ran["var"], ran["queue"]) == ("image-1", "var_1", "video")
    assert ran["description"] == "{{ plain }}"
    assert ran["run"].endswith("cat note")
    assert done["result"] == "1-first-job-abc"
    assert shell.log_of(str(done["id"])) == "{{ inputs.x }}\n{{ not expanded }}\n"
    assert done["tasks"][1]["name"] == "named {{ inputs.x }}"


def test_cmd_is_a_template_and_entrypoint_is_not(shell: Standalone) -> None:
    done = run(
        shell,
        task("", name="cmd", cmd=["echo {{ inputs.x }}"], entrypoint=["sh", "-c"]),
        task("", name="entrypoint", entrypoint=["echo", "{{ inputs.x }}"]),
        inputs={"x": "value"},
    )
    assert done["state"] == "COMPLETED", done
    assert shell.log_of(str(done["id"])) == "value\n{{ inputs.x }}\n"


def test_a_template_that_fails_names_the_task_and_the_place(shell: Standalone) -> None:
    done = run(shell, task(name="broken", env={"A": "{{ int('x') }}"}))
    assert done["state"] == "FAILED"
    assert "broken" in str(done["error"])
    (ran,) = done["execution"]
    assert ran["state"] == "FAILED"
    assert ran["error"]


def test_a_queue_is_checked_again_when_it_is_evaluated(shell: Standalone) -> None:
    done = run(shell, task(queue="{{ inputs.queue }}"), inputs={"queue": "x-somebody"})
    assert done["state"] == "FAILED"
    assert "queue" in str(done["error"])


def test_a_var_is_checked_again_when_it_is_evaluated(shell: Standalone) -> None:
    done = run(shell, says("x", var="{{ repeat('v', 65) }}"))
    assert done["state"] == "FAILED"
    assert "var" in str(done["error"])


# --- files and working directory ----------------------------------------------------------------------------------


def test_files_stand_read_only_in_the_working_directory(shell: Standalone) -> None:
    done = run(
        shell,
        task(
            "cat sub/b.txt; ls -l sub/b.txt | cut -c1-10",
            files={"sub/b.txt": "inside {{ x }}\n"},
        ),
    )
    assert done["state"] == "COMPLETED", done
    assert shell.log_of(str(done["id"])) == "inside {{ x }}\n-r--r--r--\n"


def test_a_file_can_be_a_template(shell: Standalone) -> None:
    files = {"a": {"template": "{{ inputs.who }}\n"}, "b": "{{ x }}\n"}
    first = run(shell, task("cat a b", files=files), inputs={"who": "me"})
    _, again = shell.call("POST", f"/jobs/{first['id']}/rerun")
    for done in (first, shell.wait_job(again["id"])):
        assert done["state"] == "COMPLETED", done
        assert shell.log_of(str(done["id"])) == "me\n{{ x }}\n"
        assert done["tasks"][0]["files"] == files
        assert done["execution"][0]["files"] == {"a": "me\n", "b": "{{ x }}\n"}


def test_a_file_of_an_item_or_of_a_sub_job_can_be_a_template(shell: Standalone) -> None:
    item = {"template": "{{ item.value }}"}
    loop = {"list": "['x']", "task": task("cat a", files={"a": item})}
    inner = task("cat a", files={"a": {"template": "{{ inputs.who }}"}})
    wrong = {"config.yml": {"template": "{{ int(inputs.who) }}"}}
    started = {"name": "sub", "inputs": {"who": "{{ inputs.who }}"}, "tasks": [inner]}
    done = run(
        shell,
        {"name": "loop", "each": loop},
        {"name": "sub", "subjob": {**started, "output": "{{ inputs.who }}"}},
        task("cat config.yml", files=wrong),
        inputs={"who": "me"},
    )
    assert done["error"].startswith("task 'task': files.config.yml.template: "), done
    assert "x" in shell.log_of(str(done["id"]))
    assert done["tasks"][0]["each"]["task"]["files"] == {"a": item}
    (sub,) = [each for each in done["execution"] if "subjob" in each]
    assert shell.log_of(str(sub["subjob"]["id"])) == "me"
    assert sub["subjob"]["tasks"][0]["files"] == inner["files"]


@pytest.mark.parametrize("name", ["../up", "/absolute", "a/../../b", ""])
def test_a_file_that_climbs_out_is_refused(shell: Standalone, name: str) -> None:
    definition = json.dumps(job(task(files={name: "x"})))
    status, body = shell.call("POST", "/jobs", definition, {"Content-Type": "application/json"})
    assert status == 400
    assert "tasks[0].files" in body["message"]


# --- queue and priority -------------------------------------------------------------------------------------------


def test_higher_priorities_go_first_within_a_queue(shell: Standalone, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    first = shell.submit(job(task(f"until [ -e {gate} ]; do sleep 0.05; done", queue="serial")))
    shell.wait_state(first, "RUNNING")
    asked = [0, 5, 9, 1, 5, 0, 9]
    ids = [shell.submit(job(task(queue="serial", priority=priority))) for priority in asked]
    wait_for(lambda: shell.get("/queues/serial")["size"] == len(asked), 20, "all published")
    gate.touch()
    done = shell.wait_jobs(ids, within=30)
    starts = [
        (seconds(done[job_id]["execution"][0]["startedAt"]), n) for n, job_id in enumerate(ids)
    ]
    assert [asked[n] for _, n in sorted(starts)] == sorted(asked, reverse=True)


def test_a_queue_without_a_worker_keeps_its_tasks(shell: Standalone) -> None:
    job_id = shell.submit(job(task(queue="nobody-here")))
    wait_for(
        lambda: [q for q in shell.get("/queues") if (q["name"], q["size"]) == ("nobody-here", 1)],
        10,
        "the task in its queue",
    )
    assert shell.job(job_id)["state"] == "SCHEDULED"
    assert shell.call("PUT", f"/jobs/{job_id}/cancel")[0] == 200


# --- timeout ------------------------------------------------------------------------------------------------------


def test_a_task_that_takes_too_long_is_stopped_and_failed(shell: Standalone) -> None:
    done = run(shell, task("sleep 60 & sleep 60", timeout="700ms"))
    assert done["state"] == "FAILED"
    (ran,) = done["execution"]
    assert "700ms" in ran["error"]
    assert 0.6 < seconds(ran["failedAt"]) - seconds(ran["startedAt"]) < 4


# --- defaults -----------------------------------------------------------------------------------------------------


def test_defaults_reach_each_task_that_does_not_set_its_own(shell: Standalone) -> None:
    done = run(
        shell,
        task("exit 0", name="plain"),
        task("exit 0", name="own", queue="default", priority=0, timeout="5s", retry={"limit": 1}),
        parallel(
            task("exit 0", name="inner"),
            {"name": "deeper", "each": {"list": "[1]", "task": task(name="innermost")}},
        ),
        subjob(task(name="t")),
        defaults={
            "queue": "video",
            "priority": 4,
            "timeout": "20s",
            "retry": {"limit": 3, "initialDelay": "10ms", "jitter": 0.5},
        },
    )
    assert done["state"] == "COMPLETED", done
    for name in ("plain", "inner", "innermost"):
        (ran,) = named(done, name)
        assert (ran["queue"], ran["priority"], ran["timeout"]) == ("video", 4, "20s"), name
        assert (ran["retry"]["limit"], ran["retry"]["initialDelay"]) == (3, "10ms"), name
    (own,) = named(done, "own")
    assert (own["queue"], own["priority"], own["timeout"]) == ("default", 0, "5s")
    assert own["retry"]["limit"] == 1
    assert (own["retry"]["initialDelay"], own["retry"]["jitter"]) == ("10ms", 0.5)
    inner = shell.job(named(done, "subjob")[0]["subjob"]["id"])
    (of_subjob,) = named(inner, "t")
    assert of_subjob["queue"] == "default"
    assert "timeout" not in of_subjob


# --- autoDelete ---------------------------------------------------------------------------------------------------


def test_a_completed_job_goes_away_with_its_tasks_and_logs(shell: Standalone) -> None:
    done = run(shell, task("echo soon gone"), autoDelete={"after": "1s"})
    assert done["state"] == "COMPLETED"
    task_id = done["execution"][0]["id"]
    paths = (f"/jobs/{done['id']}", f"/tasks/{task_id}", f"/tasks/{task_id}/log")
    wait_for(lambda: {shell.call("GET", path)[0] for path in paths} == {404}, 20, "all gone")


def test_a_failed_job_is_never_deleted_by_itself(shell: Standalone) -> None:
    failed = run(shell, task("exit 1"), autoDelete={"after": "0s"})
    marker = run(shell, task(), autoDelete={"after": "0s"})
    wait_for(lambda: shell.call("GET", f"/jobs/{marker['id']}")[0] == 404, 20, "the other gone")
    assert shell.job(str(failed["id"]))["state"] == "FAILED"
    assert "deleteAt" not in failed


# --- progress -----------------------------------------------------------------------------------------------------


def test_progress_of_task_and_job_follow_within_two_seconds(
    shell: Standalone, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = f'echo 40 > "$TORK_PROGRESS"; until [ -e {gate} ]; do sleep 0.05; done'
    job_id = shell.submit(job(task(name="first"), task(script)))
    wait_for(lambda: len(named(shell.job(job_id), "task")) == 1, 20, "the second task")
    wait_for(lambda: named(shell.job(job_id), "task")[0]["state"] == "RUNNING", 20, "it runs")
    wait_for(lambda: named(shell.job(job_id), "task")[0]["progress"] == 40, 2, "its progress")
    wait_for(lambda: shell.job(job_id)["progress"] == 70, 2, "the job's progress")
    gate.touch()
    assert shell.wait_job(job_id)["progress"] == 100
