"""The command line of processes, how they start, and how they log."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from shared.config import Config, Override
from shared.config.flags import Flags, FlagsCommand, ProcessRole
from shared.errors import BrokerMisconfigured
from shared.startup import ProcessMain, process_command
from shared.telemetry import configure_logging


def parse_flags(role: ProcessRole, argv: list[str]) -> Flags:
    """Return what a command line says, exiting as the program would where it is wrong."""
    seen: list[Flags] = []

    def begin(flags: Flags) -> int:
        seen.append(flags)
        return 0

    with pytest.raises(SystemExit) as ended:
        FlagsCommand(role, begin).main(argv, "program")
    if not seen:
        raise ended.value
    return seen[0]


def start(role: ProcessRole, argv: list[str], find: Callable[[], ProcessMain]) -> int:
    code: int = process_command(role, find).main(argv, "program", standalone_mode=False)
    return code


def test_flags_of_a_worker() -> None:
    flags = parse_flags(
        "worker",
        [
            *("--config", "f.toml", "--address", ":9", "--name", "w", "--runtime", "shell"),
            *("--ignore-image", "--queue", "a=b=2", "--set", "engine.beat=1s"),
            *("--log-level", "debug", "--log-format=json", "--queue", "c=1", "--set", "x=y=z"),
        ],
    )
    assert flags.file == "f.toml"
    assert flags.overrides == (
        Override("--address", "worker.address", ":9"),
        Override("--name", "worker.name", "w"),
        Override("--runtime", "runtime.type", "shell"),
        Override("--ignore-image", "runtime.shell.ignore_image", "true"),
        Override("--queue", "worker.queues.a=b", "2"),
        Override("--set", "engine.beat", "1s"),
        Override("--log-level", "logging.level", "debug"),
        Override("--log-format", "logging.format", "json"),
        Override("--queue", "worker.queues.c", "1"),
        Override("--set", "x", "y=z"),
    )


def test_flags_fit_the_role() -> None:
    for role in ("coordinator", "standalone"):
        flags = parse_flags(role, ["--address", "h:1"])
        assert flags.overrides == (Override("--address", "coordinator.address", "h:1"),)
    assert parse_flags("standalone", []).overrides == ()


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["--set", "novalue"], "'--set': must be KEY=VALUE"),
        (["--set", "=x"], "'--set': must be KEY=VALUE"),
        (["--conf", "x"], "No such option"),
        (["--queue", "x=1"], "No such option"),
        (["--name"], "Option '--name' requires an argument"),
        (["stray"], "unexpected extra argument (stray)"),
    ],
)
def test_wrong_flags(argv: list[str], complaint: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse_flags("coordinator", argv)
    assert ended.value.code == 2
    err = capsys.readouterr().err
    assert argv[0] in err
    assert complaint in err


@pytest.fixture
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Start from a place without any configuration."""
    for name in [name for name in os.environ if name.startswith("HAULIER_")]:
        monkeypatch.delenv(name)  # a run of the whole suite has its services' addresses there
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("nothing_configured")
def test_a_process_runs_with_its_configuration(capfd: pytest.CaptureFixture[str]) -> None:
    seen: list[Config] = []

    async def run(config: Config) -> int:
        seen.append(config)
        await asyncio.sleep(0)
        return 7

    assert start("standalone", ["--set", "worker.name=w"], lambda: run) == 7
    assert seen[0].worker.name == "w"
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("nothing_configured")
@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BrokerMisconfigured("access refused"), "haulier: access refused\n"),
        (
            OSError(errno.EADDRINUSE, "address localhost:8000 is in use"),
            "haulier: address localhost:8000 is in use\n",
        ),
    ],
)
def test_what_keeps_a_process_from_starting_is_one_line(
    error: Exception, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async def run(_config: Config) -> int:
        raise error

    assert start("standalone", [], lambda: run) == 2
    assert capfd.readouterr() == ("", message)


@pytest.mark.usefixtures("nothing_configured")
def test_a_fault_of_ours_is_not_hidden() -> None:
    async def run(_config: Config) -> int:
        raise OSError(errno.EBADF, "ours")

    with pytest.raises(OSError, match="ours"):
        start("standalone", [], lambda: run)


@pytest.mark.usefixtures("nothing_configured")
def test_a_bad_configuration_loads_nothing_more(capfd: pytest.CaptureFixture[str]) -> None:
    def find() -> None:
        pytest.fail("must not be asked for")

    assert start("worker", ["--set", "a=b"], find) == 2  # type: ignore[arg-type]  # never called
    lines = capfd.readouterr().err.splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        'haulier: configuration: a = "b"',
        'haulier: configuration: broker.type = "memory"',
    ]


@pytest.mark.usefixtures("nothing_configured")
def test_unknown_variables_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HAULIER_ENGINE_BAET", "1s")

    async def run(_config: Config) -> int:
        return 0

    assert start("standalone", ["--log-format", "json"], lambda: run) == 0
    line = json.loads(capfd.readouterr().err)
    assert line["level"] == "warn"
    assert "HAULIER_ENGINE_BAET is not a setting" in line["event"]


def _fail() -> None:
    raise ValueError("boom")


@pytest.mark.usefixtures("nothing_configured")
def test_json_logs_are_an_object_a_line() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    log = structlog.get_logger("haulier.test")
    log.debug("unheard")
    log.info("job stored", job="j\n1", size=3, path=Path("/x"))
    try:
        _fail()
    except ValueError:
        log.exception("it failed")
    logging.getLogger("some.library").warning("said %s", "this", extra={"more": 1})
    logging.getLogger("aio_pika.x").info("chatter")
    logging.getLogger("aiormq.connection").error("our adapter says this itself")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [
        ("info", "job stored"),
        ("error", "it failed"),
        ("warn", "said this"),
    ]
    assert lines[0] | {"timestamp": ""} == {
        "event": "job stored",
        "job": "j\n1",
        "size": 3,
        "path": "/x",
        "level": "info",
        "logger": "haulier.test",
        "timestamp": "",
    }
    assert lines[0]["timestamp"].endswith("Z")
    assert "ValueError: boom" in lines[1]["exception"]
    assert lines[2]["logger"] == "some.library"
    assert lines[2]["more"] == 1


@pytest.mark.usefixtures("nothing_configured")
def test_pretty_logs_have_no_colour_off_a_terminal() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure_logging("debug", "pretty", first)
    log = structlog.get_logger("haulier.test")
    log.debug("heard", job="j1")
    configure_logging("error", "pretty", second)
    log.warning("unheard")
    log.error("heard again")
    assert "heard" in first.getvalue()
    assert "job=j1" in first.getvalue()
    assert "\x1b" not in first.getvalue()
    assert second.getvalue().count("\n") == 1
    assert "heard again" in second.getvalue()
