"""Every rule of the language, by a document that breaks it and one that just keeps it."""

from uuid import uuid4

import pytest

from shared.model import queues
from shared.model.queues import RESERVED_QUEUES
from tests.unit.model.reading import job_of, messages_of, task_of, task_problems

RUN = "run: x"
HINT = '; for braces that are no expression write {{ "{{" }}'


@pytest.mark.parametrize(
    "fields",
    [
        "run: x",
        "cmd: [x]",
        "entrypoint: [x]",
        "image: postgres",
        f"{RUN}, priority: 0",
        f"{RUN}, priority: 9",
        f"{RUN}, timeout: 1ns",
        f"{RUN}, timeout: 1.5h",
        f"{RUN}, retry: {{limit: 1, initialDelay: 0s}}",
        f"{RUN}, retry: {{limit: 10, initialDelay: 5m, scalingFactor: 10, jitter: 1}}",
        f"{RUN}, retry: {{}}",
        f"{RUN}, limits: {{cpus: 1.5, memory: 512m, pids: 10}}",
        f"{RUN}, limits: {{pids: -1}}",
        f"{RUN}, gpus: all",
        f"{RUN}, gpus: 2",
        f"{RUN}, gpus: 'device=0,1'",
        f"""{RUN}, gpus: 'count=2,driver=nvidia,"capabilities=utility,compute"'""",
        f"{RUN}, workdir: /{'a' * 255}",
        f"{RUN}, var: {'a' * 64}",
        f"{RUN}, var: '{{{{ {'a' * 64} }}}}'",
        f"{RUN}, queue: {'q' * 128}",
        f"{RUN}, queue: 'high priority é'",
        f"{RUN}, queue: '{{{{ inputs.queue }}}}'",
        f"{RUN}, files: {{a: x, b/c.txt: y, ..c: z, d..: w}}",
        f"{RUN}, registry: {{username: u, password: p}}",
        f"{RUN}, networks: [a]",
        f"{RUN}, mounts: [{{type: volume, target: /a}}, {{type: tmpfs, target: /b}}]",
        f"{RUN}, mounts: [{{type: bind, source: /a, target: /a, opts: {{ro: true}}}}]",
        f"{RUN}, mounts: [{{type: volume, target: /tork/workdir/data}}]",
        f"{RUN}, mounts: [{{type: tmpfs, target: /torks}}]",
        f"{RUN}, pre: [{{run: x}}], post: [{{image: a}}]",
        f"{RUN}, sidecars: [{{image: a, probe: {{path: /up, port: 80, timeout: 1m}}}}]",
        f"{RUN}, sidecars: [{{image: a, probe: {{}}}}]",
        "parallel: {tasks: [{run: x}]}",
        "parallel: {tasks: [{run: x}]}, image: '', env: {}, retry: {}, limits: ~, pre: []",
        "each: {list: '[1]', task: {run: x}}",
        "each: {list: '{{ [1] }}', var: elément_1, concurrency: 99999, task: {run: x}}",
        "each: {list: '[1]', concurrency: 0, task: {run: x}}",
        "subjob: {name: s, tasks: [{run: x}], detached: true}",
    ],
)
def test_what_is_allowed(fields: str) -> None:
    assert task_of(fields)["name"] == "t"


DURATION = "is not a duration: write a number and a unit, like 90s, 1h30m or 250ms"
QUEUE_NAME = "the name of a queue must have 1 to 128 printable characters"


