"""Credentials for registries from a Docker config file, whatever is in it."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.errors import RuntimeUnavailable
from worker.runtime.docker import credential_helpers
from worker.runtime.docker.credentials import Credentials, CredentialsError
from worker.runtime.docker.engine import Engine

MINE = "localhost:5998"
GOOD = {"auth": base64.b64encode(b"me:secret").decode()}


def credentials(tmp_path: Path, contents: Any) -> Credentials:
    file = tmp_path / "config.json"
    file.write_text(contents if isinstance(contents, str) else json.dumps(contents))
    return Credentials(str(file))


@pytest.mark.parametrize(
    "odd", [{"auth": ""}, {"auth": "%"}, {"auth": "bm9ib2R5"}, {"auth": 5}, [], "x", None]
)
def test_an_odd_entry_disturbs_only_its_own_registry(tmp_path: Path, odd: Any) -> None:
    found = credentials(tmp_path, {"auths": {MINE: odd, "r.example": GOOD}})
    found.check()
    assert found.of("r.example/a:1")["username"] == "me"
    assert found.of("alpine") == {}
    with pytest.raises(
        CredentialsError, match=rf"config\.json has an entry for {MINE} that is not"
    ):
        found.of(f"{MINE}/image:1")


@pytest.mark.parametrize("contents", ["[]", "{", "", "5", '{"auths": []}', '{"credHelpers": "x"}'])
def test_a_named_file_that_is_none_stops_the_start(tmp_path: Path, contents: str) -> None:
    found = credentials(tmp_path, contents)
    with pytest.raises(RuntimeUnavailable, match=r"runtime\.docker\.config: .*config\.json"):
        found.check()
    with pytest.raises(CredentialsError):
        found.of("alpine")


def test_a_named_file_that_is_missing_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="No such file"):
        Credentials(str(tmp_path / "missing")).check()


def test_the_usual_file_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    usual = Credentials("")
    usual.check()
    assert "is no JSON object" in capsys.readouterr().out
    assert usual.of("alpine") == {}
    (tmp_path / "config.json").unlink()
    usual.check()
    assert usual.of("alpine") == {}


@pytest.mark.parametrize(
    "section", [{"credsStore": "not-there"}, {"credHelpers": {MINE: "not-there"}}]
)
def test_a_helper_that_is_not_installed_is_named(tmp_path: Path, section: Any) -> None:
    with pytest.raises(CredentialsError) as refused:
        credentials(tmp_path, section).of(f"{MINE}/image")
    assert str(refused.value) == (
        f"{tmp_path}/config.json names the helper docker-credential-not-there for {MINE}, which is "
        "not installed on the worker"
    )


@pytest.mark.parametrize(
    ("name", "nothing"),
    [("credsStore", ""), ("credsStore", None), ("credHelpers", None), ("auths", None)],
)
def test_what_is_empty_is_none(tmp_path: Path, name: str, nothing: str | None) -> None:
    contents = {"auths": {MINE: GOOD}, "credHelpers": {"r.example": "some"}, name: nothing}
    found = credentials(tmp_path, contents)
    found.check()
    assert found.of(f"{MINE}/image").get("username") == (None if name == "auths" else "me")


@pytest.mark.parametrize("auth", [{}, {"auth": ""}, {"auth": None}])
def test_a_user_name_and_a_password_may_be_written_as_they_are(tmp_path: Path, auth: Any) -> None:
    entry = {"username": "me", "password": "secret", **auth}
    found = credentials(tmp_path, {"auths": {MINE: entry}}).of(f"{MINE}/image")
    assert (found["username"], found["password"]) == ("me", "secret")


@pytest.mark.parametrize("odd", [{"username": 5, "password": "x"}, {"username": "me"}])
def test_half_of_them_is_none(tmp_path: Path, odd: Any) -> None:
    with pytest.raises(CredentialsError, match="not a user name and a password"):
        credentials(tmp_path, {"auths": {MINE: odd}}).of(f"{MINE}/image")


def test_a_registrys_own_entry_goes_before_others_of_it(tmp_path: Path) -> None:
    entries = {f"https://{MINE}/v1/": {"auth": "%"}, MINE: GOOD}
    assert credentials(tmp_path, {"auths": entries}).of(f"{MINE}/image")["username"] == "me"


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Installs a script as docker-credential-mine."""
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)

    def install(script: str) -> None:
        file = tmp_path / "bin" / "docker-credential-mine"
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)

    return install


