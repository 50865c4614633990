"""Redaction: whole texts, maps, and logs in pieces."""

from __future__ import annotations

import base64
import json
import random
import re
import string
import time
from typing import Any
from urllib.parse import quote, quote_plus, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared import redaction
from shared.redaction import (
    _CODINGS_AT_MOST,
    LONG_TEXT,
    REDACTED,
    SEARCHED_AT_MOST,
    Redactor,
    StreamRedactor,
    _automaton,
    _patterns,
)


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


KEY = """-----BEGIN KEY-----
MIIEvQIBADANBgkqhkiG9w0BAQEFAASC
  abcdefgh
xy
-----END KEY-----
"""


@pytest.mark.parametrize("written", ["\\n", "\\r\\n", "\\r", "\\\\n"])
def test_line_breaks_that_are_written_out_are_breaks_too(written: str) -> None:
    lines = ["-----BEGIN PRIVATE KEY-----", "MIIEvQIBADANBg+kqhkiG", "w0BAQEFAA/SCBKcw", "xY3="]
    redactor = Redactor([written.join([*lines, ""])])
    for shown in (written, "\n", "\r\n"):
        text = redactor.redact(f"key: {shown.join(lines)}{shown}end")
        assert not any(line in text for line in lines[:3]), text
    assert redactor.redact("key: " + "\n".join([*lines, "end"])) == "key: [REDACTED]end"
    assert redactor.redact(json.dumps({"line": lines[1]})) == '{"line": "[REDACTED]"}'


def test_a_file_with_such_a_key_in_it_is_searched_for_all_of_its_lines() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg+kqhkiG\nw0BAQEFAA/SCBKcw\n"
    file = json.dumps({"type": "service_account", "private_key": key}, indent=2)
    redactor = Redactor([file])
    assert redactor.redact(key).split() == ["-----BEGIN", "KEY-----", REDACTED, REDACTED]
    assert redactor.redact(f"> {file}") == "> [REDACTED]"


def test_the_largest_secrets_with_written_breaks_can_be_looked_for() -> None:
    line = string.ascii_letters + "\\n"
    value = "\n".join([line * 500] * 3)[: 64 * 1024]
    assert Redactor([value]).redact("nothing") == "nothing"


def test_each_line_of_a_value_is_a_value() -> None:
    redactor = Redactor([KEY])
    for text in (
        KEY.replace("\n", "|"),
        KEY.replace("\n", "\n  "),
        "\n".join(KEY.splitlines()[:2]),
    ):
        shown = redactor.redact(text)
        assert "MII" not in shown
        assert "BEGIN" not in shown
    assert redactor.redact("an abcdefgh, xy") == f"an {REDACTED}, xy", (
        "5 characters and less are none"
    )
    stream = StreamRedactor([KEY])
    assert (
        "MII"
        not in stream.feed("  MIIEvQIBADANBg") + stream.feed("kqhkiG9w0BAQEFAASC") + stream.flush()
    )


@pytest.mark.parametrize(
    "value", ["p@ss w/rd+1?", "hunter2", "\u00fc\u00f6\u00e4-geheim", "x" * 200, "a~b!c'd(e)"]
)
@pytest.mark.parametrize(
    "around", [("", ""), ("user:", ""), ("u:", "@h"), ("user", "\n"), ("", "\n")]
)
def test_base64_of_a_value(value: str, around: tuple[str, str]) -> None:
    data = f"{around[0]}{value}{around[1]}".encode()
    for coded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        shown = Redactor([value]).redact(f"x {coded.decode()} y")
        assert REDACTED in shown
        whole = base64.b64encode(value.encode()).decode().rstrip("=")[2:-2]
        assert whole not in shown


def test_base64_as_tools_break_it() -> None:
    value = "".join(chr(33 + n % 90) for n in range(300))
    shown = Redactor([value]).redact(base64.encodebytes(value.encode()).decode())
    assert shown.replace(REDACTED, "").strip("=\n") == ""


PEM = (
    "-----BEGIN PRIVATE KEY-----\n"
    + "\n".join(c * 64 for c in "aBc/+9")
    + "\n-----END PRIVATE KEY-----\n"
)
LONG = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ" * 2


