"""What is shown of a configuration: whole, true, and without secrets."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.config import Override, load, parse_address
from shared.config.flat_settings import settings
from shared.config.reference import reference
from shared.config.show import as_toml, effective, settings_as_json
from shared.config.values import duration_text, masked, size_text
from shared.durations import duration_seconds
from shared.model.quantities import parse_memory

ROOT = Path(__file__).parents[3]


def loaded(tmp_path: Path, *sets: str):  # type: ignore[no-untyped-def]  # Loaded, as load says
    overrides = [Override("--set", *text.split("=", 1)) for text in sets]
    return load(overrides, {}, tmp_path, tmp_path, cpus=2)


def test_what_is_shown_can_be_loaded_again(tmp_path: Path) -> None:
    first = loaded(
        tmp_path,
        "worker.queues.Big Jobs=3",
        'worker.queues.a"b=1',
        "worker.limits.timeout=90m",
        "runtime.shell.uid=7",
        "coordinator.middleware.body_limit=1000000",
        "broker.rabbitmq.url=amqp://h/",
        "worker.hostenv=A,B:C",
    )
    (tmp_path / "haulier.toml").write_text(as_toml(first))
    assert load([], {}, tmp_path, tmp_path, cpus=9).config == first.config


def test_every_setting_is_shown_with_its_origin(tmp_path: Path) -> None:
    shown = settings_as_json(loaded(tmp_path, "engine.beat=1500ms", "worker.queues.x y=1"))
    for path, setting in settings().items():
        assert setting.is_map or path in shown
    assert shown["engine.beat"] == {"value": "1.5s", "origin": "flag --set"}
    assert shown['worker.queues."x y"'] == {"value": 1, "origin": "flag --set"}
    assert shown["engine.lease"] == {"value": "30s", "origin": "default"}
    assert settings_as_json(loaded(tmp_path))["worker.queues.default"] == {
        "value": 2,
        "origin": "default",
    }


def test_secrets_are_masked_and_nothing_else(tmp_path: Path) -> None:
    sets = [f"{path}=tops3cret" for path, setting in settings().items() if setting.secret]
    sets += [
        "coordinator.middleware.basic_auth.username=ann",
        "broker.rabbitmq.url=amqp://me:tops3cret@h:5672/v?heartbeat=5",
        "datastore.mongodb.url=mongodb://me:tops3cret@a:1,b:2/x",
        "broker.rabbitmq.management_url=http://me:tops3cret@h:15672",
    ]
    shown = as_toml(loaded(tmp_path, *sets))
    assert "tops3cret" not in shown
    values = tomllib.loads(shown)
    assert values["encryption"] == {"key": "********", "old_keys": ["********"]}
    assert values["broker"]["rabbitmq"]["url"] == "amqp://me:********@h:5672/v?heartbeat=5"
    assert values["datastore"]["mongodb"]["url"] == "mongodb://me:********@a:1,b:2/x"
    assert values["coordinator"]["middleware"]["basic_auth"]["username"] == "ann"


def test_settings_with_telling_names_are_secret() -> None:
    words = ("password", "secret", "token")
    for path, setting in settings().items():
        name = path.rpartition(".")[2]
        telling = any(word in name for word in words) or name in ("key", "old_keys")
        telling = telling and setting.kind != "path"  # the name of a file tells nothing
        assert setting.secret == telling, path


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("amqp://u:p@h", "amqp://u:********@h"),
        ("amqp://u:p/w@x@h/", "amqp://u:********@h/"),
        ("amqp://h:5672/", "amqp://h:5672/"),
        ("amqp://u@h/", "amqp://u@h/"),
    ],
)
def test_passwords_in_addresses(text: str, shown: str) -> None:
    assert masked(None, text) == shown


@given(st.integers(0, 10**9))
def test_durations_and_sizes_read_back(number: int) -> None:
    assert duration_seconds(duration_text(number / 1000)) == pytest.approx(number / 1000)
    assert parse_memory(size_text(number)) == number


def test_durations_are_short() -> None:
    texts = [duration_text(seconds) for seconds in (0, 0.25, 60, 90, 3600, 5400, 3601, 36000)]
    assert texts == ["0s", "250ms", "1m", "1m30s", "1h", "1h30m", "1h0m1s", "10h"]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8000", ("localhost", 8000)),
        (":0", ("0.0.0.0", 0)),
        ("[::1]:8000", ("::1", 8000)),
        ("10.0.0.1:65535", ("10.0.0.1", 65535)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


def test_lines_come_in_the_order_of_the_tree(tmp_path: Path) -> None:
    shown = [line.key for line in effective(loaded(tmp_path))]
    expected = ["worker.queues.default" if p == "worker.queues" else p for p in settings()]
    assert shown == expected


def test_the_reference_is_as_the_code_says() -> None:
    page = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    assert page == reference() + "\n", "make docs makes it anew"


def test_the_reference_names_every_setting() -> None:
    page = reference()
    for path, setting in settings().items():
        assert f"| `{path}` |" in page
        assert setting.description in page
