import pytest

from shared.model.language import Each, Mount, Parallel, Registry, SmallTask, TaskDefinition
from shared.model.rules import validate_evaluated


def said(task: TaskDefinition) -> list[str]:
    return [str(problem) for problem in validate_evaluated(task)]


@pytest.mark.parametrize(
    "task",
    [
        TaskDefinition(run="x"),
        TaskDefinition(
            image="a", queue="q" * 128, var="v" * 64, name="{{ not a template any more }}"
        ),
        TaskDefinition(parallel=Parallel(tasks=[TaskDefinition(queue="{{ waits }}")])),
        TaskDefinition(each=Each(list="[1]", task=TaskDefinition())),
        TaskDefinition(run="x", mounts=[Mount(type="bind", source="a")], workdir="w" * 300),
    ],
)
def test_what_is_right(task: TaskDefinition) -> None:
    assert said(task) == []


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (TaskDefinition(run="x", var="v" * 65), "var: must have at most 64 characters, has 65"),
        (
            TaskDefinition(run="x", var="{{" + "v" * 65),
            "var: must have at most 64 characters, has 67",
        ),
        (TaskDefinition(run="x", queue="jobs"), 'queue: "jobs" is a queue of the engine\'s own'),
        (
            TaskDefinition(run="x", queue="a\nb"),
            "queue: the name of a queue must have 1 to 128 printable characters",
        ),
        (TaskDefinition(run="x", env={"A": "a\0"}), "env.A: must not contain a NUL character"),
        (TaskDefinition(run="x", files={"A": "a\0"}), "files.A: must not contain a NUL character"),
        (TaskDefinition(cmd=["a", "\0"]), "cmd[1]: must not contain a NUL character"),
        (
            TaskDefinition(run="x", pre=[SmallTask(run="x", image="\ud800")]),
            "pre[0].image: contains half of a surrogate pair, which is not a valid character",
        ),
        (
            TaskDefinition(run="x", registry=Registry(password="\0")),
            "registry.password: must not contain a NUL character",
        ),
        (TaskDefinition(), "nothing to do: give it run, cmd, entrypoint or image"),
    ],
)
def test_what_is_wrong(task: TaskDefinition, message: str) -> None:
    assert said(task) == [message]