@pytest.mark.parametrize(
    "value", [PEM, LONG, "a-token-of-the-usual-length"], ids=["pem", "long", "token"]
)
@pytest.mark.parametrize("width", [76, 64, 17])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\n    "])
def test_base64_with_something_around_it_in_lines_of_any_length(
    value: str, width: int, end: str
) -> None:
    """As `(echo KEY=$K; cat other) | base64` and `openssl base64` write it, indented or not."""
    for before in range(0, 60, 4):
        coded = base64.b64encode(f"{'x' * before}{value}yyyy".encode()).decode()
        lines = [coded[at : at + width] for at in range(0, len(coded), width)]
        shown = Redactor([value]).redact(end.join(lines))
        left = "".join(shown.replace(REDACTED, "").split())
        told = coded[: before * 8 // 6]
        assert len(left) <= len(told) + 4 + 8, (before, shown)
        stream = StreamRedactor([value])
        text = "".join(stream.feed(char) for char in end.join(lines)) + stream.flush()
        assert text == shown


def test_a_line_is_not_held_back_because_of_how_it_ends() -> None:
    """Any line may end with a letter that begins a secret's base64."""
    stream = StreamRedactor([LONG])
    first = base64.b64encode(LONG.encode()).decode()
    for length in (1, 2, 3):
        line = f"a line that ends with {first[:length]}\n"
        assert stream.feed(line) == line
    assert stream.feed(first[:10]) == ""
    assert stream.flush() == first[:10]


def test_line_breaks_without_end_are_held_within_bounds() -> None:
    stream = StreamRedactor([LONG])
    begun = base64.b64encode(LONG.encode()).decode()[:10]
    given = stream.feed(begun) + "".join(stream.feed("\n" * 1000) for _ in range(100))
    assert len(given) >= 100_000 - 100
    assert given + stream.flush() == begun + "\n" * 100_000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("p&ss<wo>rd", '{"a": "p\\u0026ss\\u003cwo\\u003erd"}'),  # Go
        ("pa/ss/word", '{"a": "pa\\/ss\\/word"}'),  # PHP
        ("pässwörd", '{"a": "p\\u00E4ssw\\u00F6rd"}'),  # .NET
        ('pa"ss\\word', json.dumps(json.dumps({"a": 'pa"ss\\word'}))),
        ("it's(a)pass!", "it's(a)pass!"),
        ("it's (a) pass!", "it's%20(a)%20pass!"),  # encodeURIComponent
        ("p&ss word", quote(quote("p&ss word"))),
        ("it's a pass", "password: 'it''s a pass'"),  # YAML, SQL
        ('p&ss<wo>rd"', "p&amp;ss&lt;wo&gt;rd&#34;"),
        ('p&ss<wo>rd"', "p&amp;ss&lt;wo&gt;rd&quot;"),
        ("pa$s w(o)rd", r"pa\$s\ w\(o\)rd"),  # printf %q
        ('pa"s$word`', r"""declare -x P="pa\"s\$word\`" """),
        ("pa,s{w}o#rd~", r"pa\,s\{w\}o#rd~"),  # printf %q of bash
        ("pa's'\tword", r"$'pa\'s\'\tword'"),
        ("pa\x1bss\x01word\\", r"declare -- P=$'pa\Ess\001word\\'"),
        ("pa's\twörd", r"$'pa\'s\twörd'"),
        ("pässwörd", r"$'p\303\244ssw\303\266rd'"),  # with LC_ALL=C
        ("pässw€rd", ascii("pässw€rd")),
        ("pässw€rd", str("pässw€rd".encode())),
        ("pässw\U0001f600rd", ascii({"a": "pässw\U0001f600rd"})),
        ('pässw\u20acrd\U0001f600\xa0\x1b"', r'"p\xE4ssw\u20ACrd\U0001F600\_\e\""'),  # PyYAML
        ("p&ss<wo>rd'\"", "p&amp;ss&lt;wo&gt;rd'\""),  # XML
        ("p&ss<wo>rd'\"", "p&amp;ss&lt;wo&gt;rd&#39;&quot;"),  # jq
        ("p&ss<wo>rd'\"", "p&amp;ss&lt;wo&gt;rd&#039;&quot;"),  # PHP
        ("p&ss<wo>rd'\"", "p&amp;ss&lt;wo&gt;rd&apos;&quot;"),
        ("pa'ss \"wo\\rd\x1a", r"""'pa\'ss \"wo\\rd\Z'"""),  # MySQL
        ("pa'ss word", r"'pa\'ss word'"),  # PHP
        ("pa;/?ss:@&=+$,word#'()*! ü", "http://h/pa;/?ss:@&=+$,word#'()*!%20%C3%BC"),  # encodeURI
        ("pa;/?ss[word] ü", "http://h/pa;/?ss[word]%20%C3%BC"),  # requests
        ("pa~ss*wo rd", "http://h/?p=pa%7Ess*wo+rd"),  # URLSearchParams, URLEncoder of Java
        ("pa%41ss word", "http://h/pa%41ss%20word"),
    ],
)
def test_a_value_as_other_programs_write_it(value: str, text: str) -> None:
    shown = Redactor([value]).redact(text)
    assert REDACTED in shown
    assert "pa" not in shown.replace("password", "")
    assert "word" not in shown.replace("password", "")
    assert "ss" not in shown.replace("password", "")


