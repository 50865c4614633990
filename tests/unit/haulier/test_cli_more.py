"""The commands that ask about a job, and those for schedules, users and tokens."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from aiohttp import web
from click import Command as ClickCommand
from click import Context, Group
from click import Path as FilePath

from haulier.cli import doctor
from haulier.cli.main import cli
from haulier.client import Client
from haulier.errors import ApiError
from haulier.results import Node
from shared.model.decoding import decode_job
from tests.unit.haulier.conftest import Command
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
    SeedServer,
)

JSON_COMMANDS = [
    ("audit-log", "list"),
    ("audit-log", "list", "--all"),
    ("cancel", JOB_ID),
    ("delete", JOB_ID),
    ("doctor",),
    ("drain", str(NODES[0]["id"])),
    ("health",),
    ("job", JOB_ID),
    ("jobs",),
    ("jobs", "--all"),
    ("nodes",),
    ("open", JOB_ID),
    ("queues",),
    ("rerun", JOB_ID),
    ("rerun", JOB_ID, "--dry-run"),
    ("restart", JOB_ID),
    ("resume", "Worker"),
    ("schedule", "list"),
    ("schedule", "list", "--all"),
    ("schedule", "pause", "nightly"),
    ("schedule", "resume", "nightly"),
    ("schedule", "rm", "nightly"),
    ("schedule", "run", "nightly"),
    ("schedule", "show", "nightly"),
    ("token", "add", "ci"),
    ("token", "list"),
    ("token", "rm", "tttttt"),
    ("user", "disable", "ann"),
    ("user", "enable", "ann"),
    ("user", "grant", "ann", "ops"),
    ("user", "list"),
    ("user", "revoke", "ann", "ops"),
    ("user", "rm", "ann"),
    ("version",),
    ("wait", JOB_ID),
    ("why", JOB_ID),
]


NO_JSON = {"completion", "run coordinator", "run standalone", "run worker"}
"""They print a script, or run a server."""
NO_IDS = {"config", "doctor", "health", "logs", "open", "schedule show", "validate", "version"} | {
    "watch",
    "why",
}
"""They neither list nor make nor change anything that has an id or a name."""
LISTS = {"audit-log list", "jobs", "nodes", "queues", "schedule list", "token list", "user list"}


def commands(group: Group = cli, before: str = "") -> Iterator[tuple[str, ClickCommand]]:
    """Yield every command, and what it is called with."""
    context = Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, Group):
            yield from commands(command, f"{before}{name} ")
        elif command:
            yield before + name, command


def lacking(option: str) -> Iterator[str]:
    """Yield the commands that don't have an option."""
    for name, command in commands():
        if not any(option in param.opts for param in command.params):
            yield name


def test_shells_complete_files() -> None:
    files = [
        (name, param)
        for name, command in commands()
        for param in command.params
        if (param.metavar or "").startswith("FILE")
    ]
    assert len(files) > 100
    assert [
        (name, str(param)) for name, param in files if not isinstance(param.type, FilePath)
    ] == []


def test_every_command_has_the_options_for_its_output() -> None:
    assert {*lacking("--json")} == NO_JSON
    assert {*lacking("--quiet")} == {*lacking("-q")} == NO_JSON | NO_IDS
    every = {*lacking("--no-such-option")}
    assert every - {*lacking("--all")} == every - {*lacking("-a")} == LISTS | {"job"}


IDS = {
    ("audit-log", "list"): str(AUDIT["id"]),
    ("cancel", JOB_ID): None,
    ("drain", "Worker"): str(NODES[1]["id"]),
    ("jobs",): JOB_ID,
    ("job", JOB_ID): f"{TASK_ID}\n{OTHER_TASK_ID}",
    ("nodes",): "\n".join(str(node["id"]) for node in NODES),
    ("queues",): "\n".join(str(queue["name"]) for queue in QUEUES),
    ("rerun", JOB_ID): JOB_ID,
    ("rerun", JOB_ID, "--dry-run"): "second",
    ("restart", JOB_ID): JOB_ID,
    ("schedule", "list"): SCHEDULED["id"],
    ("schedule", "pause", "nightly"): SCHEDULED["id"],
    ("schedule", "run", "nightly"): JOB_ID,
    ("schedule", "run", "nightly", "-f"): JOB_ID,
    ("token", "add", "ci"): "hlr_text",
    ("token", "list"): TOKEN["id"],
    ("token", "rm", "ci"): TOKEN["id"],
    ("user", "disable", "ann"): "ann",
    ("user", "grant", "ann", "ops"): "ann",
    ("user", "list"): "ann",
    ("user", "rm", "ann"): "ann",
    ("wait", JOB_ID): JOB_ID,
}
"""What each command prints with -q; None: it fails."""