@pytest.mark.parametrize(
    ("fields", "path", "said"),
    [
        ("description: d", "", "nothing to do: give it run, cmd, entrypoint or image"),
        (f"{RUN}, priority: 10", ".priority", "must be from 0 to 9"),
        (f"{RUN}, priority: -1", ".priority", "must be from 0 to 9"),
        (f"{RUN}, timeout: 5", ".timeout", f'"5" {DURATION}'),
        (f"{RUN}, timeout: 0s", ".timeout", "must be more than 0s"),
        (f"{RUN}, timeout: -5s", ".timeout", "must be more than 0s"),
        (f"{RUN}, retry: {{limit: 0}}", ".retry.limit", "must be from 1 to 10"),
        (f"{RUN}, retry: {{limit: 11}}", ".retry.limit", "must be from 1 to 10"),
        (
            f"{RUN}, retry: {{jitter: .5}}",
            ".retry.limit",
            "required, here or in the job's defaults",
        ),
        (
            f"{RUN}, retry: {{limit: 1, initialDelay: 301s}}",
            ".retry.initialDelay",
            "must be at most 5m0s",
        ),
        (
            f"{RUN}, retry: {{limit: 1, initialDelay: -1s}}",
            ".retry.initialDelay",
            "must not be negative",
        ),
        (
            f"{RUN}, retry: {{limit: 1, scalingFactor: 11}}",
            ".retry.scalingFactor",
            "must be from 1 to 10",
        ),
        (f"{RUN}, retry: {{limit: 1, jitter: 1.1}}", ".retry.jitter", "must be from 0 to 1"),
        (
            f"{RUN}, limits: {{cpus: lots}}",
            ".limits.cpus",
            '"lots" is not a number of CPUs: use a form like ".5" or "2"',
        ),
        (
            f"{RUN}, limits: {{memory: lots}}",
            ".limits.memory",
            '"lots" is not an amount of memory: use a form like "512m" or "1.5g"',
        ),
        (
            f"{RUN}, limits: {{pids: -2}}",
            ".limits.pids",
            "must be a whole number, at least 1, or -1 for no limit",
        ),
        (f"{RUN}, gpus: some", ".gpus", 'must be as in Docker\'s --gpus: "all", "2" or "device=0"'),
        (f"{RUN}, gpus: '{'9' * 5000}'", ".gpus", "must be at most 1000 printable characters"),
        (
            f"{RUN}, gpus: '{'9' * 20}'",
            ".gpus",
            'must be as in Docker\'s --gpus: "all", "2" or "device=0"',
        ),
        (f"{RUN}, gpus: ٣", ".gpus", 'must be as in Docker\'s --gpus: "all", "2" or "device=0"'),
        (
            f"{RUN}, gpus: 'count=some'",
            ".gpus",
            'must be as in Docker\'s --gpus: "all", "2" or "device=0"',
        ),
        (f"{RUN}, gpus: '2,device=0'", ".gpus", "give a count or devices, not both"),
        (f"{RUN}, workdir: /{'a' * 256}", ".workdir", "must have at most 256 characters, has 257"),
        (f"{RUN}, var: {'a' * 65}", ".var", "must have at most 64 characters, has 65"),
        (f"{RUN}, tags: [{'a, ' * 101}]", ".tags", "at most 100, but there are 101"),
        (
            f"{RUN}, pre: [{{image: a, run: x, description: {'a' * 10_001}}}]",
            ".pre[0].description",
            "must have at most 10,000 characters, has 10,001",
        ),
        (
            f"subjob: {{name: s, tags: [{'a' * 257}], tasks: [{{run: x}}]}}",
            ".subjob.tags[0]",
            "must have at most 256 characters, has 257",
        ),
        (f"{RUN}, queue: {'q' * 129}", ".queue", QUEUE_NAME),
        (f'{RUN}, queue: "a\\tb"', ".queue", QUEUE_NAME),
        (f"{RUN}, queue: {'😀' * 64}", ".queue", "the name of a queue can have at most 255 bytes"),
        (
            f"{RUN}, queue: x-1",
            ".queue",
            'names that begin with "x-" are kept for the workers\' own queues',
        ),
        (f"{RUN}, queue: amq.x", ".queue", 'names that begin with "amq." are kept by the broker'),
        (
            f"{RUN}, env: {{A=B: x}}",
            '.env["A=B"]',
            "the name of a variable must not be empty or contain =",
        ),
        (
            f"{RUN}, env: {{'': x}}",
            '.env[""]',
            "the name of a variable must not be empty or contain =",
        ),
        (f"{RUN}, files: {{/a: x}}", '.files["/a"]', "the name of a file must not be absolute"),
        (f"{RUN}, files: {{a/../b: x}}", '.files["a/../b"]', 'a file\'s name must not hold ".."'),
        (f"{RUN}, files: {{..: x}}", '.files[".."]', 'a file\'s name must not hold ".."'),
        (f"{RUN}, files: {{'': x}}", '.files[""]', "must be the name of a file, not of a folder"),
        (
            f"{RUN}, files: {{a/: x}}",
            '.files["a/"]',
            "must be the name of a file, not of a folder",
        ),
        (
            f"{RUN}, files: {{./.: x}}",
            '.files["./."]',
            "must be the name of a file, not of a folder",
        ),
        (f"{RUN}, files: {{a: x, ./a: x}}", '.files["./a"]', "the same file as a"),
        (
            f"{RUN}, files: {{a: x, a/b: x}}",
            '.files["a/b"]',
            "one of its parent folders is also a file here",
        ),
        (f"{RUN}, networks: [' ']", ".networks[0]", "must not be blank"),
        (f"{RUN}, mounts: [{{target: /a}}]", ".mounts[0].type", "required"),
        (
            f"{RUN}, mounts: [{{type: Volume, target: /a}}]",
            ".mounts[0].type",
            'must be volume, bind or tmpfs, did you mean "volume"?',
        ),
        (f"{RUN}, mounts: [{{type: volume}}]", ".mounts[0].target", "required"),
        (
            f"{RUN}, mounts: [{{type: tmpfs, target: a}}]",
            ".mounts[0].target",
            "must be an absolute path",
        ),
        (
            f"{RUN}, mounts: [{{type: volume, source: s, target: /a}}]",
            ".mounts[0].source",
            "a volume mount can't have a source",
        ),
        (
            f"{RUN}, mounts: [{{type: bind, target: /a}}]",
            ".mounts[0].source",
            "required for a bind mount",
        ),
        (
            f"{RUN}, mounts: [{{type: bind, source: a, target: /a}}]",
            ".mounts[0].source",
            "must be an absolute path on the host",
        ),
        (
            f"{RUN}, mounts: [{{type: tmpfs, target: /a}}, {{type: tmpfs, target: /b/../a/}}]",
            ".mounts[1].target",
            "another mount has the same target",
        ),
        (
            f"{RUN}, pre: [{{name: p}}]",
            ".pre[0]",
            "nothing to do: give it run, cmd, entrypoint or image",
        ),
        (f"{RUN}, post: [{{run: x, mounts: []}}]", ".post[0].mounts", "unknown field"),
        (f"{RUN}, pre: [{{run: x, probe: {{}}}}]", ".pre[0].probe", "unknown field"),
        (
            f"{RUN}, sidecars: [{{image: a, probe: {{port: 70000}}}}]",
            ".sidecars[0].probe.port",
            "must be from 1 to 65535",
        ),
        (
            f"{RUN}, sidecars: [{{image: a, probe: {{path: up}}}}]",
            ".sidecars[0].probe.path",
            "must begin with /",
        ),
        ("parallel: {}", ".parallel.tasks", "required: at least one"),
        ("parallel: {tasks: []}", ".parallel.tasks", "required: at least one"),
        ("each: {task: {run: x}}", ".each.list", "required"),
        ("each: {list: '[1]'}", ".each.task", "required"),
        (
            "each: {list: '[1]', concurrency: 100000, task: {run: x}}",
            ".each.concurrency",
            "must be from 0 to 99999",
        ),
        (
            "each: {list: '[1]', var: 1a, task: {run: x}}",
            ".each.var",
            "must be a name: letters, digits and _, not starting with a digit",
        ),
        ("subjob: {tasks: [{run: x}]}", ".subjob.name", "required"),
        ("subjob: {name: s}", ".subjob.tasks", "required: at least one"),
        (
            "subjob: {name: s, permissions: [{user: a}], tasks: [{run: x}]}",
            ".subjob.permissions",
            "a sub-job has the permissions of its parent",
        ),
        (
            "subjob: {name: s, schedule: {cron: '@daily'}, tasks: [{run: x}]}",
            ".subjob.schedule",
            "only on POST /scheduled-jobs",
        ),
        (
            "parallel: {tasks: [{run: x}]}, each: {list: '[1]', task: {run: x}}",
            ".each",
            "a task can be one of parallel, each and subjob, and this has parallel too",
        ),
        (
            "each: {list: '[1]', task: {run: x}}, subjob: {name: s, tasks: [{run: x}]}",
            ".subjob",
            "a task can be one of parallel, each and subjob, and this has each too",
        ),
        (f"{RUN}, pre: [{{run: x, timeout: soon}}]", ".pre[0].timeout", f'"soon" {DURATION}'),
    ],
)
def test_what_is_not(fields: str, path: str, said: str) -> None:
    assert task_problems(fields) == [f"tasks[0]{path}: {said}"]