def test_a_value_as_a_shell_shows_it() -> None:
    """`set -x` of dash, busybox and bash."""
    for shown in ("'it'\"'\"'s secret'", "'it'\\''s secret'"):
        assert Redactor(["it's secret"]).redact(f"+ echo {shown}") == f"+ echo '{REDACTED}'"


@pytest.mark.parametrize("value", ["p@ss w/rd", "a&b=c d", "50%ig", "\u00fcber"])
def test_a_value_in_a_url(value: str) -> None:
    redactor = Redactor([value])
    for coded in (
        quote(value, safe=""),
        quote(value),
        quote_plus(value),
        quote(value, safe="").lower(),
    ):
        assert redactor.redact(f"http://h/?p={coded}&x=1") == f"http://h/?p={REDACTED}&x=1"


@pytest.mark.parametrize("around", [("", ""), ("u:", "@h"), ("user:", "")])
def test_base64_of_a_value_in_a_url(around: tuple[str, str]) -> None:
    value = "\u00fb\u00ff?>~\u00fb\u00ff?>~"
    coded = base64.b64encode(f"{around[0]}{value}{around[1]}".encode()).decode()
    assert {"+", "/"} <= set(coded)
    whole = quote(coded, safe="")
    lower = re.sub("%..", lambda code: code[0].lower(), whole)
    for quoted in (quote(coded), whole, lower):
        shown = Redactor([value]).redact(quoted)
        assert REDACTED in shown
        told = unquote(shown.replace(REDACTED, ""))
        assert len(told) <= (len(around[0]) + len(around[1])) * 8 // 6 + 6, shown


@pytest.mark.parametrize(
    ("pattern", "keys", "others"),
    [
        ("*TOKEN*", ["API_TOKEN", "tokens"], ["TOKE"]),
        ("DB_*", ["DB_PASS", "db_x"], ["MY_DB_X"]),
        ("*_PIN", ["MY_PIN", "my-pin"], ["PIN", "MY_PIN_2"]),
        ("k?y", ["key", "KAY"], ["keey"]),
        ("[a]*", ["[a]b"], ["ab"]),
        ("pin", ["PIN", "SPINE"], ["PN"]),
    ],
)
def test_wildcards_in_patterns(pattern: str, keys: list[str], others: list[str]) -> None:
    redactor = Redactor((), [pattern])
    assert all(map(redactor.is_secret_key, keys))
    assert not any(map(redactor.is_secret_key, others))


@pytest.mark.parametrize(
    "key",
    [
        "Authorization",
        "AUTHORIZATION",
        "proxy-authorization",
        "X-Api-Key",
        "GITHUB_TOKEN",
        "Cookie",
    ],
)
def test_keys_that_say_that_a_value_is_secret(key: str) -> None:
    assert Redactor().is_secret_key(key)


