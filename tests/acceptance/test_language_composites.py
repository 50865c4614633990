"""`parallel`, `each` and `subjob`: what they grow, how they end, nested in any mix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.definitions import (
    each,
    job,
    most_at_once,
    named,
    parallel,
    results,
    says,
    seconds,
    subjob,
    task,
)
from tests.acceptance.processes import Server, Standalone, wait_for

pytestmark = pytest.mark.xdist_group("shell")

ITEM = "{{ toJSON(item.value) }}|{{ item.index }}"


def run(server: Server, *tasks: dict[str, Any], **fields: Any) -> Any:
    """Run a job to its end."""
    return server.wait_job(server.submit(job(*tasks, **fields)))


# --- each: over what ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("[]", []),
        ("{}", []),
        ("[7]", ["7|0"]),
        ("{{ ['a', nil, 1.5, true, [1, 2], {'k': 'v'}] }}",
         ['"a"|0', "null|1", "1.5|2", "true|3", "[\n  1,\n  2\n]|4", '{\n  "k": "v"\n}|5']),
        ("sequence(3, 6)", ["3|0", "4|1", "5|2"]),
        ("sequence(3, 3)", []),
        ("1..3", ["1|0", "2|1", "3|2"]),
        ("fromJSON(inputs.list)", ['"x"|0', "2|1"]),
        ("split(tasks.lines, ' ')", ['"one"|0', '"two"|1']),
        ("filter(1..9, # % 4 == 0)", ["4|0", "8|1"]),
        ("{'b': 2, 'a': 1}", ["1|0", "2|1"]),
    ],
)  # fmt: skip
def test_each_goes_over_any_list_or_map(shell: Standalone, items: str, expected: list[str]) -> None:
    done = run(
        shell,
        says("one two", name="lines", var="lines"),
        each(items, says(ITEM)),
        task(name="after"),
        inputs={"list": '["x", 2]'},
    )
    assert done["state"] == "COMPLETED", done
    assert sorted(results(done)) == sorted(expected)
    (parent,) = named(done, "each")
    assert parent["each"]["size"] == parent["each"]["completions"] == len(expected)


@pytest.mark.parametrize("items", ["1", "'text'", "nil", "true", "inputs.list", "job.id", "1.5"])
def test_each_over_what_is_no_list_fails_and_says_so(shell: Standalone, items: str) -> None:
    done = run(shell, each(items, task()), inputs={"list": "[1, 2]"})
    assert done["state"] == "FAILED"
    assert "each" in done["error"]
    assert "list" in done["error"]
    assert named(done, "task") == []


def test_each_over_a_list_that_cannot_be_built_fails_fast(shell: Standalone) -> None:
    done = run(shell, each("sequence(1, int(inputs.n))", task()), inputs={"n": "1000000000000"})
    assert done["state"] == "FAILED"
    assert "each" in done["error"]


# --- each: the loop variable --------------------------------------------------------------------------------------


def test_a_loop_variable_hides_inputs_inside_and_only_there(shell: Standalone) -> None:
    done = run(
        shell,
        each("['a', 'b']", says("{{ inputs.value }}{{ inputs.index }}"), var=""),
        each("['a']", says("{{ inputs.value }}", name="hidden"))
        | {"each": {"list": "['a']", "var": "inputs",
                    "task": says("{{ inputs.value }}", name="hidden")}},
        says("{{ inputs.value }}", name="outside"),
        inputs={"value": "outer"},
    )  # fmt: skip
    assert results(done) == ["outer", "outer"]
    assert results(done, "hidden") == ["a"]
    assert results(done, "outside") == ["outer"]


def test_loop_variables_of_all_levels_are_in_scope_and_inner_ones_win(shell: Standalone) -> None:
    inner = {"name": "in", "each": {"list": "[row.value, 'z']", "var": "column",
                                    "task": says("{{ row.value }}{{ column.value }}")}}  # fmt: skip
    same = {"name": "same", "each": {"list": "[item.value + 'i']",
                                     "task": says("{{ item.value }}", name="inner")}}  # fmt: skip
    done = run(
        shell,
        {"name": "out", "each": {"list": "['a', 'b']", "var": "row", "task": inner}},
        each("['x']", same),
    )
    assert sorted(results(done)) == ["aa", "az", "bb", "bz"]
    assert results(done, "inner") == ["xi"]


def test_each_child_has_a_var_of_its_own(shell: Standalone) -> None:
    done = run(
        shell,
        each("1..3", says("{{ item.value * 10 }}", var="n{{ item.index }}")),
        output="{{ tasks.n0 }} {{ tasks.n1 }} {{ tasks.n2 }}",
    )
    assert done["result"] == "10 20 30"


def test_a_child_with_if_is_skipped_alone(shell: Standalone) -> None:
    inner = says("{{ item.value }}", **{"if": "item.value % 2 == 0"})
    done = run(shell, each("1..4", inner))
    assert done["state"] == "COMPLETED"
    states = [ran["state"] for ran in named(done, "task")]
    assert sorted(states) == ["COMPLETED", "COMPLETED", "SKIPPED", "SKIPPED"]


# --- each: how many at once ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 3])
def test_concurrency_bounds_what_runs_at_once(shell: Standalone, concurrency: int) -> None:
    done = run(shell, each("1..9", task("sleep 0.3")) | {
        "each": {"list": "1..9", "concurrency": concurrency, "task": task("sleep 0.3")}})  # fmt: skip
    assert done["state"] == "COMPLETED"
    ran = named(done, "task")
    assert len(ran) == 9
    assert most_at_once(ran) == concurrency


def test_one_at_a_time_goes_in_order(shell: Standalone, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    inner = task(f'echo "$N" >> {trace}', env={"N": "{{ item.value }}"})
    run(shell, {"name": "each", "each": {"list": "1..8", "concurrency": 1, "task": inner}})
    assert trace.read_text().split() == [str(n) for n in range(1, 9)]


def test_concurrency_bounds_composite_children_too(shell: Standalone) -> None:
    pair = parallel(task("sleep 0.2", name="a"), task("sleep 0.2", name="b"))
    done = run(shell, {"name": "each", "each": {"list": "1..4", "concurrency": 1, "task": pair}})
    assert done["state"] == "COMPLETED"
    assert most_at_once(named(done, "parallel")) == 1
    assert most_at_once([*named(done, "a"), *named(done, "b")]) <= 2


def test_a_retried_child_keeps_its_slot(shell: Standalone) -> None:
    inner = task(
        'sleep 0.1; test "$HAULIER_ATTEMPT" = 2', retry={"limit": 1, "initialDelay": "200ms"}
    )
    done = run(shell, {"name": "each", "each": {"list": "1..3", "concurrency": 1, "task": inner}})
    assert done["state"] == "COMPLETED"
    order = sorted(named(done, "task"), key=lambda ran: seconds(ran["startedAt"]))
    assert [ran["state"] for ran in order] == ["FAILED", "COMPLETED"] * 3


# --- parallel -----------------------------------------------------------------------------------------------------


def test_parallel_runs_all_at_once_and_ends_with_the_last(shell: Standalone) -> None:
    done = run(
        shell,
        parallel(*(task("sleep 0.8", name=f"t{n}") for n in range(4))),
        task(name="after"),
    )
    assert done["state"] == "COMPLETED"
    children = [named(done, f"t{n}")[0] for n in range(4)]
    assert most_at_once(children) == 4
    (parent,), (after,) = named(done, "parallel"), named(done, "after")
    assert all(child["parentId"] == parent["id"] for child in children)
    last = max(seconds(child["completedAt"]) for child in children)
    assert last <= seconds(parent["completedAt"]) <= seconds(after["startedAt"])
    assert parent["parallel"]["completions"] == 4


@pytest.mark.parametrize("wrap", ["parallel", "each", "subjob", "nested"])
def test_a_child_that_fails_fails_all_above_and_stops_its_siblings(
    shell: Standalone, wrap: str
) -> None:
    failing, slow = task("sleep 0.5; exit 7", name="fails"), task("sleep 60", name="slow")
    composite = {
        "parallel": parallel(failing, slow),
        "each": each("['exit 7', 'sleep 60']", task("sh -c \"$RUN\"", name="slow",
                                                    env={"RUN": "{{ item.value }}"})),
        "subjob": subjob(parallel(failing, slow)),
        "nested": parallel(each("[1]", subjob(parallel(failing))), slow),
    }[wrap]  # fmt: skip
    job_id = shell.submit(job(composite, task(name="never")))
    done = shell.wait_job(job_id, within=20)
    assert done["state"] == "FAILED"
    assert "7" in done["error"]
    assert named(done, "never") == []
    wait_for(lambda: not active_below(shell, job_id), 10, "nothing active")
    states = {ran["state"] for ran in all_tasks(shell, job_id)}
    assert states <= {"FAILED", "CANCELLED"}
    assert {ran["state"] for ran in named(done, composite["name"])} == {"FAILED"}


# --- sub-jobs -----------------------------------------------------------------------------------------------------


def test_data_goes_into_a_subjob_by_templates_and_out_by_its_output(shell: Standalone) -> None:
    done = run(
        shell,
        says("from-parent", name="before", var="v"),
        subjob(
            says("{{ inputs.a }}|{{ secrets.b }}|{{ tasks.v }}|{{ job.name }}", var="x"),
            name="sub {{ inputs.n }}",
            inputs={"a": "{{ tasks.v }}-{{ inputs.n }}", "raw": "{{ secrets.key }}"},
            secrets={"b": "{{ secrets.key }}"},
            output="({{ tasks.x }})",
            task_fields={"var": "answer"},
        ),
        inputs={"n": "3"},
        secrets={"key": "hidden-value"},
        output="{{ tasks.answer }}",
    )
    assert done["state"] == "COMPLETED", done
    assert done["result"] == "(from-parent-3|[REDACTED]||sub 3)"
    (parent,) = named(done, "subjob")
    inner = shell.job(parent["subjob"]["id"])
    assert (inner["parentId"], inner["name"]) == (parent["id"], "sub 3")
    assert inner["inputs"]["a"] == "from-parent-3"
    assert "hidden-value" not in json.dumps([done, inner])


def test_a_subjob_sees_nothing_of_its_parent(shell: Standalone) -> None:
    inner = says("{{ inputs.x }}{{ tasks.v }}{{ secrets.s }}", var="o")
    done = run(
        shell,
        says("v", name="before", var="v"),
        subjob(inner, output="[{{ tasks.o }}]", task_fields={"var": "r"}),
        inputs={"x": "1"},
        secrets={"s": "2"},
        output="{{ tasks.r }}",
    )
    assert done["result"] == "[]"


def test_a_loop_variable_reaches_a_subjob_by_its_inputs(shell: Standalone) -> None:
    inner = subjob(
        says("{{ inputs.n }}", var="o"),
        inputs={"n": "{{ item.value }}"},
        output="{{ tasks.o }}",
    )
    done = run(shell, each("['p', 'q']", inner))
    assert sorted(results(done, "subjob")) == ["p", "q"]


def test_a_detached_subjob_goes_its_own_way(shell: Standalone, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    waiting = task(f"until [ -e {gate} ]; do sleep 0.05; done; exit 1")
    done = run(shell, subjob(waiting, detached=True), task(name="after"))
    assert done["state"] == "COMPLETED"
    (parent,) = named(done, "subjob")
    inner = shell.wait_state(parent["subjob"]["id"], "RUNNING")
    assert "parentId" not in inner
    gate.touch()
    assert shell.wait_job(inner["id"])["state"] == "FAILED"
    assert shell.job(done["id"])["state"] == "COMPLETED"


def test_a_cancel_reaches_attached_subjobs_and_not_detached_ones(
    shell: Standalone, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    waiting = task(f"until [ -e {gate} ]; do sleep 0.05; done")
    job_id = shell.submit(
        job(parallel(subjob(waiting, detached=True), subjob(waiting, name="attached")))
    )
    wait_for(lambda: len(running_below(shell, job_id)) == 2, 20, "the task of each")
    first, second = named(shell.job(job_id), "subjob")
    detached = next(s for s in (first, second) if s["state"] == "COMPLETED")["subjob"]["id"]
    attached = next(s for s in (first, second) if s["state"] == "RUNNING")["subjob"]["id"]
    shell.wait_state(detached, "RUNNING")
    assert shell.call("PUT", f"/jobs/{job_id}/cancel")[0] == 200
    shell.wait_state(attached, "CANCELLED", within=10)
    gate.touch()
    assert shell.wait_job(detached)["state"] == "COMPLETED"


def test_a_cancelled_subjob_cancels_its_parent_task_and_job(shell: Standalone) -> None:
    job_id = shell.submit(job(parallel(subjob(task("sleep 60")))))
    inner = wait_for(lambda: subjob_ids(shell, job_id), 20, "the sub-job")[0]
    shell.wait_state(inner, "RUNNING")
    assert shell.call("PUT", f"/jobs/{inner}/cancel")[0] == 200
    done = shell.wait_job(job_id, within=10)
    assert done["state"] == "CANCELLED"
    wait_for(lambda: not active_below(shell, job_id), 10, "nothing active")


def test_a_subjob_has_defaults_tags_and_an_end_of_its_own(shell: Standalone) -> None:
    done = run(
        shell,
        subjob(task(), description="d", tags=["x"], defaults={"queue": "video"},
               autoDelete={"after": "1h"}, wait={"timeout": "1ms"}),
        defaults={"queue": "default"},
    )  # fmt: skip
    inner = shell.job(named(done, "subjob")[0]["subjob"]["id"])
    assert (inner["description"], inner["tags"]) == ("d", ["x"])
    assert inner["execution"][0]["queue"] == "video"
    assert seconds(inner["deleteAt"]) - seconds(inner["completedAt"]) == pytest.approx(3600)
    assert inner["createdBy"]["username"] == "guest"


# --- deep ---------------------------------------------------------------------------------------------------------

KINDS = ("parallel", "each", "subjob")


def nest(levels: int, inner: dict[str, Any]) -> dict[str, Any]:
    """Return `inner` below so many composites, of the three kinds in turn."""
    for level in range(levels, 0, -1):
        match KINDS[level % 3]:
            case "parallel":
                inner = parallel(inner)
            case "each":
                inner = each("[1]", inner)
            case _:
                inner = subjob(inner)
    return inner


def test_composites_nest_to_a_depth_of_sixteen(shell: Standalone) -> None:
    done = run(shell, nest(16, task("echo deep", name="deepest")))
    assert done["state"] == "COMPLETED", done
    deepest = [ran for ran in all_tasks(shell, done["id"]) if ran["name"] == "deepest"]
    assert len(deepest) == 1
    status, log = shell.call("GET", f"/tasks/{deepest[0]['id']}/log")
    assert (status, log["items"][0]["contents"]) == (200, "deep\n")


def test_a_depth_of_seventeen_is_refused(shell: Standalone) -> None:
    definition = json.dumps(job(nest(17, task())))
    status, body = shell.call("POST", "/jobs", definition, {"Content-Type": "application/json"})
    assert status == 400
    assert "16" in body["message"]


def test_a_cancel_goes_down_through_every_level(shell: Standalone) -> None:
    job_id = shell.submit(job(nest(9, task("sleep 60", name="deepest"))))
    wait_for(lambda: running_below(shell, job_id), 30, "the deepest running")
    assert shell.call("PUT", f"/jobs/{job_id}/cancel") == (200, {"status": "OK"})
    wait_for(lambda: not active_below(shell, job_id), 15, "nothing active")
    assert {ran["state"] for ran in all_tasks(shell, job_id)} == {"CANCELLED"}


def test_a_failure_goes_up_through_every_level_and_a_restart_runs_it_anew(
    shell: Standalone, tmp_path: Path
) -> None:
    flag = tmp_path / "flag"
    job_id = shell.submit(
        job(
            says("kept", name="first", var="kept"),
            nest(9, task(f"test -e {flag} || exit 5", name="deepest")),
            says("{{ tasks.kept }}", name="last", var="out"),
            output="{{ tasks.out }}",
        )
    )
    failed = shell.wait_job(job_id)
    assert failed["state"] == "FAILED"
    assert "5" in failed["error"]
    flag.touch()
    assert shell.call("PUT", f"/jobs/{job_id}/restart") == (200, {"status": "OK"})
    done = wait_for(
        lambda: (found := shell.job(job_id))["state"] == "COMPLETED" and found, 30, "completed"
    )
    assert done["result"] == "kept"
    assert "error" not in done
    assert len(named(done, "first")) == 1
    assert done["position"] == 4


def test_a_restart_in_the_middle_of_nested_composites_runs_each_anew(
    shell: Standalone, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    inner = parallel(
        task("true", name="quick"), task(f"until [ -e {gate} ]; do sleep 0.05; done", name="slow")
    )
    job_id = shell.submit(job(each("1..3", subjob(inner))))

    def slow_running() -> set[str]:
        return {ran["id"] for ran in running_below(shell, job_id) if ran["name"] == "slow"}

    wait_for(lambda: len(slow_running()) == 3, 30, "three running")
    first = slow_running()
    assert shell.call("PUT", f"/jobs/{job_id}/cancel")[0] == 200
    assert shell.call("PUT", f"/jobs/{job_id}/restart")[0] == 200
    # What ran before is cancelled right after the answers: the gate must stay shut until it is.
    wait_for(lambda: len(slow_running() - first) == len(slow_running()) == 3, 30, "three anew")
    gate.touch()
    done = shell.wait_job(job_id)
    assert done["state"] == "COMPLETED"
    ran = all_tasks(shell, job_id)
    assert not [one for one in ran if one["state"] in ACTIVE]
    slow = [one["state"] for one in ran if one["name"] == "slow"]
    assert sorted(slow) == ["CANCELLED"] * 3 + ["COMPLETED"] * 3


# --- progress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["each", "parallel"])
def test_progress_of_a_composite_and_its_job_follow(
    shell: Standalone, tmp_path: Path, kind: str
) -> None:
    gate = tmp_path / "gate"
    waiting = task(f'test "$N" -le 3 || until [ -e {gate} ]; do sleep 0.05; done')
    if kind == "each":
        composite = each("1..4", waiting | {"env": {"N": "{{ item.value }}"}})
    else:
        composite = parallel(*(waiting | {"env": {"N": str(n)}} for n in range(1, 5)))
    job_id = shell.submit(job(composite, task(name="after")))
    wait_for(
        lambda: [ran["state"] for ran in named(shell.job(job_id), "task")].count("COMPLETED") == 3,
        20,
        "three of four done",
    )
    wait_for(lambda: named(shell.job(job_id), kind)[0]["progress"] == 75, 3, "its progress")
    wait_for(lambda: shell.job(job_id)["progress"] == 37.5, 3, "the job's progress")
    gate.touch()
    done = shell.wait_job(job_id)
    assert done["progress"] == named(done, kind)[0]["progress"] == 100


def test_progress_of_a_deep_task_reaches_the_root_within_two_seconds(
    shell: Standalone, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    script = f'echo 50 > "$TORK_PROGRESS"; until [ -e {gate} ]; do sleep 0.05; done'
    job_id = shell.submit(job(nest(6, task(script, name="deepest"))))
    wait_for(lambda: running_below(shell, job_id), 30, "the deepest running")
    wait_for(lambda: shell.job(job_id)["progress"] == 50, 2.5, "the root's progress")
    assert {ran["progress"] for ran in all_tasks(shell, job_id)} == {50}
    gate.touch()
    assert shell.wait_job(job_id)["progress"] == 100


# --- what is below a job ------------------------------------------------------------------------------------------

ACTIVE = ("CREATED", "PENDING", "SCHEDULED", "RUNNING")


def subjob_ids(server: Server, job_id: str) -> list[str]:
    """Return the ids of a job's own sub-jobs."""
    return [
        ran["subjob"]["id"]
        for ran in server.job(job_id)["execution"]
        if ran.get("subjob", {}).get("id")
    ]


def all_tasks(server: Server, job_id: str) -> list[Any]:
    """Return all tasks of a job and of its sub-jobs, however deep."""
    found = list(server.job(job_id)["execution"])
    for inner in subjob_ids(server, job_id):
        found += all_tasks(server, inner)
    return found


def active_below(server: Server, job_id: str) -> list[Any]:
    """Return the tasks of a job, however deep, that have not ended."""
    return [ran for ran in all_tasks(server, job_id) if ran["state"] in ACTIVE]


def running_below(server: Server, job_id: str) -> list[Any]:
    """Return the container tasks of a job, however deep, that run."""
    return [ran for ran in all_tasks(server, job_id) if ran["state"] == "RUNNING" and "run" in ran]
