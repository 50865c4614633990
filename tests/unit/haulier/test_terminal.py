"""The command in a real terminal of 80 columns."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pexpect
import pytest

from haulier.cli.output import text_width
from tests.unit.haulier.seed_server import (
    AUDIT,
    JOB_ID,
    NODES,
    OTHER_TASK_ID,
    QUEUES,
    SCHEDULED,
    TASK_ID,
    TOKEN,
    USER,
    WHY,
    SeedServer,
    task,
)
from tests.unit.haulier.test_cli_more import JSON_COMMANDS

pytestmark = pytest.mark.slow

SHORT = JOB_ID[:8]
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_BEYOND_COLORS = re.compile(
    r"\x1b(?!\[[0-9;]*[mFJ])|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x9f]"
)

WHILE_LOADING = """
import os, signal, sys, weakref

module, *argv = sys.argv[1:]

class Thing:
    pass

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            {happens}

sys.meta_path.insert(0, Finder())
from haulier.cli import run_cli
run_cli(argv)
"""
"""The command, where something happens as soon as it looks for a module."""
TOLD = WHILE_LOADING.format(happens="print('@', flush=True)")
INTERRUPTED_IN_A_CALLBACK = WHILE_LOADING.format(
    happens="thing = Thing(); "
    "told = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT)); del thing"
)

Start = Callable[..., "pexpect.spawn[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Return a function that starts the command in a terminal."""
    children: list[pexpect.spawn[str]] = []

    def started(
        *argv: str, program: Sequence[str] = ("-m", "haulier.cli"), **variables: str
    ) -> pexpect.spawn[str]:
        environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80", **variables}
        child: pexpect.spawn[str] = pexpect.spawn(
            sys.executable,
            [*program, *argv],
            env=environment,
            dimensions=(24, 80),
            encoding="utf-8",
            timeout=30,
        )
        children.append(child)
        return child

    yield started
    for child in children:
        child.close(force=True)


def ended(child: pexpect.spawn[str]) -> tuple[int, str]:
    """Return the exit code of a command, and all that it wrote."""
    child.expect(pexpect.EOF)
    child.close()
    return child.exitstatus if child.exitstatus is not None else -1, child.before or ""


def lines_of(text: str) -> list[str]:
    return [_ESCAPE.sub("", line) for line in text.replace("\r\n", "\n").splitlines()]


@pytest.fixture
def wide(server: SeedServer, monkeypatch: pytest.MonkeyPatch) -> SeedServer:
    """A server whose job, nodes, queues, schedules and people are too wide for a terminal, and hostile."""
    words = "supercalifragilistic expialidocious " * 4
    evil = "\x1b]0;evil\x07\x1b[2J\x9b2J\u202e"
    for thing, names in (
        (NODES[1], ("name", "hostname")),
        (QUEUES[0], ("name",)),
        (SCHEDULED, ("name", "description", "timezone", "cron")),
        (USER, ("username", "name")),
        (TOKEN, ("name", "username")),
        (AUDIT, ("username", "action", "address")),
        (WHY, ("message", "lastLine")),
    ):
        for name in names:
            monkeypatch.setitem(thing, name, evil + words)
    monkeypatch.setitem(WHY, "queue", "日本語" * 40)
    server.job |= {"name": evil + words, "state": "FAILED", "error": f"{words}\n{evil}{words}"}
    server.job |= {"description": "x" * 999, "tags": ["日本語" * 40], "inputs": {evil: words}}
    server.job["execution"] = [
        task(TASK_ID, 1, "first"),
        task(OTHER_TASK_ID, 2, words + evil, state="FAILED", error=words + evil, attempt=3),
    ]
    server.lines = [(TASK_ID, f"{evil}\x1b[31mred\x1b[0m"), (TASK_ID, "x" * 10)]
    return server