def test_many_values_stay_within_bounds() -> None:
    values = [
        "".join(chr(97 + (n * 7 + m * 3) % 26) for m in range(60)) + str(n) for n in range(1000)
    ]
    began = time.monotonic()
    redactor = Redactor(values)
    assert redactor.redact(f"a {values[500]} b") == f"a {REDACTED} b"
    assert time.monotonic() - began < 10
    assert (
        sum(len(each) for group in _patterns(values) for each in group) < 64 * 1024 * 2 + 128 * 1024
    )


@pytest.mark.parametrize(
    "value",
    [
        "'" * 65_536,
        "\x01" * 65_536,
        "\\" * 65_536,
        "".join(chr(33 + n * 7 % 90) for n in range(65_536)),
    ],
)
def test_what_looks_for_large_values_is_bounded_and_remembered(value: str) -> None:
    """However many more characters other programs would write it with."""
    found, in_lines = _patterns([value])
    assert sum(map(len, found | in_lines)) <= SEARCHED_AT_MOST + _CODINGS_AT_MOST
    assert value.encode() in found
    assert _automaton(frozenset([value])) is _automaton(frozenset([value]))


def _many_values(seed: int) -> list[str]:
    chosen = random.Random(seed)
    return ["".join(chosen.choices(string.ascii_letters, k=63)) for _ in range(1000)]


def test_short_texts_are_searched_for_many_values_without_what_takes_long_to_make(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    class Noted(redaction._Automaton):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            made.append(self.size)

    monkeypatch.setattr(redaction, "_Automaton", Noted)
    for seed in range(3):
        values = _many_values(seed)
        redactor = Redactor(values)
        assert redactor.redact("a job's name") == "a job's name"
        assert not made
        assert redactor.redact(f"its {values[7]}{values[8]}.") == f"its {REDACTED * 2}."
        assert sum(made) < 1000
        made.clear()


def test_a_short_text_shows_what_a_long_one_does() -> None:
    values = _many_values(9)
    coded = base64.b64encode(f"user:{min(values)}".encode()).decode()
    texts = [
        f"{values[1]} and {values[2][:40]}",
        f"{coded[:30]}\n  {coded[30:]}",
        f"{values[3]}{values[4]}"[5:],
        "plain\ntext " * 20,
        values[5][:-1],
    ]
    redactor = Redactor(values)
    short = [redactor.redact(text) for text in texts]
    filler = "\n" * (LONG_TEXT + 1)
    assert short == [redactor.redact(text + filler).rstrip("\n") for text in texts]
    assert sum(REDACTED in text for text in short) == 3


def test_many_texts_are_searched_by_what_is_made_once() -> None:
    values = _many_values(11)
    redactor = Redactor(values)
    began = time.process_time()
    for _ in range(2000):
        assert redactor.redact(f"{values[0]} is in it") == f"{REDACTED} is in it"
    assert time.process_time() - began < 20


def test_service_accounts_of_a_sub_job_and_those_above_it_can_be_looked_for() -> None:
    """A job can have 64 KiB of secrets, those it gets from above as many again."""
    accounts: list[str] = []
    while sum(map(len, accounts)) < 126 * 1024:
        lines = [f"{len(accounts):03}{line:061}" for line in range(24)]
        key = "\n".join(("-----BEGIN PRIVATE KEY-----", *lines, "-----END PRIVATE KEY-----"))
        account = {"type": "service_account", "private_key": key, "client_id": len(accounts)}
        accounts.append(json.dumps(account, indent=2))
    found, _ = _patterns(accounts)
    assert set(map(str.encode, accounts)) <= found


def test_nothing_is_shown_where_there_is_more_to_hide_than_can_be_looked_for() -> None:
    values = [f"{n:06}" * 1000 for n in range(100)]
    redactor = Redactor(values)
    assert redactor.redact("anything") == REDACTED
    assert redactor.redact("") == ""
    stream = redactor.stream()
    assert stream.feed("a\n") + stream.feed("b\n") + stream.flush() == REDACTED