@pytest.mark.parametrize(
    "target", ["/tork", "/tork/", "//tork", "/a/../tork", "/tork/stdout", "/tork/entrypoint"]
)
def test_no_mount_over_the_tasks_own_files(target: str) -> None:
    assert task_problems(f"{RUN}, mounts: [{{type: tmpfs, target: {target}}}]") == [
        "tasks[0].mounts[0].target: must not be /tork, where the task's own files are"
    ]


def test_two_spellings_of_a_target_are_one() -> None:
    mounts = "{type: tmpfs, target: //data}, {type: tmpfs, target: /data/.}"
    assert task_problems(f"{RUN}, mounts: [{mounts}]") == [
        "tasks[0].mounts[1].target: another mount has the same target"
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("networks: ['a:b']", "networks[0]: the name of a network must not contain a colon"),
        (
            "networks: [none, b]",
            "networks[0]: none can't be combined with other networks or with sidecars",
        ),
        (
            "networks: [b, host]",
            "networks[1]: host can't be combined with other networks or with sidecars",
        ),
        (
            "networks: [host], sidecars: [{image: a}]",
            "networks[0]: host can't be combined with other networks or with sidecars",
        ),
        (
            "mounts: [{type: bind, source: /a, target: /a, opts: {ReadOnly: 'true', size: 1m}}]",
            "mounts[0].opts.size: a bind mount supports only the options readonly and propagation",
        ),
        (
            "workdir: /tork/stdout",
            "workdir: must not be /tork/stdout, which is a file of the task's own",
        ),
        (
            "workdir: //tork/./entrypoint/a",
            "workdir: must not be /tork/entrypoint, which is a file of the task's own",
        ),
        (
            "workdir: /tork, files: {./stdout: a}",
            'files["./stdout"]: must not be /tork/stdout, which is a file of the task\'s own',
        ),
        (
            "workdir: /tork/a/.., files: {progress/a: a}",
            'files["progress/a"]: must not be /tork/progress, which is a file of the task\'s own',
        ),
    ],
)
def test_what_no_worker_can_do_is_refused_at_once(fields: str, said: str) -> None:
    assert task_problems(f"{RUN}, {fields}") == [f"tasks[0].{said}"]