SHOWN = [*JSON_COMMANDS, ("job", JOB_ID, "--all"), ("watch", JOB_ID), ("nodes", "-a")]
TELLING = {
    "submit BAD": 1,
    "submit MISSING": 2,
    "validate BAD": 1,
    "jobs --state nonsense": 2,
    "job": 2,
    "nonsense": 2,
    "logs --grep ( x": 2,
    "submit FILE --secret nonsense": 2,
    "jobs --server http://127.0.0.1:1": 3,
}
"""What says that something is wrong, and its exit code."""
RUN_ALL = """
import json, sys
from haulier.cli.main import exit_code
for argv in json.load(open(sys.argv[1])):
    code = exit_code(argv)
    print(f"@@ {code} {json.dumps(argv)}", flush=True)
"""


@pytest.mark.parametrize("columns", [40, 80, 200])
@pytest.mark.usefixtures("wide")
def test_what_is_shown_fits_and_plays_no_tricks(
    tmp_path: Path, job_file: str, columns: int
) -> None:
    """Every command, one after the other in one terminal, so that it costs but one start."""
    bad, orders = tmp_path / "bad.yaml", tmp_path / "orders"
    bad.write_text("description: " + "x" * 300 + "\ntasks: {}\n")
    places = {"BAD": str(bad), "MISSING": str(tmp_path / "missing"), "FILE": job_file}
    telling = {
        tuple(places.get(w, w) for w in text.split()): code for text, code in TELLING.items()
    }
    helps = [(*argv, "--help") for argv in ((), ("submit",), ("user", "add"), ("run", "worker"))]
    argvs = [*SHOWN, ("submit", job_file), *telling, *(helps if columns >= 80 else [])]
    orders.write_text(json.dumps(argvs))
    child: pexpect.spawn[str] = pexpect.spawn(
        sys.executable,
        ["-c", RUN_ALL, str(orders)],
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": str(columns)},
        dimensions=(24, columns),
        encoding="utf-8",
        timeout=30,
    )
    code, text = ended(child)
    assert code == 0, text
    assert not _BEYOND_COLORS.search(text.replace("\r\n", "\n")), text
    found = re.split(r"^@@ (\d+) (.*)$", text.replace("\r\n", "\n"), flags=re.MULTILINE)
    codes = {
        tuple(json.loads(argv)): int(code)
        for code, argv in zip(found[1::3], found[2::3], strict=True)
    }
    assert [*codes] == argvs
    assert {argv: codes[argv] for argv in telling} == telling
    for argv, said in zip(argvs, found[::3], strict=False):
        lines = lines_of(said)
        wide = [line for line in lines if text_width(line) > columns and "://" not in line]
        assert (argv, wide) == (argv, [])
        for line in lines:
            # No word is broken: what is cut ends in …
            for word in re.findall(r"[a-z]+…?", line):
                if word[:4] in ("supe", "expi"):
                    assert word in WORDS or word.endswith("…"), (argv, line)


WORDS = ("supercalifragilistic", "expialidocious")


@pytest.mark.usefixtures("wide")
def test_a_failed_job_is_told_first(start: Start) -> None:
    code, text = ended(start("job", JOB_ID))
    lines = lines_of(text)
    assert code == 0
    assert lines[0].startswith("✗ ")
    assert f"  {SHORT}  failed after 5.8s, " in lines[0]
    assert lines[1].startswith("  Failed at supercalifragilistic")
    assert f"  logs: haulier logs {SHORT} --failed" in lines


@pytest.mark.usefixtures("wide")
def test_a_log_keeps_its_colours_and_nothing_else(start: Start) -> None:
    _, text = ended(start("logs", JOB_ID))
    assert "\x1b[31mred\x1b[0m" in text
    assert not _BEYOND_COLORS.search(text.replace("\r\n", "\n")), text
    _, text = ended(start("logs", JOB_ID, NO_COLOR="1"))
    assert "\x1b" not in text
    _, text = ended(start("logs", JOB_ID, "--color", "never"))
    assert "\x1b" not in text


