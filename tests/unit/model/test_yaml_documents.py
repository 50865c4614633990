import json

import msgspec
import pytest

from tests.unit.model.reading import faults_of, job_of, messages_of, task_of, task_problems


def test_text_is_taken_as_it_is_written() -> None:
    task = task_of(
        "run: x, limits: {cpus: .5}, "
        "env: {PORT: 8080, VERSION: 1.10, ANSWER: no, OCTAL: 010, DAY: 2001-12-14, BIG: 1_000, "
        "INF: .inf, EMPTY: , NULL: null, TILDE: ~, QUOTED: '~', PLAIN: a b}"
    )
    assert task["limits"] == {"cpus": ".5"}
    assert task["env"] == {
        "PORT": "8080",
        "VERSION": "1.10",
        "ANSWER": "no",
        "OCTAL": "010",
        "DAY": "2001-12-14",
        "BIG": "1_000",
        "INF": ".inf",
        "EMPTY": "",
        "NULL": "",
        "TILDE": "",
        "QUOTED": "~",
        "PLAIN": "a b",
    }


def test_keys_are_taken_as_they_are_written() -> None:
    assert task_of("run: x, env: {yes: a, 1: b, null: c}")["env"] == {
        "yes": "a",
        "1": "b",
        "null": "c",
    }


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        *(("5", 5), ("+5", 5), ("0x5", 5), ("0b101", 5), ("05", 5), ("0o5", 5), ("5.0", 5)),
        *(("5e0", 5), ("08", 8), ("0", 0), ("!!int '5'", 5)),
    ],
)
def test_whole_numbers(spelling: str, value: int) -> None:
    assert task_of(f"run: x, priority: {spelling}")["priority"] == value


@pytest.mark.parametrize(
    ("spelling", "value"), [(".5", 0.5), ("0.25", 0.25), ("1", 1), ("1e-1", 0.1), ("1_0e-1", 1)]
)
def test_numbers(spelling: str, value: float) -> None:
    assert task_of(f"run: x, retry: {{limit: 1, jitter: {spelling}}}")["retry"] == {
        "limit": 1,
        "jitter": value,
    }


def test_a_whole_number_reads_back_whole() -> None:
    job = job_of("{name: j, tasks: [{name: t, run: x, retry: {limit: 1, scalingFactor: 3}}]}")
    assert b'"scalingFactor":3}' in msgspec.json.encode(job)


@pytest.mark.parametrize(
    ("spelling", "got"),
    [
        ("'5'", 'the text "5": write it without quotes'),
        ('"high"', 'the text "high"'),
        ("high", 'the text "high"'),
        ("1.5", "the number 1.5"),
        (".inf", "the number .inf"),
        (".nan", "the number .nan"),
        ("1e999", "the number 1e999, which is out of range"),
        ("-.5e+400", "the number -.5e+400, which is out of range"),
        ("yes", "the boolean yes"),
        ("[5]", "a list"),
        ("{a: 5}", "a map"),
    ],
)
def test_no_whole_numbers(spelling: str, got: str) -> None:
    assert task_problems(f"run: x, priority: {spelling}") == [
        f"tasks[0].priority: expected a whole number, got {got}"
    ]


@pytest.mark.parametrize("spelling", ["true", "True", "TRUE", "yes", "Yes", "on", "ON", "y"])
def test_true(spelling: str) -> None:
    task = task_of(f"subjob: {{name: s, detached: {spelling}, tasks: [{{run: x}}]}}")
    assert task["subjob"]["detached"] is True  # type: ignore[index]  # a nested answer


@pytest.mark.parametrize("spelling", ["false", "no", "Off", "n", "~", ""])
def test_false(spelling: str) -> None:
    task = task_of(f"subjob: {{name: s, detached: {spelling}, tasks: [{{run: x}}]}}")
    assert "detached" not in task["subjob"]  # type: ignore[operator]  # a nested answer


@pytest.mark.parametrize(
    ("spelling", "got"),
    [
        ("1", "the number 1"),
        ("'yes'", 'the text "yes": write it without quotes'),
        ("yEs", 'the text "yEs"'),
    ],
)
def test_no_boolean(spelling: str, got: str) -> None:
    problems = task_problems(f"subjob: {{name: s, detached: {spelling}, tasks: [{{run: x}}]}}")
    assert problems == [f"tasks[0].subjob.detached: expected true or false, got {got}"]


def test_nothing_is_absent_where_no_text_is_wanted() -> None:
    task = task_of("run: x, retry: , priority: ~, env: null, cmd: Null, mounts: NULL, limits: ~")
    assert task == {"name": "t", "run": "x"}


def test_nothing_is_no_task() -> None:
    assert messages_of("{name: j, tasks: [{name: t, run: x}, ~]}") == [
        "tasks[1]: expected a map, got nothing"
    ]


def test_block_scalars_anchors_aliases_and_merges() -> None:
    job = job_of(
        """
        name: j
        defaults:
          retry: &patient {limit: 3}
        tasks:
          - &base
            name: one
            image: alpine
            run: |
              echo one
              echo two
            env: &env
              A: a
              B: b
          - <<: *base
            name: two
            env:
              <<: [{B: first, C: first}, *env]
              A: own
            retry: *patient
          - <<: [*base]
            run: >-
              folded
              text
        """
    )
    one, two, three = job.tasks
    assert one.run == "echo one\necho two\n"
    assert (two.name, two.image, two.run) == ("two", "alpine", one.run)
    assert two.env == {"A": "own", "B": "first", "C": "first"}
    assert two.retry is not None
    assert two.retry.limit == 3
    assert (three.name, three.run) == ("one", "folded text")