Install = Callable[[str], None]
WITH_HELPER = {"auths": {MINE: {"auth": "%"}, "r.example": GOOD}, "credsStore": "mine"}


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ({"Username": "u", "Secret": "p"}, {"Username": "u", "Password": "p"}),
        ({"Username": "<token>", "Secret": "t"}, {"IdentityToken": "t"}),
    ],
)
def test_a_helper_is_asked_first(
    tmp_path: Path, helper: Install, answer: dict[str, str], found: dict[str, str]
) -> None:
    helper(f'[ "$1" = get ] && [ "$(cat)" = {MINE} ] && echo \'{json.dumps(answer)}\'')
    asked = credentials(tmp_path, WITH_HELPER).of(f"{MINE}/image")
    assert asked == {"ServerAddress": MINE, **found}


INDEX = "https://index.docker.io/v1/"


@pytest.mark.parametrize(
    ("helpers", "asked"),
    [
        ({"docker.io": "mine"}, "docker.io"),
        ({INDEX: "mine"}, INDEX),
        ({INDEX: "mine", "docker.io": "not-there"}, INDEX),
        ({"docker.io": ""}, INDEX),
        ({}, INDEX),
    ],
)
def test_docker_hubs_helper_may_be_named_for_either_of_its_names(
    tmp_path: Path, helper: Install, helpers: dict[str, str], asked: str
) -> None:
    helper(r"""printf '{"Username": "u", "Secret": "%s"}' $(cat)""")
    store = "not-there" if any(helpers.values()) else "mine"
    found = credentials(tmp_path, {"credHelpers": helpers, "credsStore": store}).of("alpine")
    assert found == {"ServerAddress": asked, "Username": "u", "Password": asked}


@pytest.mark.parametrize(
    "script",
    [
        """echo '{"Username": "", "Secret": ""}'""",
        "echo credentials not found in native keychain; exit 1",
    ],
)
def test_what_a_helper_does_not_know_is_looked_up_in_the_file(
    tmp_path: Path, helper: Install, script: str
) -> None:
    helper(script)
    assert credentials(tmp_path, WITH_HELPER).of("r.example/image")["username"] == "me"


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo no key >&2; exit 3", "fails: no key"),
        ("exit 3", "fails: exit code 3"),
        ("echo hello", "fails: its answer is not a user name and a secret"),
        ("echo '[]'", "fails: its answer is not a user name and a secret"),
    ],
)
def test_a_helper_that_fails_is_named(
    tmp_path: Path, helper: Install, script: str, why: str
) -> None:
    helper(script)
    with pytest.raises(CredentialsError) as refused:
        credentials(tmp_path, WITH_HELPER).of(f"{MINE}/image")
    assert str(refused.value).endswith(f"docker-credential-mine for {MINE}, which {why}")


def test_a_helper_that_asks_somebody_is_ended(
    tmp_path: Path, helper: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(credential_helpers, "HELPER_ANSWERS_WITHIN", 0.5)
    pid = tmp_path / "pid"
    helper(f"/bin/sleep 60 & echo $! > {pid}; wait")
    began = time.monotonic()
    with pytest.raises(CredentialsError, match=r"which does not answer within 0\.5 s"):
        credentials(tmp_path, WITH_HELPER).of(f"{MINE}/image")
    assert time.monotonic() - began < 10
    stat = Path("/proc", pid.read_text().strip(), "stat")
    while stat.exists() and stat.read_text().split()[2] != "Z":  # it ends soon after it is killed
        assert time.monotonic() - began < 10
        time.sleep(0.01)


@pytest.mark.parametrize("contents", ["[]", "{", json.dumps({"auths": {MINE: {"auth": ""}}})])
async def test_a_broken_usual_file_is_not_in_the_engines_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: str
) -> None:
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    usual = tmp_path / ".docker" / "config.json"
    usual.parent.mkdir()
    usual.write_text(contents)
    engine = Engine(f"unix://{tmp_path}/engine.sock", "")
    with pytest.raises(RuntimeUnavailable, match="no Docker engine answers"):
        await engine.connect()
    await engine.close()
    assert "DOCKER_CONFIG" not in os.environ
