import contextlib
import json
import time
from typing import Any

import pytest

from shared.model.decoding import ContentType, decode_job, yaml_reader
from shared.model.problems import InvalidDocument
from tests.unit.model.reading import faults_of, job_of, messages_of


def test_a_job() -> None:
    job = job_of(
        r"""{"name": "hello \ud83d\ude00", "tasks": [{"name": "say", "image": "ubuntu:mantic",
        "run": "echo -n hello world\n", "priority": 3, "retry": null, "env": {}}]}""",
        "json",
    )
    assert job.name == "hello 😀"
    assert job.tasks[0].run == "echo -n hello world\n"
    assert job.tasks[0].priority == 3
    assert job.tasks[0].retry is None


def test_inputs_of_other_types_are_kept_as_they_are_written() -> None:
    job = job_of(
        '{"name": "j", "tasks": [{"name": "t", "run": "x"}], '
        '"inputs": {"a": 1.10, "b": true, "c": null, '
        '"d": 12345678901234567890, "e": 1E2, "f": "x"}}',
        "json",
    )
    assert job.inputs == {
        "a": "1.10",
        "b": "true",
        "c": "",
        "d": "12345678901234567890",
        "e": "1E2",
        "f": "x",
    }


@pytest.mark.parametrize("value", ["[1]", "{}", '{"a": 1}'])
def test_inputs_are_scalars(value: str) -> None:
    text = f'{{"name": "j", "inputs": {{"a": {value}}}, "tasks": [{{"name": "t", "run": "x"}}]}}'
    assert [problem.path for problem in faults_of(text, "json")] == ["inputs.a"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("5", 'expected text, got the number 5: write it in quotes, "5"'),
        ("true", 'expected text, got the boolean true: write it in quotes, "true"'),
        ("1e400", 'expected text, got the number 1e400: write it in quotes, "1e400"'),
        ("-1E999", 'expected text, got the number -1E999: write it in quotes, "-1E999"'),
        (
            "7" * 101,
            f'expected text, got the number {"7" * 64}…: write it in quotes, "{"7" * 64}…"',
        ),
        ("[]", "expected text, got a list"),
    ],
)
def test_text_is_text(value: str, said: str) -> None:
    text = f'{{"name": "j", "tasks": [{{"name": "t", "run": {value}}}]}}'
    assert messages_of(text, "json") == [f"tasks[0].run: {said}"]


@pytest.mark.parametrize(
    ("value", "got"),
    [
        ("1e400", "the number 1e400, which is out of range"),
        ("-1e400", "the number -1e400, which is out of range"),
        ("7" * 101, f"the number {'7' * 64}…, which is out of range"),
        ("1.5", "the number 1.5"),
    ],
)
@pytest.mark.parametrize("form", ["json", "yaml"])
def test_a_number_that_no_number_can_hold(value: str, got: str, form: ContentType) -> None:
    text = f'{{"name": "j", "tasks": [{{"name": "t", "run": "x", "priority": {value}}}]}}'
    assert messages_of(text, form) == [f"tasks[0].priority: expected a whole number, got {got}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the document is empty"),
        ("null", "the document is empty"),
        ("[]", "expected a job (a map with a name and tasks), got a list"),
        ('"x"', "expected a job (a map with a name and tasks), got text"),
        ("{", "not JSON: expected a key in double quotes, got the end"),
        ('{"a":1,}', 'not JSON: expected a key in double quotes, got "}"'),
        ('{"a" 1}', 'not JSON: expected a ":", got "1"'),
        ('{"a":[1 2]}', 'not JSON: expected a "," or "]", got "2"'),
        ('{"a":01}', 'not JSON: expected a "," or "}", got "1"'),
        ('{"a":NaN}', 'not JSON: expected a value, got "N"'),
        ('{"a":-Infinity}', 'not JSON: expected a value, got "-"'),
        ("{'a':1}", 'not JSON: expected a value, got "\'"'),
        ('{"a":1} {}', 'not JSON: expected the end of the document, got "{"'),
        ('{"a":"b\nc"}', 'not JSON: expected text that ends, on its own line, got "\\""'),
        ('{"a":"b', 'not JSON: expected text that ends, on its own line, got "\\""'),
        ('{"a":]}', 'not JSON: expected a value, got "]"'),
    ],
)
def test_what_is_no_json(text: str, said: str) -> None:
    assert messages_of(text, "json") == [said]


