"""The command, against a real server."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from aiohttp import web
from click import Context
from click.testing import CliRunner

from haulier import __version__
from haulier.cli.import_path import LazyCommands
from haulier.cli.main import cli
from tests.unit.haulier.conftest import YAML, Command
from tests.unit.haulier.seed_server import JOB_ID, NODES, OTHER_TASK_ID, TASK_ID, SeedServer, task


def started(*argv: str, stdin: int | None = None) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "haulier.cli", *argv],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=stdin,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.usefixtures("server")
def test_submit_prints_the_id(haulier: Command, job_file: str) -> None:
    assert haulier("submit", job_file) == (0, f"{JOB_ID}\n", "")


def test_submit_reads_standard_input(
    haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for text in (YAML, '{"name": "json"}', "{name: flow}"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        assert haulier("submit", "-", "--idempotency-key", "k").code == 0
    types = [headers["Content-Type"] for headers in server.headers]
    assert types == ["text/yaml", "application/json", "text/yaml"]
    assert server.headers[0]["Idempotency-Key"] == "k"


@pytest.mark.usefixtures("server")
def test_submit_follows_to_the_end(haulier: Command, job_file: str) -> None:
    code, out, err = haulier("submit", job_file, "--follow")
    lines = ["[first] hello", "[first] ", "[second] wörld", "result: the result", "COMPLETED"]
    assert (code, out.splitlines(), err) == (0, lines, f"job {JOB_ID}\n")


def test_a_failed_job_is_exit_code_1(haulier: Command, server: SeedServer, job_file: str) -> None:
    server.job |= {"state": "FAILED", "error": "exit code 3", "result": ""}
    server.job["tasks"] = server.job["tasks"][:1]
    code, out, err = haulier("submit", "-f", job_file)
    assert (code, out) == (1, "[first] hello\n[first] \n[second] wörld\nFAILED\n")
    assert "error: exit code 3" in err


def test_every_step_of_a_very_long_job_is_shown(haulier: Command, server: SeedServer) -> None:
    server.tasks = [task(f"{n:032x}", n + 1, f"step {n}") for n in range(1500)]
    server.job["tasks"] = [{"name": f"step {n}"} for n in range(1500)]
    server.job |= {"executionTruncated": True, "execution": server.tasks[-1000:]}
    out = haulier("job", JOB_ID).out
    assert "not run" not in out
    assert "step 1499" in out


@pytest.mark.usefixtures("server")
def test_a_refused_document_says_every_problem(haulier: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("- x\n")
    shown = [f"{bad}:1:1: name: missing", "    - x", "    ^"]
    code, out, err = haulier("submit", str(bad))
    assert (code, out, err.splitlines()[:3]) == (1, "", shown)
    assert err.splitlines()[3] == f"{bad}:1:1: tasks: missing"


def test_a_refused_document_says_where_the_server_found_each_problem(
    haulier: Command, server: SeedServer, tmp_path: Path
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text('name: x\ninputs: {"a b": [}\n')
    faults = [{"path": 'inputs["a b"]', "message": "not YAML", "line": 2, "column": 18}]
    server.fail_with = web.json_response({"message": "not YAML", "faults": faults}, status=400)
    for command in (("submit", str(file)), ("schedule", "add", str(file))):
        code, _, err = haulier(*command)
        assert code == 1
        assert err.splitlines()[0].startswith(f'{file}:2:18: inputs["a b"]: not YAML')
        assert err.splitlines()[1:] == ['    inputs: {"a b": [}', "    " + " " * 17 + "^"]


def test_what_is_no_file(haulier: Command, tmp_path: Path) -> None:
    code, out, err = haulier("submit", str(tmp_path / "none.yaml"))
    assert (code, out) == (2, "")
    assert err == f"haulier: can't read {tmp_path}/none.yaml: no such file or directory\n"
    assert haulier("submit", str(tmp_path)).err.endswith("is a directory\n")


def test_jobs(haulier: Command, server: SeedServer) -> None:
    code, out, err = haulier("jobs", "tag:x", "--state", "FAILED", "--size", "5")
    assert code == 0
    assert out.splitlines()[0].split() == ["ID", "NAME", "STATE", "TOOK", "WHEN"]
    row = out.splitlines()[1].split()
    assert row[:5] == [JOB_ID[:8], "my", "job", "COMPLETED", "5.8s"]
    assert row[-1] == "ago"
    assert err == "page 1 of 2: --page 2 shows more, --all shows all\n"
    assert server.requests == [("GET", "/jobs?q=tag:x&state=FAILED&page=1&size=5")]


def test_all_pages_of_jobs(haulier: Command, server: SeedServer) -> None:
    assert haulier("jobs", "-q", "--all") == (0, f"{JOB_ID}\n{JOB_ID}\n", "")
    assert [path for _, path in server.requests] == ["/jobs?page=1&size=20", "/jobs?page=2&size=20"]
    assert json.loads(haulier("jobs", "--all", "--json").out)["totalItems"] == 2


def test_jobs_beyond_where_the_total_stops(haulier: Command, server: SeedServer) -> None:
    server.capped_pages = 4
    assert haulier("jobs", "-q", "--all") == (0, f"{JOB_ID}\n" * 4, "")
    assert haulier("jobs").err == "page 1 of 2 or more: --page 2 shows more, --all shows all\n"


@pytest.mark.usefixtures("server")
def test_json_is_the_servers_own_answer(haulier: Command, job_file: str) -> None:
    assert json.loads(haulier("nodes", "--json").out) == NODES
    assert json.loads(haulier("jobs", "--json").out)["totalItems"] == 11
    job = json.loads(haulier("job", JOB_ID, "--json").out)
    assert job["execution"][0]["aFieldOfTomorrow"] == {"x": 1}
    assert json.loads(haulier("queues", "--json").out)[0]["size"] == 12
    assert json.loads(haulier("health", "--json").out)["status"] == "UP"
    assert json.loads(haulier("submit", job_file, "--json").out)["id"] == JOB_ID


def test_job_shows_tasks_and_plays_no_tricks(haulier: Command, server: SeedServer) -> None:
    server.job |= {"name": "evil\x1b[2Jname", "result": "two\nlines\x1b[0m", "inputs": {"a": "1"}}
    code, out, _ = haulier("job", JOB_ID)
    assert code == 0
    assert "\x1b" not in out
    lines = out.splitlines()
    assert lines[0].startswith(f"✓ evilname  {JOB_ID[:8]}  completed in 5.8s, ")
    assert [line.split() for line in lines[1:3]] == [["✓", "first"], ["✓", "second"]]
    assert lines[lines.index("result   two") + 1] == "         lines"
    assert "inputs   a=1" in lines
    assert haulier("job", JOB_ID, "-q").out.split() == [TASK_ID, OTHER_TASK_ID]


def test_colours_of_an_error_leave_no_rest(haulier: Command, server: SeedServer) -> None:
    server.job |= {"state": "FAILED", "error": "exit code 2\n\x1b[31mrefused\x1b[0m\x1b]0;x\x07"}
    lines = haulier("job", JOB_ID).out.splitlines()
    assert [line.strip() for line in lines if "refused" in line] == ["refused"] * 2


def test_why_a_job_failed_is_told_by_what_says_most(haulier: Command, server: SeedServer) -> None:
    snippet = "\n     |  int(inputs.n) + 1\n     | .^"
    for error, told in (
        ("timed out after 1s", ["timed out after 1s", "    no such file"]),
        (f"task 'second': env.N: no number (1:2){snippet}",
         ["env.N: no number (1:2)", "    |  int(inputs.n) + 1", "    | .^"]),
        ("exit code 2\none\ntwo\n", ["exit code 2", "    two"]),
    ):  # fmt: skip
        server.job |= {"state": "FAILED", "error": error}
        server.job["execution"][1] |= {"state": "FAILED", "error": error}
        lines = haulier("job", JOB_ID).out.splitlines()
        assert lines[1] == f"  Failed at second: {told[0]}"
        assert lines[2 : 2 + len(told[1:])] == told[1:]


def test_a_job_of_more_tasks_than_its_answer_holds(haulier: Command, server: SeedServer) -> None:
    each = task(
        "e" * 32, 1, "all", state="FAILED", each={"list": "", "size": 1200, "completions": 1199}
    ) | {"counts": {"FAILED": 1, "COMPLETED": 1199}}
    children = [task(f"{n:032x}", 1, f"shard {n}", parentId=each["id"]) for n in range(1200)]
    children[0] |= {"state": "FAILED", "error": "exit code 4"}
    server.tasks = [each, *children, task(TASK_ID, 2, "last")]
    server.job |= {"state": "FAILED", "error": "exit code 4", "executionTruncated": True}
    server.job["execution"] = server.tasks[-1000:]
    code, out, err = haulier("job", JOB_ID)
    assert (code, err) == (0, "")
    shown = [line.split()[:2] for line in out.splitlines()[3:6]]
    assert shown == [["✗", "all"], ["✗", "shard"], ["✓", "last"]]
    assert "1199 of 1200, 1 failed" in out
    assert haulier("job", JOB_ID, "-a").out.count("shard") == 1201
    assert len(haulier("job", JOB_ID, "-q").out.splitlines()) == 1202
    whole = json.loads(haulier("job", JOB_ID, "-a", "--json").out)
    assert (len(whole["execution"]), whole["executionTruncated"]) == (1202, False)
    assert len(json.loads(haulier("job", JOB_ID, "--json").out)["execution"]) == 1000
    server.lines = [(children[0]["id"], "broken")]
    before = len(server.requests)
    assert haulier("logs", JOB_ID, "--failed").out == "[all/shard 0] broken\n"
    assert len(server.requests) < before + 10


@pytest.mark.usefixtures("server")
def test_nodes_and_queues(haulier: Command) -> None:
    nodes = haulier("nodes").out.splitlines()
    assert [line.split()[1:3] for line in nodes[1:]] == [["Coordinator", "UP"], ["Worker", "UP"]]
    queues = haulier("queues").out.splitlines()
    assert [line.split() for line in queues] == [
        ["NAME", "SIZE", "SUBSCRIBERS", "UNACKED"],
        ["default", "12", "3", "3"],
        ["jobs", "0", "1", "0"],
    ]


def test_changes(haulier: Command, server: SeedServer) -> None:
    assert haulier("restart", JOB_ID) == (0, "restarted 9d7d7184\n", "")
    assert haulier("delete", JOB_ID, "-q") == (0, f"{JOB_ID}\n", "")
    worker, name = str(NODES[1]["id"]), str(NODES[1]["name"])
    assert haulier("drain", name) == (0, f"draining {worker}: it takes no new tasks\n", "")
    assert haulier("resume", "2C2LtZ") == (0, f"resumed {worker}: it takes tasks again\n", "")
    assert haulier("drain", "n1") == (1, "", "haulier: no node has the id or name n1\n")
    code, _, err = haulier("cancel", "unknown", JOB_ID)
    assert (code, err.splitlines()) == (
        1,
        ["haulier: unknown: not found", f"haulier: {JOB_ID}: job is not running"],
    )
    assert [path for method, path in server.requests if method != "GET"] == [
        f"/jobs/{JOB_ID}/restart",
        f"/jobs/{JOB_ID}",
        f"/nodes/{worker}/drain",
        f"/nodes/{worker}/resume",
        "/jobs/unknown/cancel",
        f"/jobs/{JOB_ID}/cancel",
    ]


def test_health_says_why_it_is_down(haulier: Command, server: SeedServer) -> None:
    assert haulier("health") == (0, "status   UP\nversion  0.1.0\n", "")
    server.health_status = 503
    code, out, _ = haulier("health")
    assert code == 1
    assert "reason   broker: does not answer within 2 s" in out.splitlines()


def test_logs_of_jobs_and_tasks(haulier: Command, server: SeedServer) -> None:
    named = "[first] hello\n[first] \n[second] wörld\n"
    assert haulier("logs", JOB_ID) == (0, named, "")
    assert haulier("logs", JOB_ID, "-f").out == named
    server.lines = [(TASK_ID, f"line {number}") for number in range(250)]
    whole = "".join(f"[first] line {number}\n" for number in range(250))
    assert haulier("logs", TASK_ID) == (0, whole, "")
    assert haulier("logs", TASK_ID, "--follow") == (0, whole, "")
    assert haulier("logs", "zz") == (1, "", "haulier: no job or task has the id zz\n")


def test_a_log_is_shown_even_where_a_tasks_name_is_not_known(
    haulier: Command, server: SeedServer
) -> None:
    server.job["execution"] = []
    assert haulier("logs", JOB_ID, "-f").out.splitlines()[0] == f"[{TASK_ID[:8]}] hello"


@pytest.mark.usefixtures("server")
def test_the_server_can_be_named(haulier: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, err = haulier("jobs", "--server", "http://127.0.0.1:1")
    assert (code, out) == (3, "")
    assert haulier("--server", "http://127.0.0.1:1", "jobs") == (code, out, err)
    assert err == (
        "haulier: can't reach http://127.0.0.1:1: connection refused (is the server running?)\n"
    )
    monkeypatch.setenv("HAULIER_SERVER", "nonsense://x")
    assert haulier("jobs").err.startswith("haulier: not a server URL: 'nonsense://x'")


def test_a_strange_answer_is_one_line(haulier: Command, server: SeedServer) -> None:
    server.fail_with = web.Response(status=500, body=b'{"message": "bad \\u001b[2J thing"}')
    assert haulier("nodes") == (1, "", "haulier: bad  thing\n")


def test_misuse_is_exit_code_2(haulier: Command) -> None:
    for argv in (("jobs", "--size", "x"), ("bogus",), ("submit",), ("job", "--nope")):
        code, out, err = haulier(*argv)
        assert (code, out) == (2, "")
        assert "Usage: haulier" in err
    for flags in (("run", "worker", "--nope"), ("run", "standalone", "--set", "novalue")):
        code, _, err = haulier(*flags)
        assert code == 2
        assert "Usage: haulier run" in err


def test_who_is_refused_gets_exit_code_4(haulier: Command, server: SeedServer) -> None:
    for status in (401, 403):
        server.fail_with = web.Response(status=status, body=b'{"message": "not you"}')
        assert haulier("jobs") == (4, "", "haulier: not you\n")
        assert haulier("cancel", JOB_ID) == (4, "", f"haulier: {JOB_ID}: not you\n")


@pytest.mark.usefixtures("server")
def test_version_and_colours_stand_anywhere(
    haulier: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argv in (("--version",), ("jobs", "--version"), ("run", "worker", "--version")):
        assert haulier(*argv) == (0, f"haulier {__version__}\n", "")
    assert json.loads(haulier("version", "--json").out) == {"version": __version__}
    plain = haulier("jobs").out
    coloured = haulier("jobs", "--color", "always").out
    assert "\x1b[32m" in coloured
    assert haulier("--color", "always", "jobs").out == coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert haulier("jobs").out == plain == haulier("jobs", "--color", "never").out


def test_last_is_the_newest_job_that_is_no_sub_job(haulier: Command, server: SeedServer) -> None:
    assert haulier("cancel", "@last").code == 1
    assert haulier("job", "@last", "-q").code == 0
    assert server.requests[-1] == ("GET", f"/jobs/{JOB_ID}")


def test_the_help_says_of_every_command_in_a_whole_sentence_what_it_does() -> None:
    shown = CliRunner().invoke(cli, ["--help"], env={"COLUMNS": "80"}).output
    assert isinstance(cli, LazyCommands)
    listed = [name for names in cli.sections.values() for name in names]
    assert sorted(listed) == cli.list_commands(Context(cli))
    assert "..." not in shown.partition("Jobs:")[2]
    assert max(map(len, shown.splitlines())) <= 80


def test_help(haulier: Command) -> None:
    assert "submit" in haulier("--help").out
    assert "HAULIER_SERVER" in haulier("jobs", "--help").out
    assert "--ignore-image" in haulier("run", "standalone", "--help").out
    assert "worker" in haulier("run", "--help").out
    assert haulier("version").out == f"haulier {__version__}\n"


def test_a_configuration_that_nothing_can_start_with(haulier: Command) -> None:
    code, out, err = haulier("run", "worker", "--set", "engine.beat=soon", "--queue", "x-a=1")
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("haulier: configuration: ") for line in lines)
    assert 'engine.beat = "soon" (flag --set): "soon" is not a duration' in lines[0]
    assert "worker.queues.x-a" in lines[1]
    assert "broker.type" in lines[2]


def test_validate(haulier: Command, job_file: str, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text(
        "name: x\ntasks:\n  - name: a\n    run: echo\n    retry: {limt: 3}\n    colour: red\n"
    )
    code, out, err = haulier("validate", job_file, str(bad))
    assert code == 1
    assert out == f"{job_file}: mine is valid, 1 task\n"
    assert err.splitlines()[0].startswith(f"{bad}:5:13: tasks[0].retry.limt: unknown field")
    assert err.splitlines()[1:3] == ["    retry: {limt: 3}", "            ^"]
    assert err.splitlines()[3].startswith(f"{bad}:6:5: tasks[0].colour: unknown field")
    assert haulier("validate", job_file).code == 0
    valid, wrong = json.loads(haulier("validate", job_file, str(bad), "--json").out)
    assert (valid["valid"], valid["errors"], wrong["valid"]) == (True, [], False)
    assert (wrong["errors"][0]["line"], wrong["errors"][0]["column"]) == (5, 13)
    assert haulier("validate", str(tmp_path / "none")).code == 1


def test_validate_knows_scheduled_jobs(haulier: Command, tmp_path: Path) -> None:
    scheduled = tmp_path / "nightly.yaml"
    scheduled.write_text(YAML + "schedule: {cron: '0 5 * * *'}\n")
    assert haulier("validate", str(scheduled)).code == 1
    assert haulier("validate", "--scheduled", str(scheduled)).code == 0


def test_config_shows_origins_and_masks(
    haulier: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "haulier.toml").write_text('[encryption]\nkey = "tops3cret"\n')
    monkeypatch.setenv("HAULIER_BROKER_RABBITMQ_URL", "amqp://me:hunter2@mq/")
    monkeypatch.setenv("HAULIER_BROKR_TYPE", "x")
    code, out, err = haulier("config", "--set", "engine.beat=2s")
    assert code == 0
    lines = {line.split(" = ")[0]: line for line in out.splitlines()}
    assert lines["encryption.key"].endswith(f"# {tmp_path}/haulier.toml")
    assert '"2s"' in lines["engine.beat"]
    assert lines["engine.beat"].endswith("# flag --set")
    assert "amqp://me:********@mq/" in lines["broker.rabbitmq.url"]
    assert lines["broker.rabbitmq.url"].endswith("# environment HAULIER_BROKER_RABBITMQ_URL")
    assert "tops3cret" not in out
    assert "hunter2" not in out
    assert "did you mean HAULIER_BROKER_TYPE?" in err
    shown = json.loads(haulier("config", "--json").out)
    assert shown["encryption.key"] == {"value": "********", "origin": f"{tmp_path}/haulier.toml"}
    assert haulier("config", "--set", "engine.beat=x").code == 2
    assert haulier("config", "--set", "engine.beat").code == 2


def test_a_reader_that_goes_away(server: SeedServer) -> None:
    server.lines = [(TASK_ID, "x" * 1000)] * 2000
    command = started("logs", JOB_ID, "-f")
    assert command.stdout is not None
    assert command.stderr is not None
    assert command.stdout.read(10) == b"[first] xx"
    command.stdout.close()
    assert command.wait(20) != 0
    assert command.stderr.read() == b""
    command.stderr.close()


def test_ctrl_c_leaves_the_job_alone(server: SeedServer, job_file: str) -> None:
    server.hold_stream = True
    command = started("submit", job_file, "--follow")
    assert command.stdout is not None
    shown = b"".join(command.stdout.readline() for _ in range(3))
    assert shown.decode() == "[first] hello\n[first] \n[second] wörld\n"
    command.send_signal(signal.SIGINT)
    _, err = command.communicate(timeout=20)
    assert command.returncode == 130
    left = f"job {JOB_ID[:8]} goes on: haulier watch {JOB_ID[:8]} (end it: haulier cancel {JOB_ID[:8]})"
    assert err.decode().splitlines() == [f"job {JOB_ID}", left]
    assert ("PUT", f"/jobs/{JOB_ID}/cancel") not in server.requests


def test_texts_that_no_encoding_knows(haulier: Command, server: SeedServer) -> None:
    server.fail_with = web.Response(body=b'{"name": "\\ud800"}', content_type="application/json")
    assert haulier("health", "--json").code == 1
    assert haulier("nodes", "-q").err.startswith("haulier: the server's answer makes no sense: ")
    assert haulier("nodes", "--json") == (0, '{\n  "name": "?"\n}\n', "")


def test_times_are_told_by_the_servers_clock(haulier: Command, server: SeedServer) -> None:
    server.date = "Tue, 05 Sep 2023 01:36:20 GMT"
    assert haulier("job", JOB_ID).out.splitlines()[0].endswith("completed in 5.8s, 3 min ago")
    assert "3 min ago" in haulier("jobs").out
    server.date = "Sat, 15 Jun 2024 23:55:00 GMT"
    assert haulier("nodes").out.count("3 min ago") == 2
