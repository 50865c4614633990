"""What is written reads back as it was written."""

import msgspec
import pytest
import yaml

from shared.model.language import (
    Each,
    JobDefinition,
    Parallel,
    SubJob,
    TaskDefinition,
    kind_of_task,
)
from shared.model.views.redacted import as_written
from tests.unit.model.reading import job_of, task_problems

WHOLE = """\
name: whole
description: every field once
tags: [a, b]
tasks:
  - name: '{{ inputs.name }}'
    description: d
    tags: [c]
    image: 'alpine:{{ inputs.version }}'
    run: |
      echo {{ not a template }}
    cmd: [a, '{{ inputs.a }}']
    entrypoint: [sh, -c]
    env: {A: '{{ inputs.a }}', B: '', C: '8080'}
    files: {a/b: contents, c: {template: "{{ job.id }}"}}
    workdir: /w
    var: out
    if: '{{ inputs.a == "b" }}'
    queue: fast
    priority: 0
    timeout: 1h30m
    retry: {limit: 2, initialDelay: 2s, scalingFactor: 1.5, jitter: 0.5}
    limits: {cpus: '.5', memory: 512m, pids: 100}
    gpus: all
    registry: {username: u, password: p}
    mounts:
      - {type: volume, target: /v, opts: {size: 1g}}
      - {type: bind, source: /s, target: /b}
    networks: [n]
    pre: [{run: x, timeout: 5s}]
    post: [{image: i}]
    sidecars: [{name: s, image: i, probe: {path: /, port: 80, timeout: 5s}}]
  - name: p
    parallel: {tasks: [{run: x}]}
  - name: e
    each: {list: '[1]', var: it, concurrency: 0, task: {run: x}}
  - name: s
    subjob:
      name: s
      tasks: [{run: x}]
      inputs: {a: '{{ inputs.a }}'}
      secrets: {b: '{{ secrets.b }}'}
      output: o
      detached: true
      autoDelete: {after: 5h}
      webhooks: [{url: 'http://a'}]
inputs: {a: b, name: n, version: '3'}
secrets: {b: c}
output: '{{ tasks.out }}'
defaults: {retry: {limit: 1}, limits: {pids: 5}, timeout: 5m, queue: q, priority: 3}
autoDelete: {after: 24h}
webhooks: [{url: 'http://a', event: task.Progress, headers: {H: v}, if: 'true', secret: s}]
permissions: [{user: u}, {role: r}]
wait: {timeout: 1m}
"""


def test_a_job_reads_back_as_it_was_submitted() -> None:
    assert msgspec.to_builtins(as_written(job_of(WHOLE))) == yaml.safe_load(WHOLE)


def test_a_job_can_be_submitted_again() -> None:
    job = job_of(WHOLE)
    assert job_of(msgspec.json.encode(as_written(job)).decode(), "json") == job
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobDefinition) == job


def test_files_that_are_templates_are_stored_beside_those_that_are_texts() -> None:
    """A version that knows no templates of files reads what is stored."""
    files = "files: {a: x, b.yml: {template: '{{ job.id }}'}}"
    small = f"{{image: i, {files}}}"
    task = f"{{name: t, run: x, {files}, pre: [{small}], post: [{small}], sidecars: [{small}]}}"
    job = job_of(f"name: j\ntasks: [{{name: e, each: {{list: '[1]', task: {task}}}}}]")
    each = job.tasks[0].each
    assert each is not None
    assert each.task is not None
    for kept in (each.task, *each.task.pre, *each.task.post, *each.task.sidecars):
        assert (kept.files, kept.file_templates) == ({"a": "x"}, {"b.yml": "{{ job.id }}"})
    (problem,) = task_problems("run: x, fileTemplates: {a: x}")
    assert "fileTemplates: unknown field" in problem


def test_a_stored_job_of_another_version_is_read() -> None:
    stored = b'{"name": "j", "colour": "red", "tasks": [{"name": "t", "shape": {"round": true}}]}'
    assert msgspec.json.decode(stored, type=JobDefinition) == JobDefinition(
        name="j", tasks=[TaskDefinition(name="t")]
    )


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        (TaskDefinition(run="x"), "container"),
        (TaskDefinition(parallel=Parallel()), "parallel"),
        (TaskDefinition(each=Each()), "each"),
        (TaskDefinition(subjob=SubJob()), "subjob"),
    ],
)
def test_kinds(task: TaskDefinition, kind: str) -> None:
    assert kind_of_task(task) == kind


def test_the_loop_variable() -> None:
    assert Each().variable == "item"
    assert Each(var="row").variable == "row"
