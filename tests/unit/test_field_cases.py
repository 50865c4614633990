"""Situations that people met with systems of this kind, made small."""

from __future__ import annotations

import time

import pytest

from coordinator.store.search import job_words, words_of
from shared.expressions.templates import parts, render
from shared.model import language
from shared.model.documents import JobDocument, TaskDocument
from shared.model.states import TaskKind
from shared.model.views import task_view
from shared.redaction import Redactor
from tests.unit.model.reading import job_of, messages_of
from worker.runtime.task_folder import encoded, script_of

SCOPE = {"inputs": {"x": "1"}}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{\n  inputs.x\n}}", "1"),
        ("a {{\r\n\tinputs.x }} b", "a 1 b"),
        ("{{ inputs.x\n\n}}{{inputs.x}}", "11"),
        ("{{ inputs.x\n+ 1 }}", "{{ inputs.x\n+ 1 }}"),
        ("{{\n}}", "{{\n}}"),
    ],
)
def test_line_breaks_beside_braces(template: str, text: str) -> None:
    assert render(template, SCOPE) == text


def test_templates_are_cut_in_linear_time() -> None:
    began = time.monotonic()
    for text in ("{{\n" * 10_000, "{{ " * 10_000, "{{" + "\n" * 40_000, "{{ x\n" * 8_000):
        assert "".join(parts(text)) == text
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("text", ['{{ "{{" }}.State.Running}}', 'a{{ "{{" }}b'])
def test_braces_that_are_no_expression(text: str) -> None:
    assert render(text, {}) == text.replace('{{ "{{" }}', "{{")


JAPANESE = "\u65e5\u672c\u8a9e\u306e\u30b8\u30e7\u30d6"
SMILE = "\\ud83d\\ude00"


@pytest.mark.parametrize(
    "document",
    [
        '{"name": "j", "tasks": [{"name": "t", "run": "echo SMILE"}]}',
        'name: j\ntasks: [{name: t, run: "echo SMILE"}]\n',
        'name: "SMILE SMILE"\ntasks: [{name: "a \\" SMILE", run: "echo SMILE"}]\n',
    ],
)
def test_a_character_as_a_pair_of_escapes(document: str) -> None:
    job = job_of(document.replace("SMILE", SMILE))
    assert job.tasks[0].run == "echo \U0001f600"


def test_what_only_looks_like_a_pair_stays() -> None:
    job = job_of(f"name: j\ntasks:\n  - name: t\n    run: |\n      echo {SMILE}\n")
    assert job.tasks[0].run == f"echo {SMILE}\n"
    for half in ("\\ud83d", "\\ude00", "\\ude00\\ud83d"):
        assert len(messages_of(f'name: "{half}"\ntasks: [{{name: t, run: x}}]')) == 1


def test_a_script_from_a_form() -> None:
    assert script_of("#!/bin/sh\r\necho a\r\n") == b"#!/bin/sh\necho a\n"
    assert encoded("a\r\nb") == b"a\r\nb", "files stay as they are"


@pytest.mark.parametrize(
    ("field", "good"),
    [
        ("workdir: rel/dir", "workdir: /abs"),
        ("workdir: ./x", "workdir: /"),
        ("limits: {cpus: '0.001'}", "limits: {cpus: '0.01'}"),
        ("limits: {cpus: '0'}", "limits: {cpus: '.5'}"),
        ("limits: {memory: '0'}", "limits: {memory: 6m}"),
        ("limits: {memory: 5m}", "limits: {memory: 1g}"),
        ("limits: {pids: 0}", "limits: {pids: 1}"),
        ("limits: {pids: -2}", "limits: {pids: -1}"),
    ],
)
def test_refused_at_submission(field: str, good: str) -> None:
    document = "{name: j, tasks: [{name: t, run: x, %s}]}"
    (problem,) = messages_of(document % field)
    assert problem.startswith("tasks[0].")
    assert job_of(document % good)


@pytest.mark.parametrize(
    ("name", "found", "not_found"),
    [
        ("launch \U0001f680 now", ["\U0001f680", "launch \U0001f680"], ["\U0001f681"]),
        (
            JAPANESE,
            [JAPANESE, JAPANESE[:2], JAPANESE[4:], JAPANESE[1]],
            [JAPANESE[1::-1], "\u4e2d"],
        ),
        ("build-\u4efb\u52a1-7", ["build", "\u4efb\u52a1", "7"], ["buil"]),
    ],
)
def test_search_without_spaces_and_letters(
    name: str, found: list[str], not_found: list[str]
) -> None:
    words = set(job_words(JobDocument(id="j", name=name)))
    for asked in found:
        assert words_of(asked, asked=True), asked
        assert set(words_of(asked, asked=True)) <= words, asked
    for asked in not_found:
        assert not set(words_of(asked, asked=True)) <= words, asked


def test_how_many_children_of_an_each_have_begun() -> None:
    each = language.Each(list="{{ [1] }}", task=language.TaskDefinition(name="c", run="x"))
    task = TaskDocument(
        id="t", job_id="j", root_id="j", path="1", position=1, kind=TaskKind.EACH, name="t", size=9,
        definition=language.TaskDefinition(name="t", each=each),
    )  # fmt: skip
    shown = task_view(
        task, Redactor(), counts={"CREATED": 3, "RUNNING": 2, "COMPLETED": 4}, begun=6
    )
    assert shown.each is not None
    assert (shown.each.index, shown.each.size, shown.each.completions) == (6, 9, 4)
