"""Whose requests are answered at all: names of this server, pages of other sites, proxies, floods of logins."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from argon2 import PasswordHasher

from coordinator.api import addresses, auth, passwords
from coordinator.api.addresses import HostNames
from shared.config.schema import (
    BasicAuth,
    Config,
    CoordinatorSettings,
    Cors,
    KeyAuth,
    Middleware,
    RateLimit,
)
from tests.unit.api.conftest import Serve
from tests.unit.api.served import HELLO, YAML, Served, configured, signed_in


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "192.0.2.7",
        "[::1]:8000",
        "localhost:8000",
        "coordinator",
        "coordinator.:8000",
        "LOCALHOST",
        "haulier.default.svc.cluster.local:8000",
        "haulier.example.com",
        "HAULIER.example.com:443",
        "a.wild.example",
    ],
)
def test_names_that_are_answered(host: str) -> None:
    assert HostNames(("haulier.example.com", "*.wild.example")).include(host)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "127.0.0.1.nip.example",
        "haulier.example.com.evil.example",
        "svc.evil.example",
        "a.svc.evil.example",
        "a.b.svc.evil.com:8000",
        "a.svc.cluster.local.evil.example",
        "a.svc.local.evil.example",
        "a.svc.evil.corp",
        "a.svc.foo.home",
        "a.svc.evil.cluster.local",
        "a.svc.local",
        "user@localhost",
        "localhost/x",
        "a b",
        "localhost:port",
    ],
)
def test_names_that_are_not(host: str) -> None:
    assert not HostNames(("haulier.example.com",)).include(host)


def test_a_service_of_a_cluster_with_another_domain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 10.0.0.10\nsearch ns.svc.k8s.acme.com svc.k8s.acme.com\n")
    monkeypatch.setattr(addresses, "_RESOLVER", resolver)
    names = HostNames(())
    assert names.include("haulier.ns.svc.k8s.acme.com:8000")
    assert names.include("haulier.ns.svc")
    assert not names.include("haulier.ns.svc.evil.com")
    assert not names.include("haulier.svc.acme.com")


async def test_another_name_is_misdirected(api: Served) -> None:
    for path in ("/jobs", "/", "/openapi.json", "/nowhere"):
        answer = await api.get(path, headers={"Host": "evil.example"})
        assert answer.status == 421
        assert "coordinator.hosts" in answer.message
    for path in ("/health", "/health/live"):
        assert (await api.get(path, headers={"Host": "evil.example"})).status == 200


async def test_a_listed_name_is_answered(start: Serve) -> None:
    api = await start(Config(coordinator=CoordinatorSettings(hosts=("haulier.example.com",))))
    headers = {"Host": "haulier.example.com", "Origin": "https://haulier.example.com"}
    answer = await api.ask("POST", "/jobs", data=HELLO, headers={**YAML, **headers})
    assert answer.status == 200
    # A proxy that puts another Host in leaves the browser's Origin.
    proxied = {"Host": "10.0.0.1:8000", "Origin": "https://haulier.example.com"}
    assert (await api.ask("PUT", "/jobs/x/cancel", headers=proxied)).status == 404


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "x"])
async def test_a_page_of_another_site_changes_nothing(api: Served, origin: str) -> None:
    headers = {**YAML, "Origin": origin}
    assert (await api.ask("POST", "/jobs", data=HELLO, headers=headers)).status == 403
    assert (await api.ask("PUT", "/jobs/x/cancel", headers=headers)).status == 403
    assert (await api.get("/jobs", headers=headers)).json["totalItems"] == 0


async def test_a_page_of_this_site_may(api: Served) -> None:
    headers = {**YAML, "Origin": api.url}
    assert (await api.ask("POST", "/jobs", data=HELLO, headers=headers)).status == 200


async def test_an_origin_that_cors_allows_may(start: Serve) -> None:
    api = await start(configured(cors=Cors(enabled=True, origins=("https://x.example",))))
    for origin, status in [("https://x.example", 200), ("https://y.example", 403)]:
        headers = {**YAML, "Origin": origin}
        assert (await api.ask("POST", "/jobs", data=HELLO, headers=headers)).status == status


def proxied(*networks: str) -> Config:
    limit = RateLimit(enabled=True, rate=0.001, burst=1)
    return Config(
        coordinator=CoordinatorSettings(
            trusted_proxies=networks, middleware=Middleware(rate_limit=limit)
        )
    )


async def test_only_a_trusted_proxy_says_who_asks(start: Serve) -> None:
    api = await start(proxied())
    for client, status in [("192.0.2.1", 200), ("192.0.2.2", 429)]:
        assert (await api.get("/jobs", headers={"X-Forwarded-For": client})).status == status


async def test_behind_a_trusted_proxy_each_client_has_its_own_limit(start: Serve) -> None:
    api = await start(proxied("127.0.0.0/8", "10.0.0.0/8"))
    for chain, status in [
        ("192.0.2.1", 200),
        ("192.0.2.2", 200),
        ("192.0.2.1", 429),
        ("192.0.2.9, 192.0.2.1, 10.0.0.1", 429),
        ("192.0.2.9, nonsense", 200),
    ]:
        assert (await api.get("/jobs", headers={"X-Forwarded-For": chain})).status == status, chain


async def test_addresses_of_one_ipv6_host_have_one_limit(start: Serve) -> None:
    api = await start(proxied("127.0.0.0/8"))
    for client, status in [
        ("2001:db8:1:2::1", 200),
        ("2001:db8:1:2:ffff::9", 429),
        ("2001:db8:1:3::1", 200),
        ("::ffff:192.0.2.1", 200),
        ("::ffff:192.0.2.2", 200),
    ]:
        assert (await api.get("/jobs", headers={"X-Forwarded-For": client})).status == status, (
            client
        )


async def test_health_is_never_limited(start: Serve) -> None:
    api = await start(proxied())
    for path in ("/health", "/health/live") * 5:
        assert (await api.get(path)).status == 200


# --- logins -----------------------------------------------------------------------------------------------------------

BASIC = BasicAuth(enabled=True, username="root", password="first")


async def test_bad_logins_delay_nobody_else(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    api = await start(configured(basic_auth=BASIC))
    root = signed_in("root", "first")
    assert (await api.get("/jobs", who=root)).status == 200
    go_on = threading.Event()
    monkeypatch.setattr(passwords, "_verify", lambda *_: not go_on.wait(timeout=30))
    flood = [
        asyncio.ensure_future(api.get("/jobs", who=signed_in(f"u{n}", "wrong"))) for n in range(80)
    ]
    for _ in range(3):
        assert (await api.get("/jobs", who=root)).status == 200
        assert (await api.get("/health")).status == 200
    assert not all(each.done() for each in flood), "nobody waited for them"
    go_on.set()
    statuses = {answer.status for answer in await asyncio.gather(*flood)}
    assert statuses == {401, 429}, "what is too much is refused, not queued"


async def test_new_passwords_that_one_user_sets_delay_nobody_else(
    start: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await start(configured(basic_auth=BASIC))
    root, ann, bob = (signed_in(name, "first") for name in ("root", "ann", "bob"))
    for name in ("ann", "bob"):
        body = {"username": name, "password": "first"}
        assert (await api.ask("POST", "/users", json=body, who=root)).status == 200
    assert (await api.get("/jobs", who=ann)).status == 200
    go_on, most_done = threading.Event(), asyncio.Event()

    class Slow(PasswordHasher):
        def hash(self, password: str | bytes, *, salt: bytes | None = None) -> str:
            assert go_on.wait(timeout=30)
            time.sleep(0.02)
            return super().hash(password, salt=salt)

    monkeypatch.setattr(passwords, "_hasher", Slow(time_cost=1, memory_cost=8, parallelism=1))
    done: list[int] = []

    async def change() -> None:
        body = {"password": "first"}
        answer = await api.ask("PUT", "/users/me/password", json=body, who=ann)
        done.append(answer.status)
        if len(done) == 70:
            most_done.set()

    flood = [asyncio.ensure_future(change()) for _ in range(80)]
    async with asyncio.timeout(30):
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                await most_done.wait()  # what is too much is refused, not queued
        login = asyncio.ensure_future(api.get("/jobs", who=bob))
        await asyncio.sleep(0.1)
        go_on.set()
        assert (await login).status == 200
        assert done.count(200) <= 5, "a login waits for its turn, not for all of them"
        await asyncio.gather(*flood)
    assert set(done) == {200, 429}


async def test_refused_logins_are_slowed(start: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "FREE_REFUSALS", 2)
    monkeypatch.setattr(auth, "SLOWED", 0.3)
    api = await start(configured(basic_auth=BASIC))

    async def seconds() -> float:
        began = time.monotonic()
        assert (await api.get("/jobs", who=signed_in("root", "wrong"))).status == 401
        return time.monotonic() - began

    times = [await seconds() for _ in range(4)]
    assert min(times[2:]) >= 0.3
    assert (await api.get("/jobs", who=signed_in("root", "first"))).status == 200


@pytest.mark.parametrize("by", ["key", "login"])
async def test_guesses_of_a_key_are_slowed(
    start: Serve, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(auth, "FREE_REFUSALS", 2)
    monkeypatch.setattr(auth, "SLOWED", 0.3)
    api = await start(configured(key_auth=KeyAuth(enabled=True, key="k")))

    async def seconds() -> float:
        began = time.monotonic()
        if by == "key":
            answer = await api.get("/jobs", headers={"Authorization": "Bearer wrong"})
        else:
            answer = await api.ask("POST", "/login", json={"key": "wrong"})
        assert answer.status == 401
        return time.monotonic() - began

    times = [await seconds() for _ in range(4)]
    assert min(times[2:]) >= 0.3
    assert (await api.get("/jobs", headers={"Authorization": "Bearer k"})).status == 200