@pytest.mark.usefixtures("server")
def test_with_q_every_command_prints_ids_or_names_alone(haulier: Command, job_file: str) -> None:
    for argv, ids in {**IDS, ("submit", job_file, "-f"): JOB_ID}.items():
        found = haulier(*argv, "-q")
        assert (argv, found.out) == (argv, f"{ids}\n" if ids else "")
        assert (argv, found.code, found.err == "") == (argv, 0 if ids else 1, bool(ids))
    assert haulier("schedule", "add", job_file, "-q").out == f"{SCHEDULED['id']}\n"


def test_lists_say_what_they_leave_out(
    haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NODES[1], "status", "OFFLINE")
    code, out, err = haulier("nodes")
    assert (code, len(out.splitlines()), err) == (0, 2, "not shown: 1 OFFLINE; --all shows all\n")
    assert len(haulier("nodes", "-aq").out.splitlines()) == 2
    server.schedule_pages = 2
    note = "page 1 of 2: --page 2 shows more, --all shows all\n"
    assert haulier("schedule", "list").err == note
    assert haulier("schedule", "list", "-aq").out == f"{SCHEDULED['id']}\n" * 2
    assert haulier("schedule", "list", "--page", "2", "--size", "5").err == ""
    assert server.requests[-1] == ("GET", "/scheduled-jobs?page=2&size=5")


def test_what_is_no_answer_of_haulier_is_one_line(haulier: Command, server: SeedServer) -> None:
    for body in (b"<html>", b"[7]", b"7"):
        server.fail_with = web.Response(body=body)
        for argv in (("jobs",), ("jobs", "-aq"), ("job", JOB_ID, "-a", "--json"), ("why", JOB_ID)):
            code, out, err = haulier(*argv)
            assert (argv, code, out, err.count("\n")) == (argv, 1, "", 1)
            assert "the server's answer makes no sense: " in err
    server.fail_with = web.Response(body=b"<html>")
    for argv in (("jobs",), ("jobs", "-a"), ("nodes",), ("job", JOB_ID), ("health",)):
        assert haulier(*argv, "--json").err.count("\n") == 1


@pytest.mark.usefixtures("server")
def test_every_command_prints_json(haulier: Command) -> None:
    for argv in JSON_COMMANDS:
        found = haulier(*argv, "--json")
        assert (json.loads(found.out) is not None, found.err) == (True, ""), argv


@pytest.mark.usefixtures("server")
def test_files_are_submitted_and_scheduled_with_json(haulier: Command, job_file: str) -> None:
    assert json.loads(haulier("submit", job_file, "--json").out)["id"] == JOB_ID
    assert json.loads(haulier("submit", job_file, "--json", "-f").out)["state"] == "COMPLETED"
    assert json.loads(haulier("schedule", "add", job_file, "--json").out)["name"] == "nightly"


def test_why(haulier: Command, server: SeedServer) -> None:
    for id in (JOB_ID, TASK_ID):
        code, out, _ = haulier("why", id)
        assert (code, out.splitlines()[0]) == (0, "it failed at second: exit code 2")
        assert "last line  no such file" in out.splitlines()
    assert haulier("why", "nobody") == (1, "", "haulier: not found\n")
    assert server.requests[0] == ("GET", f"/jobs/{JOB_ID}/why")


