"""What a process can't have: a task that asks for it is refused by name (the runtime spec)."""

from __future__ import annotations

from shared.model.language import SmallTask, Task
from worker.runtime.errors import TaskError

_ISOLATION = ("limits", "mounts", "networks", "gpus", "sidecars")


def check(task: Task, *, ignore_image: bool) -> None:
    """Raise TaskError with the name of each field that the shell runtime can't honour."""
    refused = [name for name in _ISOLATION if _given(getattr(task, name))]
    for path, small in _containers(task):
        refused += [path + name for name in _of_image(small, ignore_image=ignore_image)]
    if refused:
        raise TaskError(
            f"the shell runtime runs local processes and can't honour: {', '.join(refused)}"
            + ("" if ignore_image else _hint(refused))
        )
    for path, small in _containers(task):
        if not (small.run or small.cmd or small.entrypoint):
            raise TaskError(f"{path}run: the shell runtime needs a script or a command")


def _containers(task: Task) -> list[tuple[str, SmallTask]]:
    found: list[tuple[str, SmallTask]] = [("", task)]
    for when, smalls in (("pre", task.pre), ("post", task.post)):
        found += [(f"{when}[{index}].", small) for index, small in enumerate(smalls)]
    return found


def _of_image(small: SmallTask, *, ignore_image: bool) -> list[str]:
    if ignore_image:
        return []
    return [name for name in ("image", "registry") if _given(getattr(small, name))]


def _given(value: object) -> bool:
    return value is not None and value not in ("", [], {})


def _hint(refused: list[str]) -> str:
    if not any(name.endswith("image") for name in refused):
        return ""
    return " (runtime.shell.ignore_image lets image pass: the script then runs on the host)"
