"""Documents made to cost much: each is taken or refused within a small budget of time and memory."""

import time
import tracemalloc

import pytest

from shared.model.decoding import ContentType, decode_job
from shared.model.decoding.nodes import MAX_VALUES
from shared.model.problems import InvalidDocument
from tests.unit.model.reading import messages_of

pytestmark = pytest.mark.slow

SIZE = 500_000
SECONDS = 5.0  # of a slow processor whose every line may be counted; each takes well below one
MEMORY = 64 << 20  # bytes, all of them small documents' worth of objects


def many(piece: str) -> str:
    return piece * (SIZE // len(piece))


def levels(first: str, level: str, count: int) -> str:
    """Each level names the one before: `{n}` its own number, `{p}` that of the one before."""
    lines = [level.replace("{n}", str(n)).replace("{p}", str(n - 1)) for n in range(1, count)]
    return "\n".join(["name: j", "tasks:", first, *lines])


NINE = ",".join(["*t{p}"] * 9)
YAML = {
    "deep lists": many("["),
    "deep maps": many("{a: "),
    "deep dashes": many("- "),
    "deep questions": many("? "),
    "a wide list": "[" + many("a,") + "]",
    "a wide list where one belongs": "tags: [" + many("a,") + "]",
    "many keys without values": "{" + many("? a,") + "}",
    "many documents": many("---\n"),
    "many comments": many("#\n"),
    "many carriage returns": many("\r"),
    "many duplicates": many("a: b\n"),
    "many anchors": many("- &a b\n"),
    "one long key": "a" * SIZE + ": b",
    "one long text": 'name: "' + many("\\x41") + '"',
    "one long number": "name: j\ntasks: [{name: t, run: x, priority: " + "9" * SIZE + "}]",
    "one long duration": "name: j\ntasks: [{name: t, run: x, timeout: " + "9" * SIZE + "s}]",
    "colons": ":" * SIZE,
    "braces that never close": "name: '" + "{{" * (SIZE // 2) + "'",
    "many templates": "tasks:\n" + many(" - name: '{{ inputs.a }}'\n"),
    "one long template": "output: '" + many("{{ 1 }}") + "'",
    "one long expression": "output: '{{ " + many("1+") + "1 }}'",
    "a deep expression": "output: '{{ " + "(" * SIZE + " }}'",
    "wrong names": "\n".join(f"limt{number}: 1" for number in range(SIZE // 12)),
    "an alias bomb": levels(
        " - &t0 {name: a, run: x}",
        " - &t{n} {name: a, parallel: {tasks: [" + NINE + "]}}",
        30,
    ),
    "an alias bomb in a text": levels(
        " - {name: a, run: &t0 '" + "x" * 100_000 + "'}", " - {name: a, run: *t0}", 1_000
    ),
    "a merge bomb": levels(
        " - {name: a, env: &t0 {A: b}}", " - {name: a, env: &t{n} {<<: [" + NINE + "]}}", 60
    ),
    "a merge bomb that is faulty": levels(
        " - &t0 {name: a, retry: {limit: 1, jitter: 2}}", " - &t{n} {<<: [" + NINE + "]}", 60
    ),
    "a long chain of merges": levels(
        " - {name: a, env: &t0 {A: b}}", " - {name: a, env: &t{n} {<<: *t{p}}}", 10_000
    ),
    "a long chain of aliases": levels(
        " - &t0 {name: a, run: x}", " - &t{n} {name: a, parallel: {tasks: [*t{p}]}}", 8_000
    ),
}
JSON = {
    "deep lists": many("["),
    "deep maps": many('{"a":'),
    "a wide list": "[" + many("1,") + "1]",
    "a text without an end": '{"name":"' + many("\\a"),
    "backslashes": '{"name":"' + many("\\"),
    "quotes": many('"'),
    "spaces": many(" "),
    "one long number": '{"name":' + "9" * SIZE + "}",
    "many duplicates": "{" + many('"a":1,') + '"a":1}',
}


def refuse(body: bytes, content_type: ContentType) -> None:
    with pytest.raises(InvalidDocument):
        decode_job(body, content_type)


def cost(body: bytes, content_type: ContentType) -> tuple[float, int]:
    """Seconds of processor time, and bytes at the peak, of a document that is refused.

    It is read twice: what traces memory takes several times as long."""
    started = time.process_time()
    refuse(body, content_type)
    seconds = time.process_time() - started
    tracemalloc.start()
    refuse(body, content_type)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return seconds, peak


@pytest.mark.parametrize("name", YAML)
def test_yaml(name: str) -> None:
    seconds, peak = cost(YAML[name].encode(), "yaml")
    assert seconds < SECONDS
    assert peak < MEMORY


@pytest.mark.parametrize("name", JSON)
def test_json(name: str) -> None:
    seconds, peak = cost(JSON[name].encode(), "json")
    assert seconds < SECONDS
    assert peak < MEMORY


def test_bombs_are_called_what_they_are() -> None:
    (said,) = messages_of(YAML["an alias bomb"])
    assert said.endswith(f"too big: more than {MAX_VALUES} values after its aliases are expanded")
    (said,) = messages_of(YAML["an alias bomb in a text"])
    assert said.endswith("too big: its aliases expand to too much text")
    (said,) = messages_of(YAML["deep lists"])
    assert said == "nested deeper than 100 levels"
    (said,) = messages_of(YAML["a wide list"])
    assert said == f"too big: more than {MAX_VALUES} values"


def test_faults_without_end_are_cut() -> None:
    said = messages_of(YAML["wrong names"])
    assert len(said) == 1_001
    assert "and more: only the first 1000 problems are listed" in said[-2] + said[-1]


def test_a_large_honest_document_is_taken() -> None:
    tasks = '{"name":"a","run":"b"},' * 19_000
    job = decode_job(f'{{"name":"j","tasks":[{tasks[:-1]}]}}'.encode(), "json")
    assert len(job.tasks) == 19_000
    script = "     echo hello world\n" * 20_000
    job = decode_job(f"name: j\ntasks:\n - name: a\n   run: |\n{script}".encode(), "yaml")
    assert job.tasks[0].run.count("\n") == 20_000
