"""Traces go to a collector, and cost nothing where they are off."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import pytest

from shared.config.schema import TelemetrySettings
from shared.errors import ApplicationError
from shared.telemetry import known_trace, past_span, present_trace, span, span_in, tracing
from tests.collector import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as made:
        yield made


async def test_spans_reach_the_collector(collector: Collector) -> None:
    settings = TelemetrySettings(enabled=True, endpoint=collector.endpoint + "/", service="here")
    with tracing(settings, "worker"):
        with span("outer", {"a": 1}) as outer:
            outer.set("b", True)
            await asyncio.create_task(_inner())
        with pytest.raises(ValueError, match="boom"), span("failed"):
            raise ValueError("boom")
        with span("told") as told:
            told.fail("exit code 3")
    spans = {each.name: each for each in collector.spans()}
    assert set(spans) == {"outer", "inner", "failed", "told"}
    assert spans["inner"].parent_span_id == spans["outer"].span_id
    assert {each.key for each in spans["outer"].attributes} == {"a", "b"}
    assert (spans["failed"].status.code, spans["outer"].status.code) == (2, 0)
    assert spans["told"].status.message == "exit code 3"
    assert collector.resource["service.name"] == "here"
    assert collector.resource["haulier.role"] == "worker"


async def _inner() -> None:
    with span("inner"):
        await asyncio.sleep(0)


def test_nothing_is_sent_where_it_is_off(collector: Collector) -> None:
    settings = TelemetrySettings(enabled=False, endpoint=collector.endpoint)
    with tracing(settings, "worker"), span("unseen", {"a": 1}) as here:
        here.set("b", 2)
        here.fail("x")
    assert collector.collected == []


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.trace_exporter", None)
    opened = tracing(TelemetrySettings(enabled=True), "worker")
    with pytest.raises(ApplicationError, match="pip install 'haulier"), opened:
        pytest.fail("must not be opened")


GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (GIVEN, GIVEN),
        (f" {GIVEN} ", GIVEN),
        ("cc" + GIVEN[2:] + "-what-will-be-the-future", GIVEN),
        ("", ""),
        ("ff" + GIVEN[2:], ""),
        (GIVEN.upper(), ""),
        (GIVEN[:-1], ""),
        ("00-" + "0" * 32 + GIVEN[35:], ""),
        (GIVEN[:36] + "0" * 16 + "-01", ""),
        (GIVEN + "\n$(reboot)", ""),
    ],
)
def test_a_traceparent_is_one_or_nothing(header: str, known: str) -> None:
    assert known_trace(header) == known


def test_spans_go_on_from_what_others_began(collector: Collector) -> None:
    task = span_in(GIVEN, "task")
    assert (span_in("", "task"), present_trace()) == ("", "")
    with tracing(TelemetrySettings(enabled=True, endpoint=collector.endpoint), "worker"):
        with span("run", parent=task, own=span_in(GIVEN, "run")):
            assert present_trace() == span_in(GIVEN, "run")
        past_span("task", {}, 5, 7_000, parent=GIVEN, own=task, error="the task failed")
        past_span("first", {}, 5, 7_000, parent="", own=task)
        with span("unsampled", parent=GIVEN[:-2] + "00"):
            assert present_trace()[-2:] == "00"
    spans = {each.name: each for each in collector.spans()}
    assert set(spans) == {"run", "task", "first"}
    trace, above = GIVEN.split("-")[1:3]
    assert {each.trace_id.hex() for each in spans.values()} == {trace}
    assert spans["task"].parent_span_id.hex() == above
    assert spans["run"].parent_span_id == spans["task"].span_id
    assert spans["first"].parent_span_id == b""
    assert (spans["task"].start_time_unix_nano, spans["task"].status.code) == (5_000, 2)
    assert spans["task"].end_time_unix_nano == 7_000_000
