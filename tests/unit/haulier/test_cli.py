"""The command, against a real server."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from aiohttp import web

from haulier import __version__
from haulier.cli import run_cli
from tests.unit.haulier.seed_server import JOB_ID, NODES, OTHER_TASK_ID, TASK_ID, SeedServer

YAML = "name: mine\ntasks:\n  - name: a\n    run: echo\n"


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    """Runs the command in this process."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd

    def __call__(self, *argv: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            run_cli(argv)
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, *self._capfd.readouterr())


@pytest.fixture
def haulier(capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(capfd)


@pytest.fixture
def job_file(tmp_path: Path) -> str:
    path = tmp_path / "job.yaml"
    path.write_text(YAML)
    return str(path)


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
    assert (code, out) == (1, "hello\n\nwörld\nFAILED\n")
    assert "error: exit code 3" in err


@pytest.mark.usefixtures("server")
def test_a_refused_document_says_every_problem(haulier: Command, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("- x\n")
    err = "haulier: name: missing\nhaulier: tasks: missing\n"
    assert haulier("submit", str(bad)) == (1, "", err)


def test_what_is_no_file(haulier: Command, tmp_path: Path) -> None:
    code, out, err = haulier("submit", str(tmp_path / "none.yaml"))
    assert (code, out) == (1, "")
    assert err == f"haulier: can't read {tmp_path}/none.yaml: no such file or directory\n"
    assert haulier("submit", str(tmp_path)).err.endswith("is a directory\n")


def test_jobs(haulier: Command, server: SeedServer) -> None:
    code, out, err = haulier("jobs", "-q", "tag:x", "--state", "FAILED", "--size", "5")
    assert code == 0
    assert out.splitlines()[0].split() == ["ID", "NAME", "STATE", "PROGRESS", "CREATED"]
    assert out.splitlines()[1].split()[:5] == [JOB_ID, "my", "job", "COMPLETED", "100%"]
    assert err == "page 1 of 2: --page 2 shows more\n"
    assert server.requests == [("GET", "/jobs?q=tag:x&state=FAILED&size=5")]


@pytest.mark.usefixtures("server")
def test_json_is_the_servers_own_answer(haulier: Command, job_file: str) -> None:
    assert json.loads(haulier("nodes", "--json").out) == NODES
    assert json.loads(haulier("jobs", "--json").out)["totalItems"] == 11
    job = json.loads(haulier("job", JOB_ID, "--json").out)
    assert job["execution"][0]["aFieldOfTomorrow"] == {"x": 1}
    assert json.loads(haulier("queues", "--json").out)[0]["size"] == 12
    assert json.loads(haulier("health", "--json").out)["status"] == "UP"
    assert json.loads(haulier("logs", JOB_ID, "--json").out)["items"][0]["contents"] == "wörld\n"
    assert json.loads(haulier("submit", job_file, "--json").out)["id"] == JOB_ID


def test_job_shows_tasks_and_plays_no_tricks(haulier: Command, server: SeedServer) -> None:
    server.job |= {"name": "evil\x1b[2Jname", "result": "two\nlines\x1b[0m", "inputs": {"a": "1"}}
    code, out, _ = haulier("job", JOB_ID)
    assert code == 0
    assert "\x1b" not in out
    lines = out.splitlines()
    assert "name      evil [2Jname" in lines
    assert lines[lines.index("result    two") + 1] == "          lines [0m"
    assert "inputs    a=1" in lines
    assert [line.split()[0] for line in lines[-2:]] == [TASK_ID, OTHER_TASK_ID]


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
    assert haulier("restart", JOB_ID) == (0, "", "")
    assert haulier("delete", JOB_ID) == (0, "", "")
    assert haulier("drain", "n1") == (0, "", "")
    assert haulier("resume", "n1") == (0, "", "")
    code, _, err = haulier("cancel", "unknown", JOB_ID)
    assert (code, err.splitlines()) == (
        1,
        ["haulier: unknown: not found", f"haulier: {JOB_ID}: job is not running"],
    )
    assert [path for _, path in server.requests] == [
        f"/jobs/{JOB_ID}/restart",
        f"/jobs/{JOB_ID}",
        "/nodes/n1/drain",
        "/nodes/n1/resume",
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
    assert haulier("logs", JOB_ID) == (0, "hello\n\nwörld\n", "")
    assert haulier("logs", JOB_ID, "-f").out == "[first] hello\n[first] \n[second] wörld\n"
    server.lines = [(TASK_ID, f"line {number}") for number in range(250)]
    whole = "".join(f"line {number}\n" for number in range(250))
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
    assert (code, out) == (1, "")
    assert err == (
        "haulier: can't reach http://127.0.0.1:1: connection refused (is the server running?)\n"
    )
    monkeypatch.setenv("HAULIER_SERVER", "nonsense://x")
    assert haulier("jobs").err.startswith("haulier: not a server URL: 'nonsense://x'")


def test_a_strange_answer_is_one_line(haulier: Command, server: SeedServer) -> None:
    server.fail_with = web.Response(status=500, body=b'{"message": "bad \\u001b[2J thing"}')
    assert haulier("nodes") == (1, "", "haulier: bad  [2J thing\n")


def test_misuse_is_exit_code_2(haulier: Command) -> None:
    for argv in (("jobs", "--size", "x"), ("bogus",), ("submit",), ("job", "--nope")):
        code, out, err = haulier(*argv)
        assert (code, out) == (2, "")
        assert "Usage: haulier" in err
    for flags in (("run", "worker", "--nope"), ("run", "standalone", "--set", "novalue")):
        code, _, err = haulier(*flags)
        assert code == 2
        assert "Usage: haulier run" in err


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
    assert out == f"{job_file}: mine is valid, 1 task(s)\n"
    assert err.splitlines()[0].startswith(f"{bad}:5:13: tasks[0].retry.limt: unknown field")
    assert err.splitlines()[1].startswith(f"{bad}:6:5: tasks[0].colour: unknown field")
    assert haulier("validate", job_file).code == 0
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
    assert f"to cancel it: haulier cancel {JOB_ID}" in err.decode()
    assert "Traceback" not in err.decode()
    assert ("PUT", f"/jobs/{JOB_ID}/cancel") not in server.requests


def test_texts_that_no_encoding_knows(haulier: Command, server: SeedServer) -> None:
    server.fail_with = web.Response(body=b'{"name": "\\ud800"}', content_type="application/json")
    assert haulier("health", "--json").code == 1
    assert haulier("nodes", "--json") == (0, '{\n  "name": "?"\n}\n', "")
