"""`haulier logs`: which lines, under which names, and nothing that plays tricks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from haulier.cli import logs
from haulier.cli.logs import NamedPart
from haulier.cli.output import json_text, plain_text, shortened, terminal_text, text_width, wrapped
from haulier.results import LogPart
from tests.unit.haulier.conftest import Command
from tests.unit.haulier.seed_server import (
    JOB_ID,
    OTHER_TASK_ID,
    SUB_ID,
    TASK_ID,
    SeedServer,
    summary,
    task,
)

INNER_ID = "dd76535bc23649ca9403e636e377aca3"


def family(server: SeedServer) -> list[str]:
    """Give the job two `task 1`, each in a parallel of its own; return their ids."""
    parents = ["e1" * 16, "e2" * 16]
    children = ["f1" * 16, "f2" * 16]
    server.job["execution"] = [
        task(parents[0], 1, "left"),
        task(children[0], 1, "task 1", parentId=parents[0]),
        task(parents[1], 2, "right"),
        task(children[1], 2, "task 1", parentId=parents[1]),
    ]
    return children


def test_two_of_one_name_are_told_apart(haulier: Command, server: SeedServer) -> None:
    one, two = family(server)
    server.lines = [(one, "a"), (two, "b")]
    assert haulier("logs", JOB_ID).out == "[left/task 1] a\n[right/task 1] b\n"
    assert haulier("logs", JOB_ID, "-f").out == "[left/task 1] a\n[right/task 1] b\n"
    assert haulier("logs", JOB_ID, "--task", "right/task 1").out == "[right/task 1] b\n"
    assert haulier("logs", JOB_ID, "--task", one[:6]).out == "[left/task 1] a\n"


def test_siblings_of_one_name_are_told_apart_and_attempts_are_not(
    haulier: Command, server: SeedServer
) -> None:
    parent, ids = "e1" * 16, ["f1" * 16, "f2" * 16, "f3" * 16]
    server.job["execution"] = [
        task(parent, 1, "each"),
        task(ids[0], 1, "same", parentId=parent, attempt=1),
        task(ids[1], 1, "same", parentId=parent, attempt=1),
        task(ids[2], 1, "same", parentId=parent, attempt=2),
    ]
    server.lines = [(ids[0], "a"), (ids[1], "b"), (ids[2], "c")]
    lines = haulier("logs", JOB_ID).out.splitlines()
    assert lines[:2] == ["[each/same] a", "[each/same#2] b"]
    assert lines[2] in ("[each/same] c", "[each/same#2] c")


def test_lines_are_picked(haulier: Command, server: SeedServer) -> None:
    server.lines = [(TASK_ID, "one"), (OTHER_TASK_ID, "two"), (TASK_ID, "three")]
    for follow in ([], ["-f"]):
        assert (
            haulier("logs", JOB_ID, "--task", "first", *follow).out
            == "[first] one\n[first] three\n"
        )
        assert (
            haulier("logs", JOB_ID, "--grep", "^t", *follow).out == "[second] two\n[first] three\n"
        )
        assert haulier("logs", JOB_ID, "--tail", "1", *follow).out == "[first] three\n"
        both = ("--tail", "1", "--grep", "o")
        assert haulier("logs", JOB_ID, *both, *follow).out == "[second] two\n"
    assert haulier("logs", JOB_ID, "--tail", "0").out == ""
    assert haulier("logs", JOB_ID, "--grep", "(").code == 2
    code, out, _ = haulier("logs", TASK_ID, "-t", "--tail", "1")
    assert (code, out.endswith(" three\n"), out.startswith("2023-09-05 ")) == (0, True, True)


def test_since_is_the_servers(haulier: Command, server: SeedServer) -> None:
    haulier("logs", JOB_ID, "--since", "10m")
    assert server.requests[-1][1] == f"/jobs/{JOB_ID}/log?since=10m&page=1&size=1000&order=asc"


def test_only_what_failed(haulier: Command, server: SeedServer) -> None:
    failed: dict[str, Any] = {"state": "FAILED", "exitCode": 2}
    last = "ab" * 16
    server.job["execution"] = [
        task(TASK_ID, 1, "first"),
        task(OTHER_TASK_ID, 2, "second", attempt=1, **failed),
        task(last, 2, "second", attempt=2, **failed),
    ]
    server.lines = [(TASK_ID, "fine"), (OTHER_TASK_ID, "once"), (last, "twice")]
    assert haulier("logs", JOB_ID, "--failed").out == "[second] twice\n"
    server.job["execution"] = [task(TASK_ID, 1, "first")]
    assert haulier("logs", JOB_ID, "--failed") == (0, "", "no task of it failed\n")


def test_only_what_failed_is_followed_to_its_end(haulier: Command, server: SeedServer) -> None:
    server.job["execution"] = [
        task(TASK_ID, 1, "first"),
        task(OTHER_TASK_ID, 2, "second", state="RUNNING"),
    ]
    server.lines = [(TASK_ID, "fine"), (OTHER_TASK_ID, "broken")]
    server.states = ["RUNNING", "RUNNING", "FAILED"]
    assert haulier("logs", "-f", JOB_ID, "--failed").out == "[second] broken\n"


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_a_task_is_picked_by_the_same_options(
    haulier: Command, server: SeedServer, follow: tuple[str, ...]
) -> None:
    server.lines = [(TASK_ID, "fine")]
    nothing = (0, "", "no task of it failed\n")
    assert haulier("logs", TASK_ID, "--failed", *follow) == nothing
    assert haulier("logs", TASK_ID, "--task", "other", *follow).out == ""
    server.job["execution"][0]["state"] = "FAILED"
    assert haulier("logs", TASK_ID, "--failed", *follow).out == "[first] fine\n"


def test_sub_jobs_are_in_it_too(haulier: Command, server: SeedServer) -> None:
    server.job["tasks"] = [{"name": "first", "subjob": {"name": "sub"}}]
    server.job["execution"] = [task(TASK_ID, 1, "first", subjob={"id": SUB_ID, "name": "sub"})]
    inner = task(INNER_ID, 1, "inner", jobId=SUB_ID)
    server.sub_job = {**summary(id=SUB_ID), "tasks": [{"name": "inner"}], "execution": [inner]}
    server.lines, server.sub_lines = [], [(INNER_ID, "deep")]
    for argv in ((), ("-f",), ("--grep", "deep")):
        assert haulier("logs", JOB_ID, *argv) == (0, "[first/inner] deep\n", "")


def test_json_is_an_object_a_line(haulier: Command, server: SeedServer) -> None:
    server.lines = [(TASK_ID, f"line {number}") for number in range(1500)]
    found = [json.loads(line) for line in haulier("logs", JOB_ID, "--json").out.splitlines()]
    assert len(found) == 1500
    assert (found[0]["task"], found[-1]["contents"]) == ("first", "line 1499\n")
    assert haulier("logs", JOB_ID, "--json", "-f").out.count("\n") == 1500


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("plain wörld", "plain wörld"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m\x1b[0m"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x9d0;title\x9cafter", "after"),
        ("\x1b[2J\x1b[Htop", "top"),
        ("\x9b2Jtop", "top"),
        ("\x1bcreset", "reset"),
        ("\x1bP1;2q\x1b\\sixel", "sixel"),
        ("10%\r50%\r100%", "100%"),
        ("dos\r", "dos"),
        ("a\tb\x08\x07\x7f", "a\tb"),
        ("abc\u202edef", "abcdef"),
        ("cut \x1b", "cut "),
        ("cut \x1b[3", "cut "),
    ],
)
def test_what_a_terminal_is_shown(line: str, shown: str) -> None:
    assert terminal_text(line) == shown


def test_texts_are_fitted() -> None:
    assert shortened("abcdef", 6) == "abcdef"
    assert shortened("abcdef", 5) == "abcd…"
    assert text_width(shortened("日本語テキスト", 7)) <= 7
    assert shortened("abc def", None) == "abc def"
    assert wrapped("one two three", "  ", 10) == ["  one two", "  three"]
    assert wrapped("averyveryverylongword x", "", 10) == ["averyveryv", "erylongwor", "d x"]
    assert wrapped("see averylongword x", "  ", 10, first="") == ["see", "  averylon", "  gword x"]
    assert wrapped("averyveryverylongword x", "  ", 10, first="") == [
        "averyveryv",
        "  erylongw",
        "  ord x",
    ]
    assert wrapped("日本語テキスト 日本語", "", 8) == ["日本語テ", "キスト", "日本語"]
    assert wrapped("a  b\t" * 99) == ["a  b\t" * 99]
    assert wrapped("", "  ", 10) == ["  "]
    assert plain_text("a\x1b[2J\u202eb\x9b") == "a b"
    assert json.loads(json_text({"a": "\x9b\x7f\u202e"})) == {"a": "\x9b\x7f\u202e"}
    assert json_text("\x9b\x7f\u202e\x1b").isascii()


@pytest.mark.parametrize("follow", [(), ("-f",)])
def test_the_log_of_a_task_is_shown_as_asked(
    haulier: Command, server: SeedServer, follow: tuple[str, ...]
) -> None:
    server.lines = [(TASK_ID, "one"), (TASK_ID, "two"), (TASK_ID, "three")]
    assert haulier("logs", TASK_ID, "--tail", "1", *follow).out == "[first] three\n"
    assert haulier("logs", TASK_ID, "-t", *follow).out.startswith("2023-09-05 ")
    found = [
        json.loads(line)
        for line in haulier("logs", TASK_ID, "--json", *follow).out.split("\n")
        if line
    ]
    assert [part["contents"] for part in found] == ["one\n", "two\n", "three\n"]
    assert all(part["id"] and part["number"] and part["createdAt"] for part in found)
    haulier("logs", TASK_ID, "--since", "10m", *follow)
    assert any("since=10m" in asked[1] for asked in server.requests)


@pytest.mark.usefixtures("server")
def test_names_are_coloured_in_a_pipe_where_that_is_asked(haulier: Command) -> None:
    assert "\x1b[36m[first] \x1b[0m" in haulier("logs", JOB_ID, "--color", "always").out
    assert "\x1b" not in haulier("logs", JOB_ID).out


async def test_a_line_without_end_is_shown_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LONGEST_LINE", 10)

    async def parts() -> AsyncGenerator[NamedPart]:
        for number, contents in enumerate(["abcdef", "ghijkl", "mno\npq", "r"], 1):
            yield NamedPart("", LogPart(id="p", number=number, task_id="t", contents=contents))

    found = [named.part.contents async for named in logs._whole_lines(parts())]
    assert found == ["abcdefghijkl", "mno\n", "pqr"]