def test_what_a_worker_may_do_is_taken() -> None:
    for fields in (
        "networks: [none, none]",
        "networks: [a, b], sidecars: [{image: a}]",
        "mounts: [{type: bind, source: /a, target: /a, opts: {RO: '', Bind-Propagation: rshared}}]",
        "mounts: [{type: volume, target: /a, opts: {size: 1m}}]",
        "workdir: /tork/workdir/stdout, files: {stdout: a}",
        "workdir: /tork, files: {a/stdout: a, out: b}",
        "workdir: /work/stdout, files: {progress: a}",
    ):
        assert task_of(f"{RUN}, {fields}")


@pytest.mark.parametrize("target", ["/", "//", "/.", "/a/.."])
def test_no_mount_over_the_root(target: str) -> None:
    assert task_problems(f"{RUN}, mounts: [{{type: tmpfs, target: {target}}}]") == [
        "tasks[0].mounts[0].target: must not be the root of the container"
    ]


def test_a_queue_may_begin_as_those_of_coordinators_do() -> None:
    assert task_of(f"{RUN}, queue: events-x")
    assert queues.is_task_queue("events-x")
    own = f"events-{uuid4().hex}"
    assert not queues.is_task_queue(own)
    assert task_problems(f"{RUN}, queue: {own}") == [
        f'tasks[0].queue: "{own}" is a queue of the engine\'s own'
    ]


@pytest.mark.parametrize("queue", sorted(RESERVED_QUEUES))
def test_no_queue_of_the_engines_own(queue: str) -> None:
    assert task_problems(f"{RUN}, queue: {queue}") == [
        f'tasks[0].queue: "{queue}" is a queue of the engine\'s own'
    ]


def test_the_engines_own_queues_are_all_known() -> None:
    assert queues.COORDINATOR_QUEUES <= RESERVED_QUEUES


@pytest.mark.parametrize(
    "field",
    [
        "image: a",
        "cmd: [a]",
        "entrypoint: [a]",
        "run: a",
        "env: {A: b}",
        "queue: q",
        "pre: [{run: x}]",
        "post: [{run: x}]",
        "mounts: [{type: tmpfs, target: /a}]",
        "retry: {limit: 1}",
        "limits: {cpus: 1}",
        "timeout: 1s",
    ],
)
@pytest.mark.parametrize(
    "composite",
    [
        "parallel: {tasks: [{run: x}]}",
        "each: {list: '[1]', task: {run: x}}",
        "subjob: {name: s, tasks: [{run: x}]}",
    ],
)
def test_a_composite_is_no_container(field: str, composite: str) -> None:
    name, kind = field.partition(":")[0], composite.partition(":")[0]
    assert task_problems(f"{field}, {composite}") == [
        f"tasks[0].{name}: not allowed together with {kind}"
    ]


def test_a_composite_may_have_the_rest() -> None:
    fields = "description: d, tags: [a], var: v, if: 'true', priority: 1"
    assert task_of(f"{fields}, parallel: {{tasks: [{{run: x}}]}}")["var"] == "v"


