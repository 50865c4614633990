"""The examples are valid, and together they show the whole language."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from shared.model.decoding import decode_job
from shared.model.language import JobDefinition, SmallTask
from shared.model.plans import plan_of
from shared.model.reference import FIELDS
from shared.model.views.redacted import as_written

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.glob("*.yaml"))
SCHEDULED = ("scheduled.yaml", "once.yaml")

SAME = {"Sidecar": "SmallTask", "SubJob": "JobDefinition", "TaskDefinition": "SmallTask"}
"""Parts that have the fields of another: shown once is shown."""


def example(path: Path) -> JobDefinition:
    return decode_job(path.read_bytes(), "yaml", scheduled=path.name in SCHEDULED)


def used(value: Any) -> Iterator[str]:
    """Every field that is set somewhere in a value: `Task.run`."""
    if isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from used(item)
    if not isinstance(value, msgspec.Struct):
        return
    for name, field in plan_of(type(value)).fields.items():
        inner = getattr(value, field.attribute)
        if inner not in (None, "", [], {}, False):
            yield f"{type(value).__name__}.{name}"
            yield from used(inner)


def shared_name(path: str) -> str:
    owner, _, name = path.partition(".")
    base = SAME.get(owner, owner)
    known = {field.path for field in FIELDS}
    return f"{base}.{name}" if f"{base}.{name}" in known else path


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_is_valid(path: Path) -> None:
    job = example(path)
    assert job.tasks
    assert path.read_text().startswith("# "), "an example says in its first line what it shows"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_example_reads_back_as_it_was_written(path: Path) -> None:
    job = example(path)
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobDefinition) == job


def test_every_field_is_shown_by_an_example() -> None:
    shown = {shared_name(name) for path in FILES for name in used(as_written(example(path)))}
    missing = {shared_name(field.path) for field in FIELDS} - shown
    assert missing == set()


def test_examples_need_one_small_image() -> None:
    images = {
        task.image
        for path in FILES
        if path.name not in ("hello.yaml", "registry.yaml")
        for task in all_tasks(example(path))
        if task.image
    }
    assert images == {"alpine:3.18.3"}


def all_tasks(value: Any) -> Iterator[SmallTask]:
    if isinstance(value, list):
        for item in value:
            yield from all_tasks(item)
    if isinstance(value, SmallTask):
        yield value
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from all_tasks(getattr(value, name))
