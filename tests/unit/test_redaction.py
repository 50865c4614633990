"""Redaction: whole texts, maps, and logs in pieces."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.redaction import REDACTED, Redactor, StreamRedactor


def test_a_value_inside_text_is_replaced() -> None:
    assert Redactor(["hunter2"]).redact("pw=hunter2;") == f"pw={REDACTED};"


def test_neighbours_are_marked_each_for_itself() -> None:
    assert Redactor(["abcd"]).redact("abcdabcd abcd") == f"{REDACTED}{REDACTED} {REDACTED}"


def test_the_longest_of_nested_values_wins() -> None:
    redactor = Redactor(["pass", "password", "my-password-1"])
    assert redactor.redact("my-password-1 password pass") == f"{REDACTED} {REDACTED} {REDACTED}"


def test_overlapping_values_leave_no_rest() -> None:
    assert Redactor(["abcdef", "defghi"]).redact("xabcdefghix") == f"x{REDACTED}x"


@pytest.mark.parametrize("value", ["a", "abc", "é€ß"])
def test_a_short_value_only_as_a_whole(value: str) -> None:
    redactor = Redactor([value])
    assert redactor.redact(value) == REDACTED
    assert redactor.redact(f"{value}\n") == REDACTED
    assert redactor.redact(f"x{value}x") == f"x{value}x"


@pytest.mark.parametrize("value", ["", " ", "\n"])
def test_an_empty_value_redacts_nothing(value: str) -> None:
    redactor = Redactor([value])
    assert redactor.redact("a b\nc") == "a b\nc"
    assert redactor.redact(value) == value


def test_lines_and_json_spellings() -> None:
    redactor = Redactor(['line "one"\nline two\n'])
    assert redactor.redact('> line "one"\nline two') == f"> {REDACTED}"
    assert redactor.redact('{"a": "line \\"one\\"\\nline two\\n"}') == f'{{"a": "{REDACTED}"}}'


def test_keys_of_secrets() -> None:
    redactor = Redactor(["hunter2"])
    assert redactor.redact_map(
        {
            "db_Password": "x",
            "AWS_ACCESS_KEY_ID": "y",
            "mySecret": "z",
            "SECRET": "",
            "PATH": "/hunter2",
        }
    ) == {
        "db_Password": REDACTED,
        "AWS_ACCESS_KEY_ID": REDACTED,
        "mySecret": REDACTED,
        "SECRET": "",
        "PATH": f"/{REDACTED}",
    }
    assert Redactor((), ["token"]).redact_map({"API_TOKEN": "t", "PASSWORD": "p"}) == {
        "API_TOKEN": REDACTED,
        "PASSWORD": "p",
    }


def test_values_of_any_shape() -> None:
    value = {"a": ["hunter2", 1, {"PASSWORD": "p", "n": None}], "hunter2": True}
    assert Redactor(["hunter2"]).redact_value(value) == {
        "a": [REDACTED, 1, {"PASSWORD": REDACTED, "n": None}],
        "hunter2": True,
    }


def test_a_stream_holds_back_only_a_possible_beginning() -> None:
    stream = StreamRedactor(["hunter2"])
    assert stream.feed("pw hun") == "pw "
    assert stream.feed("g") == "hung"
    assert stream.feed(b"hunt") == ""
    assert stream.feed(b"er2!") == f"{REDACTED}!"
    assert stream.feed(b"hunter") == ""
    assert stream.flush() == "hunter"


def test_a_stream_of_bytes_that_are_no_text() -> None:
    stream = StreamRedactor(["geheim€"])
    euro = "€".encode()
    assert stream.feed(b"\xff\x00" + euro[:1]) == "\ufffd\x00"
    assert stream.feed(euro[1:] + b"geheim" + euro[:2]) == "€"
    assert stream.feed(euro[2:] + b"\xe2") == REDACTED
    assert stream.flush() == "\ufffd"


def test_a_stream_of_overlaps_without_end_is_one_mark_and_bounded() -> None:
    stream = StreamRedactor(["aaaa"])
    out = "".join(stream.feed("a" * 999) for _ in range(20)) + stream.feed("b") + stream.flush()
    assert out == f"{REDACTED}b"


alphabet = st.text(alphabet="abc\n€", max_size=60)


@given(
    st.lists(st.text(alphabet="abc\n€", min_size=4, max_size=9), max_size=6),
    st.lists(alphabet, max_size=8),
)
def test_pieces_come_out_as_the_whole(values: list[str], pieces: list[str]) -> None:
    values = [value for value in values if len(value.strip()) >= 4]
    stream = StreamRedactor(values)
    out = "".join(stream.feed(piece.encode()) for piece in pieces) + stream.flush()
    rest = out.replace(REDACTED, "\x00")
    assert not any(value in rest for value in values)
    whole = Redactor(values).redact("".join(pieces))
    assert whole in (out, REDACTED)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_without_secrets_bytes_are_only_decoded(pieces: list[bytes]) -> None:
    stream = StreamRedactor([])
    out = "".join(map(stream.feed, pieces)) + stream.flush()
    assert out == b"".join(pieces).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["a" * 50_000, "a" * 49_999 + "b"], "a" * 400_000),
        ([f"secret-{n}" for n in range(5_000)], "secret- " * 40_000),
        ([f"{n:04x}" * 2 for n in range(5_000)], "0123456789abcdef" * 20_000),
    ],
    ids=["long and alike", "many with one prefix", "many"],
)
def test_time_is_linear(values: list[str], text: str) -> None:
    started = time.process_time()
    Redactor(values).redact(text)
    assert time.process_time() - started < 5