def nested(depth: int) -> str:
    inner = "run: x"
    for level in range(depth):
        inner = (
            f"parallel: {{tasks: [{{{inner}}}]}}",
            f"each: {{list: '[1]', task: {{{inner}}}}}",
            f"subjob: {{name: s, tasks: [{{{inner}}}]}}",
        )[level % 3]
    return inner


def test_composites_nest_sixteen_deep() -> None:
    assert task_of(nested(16))["name"] == "t"


@pytest.mark.parametrize("depth", [17, 20])
def test_composites_nest_no_deeper(depth: int) -> None:
    said = task_problems(nested(depth))
    assert len(said) == depth - 16
    assert all(message.endswith(": nested more than 16 levels deep") for message in said)


def test_names_are_required_at_the_top_only() -> None:
    assert messages_of("{name: ' ', tasks: [{run: x}, {name: '', run: x}]}") == [
        "name: required",
        "tasks[0].name: required",
        "tasks[1].name: required",
    ]
    inner = "{run: x, pre: [{run: x}], post: [{run: x}], sidecars: [{image: a}]}"
    assert task_of(f"each: {{list: '[1]', task: {{parallel: {{tasks: [{inner}]}}}}}}")
    assert task_of("subjob: {name: s, tasks: [{run: x}]}")


@pytest.mark.parametrize("tasks", ["", "tasks: ,", "tasks: [],", "tasks: ~,"])
def test_a_job_has_tasks(tasks: str) -> None:
    assert messages_of(f"{{{tasks} name: j}}") == ["tasks: required: at least one"]


EVENTS = "job.StateChange, job.Progress, task.StateChange or task.Progress"
JOB = "name: j, tasks: [{name: t, run: x}]"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("permissions: [{user: a, role: b}]", "permissions[0]: needs exactly one of user and role"),
        ("permissions: [{}]", "permissions[0]: needs exactly one of user and role"),
        ("permissions: [{user: ''}]", "permissions[0]: needs exactly one of user and role"),
        ("permissions: [{user: [a]}]", "permissions[0].user: expected text, got a list"),
        ("autoDelete: {}", "autoDelete.after: required"),
        ("autoDelete: {after: later}", f'autoDelete.after: "later" {DURATION}'),
        ("autoDelete: 5h", 'autoDelete: expected a map, got the text "5h"'),
        ("wait: {}", "wait.timeout: required"),
        ("wait: {timeout: 0s}", "wait.timeout: must be more than 0s"),
        ("schedule: {cron: '@daily'}", "schedule: only on POST /scheduled-jobs"),
        ("webhooks: [{}]", "webhooks[0].url: required"),
        ("webhooks: [{url: here}]", "webhooks[0].url: must be an http:// or https:// URL"),
        ("webhooks: [{url: 'http://'}]", "webhooks[0].url: is not a complete URL"),
        ("webhooks: [{url: 'http://a b'}]", "webhooks[0].url: is not a complete URL"),
        (
            "webhooks: [{url: 'http://a', event: job.statechange}]",
            f'webhooks[0].event: must be {EVENTS}, did you mean "job.StateChange"?',
        ),
        (
            "webhooks: [{url: 'http://a', headers: {A B: c}}]",
            'webhooks[0].headers["A B"]: not a valid HTTP header name',
        ),
        (
            'webhooks: [{url: "http://a", headers: {A: "b\\r\\nC: d"}}]',
            "webhooks[0].headers.A: an HTTP header must not contain line breaks",
        ),
        ("defaults: {queue: jobs}", 'defaults.queue: "jobs" is a queue of the engine\'s own'),
        ("defaults: {priority: 10}", "defaults.priority: must be from 0 to 9"),
        ("defaults: {timeout: 1}", f'defaults.timeout: "1" {DURATION}'),
        ("defaults: {retry: {limit: 11}}", "defaults.retry.limit: must be from 1 to 10"),
        ("defaults: {image: a}", "defaults.image: unknown field"),
        ("inputs: {a: [1]}", "inputs.a: expected text, got a list"),
        ("inputs: {'': a}", 'inputs[""]: the name must not be empty'),
        ("tags: a", 'tags: expected a list, got the text "a"'),
        ("tags: [[a]]", "tags[0]: expected text, got a list"),
        (f"tags: [{'a, ' * 101}]", "tags: at most 100, but there are 101"),
        (f"tags: [a, {'é' * 257}]", "tags[1]: must have at most 256 characters, has 257"),
        (
            f"description: {'é' * 10_001}",
            "description: must have at most 10,000 characters, has 10,001",
        ),
        ("nmae: j", 'nmae: unknown field, did you mean "name"?'),
        ("Tasks: []", 'Tasks: unknown field, did you mean "tasks"?'),
    ],
)
def test_a_jobs_own_rules(fields: str, said: str) -> None:
    assert messages_of(f"{{{JOB}, {fields}}}") == [said]


