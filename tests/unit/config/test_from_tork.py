"""A configuration of Tork comes to settings that a process can start with; what has no counterpart is said."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from haulier.cli.settings import config_command
from shared.config.from_tork import Translation, settings_file, translate_settings
from shared.config.load import load
from shared.config.schema import Config
from shared.errors import ApplicationError

TORK = """
[client]
endpoint = "http://localhost:8000"
[logging]
level = "debug"
format = "json"
[broker]
type = "rabbitmq"
[broker.rabbitmq]
url = "amqp://guest:geheim@rabbit:5672/"
consumer.timeout = "30m"
management.url = "http://guest:geheim@rabbit:15672"
queue.type = "quorum"
[datastore]
type = "postgres"
retention.logs.duration = "168h"
[datastore.postgres]
dsn = "host=localhost user=tork"
[coordinator]
address = "0.0.0.0:8000"
[coordinator.api]
endpoints.health = true
endpoints.queues = false
[coordinator.queues]
completed = 7
[middleware.web]
bodylimit = "500K"
[middleware.web.cors]
enabled = true
origins = "*"
[middleware.web.keyauth]
enabled = true
key = "changeme"
[middleware.web.ratelimit]
enabled = true
rps = 20
[middleware.task.hostenv]
vars = ["HOME:HOST_HOME", "LANG"]
[worker.queues]
default = 3
"Big Jobs" = 1
[worker.limits]
cpus = "2"
memory = "512m"
timeout = "3h"
[mounts.bind]
allowed = true
sources = ["/data", "/srv"]
[runtime]
type = "podman"
[runtime.shell]
cmd = ["bash", "-c"]
uid = "1000"
[runtime.docker]
image.ttl = "24h"
sandbox = true
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "config.toml"
    made.write_text(TORK)
    return made


def converted(file: Path, environ: Mapping[str, str] | None = None) -> Config:
    """What a process is configured by that starts with the translation."""
    ours = file.with_name("haulier.toml")
    ours.write_text(settings_file(translate_settings(file, environ or {}).values))
    return load(environ={}, file=str(ours)).config


def test_it_means_the_same_here(file: Path) -> None:
    config = converted(file)
    assert (config.logging.level, config.logging.format) == ("debug", "json")
    assert config.broker.type == "rabbitmq"
    assert config.broker.rabbitmq.url == "amqp://guest:geheim@rabbit:5672/"
    assert config.broker.rabbitmq.management_url == "http://guest:geheim@rabbit:15672"
    assert config.broker.rabbitmq.queue_type == "quorum"
    assert config.datastore.type == "mongodb"
    assert config.datastore.retention.logs == 7 * 86_400
    assert config.coordinator.address == "0.0.0.0:8000"
    assert config.coordinator.api.queues is False
    assert config.coordinator.queues.completed == 7
    middleware = config.coordinator.middleware
    assert middleware.body_limit == 500 * 1024
    assert (middleware.cors.enabled, middleware.cors.origins) == (True, ("*",))
    assert (middleware.key_auth.enabled, middleware.key_auth.key) == (True, "changeme")
    assert (middleware.rate_limit.enabled, middleware.rate_limit.rate) == (True, 20.0)
    assert config.worker.hostenv == ("HOME:HOST_HOME", "LANG")
    assert config.worker.queues == {"default": 3, "Big Jobs": 1}
    limits = config.worker.limits
    assert (limits.cpus, limits.memory, limits.timeout) == ("2", "512m", 3 * 3600)
    assert config.mounts.bind.allowed
    assert config.mounts.bind.sources == ("/data", "/srv")
    assert config.runtime.type == "podman"
    assert (config.runtime.shell.cmd, config.runtime.shell.uid) == (("bash", "-c"), 1000)
    assert config.runtime.docker.image_ttl == 24 * 3600


def test_what_has_no_counterpart_is_said(file: Path) -> None:
    warnings = translate_settings(
        file, {"TORK_SOMETHING": "1", "TORK_OUTPUT": "/tork/stdout"}
    ).warnings
    keys = [warning.split()[0] for warning in warnings]
    assert keys == [
        "client.endpoint",
        "broker.rabbitmq.consumer.timeout",
        "datastore.postgres.dsn",
        "coordinator.api.endpoints.health",
        "runtime.docker.sandbox",
        "TORK_SOMETHING",
    ]
    assert "set datastore.mongodb.url" in warnings[2]


def test_variables_win_over_the_file(file: Path) -> None:
    given = {
        "TORK_BROKER_TYPE": "inmemory",
        "TORK_WORKER_QUEUES_VIDEO": "2",
        "TORK_COORDINATOR_NAME": "first",
        "TORK_MOUNTS_BIND_SOURCES": "/a,/b",
    }
    config = converted(file, given)
    assert config.broker.type == "memory"
    assert config.worker.queues["video"] == 2
    assert config.coordinator.name == "first"
    assert config.mounts.bind.sources == ("/a", "/b")


def test_an_empty_text_means_that_nothing_is_set(tmp_path: Path) -> None:
    """As Tork's documentation has it for its defaults."""
    file = tmp_path / "config.toml"
    file.write_text(
        '[worker.limits]\ncpus = ""\nmemory = ""\ntimeout = ""\n[runtime.shell]\nuid = ""\n[broker.rabbitmq]\nurl = "amqp://a/"'
    )
    found = translate_settings(file, {"TORK_BROKER_RABBITMQ_URL": "", "TORK_LOGGING_LEVEL": "WARN"})
    assert found == Translation({"logging.level": "warn"}, [])


@pytest.mark.parametrize("engine", ["docker", "podman"])
def test_the_privileges_of_the_engine_in_use_count(tmp_path: Path, engine: str) -> None:
    file = tmp_path / "config.toml"
    other = {"docker": "podman", "podman": "docker"}[engine]
    file.write_text(
        f'[runtime]\ntype = "{engine}"\n{engine}.privileged = true\n{other}.privileged = false\n'
    )
    found = translate_settings(file, {})
    assert found.values["runtime.docker.privileged"] is True
    assert found.warnings == [f"runtime.{other}.privileged was left out: runtime.type is {engine}"]


def test_a_value_that_cannot_be_used_is_left_out_and_said(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[worker.queues]\ndefault = "many"\n[logging]\nlevel = "loud"\n')
    found = translate_settings(file, {})
    assert found.values == {}
    assert [warning.split()[0] for warning in found.warnings] == [
        "worker.queues.default",
        "logging.level",
    ]


def test_the_command_prints_a_file_and_warns_on_stderr(file: Path) -> None:
    done = CliRunner().invoke(
        config_command, ["--from-tork", str(file)], standalone_mode=False, env={}
    )
    assert done.return_value == 0
    assert 'broker.type = "rabbitmq"' in done.stdout
    assert 'worker.queues."Big Jobs" = 1' in done.stdout
    assert "haulier: datastore.postgres.dsn has no counterpart" in done.stderr
    as_json = CliRunner().invoke(
        config_command, ["--from-tork", str(file), "--json"], standalone_mode=False, env={}
    )
    assert json.loads(as_json.stdout)["broker.type"] == "rabbitmq"
    missing = CliRunner().invoke(
        config_command, ["--from-tork", "/no/config.toml"], standalone_mode=False
    )
    assert missing.return_value == 2
    assert "/no/config.toml: No such file" in missing.stderr


@pytest.mark.parametrize("text", ["= 1", "[broker"])
def test_a_file_that_is_no_toml_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ApplicationError, match=r"config\.toml: "):
        translate_settings(file, {})
