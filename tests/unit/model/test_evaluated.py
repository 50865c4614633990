import pytest

from shared.model.language import Each, Mount, Parallel, Registry, SmallTask, Task
from shared.model.rules import validate_evaluated


def said(task: Task) -> list[str]:
    return [str(fault) for fault in validate_evaluated(task)]


@pytest.mark.parametrize(
    "task",
    [
        Task(run="x"),
        Task(image="a", queue="q" * 128, var="v" * 64, name="{{ not a template any more }}"),
        Task(parallel=Parallel(tasks=[Task(queue="{{ waits }}")])),
        Task(each=Each(list="[1]", task=Task())),
        Task(run="x", mounts=[Mount(type="bind", source="a")], workdir="w" * 300),
    ],
)
def test_what_is_right(task: Task) -> None:
    assert said(task) == []


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (Task(run="x", var="v" * 65), "var: must have at most 64 characters, has 65"),
        (Task(run="x", var="{{" + "v" * 65), "var: must have at most 64 characters, has 67"),
        (Task(run="x", queue="jobs"), 'queue: "jobs" is a queue of the engine\'s own'),
        (Task(run="x", queue="a\nb"), "queue: a queue's name has 1 to 128 printable characters"),
        (Task(run="x", env={"A": "a\0"}), "env.A: must not hold the character NUL"),
        (Task(cmd=["a", "\0"]), "cmd[1]: must not hold the character NUL"),
        (
            Task(run="x", pre=[SmallTask(run="x", image="\ud800")]),
            "pre[0].image: holds half of a surrogate pair, which is no character",
        ),
        (
            Task(run="x", registry=Registry(password="\0")),
            "registry.password: must not hold the character NUL",
        ),
        (Task(), "nothing to do: give it run, cmd, entrypoint or image"),
    ],
)
def test_what_is_wrong(task: Task, message: str) -> None:
    assert said(task) == [message]