@pytest.mark.parametrize(
    "fields",
    [
        "permissions: [{user: a}, {role: b}]",
        "autoDelete: {after: 0s}",
        f"tags: [{'a, ' * 99} {'a' * 256}], description: {'é' * 10_000}",
        "wait: {timeout: 5m}",
        "webhooks: [{url: 'https://a.b/c?d', event: task.Progress, secret: s, if: 'true'}]",
        "webhooks: [{url: '{{ inputs.hook }}', headers: {A: '{{ secrets.token }}'}}]",
        "inputs: {a: b}, secrets: {c: d}, output: done",
        "defaults: {retry: {jitter: 1}, limits: {pids: 5}, timeout: 1h, queue: q, priority: 1}",
    ],
)
def test_what_a_job_may_have(fields: str) -> None:
    assert job_of(f"{{{JOB}, {fields}}}").name == "j"


def test_a_retry_may_take_its_limit_from_the_defaults() -> None:
    task = "tasks: [{name: t, parallel: {tasks: [{run: x, retry: {jitter: 1}}]}}]"
    assert job_of(f"{{name: j, defaults: {{retry: {{limit: 2}}}}, {task}}}")
    assert messages_of(f"{{name: j, {task}}}") == [
        "tasks[0].parallel.tasks[0].retry.limit: required, here or in the job's defaults"
    ]


def test_a_sub_job_has_only_its_own_defaults() -> None:
    inner = "tasks: [{run: x, retry: {jitter: 1}}]"
    defaults = "defaults: {retry: {limit: 2}}"
    taken = f"{{name: j, tasks: [{{name: t, subjob: {{name: s, {defaults}, {inner}}}}}]}}"
    refused = f"{{name: j, {defaults}, tasks: [{{name: t, subjob: {{name: s, {inner}}}}}]}}"
    assert job_of(taken)
    assert messages_of(refused) == [
        "tasks[0].subjob.tasks[0].retry.limit: required, here or in the job's defaults"
    ]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        (f"{RUN}, name: '%s'", ".name"),
        ("image: '%s'", ".image"),
        ("cmd: [a, '%s']", ".cmd[1]"),
        (f"{RUN}, env: {{A: '%s'}}", ".env.A"),
        (f"{RUN}, var: '%s'", ".var"),
        (f"{RUN}, queue: '%s'", ".queue"),
        (f"{RUN}, if: '%s'", ".if"),
        (f"{RUN}, registry: {{username: '%s'}}", ".registry.username"),
        (f"{RUN}, registry: {{password: '%s'}}", ".registry.password"),
        ("run: x, pre: [{run: x, env: {A: '%s'}}]", ".pre[0].env.A"),
        ("run: x, sidecars: [{run: x, image: '%s'}]", ".sidecars[0].image"),
        ("each: {list: '%s', task: {run: x}}", ".each.list"),
        ("subjob: {name: '%s', tasks: [{run: x}]}", ".subjob.name"),
        ("subjob: {name: s, inputs: {a: '%s'}, tasks: [{run: x}]}", ".subjob.inputs.a"),
        ("subjob: {name: s, secrets: {a: '%s'}, tasks: [{run: x}]}", ".subjob.secrets.a"),
        ("subjob: {name: s, output: '%s', tasks: [{run: x}]}", ".subjob.output"),
        (
            "subjob: {name: s, webhooks: [{url: 'http://a', headers: {A: '%s'}}], tasks: [{run: x}]}",
            ".subjob.webhooks[0].headers.A",
        ),
        (
            "subjob: {name: s, webhooks: [{url: 'http://a', if: '%s'}], tasks: [{run: x}]}",
            ".subjob.webhooks[0].if",
        ),
    ],
)
def test_templates_and_expressions_are_well_formed(fields: str, path: str) -> None:
    name = "" if "name: '%s'" in fields and path == ".name" else "name: t, "
    document = f"{{name: j, tasks: [{{{name}{fields}}}]}}"
    said = 'bad expression "1 +": unexpected end of expression' + HINT
    assert messages_of(document.replace("%s", "a {{ 1 + }}")) == [f"tasks[0]{path}: {said}"]
    assert job_of(document.replace("%s", "{{ 1 + 1 }}"))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            "{template: 'a {{ 1 + }}'}",
            '.template: bad expression "1 +": unexpected end of expression' + HINT,
        ),
        ("{template: ''}", ".template: required"),
        ("{}", ".template: required"),
        ("{template: a, mode: b}", ".mode: unknown field"),
        ("{template: [a]}", ".template: expected text, got a list"),
        ("[a]", ": expected text, got a list"),
    ],
)
def test_a_file_is_a_text_or_a_template(value: str, said: str) -> None:
    for inside in ("%s", "pre: [{%s}], run: x", "sidecars: [{%s}], run: x"):
        (message,) = task_problems(inside % f"run: x, files: {{a: {value}}}")
        assert message.endswith(f"files.a{said}")


