"""Every command of `haulier`, `curl` and `python` that a page shows is run as it is shown, in the page's order: it ends
as the page shows, well or with an error."""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from tests.acceptance.processes import SHELL, Standalone, clean_environment, wait_for
from tests.pages import FENCE, PAGES, ROOT, Command, commands_of, name_of, text_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("docs commands")]

NOT_RUN = {
    r"haulier run (standalone|coordinator|worker)( --(runtime|address|name|queue|ignore)[^=]*.*)?$": "it serves until "
    "it is stopped: all of tests/acceptance start these",
    r"haulier jobs --server https://haulier\.example\.com": "a server elsewhere: tests/acceptance/test_secured.py",
    r"curl .*localhost:15672": "a real RabbitMQ: tests/acceptance/test_damage.py looks at what is in `dead`",
    r"python receiver\.py": "it serves until it is stopped, at a fixed port",
    r"helm install haulier": "it needs Kubernetes: tests/unit/test_deploy.py renders the chart",
    r"systemd-run .*haulier audit": "it needs systemd; the command itself is run from the page on troubleshooting",
}
"""Commands that are not run, as regular expressions, and why."""

ENDLESS = {"curl -N 'localhost:8000/events?type=job'"}
"""Commands that only a user ends."""

TORK = '[broker]\ntype = "rabbitmq"\n[broker.rabbitmq]\nconsumer.timeout = "30m"\n'


def cancelled_in_nobody(server: Standalone) -> None:
    """What the page on workers was told of: a queue `nobody`, and the job in it cancelled."""
    job = server.submit("name: n\ntasks:\n- {name: t, image: any, queue: nobody, run: echo}")
    wait_for(lambda: "nobody" in str(server.get("/queues")), 10, "the queue nobody")
    server.call("PUT", f"/jobs/{job}/cancel")
    server.wait_job(job)


BEFORE: dict[str, Callable[[Standalone], None]] = {"docs/how-to/workers.md": cancelled_in_nobody}
"""What must have happened before the commands of a page."""

SETTINGS = {
    "docs/how-to/access.md": {
        "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_ENABLED": "true",
        "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_USERNAME": "admin",
        "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_PASSWORD": "change-me-soon",
    }
}
"""Pages that are about a server with these settings."""

_OURS = re.compile(r"(?:^|[$;&|(] ?|[A-Z]=\S+ )(?:haulier|curl|python) |^export ")
_SHOWN_ERRORS = (
    (r'^\{"message":', 22),  # curl's code with --fail
    (r"^FAILED$|^\S+\.yaml:\d+:\d+: ", 1),
    (r"^haulier: (configuration|RabbitMQ)", 2),
)
_IDS = (
    (r"(haulier (?:drain|resume) )\w+", "/nodes", "queue"),
    (r"(/scheduled-jobs/)\w+", "/scheduled-jobs", "id"),
    (r"(/jobs/)ID\b", "/jobs", "id"),
)
"""Where a command has an id, the list in which one is found, and the field that tells it from others."""


def commands() -> dict[str, list[Command]]:
    """What is run, by page."""
    found = {}
    for page in PAGES:
        ours = [each for each in commands_of(page) if _OURS.search(each.line)]
        run = [each for each in ours if reason_not_to_run(each.line) is None]
        if any(not each.line.startswith("export ") for each in run):
            found[name_of(page)] = run
    return found


def reason_not_to_run(line: str) -> str | None:
    """Why a command is not run here; None where it is."""
    return next((why for pattern, why in NOT_RUN.items() if re.match(pattern, line)), None)


def code_shown(shown: str) -> int:
    """The exit code of a command after which a page shows this."""
    codes = (code for sign, code in _SHOWN_ERRORS if re.search(sign, shown, re.MULTILINE))
    return next(codes, 0)


COMMANDS = commands()