def test_rerun(haulier: Command, server: SeedServer, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    secret = f"token=file:{tmp_path}/key"
    assert haulier("rerun", JOB_ID, "-i", "a=b=c", "--secret", secret, "--from", "2").code == 0
    asked = {"inputs": {"a": "b=c"}, "secrets": {"token": "s3cret"}, "from": 2}
    assert json.loads(server.bodies[-1]) == asked
    plan = haulier("rerun", JOB_ID, "--dry-run").out.splitlines()
    assert plan == ["keep  1. first: it completed", "run   2. second"]


ODD = "a\x7fb\x85c\u2028d\ufeffe\uffff\U0001f600ü\n f\n"


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_value_may_have_any_character(
    haulier: Command, server: SeedServer, tmp_path: Path, suffix: str
) -> None:
    file, key = tmp_path / f"job.{suffix}", tmp_path / "key"
    description = "plain" if suffix == "yaml" else ODD
    tasks = [{"name": "a", "run": "x"}]
    job = {"name": "x", "description": description, "tasks": tasks}
    file.write_text(json.dumps(job, ensure_ascii=False), encoding="utf-8")
    key.write_text(ODD + "\n", encoding="utf-8")
    argv = ("-i", f"a\x7f={ODD}", "--secret", f"k=file:{key}", "--set", "tasks[0].run=\x7f")
    assert haulier("submit", str(file), *argv).code == 0
    sent = decode_job(server.bodies[-1], "yaml")
    assert (sent.inputs, sent.secrets) == ({"a\x7f": ODD}, {"k": ODD})
    assert (sent.description, sent.tasks[0].run) == (description, "\x7f")


@pytest.mark.usefixtures("server")
def test_secrets_are_never_on_the_command_line(
    haulier: Command, job_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    for source in ("token=hunter2", "token=env:NOT_THERE", "token", "token=env:"):
        code, _, err = haulier("submit", job_file, "--secret", source)
        assert (code, err.count("\n")) == (2, 1)
        assert "hunter2" not in err


def test_a_job_is_changed_on_the_way(
    haulier: Command, server: SeedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, inputs = tmp_path / "job.yaml", tmp_path / "inputs.yaml"
    file.write_text(
        "name: x\ninputs: {who: world, day: 2024-01-01}\ntasks:\n- {name: a, run: 'on', image: b}\n"
    )
    inputs.write_text("who: file\nhow: 010\n")
    monkeypatch.setenv("PASSWORD", "p w")
    argv = ("-i", "who=me=you", "--input-file", str(inputs), "--secret", "pw=env:PASSWORD")
    changes = ("--set", "tasks[0].image=alpine:3", "--set", "tasks[0].retry.limit=2")
    assert haulier("submit", str(file), *argv, *changes).code == 0
    sent = yaml.load(server.bodies[-1], Loader=yaml.BaseLoader)
    assert sent["inputs"] == {"who": "me=you", "day": "2024-01-01", "how": "010"}
    assert sent["secrets"] == {"pw": "p w"}
    step = {"name": "a", "run": "on", "image": "alpine:3", "retry": {"limit": "2"}}
    assert sent["tasks"] == [step]
    assert b"'010'" in server.bodies[-1] or b'"010"' in server.bodies[-1]
    code, _, err = haulier("submit", str(file), "--set", "tasks[7].image=x")
    assert (code, err) == (2, "haulier: there is no tasks[7].image in the file\n")
    for bad in ("image", "=x", "[[=1"):
        assert haulier("submit", str(file), "--set", bad).code == 2


@pytest.mark.usefixtures("server")
def test_inputs_that_are_none_are_misuse(haulier: Command, job_file: str, tmp_path: Path) -> None:
    file = tmp_path / "inputs.yaml"
    for text in ("[", "- a", "a: {b: c}", "a: [b]"):
        file.write_text(text)
        code, out, err = haulier("submit", job_file, "--input-file", str(file))
        assert (text, code, out, err.startswith(f"haulier: {file}: ")) == (text, 2, "", True)


def test_a_value_that_is_set_is_what_it_would_be_in_the_file(
    haulier: Command, server: SeedServer, job_file: str
) -> None:
    values = {"env.VERSION": "1.10", "env.MODE": "0010", "env.WHEN": "2024-01-01", "run": "on"}
    values |= {"image": "", "retry": "{limit: 2}", "description": "a: b: c", "name": "x: *y"}
    argv = [word for name, text in values.items() for word in ("--set", f"tasks[0].{name}={text}")]
    assert haulier("submit", job_file, *argv).code == 0
    task = decode_job(server.bodies[-1], "yaml").tasks[0]
    assert task.env == {"VERSION": "1.10", "MODE": "0010", "WHEN": "2024-01-01"}
    assert (task.run, task.image, task.description) == ("on", "", "a: b: c")
    assert (task.name, task.retry and task.retry.limit) == ("x: *y", 2)


def test_json_files_are_changed_too(haulier: Command, server: SeedServer, tmp_path: Path) -> None:
    file = tmp_path / "job.json"
    file.write_text('{"name": "x", "tasks": [{"name": "yes", "run": "\\u00e9 \\ud83d\\ude00"}]}')
    assert haulier("submit", str(file), "-i", "a=1").code == 0
    sent = yaml.safe_load(server.bodies[-1])
    tasks = [{"name": "yes", "run": "é 😀"}]
    assert sent == {"name": "x", "tasks": tasks, "inputs": {"a": "1"}}


@pytest.mark.usefixtures("server")
def test_wait(haulier: Command, server: SeedServer) -> None:
    server.states = ["RUNNING", "COMPLETED"]
    code, out, _ = haulier("wait", JOB_ID)
    assert code == 0
    assert out.startswith(f"✓ my job  {JOB_ID[:8]}  completed in 5.8s, ")
    server.states = ["FAILED"]
    assert haulier("wait", JOB_ID, "-q") == (1, f"{JOB_ID}\n", "")
    server.job |= {"state": "RUNNING"}
    code, _, err = haulier("wait", JOB_ID, "--timeout", "50ms")
    assert (code, err) == (1, "haulier: not all jobs have ended in time; they go on\n")
    assert haulier("wait", JOB_ID, "--timeout", "soon").code == 2


def test_open_prints_the_address_in_a_pipe(haulier: Command, server: SeedServer) -> None:
    assert haulier("open") == (0, f"{server.url}/\n", "")
    assert haulier("open", JOB_ID) == (0, f"{server.url}/#/jobs/{JOB_ID}\n", "")


def test_schedules(haulier: Command, server: SeedServer, job_file: str) -> None:
    code, out, _ = haulier("schedule", "add", job_file)
    assert (code, out.startswith("scheduled nightly as cccccccc, first at 2023-09-05 ")) == (
        0,
        True,
    )
    rows = haulier("schedule", "list").out.splitlines()
    assert rows[1].split()[:3] == ["cccccccc", "nightly", "ACTIVE"]
    assert haulier("schedule", "list", "-q").out == f"{SCHEDULED['id']}\n"
    assert haulier("schedule", "pause", "cccccc").out == "paused nightly (cccccccc)\n"
    assert server.requests[-2:] == [
        ("GET", "/scheduled-jobs?which=cccccc&page=1&size=20"),
        ("PUT", f"/scheduled-jobs/{SCHEDULED['id']}/pause"),
    ]
    assert haulier("schedule", "run", "nightly").out == f"{JOB_ID}\n"
    assert haulier("schedule", "show", "none").err.endswith("has the id or name none\n")


def test_users_and_tokens(
    haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("pass word\n"))
    added = haulier("user", "add", "ann", "--name", "Ann", "--role", "admin", "--password-stdin")
    assert added == (0, "added user ann as admin\n", "")
    assert json.loads(server.bodies[0])["password"] == "pass word"
    assert server.requests[1] == ("PUT", "/users/ann/roles/admin")
    assert haulier("user", "list", "-q").out == f"{USER['username']}\n"
    assert haulier("user", "disable", "ann").out == "disabled user ann\n"
    assert json.loads(server.bodies[-1]) == {"disabled": True}
    monkeypatch.setattr(sys, "stdin", io.StringIO("new\n"))
    assert haulier("user", "passwd", "--password-stdin").out == "changed your password\n"
    code, out, err = haulier("token", "add", "ci", "--expires", "1h")
    assert (code, out) == (0, "hlr_text\n")
    assert err == f"made token {TOKEN['id']}; it is not shown again\n"


def test_audit_log(haulier: Command, server: SeedServer) -> None:
    rows = haulier("audit-log", "list", "--user", "ann", "--since", "2h").out.splitlines()
    assert rows[1].split()[-5:] == ["ann", "cancel_job", JOB_ID, "200", "192.0.2.1"]
    assert server.requests == [("GET", "/audit?user=ann&since=2h&page=1&size=25")]


HEAD = "  sl  local_address rem_address   st tx_queue"


@pytest.mark.parametrize(
    ("interface", "v4", "v6", "warned"),
    [
        ("hl-00e4b1366c", "00000000:1F90", "", "the ports 8080 of"),
        ("hl-00e4b1366c", "0100007F:1F90", f"{'0' * 32}:0016", "the ports 22 of"),
        ("hl-00e4b1366c", "0101A8C0:69A9", f"{'0' * 24}01000000:0016", "the ports 27049 of"),
        ("hl-00e4b1366c", "3500007F:0035", f"{'0' * 16}FFFF00000100007F:0016", "no port"),
        ("docker0", "00000000:1F90", "", None),
    ],
)
def test_doctor_warns_of_ports_that_tasks_can_reach(
    tmp_path: Path, interface: str, v4: str, v6: str, warned: str | None
) -> None:
    (tmp_path / "sys/class/net" / interface).mkdir(parents=True)
    (tmp_path / "proc/net").mkdir(parents=True)
    for name, address in (("tcp", v4), ("tcp6", v6)):
        taken = f"   1: 00000000:0A0A {address}  01 0"
        line = f"   0: {address} {'0' * 8}:0000 0A 00000000:00000000 00" if address else taken
        (tmp_path / "proc/net" / name).write_text(f"{HEAD}\n{line}\n")
    found = doctor.host_checks(tmp_path)
    assert [warned in each.what for each in found if warned] == [True] * bool(warned)
    assert all(each.well for each in found), "nobody but the machine's owner knows its firewall"


def test_doctor(haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    code, out, _ = haulier("doctor")
    assert (code, [line[0] for line in out.splitlines()]) == (0, ["✓"] * 5)
    monkeypatch.setitem(QUEUES[0], "subscribers", 0)
    code, out, _ = haulier("doctor")
    assert code == 1
    assert "✗ 12 tasks wait in default, from which no worker takes: start one with" in out
    monkeypatch.setitem(QUEUES[0], "name", "x-of-a-worker-that-stopped")
    code, out, _ = haulier("doctor")
    assert (code, [line[0] for line in out.splitlines()]) == (0, ["✓"] * 5), out
    server.health_status = 503
    assert "✗ " + server.url + " is DOWN: broker: does not" in haulier("doctor").out
    assert haulier("doctor", "--server", "http://127.0.0.1:1").code == 3


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("DOWN", "Worker is DOWN: its log says why"),
        (
            "DRAINING",
            "Worker is DRAINING: haulier resume 2C2LtZRhktaieM768LQpbP lets it take tasks",
        ),
        ("OFFLINE", "Worker is OFFLINE: start it again"),
    ],
)
def test_doctor_says_what_to_do_where_no_worker_takes_tasks(
    haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch, status: str, said: str
) -> None:
    monkeypatch.setitem(NODES[1], "status", status)
    code, out, _ = haulier("doctor", "--server", server.url)
    assert code == 1
    assert f"✗ no worker takes tasks: {said}" in " ".join(out.split())


def test_doctor_that_is_refused_exits_with_4(
    haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(_client: Client) -> list[Node]:
        raise ApiError(401, "no credentials")

    monkeypatch.setattr(Client, "nodes", refused)
    code, out, _ = haulier("doctor", "--server", server.url)
    assert code == 4
    assert "the server refuses: no credentials" in out


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(haulier: Command, shell: str) -> None:
    assert "_HAULIER_COMPLETE" in haulier("completion", shell).out


def test_ids_are_completed(
    haulier: Command, server: SeedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_HAULIER_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"haulier cancel {JOB_ID[:2]}")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert haulier().out == f"plain,{JOB_ID[:8]}\n"
    monkeypatch.setenv("COMP_WORDS", "haulier submit j")
    assert haulier().out == "file,j\n"
    monkeypatch.setenv("HAULIER_SERVER", "http://127.0.0.1:1")
    monkeypatch.setenv("COMP_WORDS", "haulier cancel ")
    assert haulier().out.split() == []


@pytest.mark.parametrize("group", ["schedule", "user", "token", "audit-log"])
def test_the_server_is_named_anywhere(group: str) -> None:
    """Before a command in a group too."""
    found = cli.get_command(Context(cli), group)
    assert isinstance(found, Group)
    assert "--server" in {name for param in found.params for name in param.opts}