@pytest.mark.parametrize(
    "fields",
    [
        "run: '{{ 1 + }}'",
        "entrypoint: ['{{ 1 + }}']",
        "run: x, files: {a: '{{ 1 + }}'}",
        "run: x, env: {A: '{{', B: '{{}}', C: '}} {{'}",
        "run: x, description: '{{ 1 + }}'",
    ],
)
def test_what_is_no_template_may_look_like_one(fields: str) -> None:
    assert task_of(fields)


@pytest.mark.parametrize("expression", ["1 +", "unheard(1)", "a b", "'", "len()", "(" * 5_000])
def test_bare_expressions_are_well_formed(expression: str) -> None:
    for fields in ("run: x, if: %s", "each: {list: %s, task: {run: x}}"):
        (said,) = task_problems(fields % ('"' + expression + '"'))
        assert ": bad expression " in said
        assert len(said) < 300


@pytest.mark.parametrize(
    ("schedule", "problem"),
    [
        ("{}", "schedule.cron: required (or at, to fire once)"),
        ("{cron: '@daily', at: 5m}", "schedule: can't have both cron and at"),
        (
            "{at: tomorrow}",
            "schedule.at: must be a time such as 2030-01-31T06:30:00Z, or a duration from now such as 2h30m",
        ),
        ("{at: '2030-02-30T00:00:00Z'}", "is not a time"),
        ("{at: '2030-01-31 06:30'}", "must be a time such as"),
        ("{at: -5m}", "a duration from now must be more than 0s"),
        ("{at: 0s}", "a duration from now must be more than 0s"),
        ("{at: 900000h}", "at most 100 years"),
        ("{cron: '@daily', overlap: maybe}", "must be allow, skip, queue or cancel"),
    ],
)
def test_a_schedule_that_can_not_be(schedule: str, problem: str) -> None:
    text = "{name: j, tasks: [{name: t, run: x}], schedule: " + schedule + "}"
    (found,) = messages_of(text, scheduled=True)
    assert problem in found


def test_a_schedule() -> None:
    schedule = "{cron: '0 5 * * *', timezone: %s, catchup: %s}"
    text = "{name: j, tasks: [{name: t, run: x}], schedule: " + schedule + "}"
    job = job_of(text % ("Europe/Berlin", "last"), scheduled=True)
    assert job.schedule is not None
    assert job.schedule.timezone == "Europe/Berlin"
    assert messages_of(text % ("Mars", "some"), scheduled=True) == [
        'schedule.timezone: "Mars" is not a time zone: write an IANA name like Europe/Berlin',
        "schedule.catchup: must be none, last or all",
    ]


def test_a_scheduled_job_has_a_schedule() -> None:
    assert messages_of(f"{{{JOB}}}", scheduled=True) == ["schedule: required for a scheduled job"]
    assert messages_of(f"{{{JOB}, schedule: {{}}}}", scheduled=True) == [
        "schedule.cron: required (or at, to fire once)"
    ]
    assert messages_of(f"{{{JOB}, schedule: {{cron: '* *'}}}}", scheduled=True) == [
        "schedule.cron: a schedule has five fields (minute hour day month weekday), this has 2"
    ]


def test_every_fault_at_once_in_the_order_of_the_document() -> None:
    assert messages_of(
        """
        nam: j
        tasks:
          - name: one
            retry: {limt: 2, jitter: 7}
            imge: alpine
          - 3
          - name: three
            run: [x]
            timeout: soon
            env: {A: b, A: c}
            each: {concurrency: many}
        wait: {}
        schedule: {cron: never}
        """
    ) == [
        'nam: unknown field, did you mean "name"?',
        "name: required",
        "tasks[0]: nothing to do: give it run, cmd, entrypoint or image",
        "tasks[0].retry.limit: required, here or in the job's defaults",
        'tasks[0].retry.limt: unknown field, did you mean "limit"?',
        "tasks[0].retry.jitter: must be from 0 to 1",
        'tasks[0].imge: unknown field, did you mean "image"?',
        "tasks[1]: expected a map, got the number 3",
        "tasks[2].run: expected text, got a list",
        f'tasks[2].timeout: "soon" {DURATION}',
        "tasks[2].timeout: not allowed together with each",
        "tasks[2].env: not allowed together with each",
        "tasks[2].env.A: duplicate key",
        "tasks[2].each.list: required",
        "tasks[2].each.task: required",
        'tasks[2].each.concurrency: expected a whole number, got the text "many"',
        "wait.timeout: required",
        "schedule: only on POST /scheduled-jobs",
        "schedule.cron: a schedule has five fields (minute hour day month weekday), this has 1",
    ]