def test_a_quoted_merge_key_is_a_key() -> None:
    assert task_of("run: x, env: {'<<': a}")["env"] == {"<<": "a"}


def test_a_merge_takes_maps_only() -> None:
    assert task_problems("run: x, env: {<<: 5}") == [
        'tasks[0].env["<<"]: a merge takes a map or a list of maps'
    ]


def test_an_anchor_may_be_named_anew() -> None:
    job = job_of("{name: &a x, description: *a, tasks: [{name: &a y, run: *a}]}")
    assert (job.description, job.tasks[0].run) == ("x", "y")


def test_only_the_first_document_counts() -> None:
    job = job_of("name: first\ntasks: [{name: t, run: x}]\n---\nnot: [a job\n")
    assert job.name == "first"


def test_a_byte_order_mark_is_no_part_of_it() -> None:
    assert job_of("\ufeffname: j\ntasks: [{name: t, run: x}]").name == "j"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the document is empty"),
        (" \n\n", "the document is empty"),
        ("# only words\n", "the document is empty"),
        ("---\n---\nname: x", "the document is empty"),
        ("~", "the document is empty"),
        ("- a", "expected a job (a map with a name and tasks), got a list"),
        ("hello", "expected a job (a map with a name and tasks), got text"),
        ("a: [", "not YAML: did not find expected node content"),
        (b"\ta: b", "not YAML: found character that cannot start any token"),
        (
            "run: echo my name: Nina",
            (
                "not YAML: mapping values are not allowed in this context: "
                "a text with a colon and a space in it needs quotes, or | before it"
            ),
        ),
        (
            "name: \x00",
            "not YAML: U+0000 is not allowed as it is: write an escape in double quotes",
        ),
        (
            "name: '\x7f'",
            "not YAML: U+007F is not allowed as it is: write an escape in double quotes",
        ),
        (
            "{name: \uffff}",
            "not YAML: U+FFFF is not allowed as it is: write an escape in double quotes",
        ),
        (b"name: \xff\xfe", "not UTF-8: the byte 0xff is not part of any character"),
        ("name: x".encode("utf-16"), "not UTF-8: the byte 0xff is not part of any character"),
    ],
)
def test_what_is_no_document_at_all(text: str | bytes, message: str) -> None:
    assert messages_of(text) == [message]


@pytest.mark.parametrize("tag", ["!!python/object:os.system", "!!binary", "!!set", "!own", "!!map"])
def test_tags_are_refused(tag: str) -> None:
    said = f'the tag "{tag}" is not allowed: write plain text, numbers, lists and maps'
    assert task_problems(f"run: {tag} x") == [f"tasks[0].run: {said}"]
    if tag != "!!map":
        assert task_problems(f"run: x, env: {tag} {{A: b}}") == [f"tasks[0].env: {said}"]


def test_a_text_tag_makes_text() -> None:
    assert task_of("run: !!str ~, env: {A: ! 5}") == {"name": "t", "run": "~", "env": {"A": "5"}}


def test_duplicate_keys() -> None:
    text = """\
        name: j
        name: k
        tasks:
          - name: t
            run: x
            env: {A: a, B: b, A: c}
            <<: {image: a}
            <<: {image: b}
        """
    assert [(str(problem), problem.line) for problem in faults_of(text)] == [
        ("name: duplicate key", 2),
        ("tasks[0].env.A: duplicate key", 6),
        ('tasks[0]["<<"]: duplicate key', 8),
    ]


@pytest.mark.parametrize("key", ["[a]", "{a: b}"])
def test_keys_are_text(key: str) -> None:
    assert messages_of(f"? {key}\n: x\nname: j\ntasks: [{{name: t, run: x}}]\n") == [
        "a key must be text"
    ]


def test_an_alias_that_names_nothing_above() -> None:
    assert task_problems("run: *later, image: &later x") == [
        "tasks[0].run: the alias *later has no matching anchor before it"
    ]


def test_an_alias_inside_what_it_names() -> None:
    assert messages_of("name: j\ntasks: &all [{name: t, parallel: {tasks: *all}}]") == [
        "tasks[0].parallel.tasks: the alias *all refers to a value that contains it"
    ]


@pytest.mark.parametrize("odd", ["\x7f", "\x80", "\x85", "\u2028", "\ufffe", "\uffff"])
def test_json_is_taken_with_what_yaml_has_not(odd: str) -> None:
    text = json.dumps({"name": f"a{odd}b", "tasks": [{"name": "t", "run": "x"}]})
    raw = text.encode().decode("unicode_escape")
    assert odd in raw
    assert job_of(raw).name == job_of(text).name == f"a{odd}b"


def test_control_characters_by_escape() -> None:
    assert task_problems(r'run: "a\0b"') == ["tasks[0].run: must not contain a NUL character"]


def test_places() -> None:
    problems = faults_of(
        "name: é\r\ntasks:\r\n  - name: t\r\n    run: x\r\n    é: 1\r\n    timeout: soon"
    )
    assert [(problem.path, problem.line, problem.column) for problem in problems] == [
        ("tasks[0].é", 5, 5),
        ("tasks[0].timeout", 6, 14),
    ]
