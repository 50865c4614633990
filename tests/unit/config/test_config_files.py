"""Settings from files of their own: `<KEY>_FILE`."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.config import ConfigurationError, Override, load
from shared.config.flat_settings import settings
from shared.config.show import settings_as_json
from shared.config.values import masked

IN_FILES = [path for path, setting in settings().items() if setting.may_be_file]


def test_every_secret_may_stand_in_a_file() -> None:
    assert {
        "encryption.key",
        "encryption.old_keys",
        "coordinator.middleware.basic_auth.password",
        "coordinator.middleware.key_auth.key",
        "broker.rabbitmq.url",
        "broker.rabbitmq.management_url",
        "datastore.mongodb.url",
    } <= set(IN_FILES)


def values(path: str) -> str:
    kinds = {"amqp-url": "amqp://u:p@h/", "mongodb-url": "mongodb://u:p@h", "http-url": "http://h"}
    return kinds.get(settings()[path].kind, "tops3cret")


@pytest.mark.parametrize("path", IN_FILES)
def test_a_file_by_variable_setting_and_flag(tmp_path: Path, path: str) -> None:
    file = tmp_path / "value"
    file.write_text(values(path) + "\n")
    environ = {settings()[path].variable + "_FILE": str(file)}
    more = [Override("--set", "encryption.key", "k")] if path == "encryption.old_keys" else []
    if path.startswith("coordinator.middleware.basic"):
        more = [Override("--set", "coordinator.middleware.basic_auth.username", "u")]
    plain = load([*more, Override("--set", path, values(path))], {}, tmp_path, tmp_path).config
    by_variable = load(more, environ, tmp_path, tmp_path)
    assert by_variable.config == plain
    assert by_variable.warnings == []
    assert "tops3cret" not in str(settings_as_json(by_variable))
    by_flag = [*more, Override("--set", f"{path}_file", str(file))]
    assert load(by_flag, {}, tmp_path, tmp_path).config == plain
    (tmp_path / "haulier.toml").write_text(f'{path}_file = "{file}"\n')
    assert load(more, {}, tmp_path, tmp_path).config == plain


def test_a_list_has_a_value_on_each_line(tmp_path: Path) -> None:
    (tmp_path / "old").write_text("one\ntwo\n")
    environ = {
        "HAULIER_ENCRYPTION_KEY": "k",
        "HAULIER_ENCRYPTION_OLD_KEYS_FILE": str(tmp_path / "old"),
    }
    assert load([], environ, tmp_path, tmp_path).config.encryption.old_keys == ("one", "two")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        (b"", "is empty"),
        (b"\n", "is empty"),
        (b"\xff", "not UTF-8"),
        (b"x" * 70_000, "too large"),
    ],
)
def test_a_file_that_holds_no_value(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigurationError, match=problem) as error:
        load([], {"HAULIER_ENCRYPTION_KEY_FILE": str(file)}, tmp_path, tmp_path)
    assert "encryption.key_file" in str(error.value)


def test_not_both(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    environ = {
        "HAULIER_ENCRYPTION_KEY": "k",
        "HAULIER_ENCRYPTION_KEY_FILE": str(tmp_path / "key"),
    }
    with pytest.raises(ConfigurationError, match="can't be given together"):
        load([], environ, tmp_path, tmp_path)


def test_only_what_is_secret(tmp_path: Path) -> None:
    loaded = load([], {"HAULIER_LOGGING_LEVEL_FILE": "/x"}, tmp_path, tmp_path)
    assert len(loaded.warnings) == 1
    with pytest.raises(ConfigurationError, match=r"logging\.level_file"):
        load([Override("--set", "logging.level_file", "/x")], {}, tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://h/?token=abc&x=1", "http://h/?token=********&x=1"),
        ("http://h/?x=1&API_KEY=abc", "http://h/?x=1&API_KEY=********"),
        ("https://h/p?sas_signature=a%2Fb#f", "https://h/p?sas_signature=********#f"),
        (
            "mongodb://h/?tlsCertificateKeyFilePassword=p&w=1",
            "mongodb://h/?tlsCertificateKeyFilePassword=********&w=1",
        ),
        (
            "mongodb://h/?authMechanismProperties=AWS_SESSION_TOKEN:t",
            "mongodb://h/?authMechanismProperties=********",
        ),
        ("mongodb://u:p@h/?authSource=admin", "mongodb://u:********@h/?authSource=admin"),
        ("amqp://h/?heartbeat=5", "amqp://h/?heartbeat=5"),
    ],
)
def test_secrets_in_queries_of_addresses(address: str, shown: str) -> None:
    assert masked(None, address) == shown
