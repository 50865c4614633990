"""Any text whatever is a job, or is refused with problems that can be shown."""

import json
import os
import time

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.engine.evaluation import render_task
from coordinator.engine.new_documents import apply_defaults
from shared.model.decoding import ContentType, decode_job
from shared.model.language import JobDefinition
from shared.model.problems import InvalidDocument
from shared.model.reference import FIELDS
from shared.model.rules import validate_evaluated
from tests.unit.model.test_language import WHOLE

pytestmark = pytest.mark.slow

CASES = settings(max_examples=int(os.environ.get("PROPERTY_CASES", "400")))
"""PROPERTY_CASES=10000 for a long look."""

SECONDS = 5.0  # of processor time, a pause of the garbage collector included

NAMES = st.sampled_from(sorted({field.name for field in FIELDS}))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["1h", ".5", "512m", "volume", "/a", "{{ inputs.a }}", "{{", "default", "x"]),
)
VALUES: st.SearchStrategy[object] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=30,
)
DOCUMENTS = st.fixed_dictionaries(
    {"name": SCALARS, "tasks": st.lists(st.dictionaries(NAMES, VALUES, max_size=6), max_size=3)},
    optional=dict.fromkeys(("inputs", "secrets", "defaults", "webhooks", "output"), VALUES),
)
YAML_PIECES = st.lists(
    st.sampled_from(
        [
            *("name: ", "tasks:", "\n", "\n ", "\n  ", "- ", "[", "]", "{", "}", ", ", ": ", "a"),
            *(
                "&a ",
                "*a",
                "<<: ",
                "<<: *a",
                "!!str ",
                "!x ",
                "|\n",
                ">-\n",
                "? ",
                "---\n",
                "...\n",
            ),
            *("\t", "\r", "\0", "é", "\ufeff", "\u2028", "~", "null", "1", "{{ ", " }}", "run: "),
            *("'", '"', "#", "%"),
        ]
    ),
    max_size=40,
).map("".join)


def check(body: bytes, content_type: ContentType) -> JobDefinition | None:
    """The job, gone through all that is done with one; None where it was refused properly."""
    started = time.process_time()
    try:
        job = decode_job(body, content_type)
    except InvalidDocument as error:
        refused = error
    else:
        assert time.process_time() - started < SECONDS
        go_through(job)
        return job
    assert time.process_time() - started < SECONDS
    assert refused.problems
    assert str(refused).encode()
    for problem in refused.problems:
        assert problem.message
        assert (problem.line or 1) >= 1
        assert (problem.column or 1) >= 1
    return None


def go_through(job: JobDefinition) -> None:
    assert msgspec.json.decode(msgspec.json.encode(job), type=JobDefinition) == job
    for task in job.tasks:
        whole = apply_defaults(task, job.defaults)
        assert isinstance(validate_evaluated(render_task(whole, lambda text: text[:3])), list)


@CASES
@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    check(body, "yaml")
    check(body, "json")


@CASES
@given(YAML_PIECES)
def test_any_pieces_of_yaml(text: str) -> None:
    check(text.encode(), "yaml")


@CASES
@given(DOCUMENTS)
def test_any_document_by_both_ways(document: dict[str, object]) -> None:
    body = json.dumps(document).encode()
    check(body, "json")
    check(body, "yaml")


@CASES
@given(st.data())
def test_any_change_to_a_good_document(data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(WHOLE)))
    cut = data.draw(st.integers(0, 10))
    put = data.draw(
        st.text(max_size=5) | st.sampled_from(["\n", ": ", "- ", "*a", "&a ", "'", "{{"])
    )
    check((WHOLE[:at] + put + WHOLE[at + cut :]).encode(), "yaml")
