import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.durations import (
    MILLISECOND,
    NANOS_PER_HOUR,
    NANOS_PER_MINUTE,
    NANOS_PER_SECOND,
    duration_seconds,
    format_duration,
    parse_duration,
)


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("+0", 0),
        ("-0", 0),
        ("0s", 0),
        ("5s", 5 * NANOS_PER_SECOND),
        ("1h30m", 90 * NANOS_PER_MINUTE),
        ("1.5h", 90 * NANOS_PER_MINUTE),
        ("250ms", 250 * MILLISECOND),
        (".5s", 500 * MILLISECOND),
        ("5.s", 5 * NANOS_PER_SECOND),
        ("-5.25s", -5_250_000_000),
        ("+5s", 5 * NANOS_PER_SECOND),
        ("10.5s4m", 4 * NANOS_PER_MINUTE + 10_500_000_000),
        ("12\u00b5s", 12_000),
        ("12\u03bcs", 12_000),
        ("12us", 12_000),
        ("7ns", 7),
        ("0.3333333333333333333h", 20 * NANOS_PER_MINUTE),
        ("9007199254740993ns", 9_007_199_254_740_993),
        ("9223372036854775807ns", 2**63 - 1),
        ("-9223372036854775808ns", -(2**63)),
        ("0.100000000000000000000h", 6 * NANOS_PER_MINUTE),
        ("0.830103483285477580700h", 2_988_372_539_827),
    ],
)
def test_reads_as_go_does(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "3", "-", "+", "s", ".", "-.", ".s", "+.s", "1d", "1h 30m", " 1s", "1s ", "--1s"),
        *("9223372036854775808ns", "3000000h", "-9223372036854775809ns"),
        *("1hh", "1_000s", "1e3s", "٣s", "1" * 5_000 + "s"),
    ],
)
def test_refuses_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1_100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (3_300_000_000, "3.3s"),
        (4 * NANOS_PER_MINUTE + 5 * NANOS_PER_SECOND, "4m5s"),
        (4 * NANOS_PER_MINUTE + 5_001_000_000, "4m5.001s"),
        (5 * NANOS_PER_HOUR + 6 * NANOS_PER_MINUTE + 7_001_000_000, "5h6m7.001s"),
        (8 * NANOS_PER_MINUTE + 1, "8m0.000000001s"),
        (NANOS_PER_HOUR, "1h0m0s"),
        (-90 * NANOS_PER_MINUTE, "-1h30m0s"),
        (2**63 - 1, "2562047h47m16.854775807s"),
        (-(2**63), "-2562047h47m16.854775808s"),
    ],
)
def test_writes_as_go_does(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@given(st.integers(-(2**63), 2**63 - 1))
def test_what_is_written_reads_back(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@given(st.text(alphabet="0123456789.+-hmsnuµ ", max_size=30))
def test_any_text_is_a_duration_or_a_value_error(text: str) -> None:
    try:
        parse_duration(text)
    except ValueError as error:
        assert "duration" in str(error)  # noqa: PT017 - both outcomes are right


def test_seconds() -> None:
    assert duration_seconds("1m500ms") == 60.5