class Reader:
    """Somebody who does what a page says, in a folder with the examples and the files that it shows."""

    def __init__(self, server: Standalone, folder: Path, settings: Mapping[str, str]) -> None:
        self._server = server
        self.folder = folder
        self._background: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **clean_environment(settings),
            "HAULIER_SERVER": server.url,
            "CURL_HOME": str(folder),
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        (folder / ".curlrc").write_text("fail-with-body\nmax-time = 20\n")
        (folder / "bin").mkdir()
        for name, command in (("haulier", "-m haulier.cli"), ("python", "")):
            program = folder / "bin" / name
            program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {command} "$@"\n')
            program.chmod(0o755)

    def write_files(self, page: str) -> None:
        """Write the files that the page shows by name, and those that it takes for granted."""
        (self.folder / "examples").symlink_to(ROOT / "examples")
        (self.folder / "jobs").mkdir()
        hello = (ROOT / "examples" / "hello.yaml").read_text()
        files = {"job.yaml": hello, "jobs/hello.yaml": hello, "config.toml": TORK, **files_of(page)}
        for name, text in files.items():
            (self.folder / name).write_text(self._here(text))

    def do(self, command: Command) -> None:
        """Run a command to its end, which must be the one shown; leave it in the background if it ends with &."""
        line = self._here(command.line)
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self._environment[name] = value
        elif line.endswith("&"):
            process = self._begin(line.removesuffix("&"))
            self._background.append(process)
            wait_for(psutil.Process(process.pid).net_connections, 20, f"a connection of {line}")
        else:
            endless = command.line in ENDLESS
            line = f"timeout 2 {line}" if endless else self._with_real_id(line)
            code, out = self._end(self._begin(line))
            assert code == (124 if endless else code_shown(command.shown)), f"{line}\n{out}"
            assert "Traceback" not in out

    def end(self) -> None:
        """Wait until what is in the background has ended, well."""
        for each in self._background:
            code, out = self._end(each)
            assert code == 0, out

    def leave(self) -> None:
        """Have nothing running, whatever happened."""
        for each in self._background:
            each.kill()

    def _here(self, text: str) -> str:
        return text.replace("localhost:8000", self._server.url.removeprefix("http://"))

    def _begin(self, line: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", line],
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def _end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        try:
            out, _ = process.communicate(timeout=30)
        finally:
            process.kill()
        return process.returncode, out.decode().strip()

    def _with_real_id(self, line: str) -> str:
        """The command with ids that exist in the place of those of the page: the newest job, schedule, worker."""
        for place, path, key in _IDS:
            if re.search(place, line):
                found = self._server.get(path)
                items = found["items"] if isinstance(found, dict) else found
                newest = next(each["id"] for each in items if key in each)
                line = re.sub(place, rf"\g<1>{newest}", line)
        return re.sub(r"(haulier \w+ )(?:ID|[0-9a-f]{8})\b", r"\g<1>@last", line)


def files_of(page: str) -> dict[str, str]:
    """The files that a page shows, by name: the last name in the paragraph before them."""
    files = {}
    text = text_of(ROOT / page)
    for block in FENCE.finditer(text):
        if block[1] in ("yaml", "python"):
            before = text[: block.start()].rstrip().rpartition("\n\n")[2]
            names = re.findall(r"`([\w-]+\.(?:yaml|py))`", before)
            files.update(dict.fromkeys(names[-1:], block[2]))
    return files


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """The process that all pages but those of SETTINGS are about."""
    process = Standalone(tmp_path_factory.mktemp("pages"), 4, **SHELL)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def server_of(
    server: Standalone, standalone: Callable[..., Standalone]
) -> Iterator[Callable[[str], Standalone]]:
    """Gives the process that a page is about, and lets its worker take tasks again."""

    def find(page: str) -> Standalone:
        return standalone(**SETTINGS[page]) if page in SETTINGS else server

    yield find
    for node in server.get("/nodes"):
        server.call("PUT", f"/nodes/{node['id']}/resume")


@pytest.mark.parametrize("page", COMMANDS)
def test_the_commands_of_a_page_end_as_it_shows(
    server_of: Callable[[str], Standalone], tmp_path: Path, page: str
) -> None:
    server = server_of(page)
    folder = tmp_path / "reader"
    folder.mkdir()
    if page in BEFORE:
        BEFORE[page](server)
    copy = folder / "backup.db"  # a process holds its own SQLite: audits need it stopped, or a copy
    with closing(sqlite3.connect(server.log.parent / "haulier.db")) as database:
        database.execute("VACUUM INTO ?", (str(copy),))
    reader = Reader(server, folder, {**SHELL, "HAULIER_DATASTORE_SQLITE_PATH": str(copy)})
    reader.write_files(page)
    try:
        for command in COMMANDS[page]:
            reader.do(command)
        reader.end()
    finally:
        reader.leave()


def test_what_is_not_run_is_still_shown() -> None:
    lines = [each.line for page in PAGES for each in commands_of(page)]
    assert [each for each in NOT_RUN if not any(re.match(each, line) for line in lines)] == []
    assert {*lines} >= ENDLESS
    assert sum(map(len, COMMANDS.values())) > 60
