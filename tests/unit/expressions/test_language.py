"""The language, operator by operator and function by function."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from shared.expressions import (
    Duration,
    ExpressionError,
    Month,
    Table,
    Texts,
    Time,
    Weekday,
    evaluate_template,
    format_value,
)

SCOPE = {
    "inputs": {"name": "Ada"},
    "tasks": {"size": "10"},
    "secrets": {},
    "job": {"id": "1"},
    "n": 7,
    "neg": -3,
    "f": 2.5,
    "s": "Hello",
    "u": "héllo",
    "t": True,
    "nothing": None,
    "nums": [3, 1, 2],
    "mixed": [1, "a", None],
    "m": {"a": 1, "b": None},
    "people": [{"name": "Ann", "age": 31}, {"name": "Bo", "age": 25}],
}
NOW = datetime(2026, 11, 24, 9, 38, tzinfo=UTC)


def value_of(text: str) -> object:
    return evaluate_template(text, SCOPE, now=NOW, seed=1)


def check(text: str, wanted: object) -> None:
    got = value_of(text)
    assert type(got) is type(wanted), f"{text} gives {got!r}"
    assert repr(got) == repr(wanted) if isinstance(wanted, float) else got == wanted


def check_all(cases: list[tuple[str, object]]) -> None:
    for text, wanted in cases:
        check(text, wanted)


LITERALS: list[tuple[str, object]] = [
    ("42", 42),
    ("1_000", 1000),
    ("0x2A", 42),
    ("0o52", 42),
    ("0b101010", 42),
    ("09", 9),
    ("9223372036854775807", 2**63 - 1),
    ("1.5", 1.5),
    (".5", 0.5),
    ("5.", 5.0),
    ("1e3", 1000.0),
    ("-0.0", -0.0),
    ('"a\\tb"', "a\tb"),
    (r"'it\'s'", "it's"),
    (r'"\x41\u00e9\U0001F600\u{1F600}\101"', "Aé😀😀A"),
    (r"`a\n``b`", r"a\n`b"),
    ("[1, 'a', nil,]", [1, "a", None]),
    ('{a: 1, "b c": 2, 3: 4, ("d" + "e"): 5,}', {"a": 1, "b c": 2, "3": 4, "de": 5}),
    ("true", True),
    ("nil", None),
    ("1 /* one */ + // two\n 2", 3),
]

ARITHMETIC: list[tuple[str, object]] = [
    ("1 + 2", 3),
    ("1 + 2.0", 3.0),
    ("1 - 2", -1),
    ("2 * 3", 6),
    ("6 / 2", 3.0),
    ("7 / 2", 3.5),
    ("1 / 0", math.inf),
    ("-1 / 0", -math.inf),
    ("7 % 3", 1),
    ("-7 % 3", -1),
    ("7 % -3", 1),
    ("2 ** 3", 8.0),
    ("2 ^ -1", 0.5),
    ("2 ** 99999", math.inf),
    ("31 ** 2.5", 5350.62155267965),
    ("9223372036854775807 + 1", -(2**63)),
    ("-9223372036854775807 - 2", 2**63 - 1),
    ("0.1 + 0.2", 0.30000000000000004),
    ("+n", 7),
    ("-n", -7),
    ("- -n", 7),
    ('"a" + "b"', "ab"),
    ("1..4", [1, 2, 3, 4]),
    ("4..1", []),
]

PRECEDENCE: list[tuple[str, object]] = [
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("1 - 2 - 3", -4),
    ("8 / 4 / 2", 1.0),
    ("2 ** 3 ** 2", 512.0),
    ("-2 ** 2", -4.0),
    ("2 * 3 ** 2", 18.0),
    ("1..2 + 2", [1, 2, 3, 4]),
    ("1 + 1..4", [2, 3, 4]),
    ("not t ? 1 : 2", 2),
    ("not true and false", False),
    ("true or false and false", True),
    ("1 < 2 < 3", True),
    ("3 > 2 > 2", False),
    ("1 < 2 == true", True),
    ("1 == 1 == true", True),
    ("1 in [1] and 2 in [2]", True),
    ("not (1 in [2])", True),
    ("1 not in [2]", True),
    ("1 + nothing ?? 2", 3),
    ("-n ?? 1", -7),
    ("nothing ?? nothing ?? 1", 1),
    ("t ? 1 : t ? 2 : 3", 1),
    ("t ?: 5", True),
    ("if t {1} else if t {2} else {3}", 1),
    ("(if t {1} else {2}) + 1", 2),
    ("1; 2", 2),
    ("let a = 1; let b = a + 1; a + b", 3),
    ("1..10 | filter(# > 5) | map(# * 2)", [12, 14, 16, 18, 20]),
    ('"x" | repeat(3) | upper()', "XXX"),
    ("::len([1])", 1),
]

COMPARISON: list[tuple[str, object]] = [
    ("1 == 1.0", True),
    ("1 != 2", True),
    ('"B" < "a"', True),
    ("1 <= 1.5", True),
    ("[1] == [1.0]", True),
    ("{a: 1} == {a: 1}", True),
    ("{a: 1} == {a: 1.0}", False),
    ('fromJSON("[1]") == [1]', True),
    ("nums == 1..3", False),
    ("nothing == nil", True),
    ("s == nil", False),
    ("concat([], []) == nil", True),
    ("[] == nil", False),
    ("0 / 0 == 0 / 0", False),
    ('duration("60m") == duration("1h")', True),
    ('date("2024-01-02") > date("2024-01-01")', True),
    ("2 in nums", True),
    ('"a" in m', True),
    ('"z" in inputs', False),
    ('"name" in inputs', True),
    ('s contains "ell"', True),
    ('s startsWith "He"', True),
    ('s endsWith "lo"', True),
    ('s not endsWith "x"', True),
    ('s matches "^H.*o$"', True),
    ('s not matches "h"', True),
    ('m.b contains "a"', False),
    ("true && !false", True),
    ("false || true", True),
]

REACHING: list[tuple[str, object]] = [
    ("inputs.name", "Ada"),
    ("inputs.missing", ""),
    ('inputs["missing"]', ""),
    ('get(inputs, "missing")', None),
    ("m.a", 1),
    ("m.z", None),
    ("m?.z?.y", None),
    ("nothing ?? 1", 1),
    ("people[1].name", "Bo"),
    ("people[-1].name", "Bo"),
    ("nums?.[0]", 3),
    ("nums[1:]", [1, 2]),
    ("nums[:-1]", [3, 1]),
    ("nums[-10:2]", [3, 1]),
    ("nums[5:]", []),
    ("s[1:3]", "el"),
    ("u[0:2]", "h\ufffd"),
    ("u[0:2] + u[2:3]", "hé"),
    ("$env.n", 7),
    ('$env["n"]', 7),
    ("$env?.zz", None),
    ('"n" in $env', True),
]

LOOPS: list[tuple[str, object]] = [
    ("all(nums, # > 0)", True),
    ("all([], false)", True),
    ("any(nums, # > 2)", True),
    ("any([], true)", False),
    ("one(nums, # > 2)", True),
    ("none(nums, # > 5)", True),
    ("filter(nums, # > 1)", [3, 2]),
    ("filter(people, .age > 26)[0].name", "Ann"),
    ("filter(nums, # > 0)[-1]", 2),
    ("first(filter(nums, # > 9))", None),
    ("len(filter(nums, # > 1))", 2),
    ("map(people, .name)", ["Ann", "Bo"]),
    ("map(nums, #index)", [0, 1, 2]),
    ("map(nums, {let k = #; map(nums, # * k)})", [[9, 3, 6], [3, 1, 2], [6, 2, 4]]),
    ("find(nums, # < 3)", 1),
    ("find(nums, # > 9)", None),
    ("findIndex(nums, # == 2)", 2),
    ("findLast(nums, # > 1)", 2),
    ("findLastIndex(nums, # > 1)", 2),
    ("findIndex(nums, # == 9)", None),
    ("count(nums, # > 1)", 2),
    ("count([true, false, true])", 2),
    ("sum(nums)", 6),
    ("sum([1.5, 2])", 3.5),
    ("sum(people, .age)", 56),
    ("sum([s, s])", "HelloHello"),
    ("sum([])", 0),
    ("reduce(1..4, #acc + #)", 10),
    ("reduce(1..4, #acc * #, 1)", 24),
    ("reduce(1..3, #acc + # * #index, 0)", 8),
    ("reduce([], #acc + #, 5)", 5),
    ("sortBy(people, .age) | map(.name)", ["Bo", "Ann"]),
    ('sortBy(people, .age, "desc") | map(.name)', ["Ann", "Bo"]),
    ('groupBy(["a", "bb", "c"], len(#))[1]', ["a", "c"]),
    ("groupBy(nums, # > 9)[true]", []),
]

TEXTS: list[tuple[str, object]] = [
    ('len("héllo")', 5),
    ('trim("  a ")', "a"),
    ('trim("__a__", "_")', "a"),
    ('trimPrefix("ab", "a")', "b"),
    ('trimSuffix("ab", "b")', "a"),
    ('upper("straße")', "STRAßE"),
    ('lower("ÀB")', "àb"),
    ('split("a,b,,c", ",")', ["a", "b", "", "c"]),
    ('split("a,b,c", ",", 2)', ["a", "b,c"]),
    ('split("a,b", ",", 0)', []),
    ('split("hé", "")', ["h", "é"]),
    ('splitAfter("a,b", ",")', ["a,", "b"]),
    ('replace("aaa", "a", "b")', "bbb"),
    ('replace("aaa", "a", "b", 2)', "bba"),
    ('replace("aa", "", "-")', "-a-a-"),
    ('repeat("ab", 2)', "abab"),
    ('join(["a", "b"], "-")', "a-b"),
    ('join(["a", "b"])', "ab"),
    ('indexOf("héllo", "l")', 3),
    ('indexOf("a", "z")', -1),
    ('lastIndexOf("abab", "ab")', 2),
    ('hasPrefix("ab", "a")', True),
    ('hasSuffix("ab", "a")', False),
]

NUMBERS: list[tuple[str, object]] = [
    ("abs(-5)", 5),
    ("abs(-5.5)", 5.5),
    ("ceil(1.2)", 2.0),
    ("ceil(-0.5)", -0.0),
    ("floor(-1.2)", -2.0),
    ("floor(3)", 3.0),
    ("round(2.5)", 3.0),
    ("round(-1.5)", -2.0),
    ("max(1, 2.5, [4, 3])", 4),
    ("max([])", None),
    ("min(1.0, 1)", 1.0),
    ("mean([1, 2])", 1.5),
    ("mean([])", 0.0),
    ("median([3, 1, 2])", 2.0),
    ("median([1, 2, 3, 4])", 2.5),
    ("bitand(12, 10)", 8),
    ("bitor(12, 10)", 14),
    ("bitxor(12, 10)", 6),
    ("bitnand(12, 10)", 4),
    ("bitnot(10)", -11),
    ("bitshl(1, 63)", -(2**63)),
    ("bitshl(1, 64)", 0),
    ("bitshr(-8, 1)", -4),
    ("bitushr(-5, 2)", 4611686018427387902),
]

ARRAYS: list[tuple[str, object]] = [
    ("first(nums)", 3),
    ("last(nums)", 2),
    ("last([])", None),
    ("get(nums, 9)", None),
    ("take(nums, 2)", [3, 1]),
    ("take(nums, 9)", [3, 1, 2]),
    ("keys({a: 1})", ["a"]),
    ("values({a: 1})", [1]),
    ("toPairs({a: 1})", [["a", 1]]),
    ('fromPairs([["a", 1]])', {"a": 1}),
    ("reverse(nums)", [2, 1, 3]),
    ("uniq([1, 1.0, 2, true])", [1, 2, True]),
    ("concat([1], [2], [3])", [1, 2, 3]),
    ("flatten([1, [2, [3]]])", [1, 2, 3]),
    ("sort([2, 1.5, 3])", [1.5, 2, 3]),
    ('sort(["b", "a"], "desc")', ["b", "a"]),
    ("len({a: 1})", 1),
]

CONVERSIONS: list[tuple[str, object]] = [
    ('int("-12")', -12),
    ("int(2.9)", 2),
    ("int(1e300)", -(2**63)),
    ('int(duration("1us"))', 1000),
    ('float("1e3")', 1000.0),
    ("float(3)", 3.0),
    ('float("0x1p-2")', 0.25),
    ("string(1.0)", "1"),
    ("string(nil)", "<nil>"),
    ("type(1)", "int"),
    ("type(1.0)", "float"),
    ('type("")', "string"),
    ("type(true)", "bool"),
    ("type([])", "array"),
    ("type({})", "map"),
    ("type(nil)", "nil"),
    ('type(duration("1s"))', "time.Duration"),
    ("type(now())", "time.Time"),
    ('toBase64("Hello")', "SGVsbG8="),
    ('fromBase64("SGVsbG8=")', "Hello"),
    ('toJSON({b: 1.0, a: [nil, "<"]})', '{\n  "a": [\n    null,\n    "\\u003c"\n  ],\n  "b": 1\n}'),
    ("toJSON(1e21)", "1e+21"),
    ('fromJSON("{\\"a\\": [1, true]}")', {"a": [1.0, True]}),
]

TIMES: list[tuple[str, object]] = [
    ('duration("1.5h")', Duration(5_400_000_000_000)),
    ('duration("1h") - duration("90m")', Duration(-1_800_000_000_000)),
    ('duration("1h") * 2', Duration(7_200_000_000_000)),
    ('duration("90m").Hours()', 1.5),
    ('duration("1ms").Microseconds()', 1000),
    ('duration("1h").String()', "1h0m0s"),
    ('date("2023-08-15") - date("2023-08-14")', Duration(86_400_000_000_000)),
    ('date("2023-08-14").Year()', 2023),
    ('date("2023-08-14").Month()', Month(8)),
    ('date("2023-08-14").Weekday()', Weekday(1)),
    ('date("2023-08-14").YearDay()', 226),
    ('date("2023-08-14T10:30:05+02:00").Unix()', 1692001805),
    ('date("14/08/2023", "02/01/2006").Format("2006-01-02")', "2023-08-14"),
    ('date("2023-08-14 00:00:00", "2006-01-02 15:04:05", "Europe/Zurich").UTC().Hour()', 22),
    ('date("2024-01-31").AddDate(0, 1, 0).Format("Jan 2")', "Mar 2"),
    (
        'date("2023-08-14T00:00:00Z").In(timezone("America/New_York")).Format("15:04 MST")',
        "20:00 EDT",
    ),
    ('date("2023-08-14 10:31:05").Truncate(duration("1h")).Minute()', 0),
    ("now().Year()", 2026),
    ('now() - duration("38m") == date("2026-11-24 09:00:00")', True),
    ('timezone("UTC").String()', "UTC"),
]

EXTRAS: list[tuple[str, object]] = [
    ("sequence(1, 4)", [1, 2, 3]),
    ("sequence(4, 1)", []),
    ("randomInt(1)", 0),
    ("randomInt() >= 0", True),
]


@pytest.mark.parametrize(
    "cases",
    [
        LITERALS, ARITHMETIC, PRECEDENCE, COMPARISON, REACHING, LOOPS, TEXTS, NUMBERS, ARRAYS,
        CONVERSIONS, TIMES, EXTRAS,
    ],
    ids=[
        "literals", "arithmetic", "precedence", "comparison", "reaching", "loops", "texts", "numbers",
        "arrays", "conversions", "times", "extras",
    ],
)  # fmt: skip
def test_values(cases: list[tuple[str, object]]) -> None:
    check_all(cases)


FAULTS: list[tuple[str, str]] = [
    ("", "syntax"),
    ("1 +", "syntax"),
    ("(1", "syntax"),
    ("1 2", "syntax"),
    ("i = 5", "syntax"),
    ("nothing ?? 1 + 2", "syntax"),
    ("# > 1", "syntax"),
    (".a", "syntax"),
    ('"a', "syntax"),
    (r"'\z'", "syntax"),
    ("let x = 1", "syntax"),
    ('"a" | upper', "syntax"),
    ("1 not == 2", "syntax"),
    ("9223372036854775808", "syntax"),
    ("map(nums, 1; 2)", "syntax"),
    ("/* open", "syntax"),
    ("missing", "name"),
    ("missing()", "name"),
    ("$env.zz", "name"),
    ("trim(5)", "name"),
    ("min()", "name"),
    ("sequence(1)", "name"),
    ('1 == "a"', "name"),
    ('1 + "a"', "name"),
    ("1 and true", "name"),
    ("-s", "name"),
    ("not s", "name"),
    ("n()", "name"),
    ("s.length", "name"),
    ("s[0]", "name"),
    ("nums.first", "name"),
    ("m[1]", "name"),
    ("n[1:]", "name"),
    ("filter(nums, #index > 0)", "name"),
    ("let n = 1; n", "name"),
    ("let len = 1; len", "name"),
    ("let x = 1; let x = 2; x", "name"),
    ('s matches "("', "name"),
    ("1 % 0", "name"),
    ("1 ? 2 : 3", "name"),
    ("any(nums, 1)", "name"),
    ("map(s, #)", "name"),
    ('date("2024-01-01").Add(1)', "name"),
    ('date("2024-01-01").Nope()', "name"),
    ("n % (n - 7)", "run"),
    ("nums[3]", "run"),
    ("nums[-4]", "run"),
    ("m.b.c", "run"),
    ("m.a + m.z", "run"),
    ("mixed[1] - 1", "run"),
    ("all(nums, m.a)", "run"),
    ("sort(mixed)", "run"),
    ("sum(mixed)", "run"),
    ("reduce([], #acc)", "run"),
    ("take(nums, -1)", "run"),
    ("bitshl(1, -1)", "run"),
    ('repeat("a", -1)', "run"),
    ('trim("a", m.b)', "run"),
    ('int("1.5")', "run"),
    ('float("x")', "run"),
    ('fromJSON("{")', "run"),
    ('fromJSON("NaN")', "run"),
    ('fromBase64("!")', "run"),
    ('date("2023-13-01")', "run"),
    ('date("2023-02-29")', "run"),
    ('duration("1d")', "run"),
    ('timezone("Mars/One")', "run"),
    ("toJSON(groupBy(nums, #))", "run"),
    ("toJSON(1 / 0)", "run"),
    ("groupBy([[1]], #)", "run"),
    ("randomInt(0)", "run"),
    ("findIndex(nums, # == 9) == 1", "run"),
    ("filter(nums, # > 9)[0]", "run"),
    ('fromPairs([["a"]])', "run"),
    ("{(1 + 1): 2}", "run"),
    ("m.a()", "run"),
]


def test_what_is_nil_is_named() -> None:
    for text, named in (("m.b.c", "b"), ('m["b"].c.d', "b")):
        with pytest.raises(
            ExpressionError, match=f"^there is nothing to fetch from {named}, which is nil"
        ):
            value_of(text)
    with pytest.raises(ExpressionError, match=r"^there is nothing to fetch from nil"):
        value_of("(m.b ?? nil).c")


@pytest.mark.parametrize(("text", "kind"), FAULTS, ids=[text for text, _ in FAULTS])
def test_faults(text: str, kind: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        value_of(text)
    assert caught.value.kind == kind


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("true", "true"),
        ("3", "3"),
        ("1.5", "1.5"),
        ("1000000.0", "1e+06"),
        ("999999.0", "999999"),
        ("0.0001", "0.0001"),
        ("0.00001", "1e-05"),
        ("1 / 0", "+Inf"),
        ("0 / 0", "NaN"),
        ("-0.0", "-0"),
        ("nil", "<nil>"),
        ('[1, 2, "a"]', "[1 2 a]"),
        ("{b: 2, a: 1}", "map[a:1 b:2]"),
        (
            'groupBy([1, "a", 1.5, true, nil], #)',
            "map[<nil>:[<nil>] a:[a] 1:[1] 1.5:[1.5] true:[true]]",
        ),
        ('duration("1h30m")', "1h30m0s"),
        ('duration("1.5us")', "1.5µs"),
        ('date("2023-08-14")', "2023-08-14 00:00:00 +0000 UTC"),
        ('date("2023-08-14T10:30:05.5+02:00")', "2023-08-14 10:30:05.5 +0200 +0200"),
        ('date("2023-08-14").Month()', "August"),
        ('date("2023-08-14").Weekday()', "Monday"),
    ],
)
def test_texts_of_values(text: str, wanted: str) -> None:
    assert format_value(value_of(text)) == wanted


def test_values_json_lacks_come_out_as_themselves() -> None:
    table = value_of("groupBy([1, 2], # > 1)")
    assert isinstance(table, Table)
    assert table[True] == [2]
    assert isinstance(value_of("now()"), Time)


def test_the_same_seed_gives_the_same_chance() -> None:
    one = evaluate_template("map(1..9, randomInt(1000))", {}, seed=5)
    assert one == evaluate_template("map(1..9, randomInt(1000))", {}, seed=5)
    assert one != evaluate_template("map(1..9, randomInt(1000))", {}, seed=6)


def test_a_name_of_the_scope_hides_a_function() -> None:
    assert evaluate_template("count + 1", {"count": 1}) == 2
    with pytest.raises(ExpressionError, match="int is not a function"):
        evaluate_template("count([true])", {"count": 1})
    assert evaluate_template("::count([true])", {"count": 1}) == 1


def test_a_loop_variable_hides_inputs() -> None:
    assert evaluate_template("inputs.value", {"inputs": {"index": "0", "value": 5}}) == 5


def test_maps_of_texts_may_be_given_ready() -> None:
    assert evaluate_template("inputs.a + inputs.b", {"inputs": Texts({"a": "x"})}) == "x"


def test_whole_numbers_beyond_64_bits_come_in_as_floats() -> None:
    assert evaluate_template("item.value + 1", {"item": {"value": 10**30}}) == 1e30


def test_what_no_json_holds_cannot_be_in_the_scope() -> None:
    with pytest.raises(TypeError):
        evaluate_template("x", {"x": object()})