def test_watch_redraws_in_place(start: Start, server: SeedServer) -> None:
    server.job |= {"progress": 50.0, "completedAt": None, "result": ""}
    server.job["execution"] = [
        task(TASK_ID, 1, "first"),
        task(
            OTHER_TASK_ID,
            2,
            "second",
            state="SCHEDULED",
            waiting={"reason": "noWorker", "message": "no worker takes from video"},
        ),
    ]
    server.states = ["RUNNING"]
    server.job["state"] = "RUNNING"
    child = start("watch", JOB_ID)
    child.expect(f"{SHORT}.*running for")
    child.expect("Waiting at second: no worker takes from video")
    child.expect("\x1b\\[[0-9]+F\x1b\\[J")
    server.job |= {"state": "COMPLETED", "completedAt": "2023-09-05T01:33:14Z"}
    child.expect(f"{SHORT}.*completed in 5")
    assert ended(child)[0] == 0


@pytest.mark.usefixtures("server")
def test_a_terminal_that_can_not_redraw_gets_plain_lines(start: Start) -> None:
    code, text = ended(start("watch", JOB_ID, TERM="dumb"))
    assert (code, "\x1b" in text) == (0, False)
    assert any("completed in 5" in line for line in lines_of(text))


def test_ctrl_c_leaves_one_line_and_the_job(start: Start, server: SeedServer) -> None:
    server.states = ["RUNNING"]
    server.job |= {"state": "RUNNING", "completedAt": None}
    for argv in (("watch", JOB_ID), ("logs", "-f", JOB_ID), ("wait", JOB_ID)):
        server.hold_stream = True
        child = start(*argv)
        if argv[0] == "watch":
            child.expect("running for")
        elif argv[0] == "logs":
            child.expect("hello")
        else:
            while not server.requests:
                time.sleep(0.01)
        child.sendintr()
        child.sendintr()
        code, text = ended(child)
        said = [line for line in lines_of(text) if "haulier" in line or "Traceback" in line]
        assert (code, len(said)) == (130, 1), text
        if argv[0] == "watch":
            assert said[0].endswith(
                f"job {SHORT} goes on: haulier watch {SHORT} (end it: haulier cancel {SHORT})"
            )
        server.requests.clear()


@pytest.mark.parametrize("after", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4])
def test_ctrl_c_at_once_leaves_one_line(
    start: Start, server: SeedServer, job_file: str, after: float
) -> None:
    """Whatever is being loaded then. (The interpreter itself, before any of our code, is not ours.)"""
    server.states, server.hold_stream = ["RUNNING"], True
    server.job |= {"state": "RUNNING", "completedAt": None}
    child = start("submit", "-f", job_file, program=("-c", TOLD, "haulier.cli.interrupts"))
    child.expect("@")
    time.sleep(after)
    child.kill(signal.SIGINT)
    code, text = ended(child)
    said = [line for line in lines_of(text) if "haulier" in line]
    assert (code, len(said), "Traceback" in text) == (130, 1, False), text
    assert said[0].startswith("haulier: interrupted") or " goes on: " in said[0]


def test_next_to_nothing_is_loaded_before_ctrl_c_is_seen_to() -> None:
    told = [
        sys.executable,
        "-c",
        "import sys; had = {*sys.modules}; from haulier.cli import run_cli",
    ]
    told[-1] += "; print(*{*sys.modules} - had)"
    loaded = subprocess.run(told, capture_output=True, text=True, check=True, timeout=30).stdout
    assert {*loaded.split()} <= {"haulier", "haulier.cli", "__future__"}


@pytest.mark.parametrize(
    "module", ["click", "haulier.cli.main", "haulier.cli.questions", "haulier.client", "aiohttp"]
)
def test_no_ctrl_c_is_lost_while_code_is_loaded(module: str) -> None:
    """What an exception would be in a callback: it is printed, and forgotten."""
    argv = ["wait", JOB_ID, "--server", "http://127.0.0.1:1"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IN_A_CALLBACK, module, *argv],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    said = "haulier: interrupted before anything was done\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, "", said)


def test_a_missing_server_is_one_line(start: Start) -> None:
    code, text = ended(start("jobs", "--server", "http://127.0.0.1:1"))
    assert code == 3
    assert len(lines_of(text)) <= 2
    assert "can't reach http://127.0.0.1:1: connection refused" in "".join(lines_of(text))
