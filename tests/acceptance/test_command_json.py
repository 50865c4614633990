"""What every command prints with `--json`, and every exit code, of a real server."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click import Context, Group

from haulier.cli.main import cli, exit_code
from tests.acceptance.processes import SHELL, Standalone

KEY = "the-key-of-this-test"
WITHOUT_JSON = {"completion", "run coordinator", "run standalone", "run worker"}
"""They print a script, or run a server."""
WITHOUT_SERVER = {"audit", "audit-log verify", "config", "validate", "version"}

JOBS = {
    "good": "name: good\ntasks: [{name: a, run: echo said}]\n",
    "bad": "name: bad\ntasks: [{name: a, run: echo why; exit 3}]\n",
    "long": "name: long\ntasks: [{name: a, run: sleep 60}]\n",
    "nightly": "name: nightly\nschedule: {cron: 0 5 * * *}\ntasks: [{name: a, run: echo}]\n",
    "wrong": "name: wrong\ntasks: [{name: a, runn: echo}]\n",
}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Standalone]:
    middleware = "HAULIER_COORDINATOR_MIDDLEWARE_"
    settings = {
        f"{middleware}KEY_AUTH_ENABLED": "true",
        f"{middleware}KEY_AUTH_KEY": KEY,
    }
    found = Standalone(tmp_path / "server", 8, **SHELL, **settings)
    yield found
    found.stop()


class Command:
    """Runs commands in this process, and remembers which."""

    def __init__(self, server: Standalone, capfd: pytest.CaptureFixture[str]) -> None:
        self._asks = ("--server", server.url, "--key", KEY)
        self._capfd = capfd
        self.ran: set[str] = set()

    def __call__(self, name: str, *argv: str, code: int = 0) -> Any:
        """Return what `--json` printed."""
        asks = () if name in WITHOUT_SERVER else self._asks
        ended = exit_code([*name.split(), *argv, *asks, "--json"])
        out, err = self._capfd.readouterr()
        assert ended == code, (name, out, err)
        self.ran.add(name)
        return json.loads(out)


def commands(group: Group, before: str = "") -> Iterator[str]:
    context = Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, Group):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name


def test_every_commands_json_parses(
    server: Standalone,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.start()
    haulier = Command(server, capfd)
    files = {}
    for name, text in JOBS.items():
        files[name] = str(tmp_path / f"{name}.yaml")
        Path(files[name]).write_text(text)
    good = haulier("submit", files["good"], "-f")["id"]
    bad = haulier("submit", files["bad"])["id"]
    assert haulier("wait", bad, code=1)
    long = haulier("submit", files["long"])["id"]
    assert haulier("job", good)["state"] == "COMPLETED"
    assert haulier("job", bad, "--all")["state"] == "FAILED"
    assert haulier("watch", bad, code=1)["state"] == "FAILED"
    assert {job["id"] for job in haulier("jobs", "--all")["items"]} == {good, bad, long}
    assert haulier("logs", good)["contents"] == "said\n"  # JSON Lines, and it is one
    assert haulier("why", bad)["state"] == "FAILED"
    assert haulier("open", bad)
    assert haulier("logs", bad, "--failed", "-f")["contents"] == "why\n"
    assert haulier("rerun", bad, "--dry-run")
    assert haulier("rerun", bad)["id"] not in (good, bad, long)
    assert haulier("restart", bad)
    assert haulier("wait", bad, code=1)
    assert haulier("cancel", long)
    assert haulier("delete", good)
    worker = next(node["id"] for node in haulier("nodes") if node["queues"])
    assert haulier("drain", worker)
    assert haulier("resume", worker)
    assert haulier("queues")
    assert haulier("health")
    assert haulier("doctor")
    schedule = haulier("schedule add", files["nightly"])["id"]
    assert [each["id"] for each in haulier("schedule list")["items"]] == [schedule]
    for action in ("show", "run", "pause", "resume", "rm"):
        assert haulier(f"schedule {action}", schedule)
    monkeypatch.setattr("sys.stdin", io.StringIO("right-one-1\n"))
    assert haulier("user add", "ann", "--password-stdin")
    assert haulier("user list", "--all")
    for action in ("grant", "revoke"):
        assert haulier(f"user {action}", "ann", "operator")
    for action in ("disable", "enable"):
        assert haulier(f"user {action}", "ann")
    monkeypatch.setattr("sys.stdin", io.StringIO("right-one-2\n"))
    assert haulier("user passwd", "ann", "--password-stdin")
    assert haulier("user rm", "ann")
    token = haulier("token add", "ci")
    assert haulier("token list", "--all")
    assert haulier("token rm", token["id"])
    for name in ("audit-log list", "nodes", "queues", "schedule list"):
        assert haulier(name, "--all")
    assert haulier("validate", files["good"])
    assert haulier("validate", files["wrong"], code=1)
    assert haulier("version")
    assert haulier("config")
    tork = tmp_path / "config.toml"
    tork.write_text('[broker]\ntype = "inmemory"\n')
    assert haulier("config", "--from-tork", str(tork))
    server.stop()
    data = f"datastore.sqlite.path={server.log.parent}/haulier.db"
    here = ("--set", data, "--set", "runtime.type=shell")
    assert haulier("audit", *here) is not None
    assert haulier("audit-log verify", *here)
    assert set(commands(cli)) - haulier.ran == WITHOUT_JSON


def test_every_exit_code(server: Standalone, capfd: pytest.CaptureFixture[str]) -> None:
    """1, 2 and 0 are met above; here is who can't be asked, and who refuses."""
    server.start()
    haulier = ["jobs", "--server"]
    assert exit_code([*haulier, "http://localhost:1"]) == 3
    assert exit_code([*haulier, server.url, "--key", "no-key-of-it"]) == 4
    assert exit_code([*haulier, server.url, "--no-such-option"]) == 2
    assert exit_code(["job", "nobody", "--server", server.url, "--key", KEY]) == 1
    assert exit_code([*haulier, server.url, "--key", KEY]) == 0
    capfd.readouterr()