def test_secrets_are_bounded() -> None:
    for count, size, problem in [
        (1000, 1, None),
        (1001, 1, "secrets: at most 1,000 secrets"),
        (64, 1024, None),
        (64, 1025, "secrets: at most 64 KiB of values"),
    ]:
        text = ", ".join(f"k{n}: {'x' * size}" for n in range(count))
        document = f"{{{JOB}, secrets: {{{text}}}}}"
        if problem is None:
            assert len(job_of(document).secrets) == count
        else:
            assert messages_of(document) == [problem]


def test_webhooks_are_bounded() -> None:
    for count, problems in [(100, []), (101, ["webhooks: at most 100, but there are 101"])]:
        hooks = ", ".join(["{url: 'http://h'}"] * count)
        document = f"{{{JOB}, webhooks: [{hooks}]}}"
        assert (messages_of(document) if problems else []) == problems
        assert problems or len(job_of(document).webhooks) == count


def test_permissions_are_bounded() -> None:
    for count, problems in [(100, []), (101, ["permissions: at most 100, but there are 101"])]:
        document = f"{{{JOB}, permissions: [{', '.join(['{role: user}'] * count)}]}}"
        assert (messages_of(document) if problems else []) == problems
        assert problems or len(job_of(document).permissions) == count


@pytest.mark.parametrize(
    ("field", "item", "most"),
    [
        ("sidecars", "{name: s%d, image: a}", 10),
        ("pre", "{name: p%d, run: a}", 50),
        ("post", "{name: p%d, run: a}", 50),
        ("networks", "n%d", 20),
        ("mounts", "{type: volume, target: /m%d}", 100),
    ],
)
def test_what_belongs_to_a_task_is_bounded(field: str, item: str, most: int) -> None:
    def document(count: int) -> str:
        items = ", ".join(item % number for number in range(count))
        return f"{{name: j, tasks: [{{name: t, image: a, run: b, {field}: [{items}]}}]}}"

    assert len(getattr(job_of(document(most)).tasks[0], field)) == most
    (said,) = messages_of(document(most + 1))
    assert said.endswith(f"{field}: at most {most}, but there are {most + 1}")


TASK = "name: t, image: a, run: b"
SMALL, LARGE = "s" * 1024, "l" * (64 * 1024)


def test_a_secret_that_is_in_many_places_counts_once() -> None:
    task = f"{{{TASK}, registry: {{username: u, password: {SMALL}}}}}"
    assert job_of(
        f"{{name: j, secrets: {{s: {LARGE[:-2048]}}}, tasks: [{', '.join([task] * 99)}]}}"
    )


@pytest.mark.parametrize(
    "document",
    [
        f"tasks: [{{{TASK}, registry: {{username: u, password: {LARGE}+}}}}]",
        f"tasks: [{{{TASK}}}], webhooks: [{{url: 'http://h', secret: {LARGE}}}]",
        f"tasks: [{{name: t, subjob: {{name: s, secrets: {{a: {LARGE}}}, tasks: [{{{TASK}}}]}}}}]",
        f"tasks: [{', '.join(f'{{{TASK}, registry: {{username: u, password: p{n}}}}}' for n in range(1001))}]",
    ],
    ids=["registry", "webhook", "sub-job", "many"],
)
def test_secrets_are_bounded_wherever_in_the_job_they_are(document: str) -> None:
    assert messages_of(f"{{name: j, secrets: {{s: {SMALL}}}, {document}}}") == [
        "secrets: at most 1,000 values of 64 KiB in all, with those of registries, webhooks and sub-jobs"
    ]


@pytest.mark.parametrize("name", ["Host", "Transfer-Encoding", "proxy-connection"])
def test_a_webhook_steers_no_connection(name: str) -> None:
    webhooks = f"webhooks: [{{url: 'http://h', headers: {{{name}: x}}}}]"
    (problem,) = messages_of(f"{{{JOB}, {webhooks}}}")
    assert "it steers the connection" in problem
