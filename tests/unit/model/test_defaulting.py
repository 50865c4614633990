import msgspec

from coordinator.engine.new_documents import apply_defaults
from shared.model.language import Defaults, Limits, Retry, TaskDefinition
from tests.unit.model.reading import job_of

DEFAULTS = Defaults(
    retry=Retry(limit=3, initial_delay="5s"),
    limits=Limits(cpus=".5", memory="64m"),
    timeout="1m",
    queue="slow",
    priority=4,
)


def test_what_a_task_does_not_set_itself() -> None:
    assert apply_defaults(TaskDefinition(run="x"), DEFAULTS) == TaskDefinition(
        run="x",
        retry=DEFAULTS.retry,
        limits=DEFAULTS.limits,
        timeout="1m",
        queue="slow",
        priority=4,
    )


def test_what_a_task_sets_itself() -> None:
    task = TaskDefinition(
        run="x",
        retry=Retry(limit=1, jitter=0),
        limits=Limits(memory="1g", pids=5),
        timeout="2m",
        queue="fast",
        priority=0,
    )
    assert apply_defaults(task, DEFAULTS) == TaskDefinition(
        run="x",
        retry=Retry(limit=1, initial_delay="5s", jitter=0),
        limits=Limits(cpus=".5", memory="1g", pids=5),
        timeout="2m",
        queue="fast",
        priority=0,
    )


def test_without_defaults() -> None:
    task = TaskDefinition(run="x", retry=Retry(limit=1))
    assert apply_defaults(task, None) is task
    assert apply_defaults(task, Defaults()) == task


def test_inner_tasks_get_them_and_composites_do_not() -> None:
    job = job_of(
        """
        name: j
        defaults: {timeout: 1m, queue: slow}
        tasks:
          - name: t
            parallel:
              tasks:
                - each: {list: '[1]', task: {run: x}}
                - {run: y, timeout: 2m}
                - subjob: {name: s, tasks: [{run: z}]}
        """
    )
    assert msgspec.to_builtins(apply_defaults(job.tasks[0], job.defaults)) == {
        "name": "t",
        "parallel": {
            "tasks": [
                {"each": {"list": "[1]", "task": {"run": "x", "timeout": "1m", "queue": "slow"}}},
                {"run": "y", "timeout": "2m", "queue": "slow"},
                {"subjob": {"name": "s", "tasks": [{"run": "z"}]}},
            ]
        },
    }