def test_bad_escapes() -> None:
    (said,) = messages_of(r'{"a": "\x41"}', "json")
    assert said.startswith("not JSON: ")


def test_a_duplicate_key() -> None:
    text = '{"name": "j",\n "name": "k", "tasks": [{"name": "t", "run": "x"}]}'
    (problem,) = faults_of(text, "json")
    assert (str(problem), problem.line, problem.column) == ("name: duplicate key", 2, 2)


def test_a_merge_key_is_a_key() -> None:
    job = job_of('{"name":"j","tasks":[{"name":"t","run":"x","env":{"<<":"a"}}]}', "json")
    assert job.tasks[0].env == {"<<": "a"}


def test_half_a_surrogate_pair() -> None:
    text = r'{"name": "\ud800", "tasks": [{"name": "t", "run": "x", "env": {"\udfff": "y"}}]}'
    said = "contains half of a surrogate pair, which is not a valid character"
    assert messages_of(text, "json") == [
        f"name: {said}",
        f'tasks[0].env["\\\\udfff"]: {said}',
    ]


def test_whole_numbers_and_huge_ones() -> None:
    text = (
        '{"name": "j", "tasks": '
        '[{"name": "t", "run": "x", "priority": %s, "limits": {"pids": %s}}]}'
    )
    assert job_of(text % ("9", "5.0"), "json").tasks[0].priority == 9
    assert [problem.path for problem in faults_of(text % ("9" * 50, "9" * 50_000), "json")] == [
        "tasks[0].priority",
        "tasks[0].limits.pids",
    ]


def test_a_byte_order_mark_is_no_part_of_it() -> None:
    assert job_of('\ufeff{"name": "j", "tasks": [{"name": "t", "run": "x"}]}', "json").name == "j"


PAIRS = r"""
name: "one \ud83d\ude00 two \uD83D\uDE80\ud83d\uDe00"
description: 'kept \ud83d\ude00 as \uD83d\uDe00 it is'
tags:
  - plain \ud83d\ude00
  - "escaped \\ud83d\\ude00 and \\\ud83d\ude00"
tasks:
  - name: |
      block \ud83d\uDE00
    image: "a"
    run: b  # a comment \ud83d\ude00
    env: {A: "\ud83d\ude00", B: \ud83d\ude00}
"""


def test_pairs_of_escapes_are_characters_in_double_quotes_and_themselves_elsewhere() -> None:
    job = job_of(PAIRS)
    assert job.name == "one 😀 two 🚀😀"
    assert job.description == r"kept \ud83d\ude00 as \uD83d\uDe00 it is"
    assert job.tags == [r"plain \ud83d\ude00", "escaped \\ud83d\\ude00 and \\😀"]
    (task,) = job.tasks
    assert task.name == "block \\ud83d\\uDE00\n"
    assert task.env == {"A": "😀", "B": r"\ud83d\ude00"}
    broken = PAIRS.replace("image: ", "imge: ")
    places = [faults_of(text) for text in (broken, broken.replace(r"\u", "_u"))]
    assert places[0] == places[1], "where a problem is does not depend on them"


def test_pairs_of_escapes_cost_one_more_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    readings, read = [], yaml_reader._read

    def counted(*given: Any) -> Any:
        readings.append(1)
        return read(*given)

    monkeypatch.setattr(yaml_reader, "_read", counted)
    lines = "".join(rf'  k{n}: "\ud83d\ude00"' + "\n" for n in range(1000))
    job = job_of(f"name: j\ntasks: [{{name: t, image: a, run: b}}]\ninputs:\n{lines}")
    assert set(job.inputs.values()) == {"😀"}
    assert len(readings) == 2
    everywhere = "".join(map(chr, range(0xE000, 0xF900)))
    assert "Unicode" in messages_of(f'name: "\\ud83d\\ude00" # {everywhere}\n')[0]


@pytest.mark.parametrize(
    "files",
    [
        {"a": "", **{f"a/{n}": "" for n in range(36_000)}},
        {"a/" * 100_000 + "b": ""},
        {f"{n}/" + "a/" * 2000 + "b": "" for n in range(100)},
    ],
    ids=["many", "deep", "many deep"],
)
def test_names_of_files_are_checked_in_linear_time(files: dict[str, str]) -> None:
    task = {"name": "t", "image": "a", "run": "b", "files": files}
    began = time.process_time()
    with contextlib.suppress(InvalidDocument):
        decode_job(json.dumps({"name": "j", "tasks": [task]}).encode(), "json")
    assert time.process_time() - began < 2
