"""What webhooks may not reach, and what they may not say."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from coordinator.due import webhook_addresses, webhook_sender
from coordinator.due.webhook_addresses import ADDRESS_REFUSED, NOT_RESOLVED, WebhookAddresses
from coordinator.due.webhook_sender import WebhookSender
from coordinator.store.mongodb import MongoStore
from coordinator.store.sqlite import SqliteStore
from shared.config.schema import (
    BrokerSettings,
    Config,
    CoordinatorSettings,
    DatastoreSettings,
    KeyAuth,
    Middleware,
    MongoDB,
    RabbitMQ,
    WebhookSettings,
)
from shared.model.checks import header_problem
from shared.model.documents import DeliveryDocument
from tests.datastores import sqlite_file

GUARDED = Middleware(key_auth=KeyAuth(enabled=True, key="k"))


def config(middleware: Middleware = GUARDED, **webhooks: Any) -> Config:
    settings = CoordinatorSettings(middleware=middleware, webhooks=WebhookSettings(**webhooks))
    return Config(coordinator=settings)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "0.0.0.0",
        "0.1.2.3",
        "::",
        "169.254.169.254",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::7f00:1",
        "::ffff:0:127.0.0.1",
        "::ffff:0:169.254.169.254",
        "64:ff9b:1::127.0.0.1",
        "64:ff9b:1:ab::169.254.169.254",
        "64:ff9b:1:7f00:0:100::",
        "64:ff9b:1:7f:0:1::",
        "64:ff9b:1:0:7f:0:100:0",
        "64:ff9b:1:a9fe:a9:fe00::ffff",
        "64:ff9b:1::",
        "2001:0:7f00:1::5e00:1",
        "2001:0:5db8:d80e::80ff:fffe",
        "2001:0:5db8:d80e:0:0:5601:5601",
        "2002:a9fe:a9fe::1",
        "2002:a83f:8110::",
        "2001:db8::5efe:127.0.0.1",
        "2001:db8::200:5efe:169.254.169.254",
        "168.63.129.16",
        "::ffff:168.63.129.16",
        "192.0.0.192",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd00:42::42",
        "fd20:ce::254",
        "100.100.100.200",
        "224.0.0.1",
    ],
)
def test_what_only_this_host_should_reach(address: str) -> None:
    assert WebhookAddresses(config()).refuses(address)
    assert not WebhookAddresses(config(Middleware())).refuses(address), "without authentication"


@pytest.mark.parametrize(
    "address",
    [
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "64:ff9b:1:a00:0:100::",
        "::ffff:0:10.0.0.1",
        "2001:0:5db8:d80e::f5ff:fffe",
        "2002:a00:1::1",
        "2001:db8::5efe:10.0.0.1",
    ],
)
def test_an_address_inside_another_is_judged_by_itself(address: str) -> None:
    assert not WebhookAddresses(config()).refuses(address)
    assert WebhookAddresses(config(Middleware(), deny=("10.0.0.0/8",))).refuses(address)


def test_a_network_may_allow_its_own_prefix_of_nat64() -> None:
    addresses = WebhookAddresses(config(allow=("64:ff9b:1:2::/64", "::ffff:0:0/96")))
    assert not addresses.refuses("64:ff9b:1:2:5d:b8d8:7f00:0")
    assert addresses.refuses("64:ff9b:1:3:5d:b8d8:7f00:0")
    assert addresses.refuses("::ffff:127.0.0.1")


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "93.184.215.14", "2001:db8::1"])
def test_other_private_addresses_only_if_they_are_listed(address: str) -> None:
    assert not WebhookAddresses(config()).refuses(address)
    listed = config(Middleware(), deny=("10.0.0.0/8", "192.168.1.1", "93.0.0.0/8", "2001:db8::/32"))
    assert WebhookAddresses(listed).refuses(address)


def test_an_allowed_address_is_an_exception() -> None:
    addresses = WebhookAddresses(config(allow=("127.0.0.1", "10.1.0.0/16"), deny=("10.0.0.0/8",)))
    assert not addresses.refuses("127.0.0.1")
    assert not addresses.refuses("::ffff:127.0.0.1")
    assert addresses.refuses("127.0.0.2")
    assert not addresses.refuses("10.1.2.3")
    assert addresses.refuses("10.2.0.1")


async def test_the_datastore_and_the_broker_are_not_reached() -> None:
    addresses = WebhookAddresses(
        Config(
            coordinator=CoordinatorSettings(middleware=GUARDED),
            broker=BrokerSettings(type="rabbitmq", rabbitmq=RabbitMQ(url="amqp://u:p@10.0.0.5/")),
            datastore=DatastoreSettings(
                type="mongodb", mongodb=MongoDB(url="mongodb://u:p@10.0.0.6:1,10.0.0.7:2/?a=b")
            ),
        )
    )
    await addresses.look()
    assert [n for n in range(4, 9) if addresses.refuses(f"10.0.0.{n}")] == [5, 6, 7]


async def test_members_of_the_datastore_that_its_url_does_not_name_are_not_reached() -> None:
    url = "mongodb+srv://cluster.invalid/"
    members = ["10.0.0.6"]
    addresses = WebhookAddresses(
        Config(
            coordinator=CoordinatorSettings(middleware=GUARDED),
            datastore=DatastoreSettings(type="mongodb", mongodb=MongoDB(url=url)),
        ),
        lambda: members,
    )
    await addresses.look()
    assert [n for n in range(4, 9) if addresses.refuses(f"10.0.0.{n}")] == [6]


async def test_the_driver_says_which_members_it_knows() -> None:
    store = MongoStore("mongodb://10.0.0.6,10.0.0.7:2/?replicaSet=r&connect=false", "haulier")
    assert store.hosts() == ()
    store._connection.open()
    try:
        assert sorted(store.hosts()) == ["10.0.0.6", "10.0.0.7"]
    finally:
        await store.close()


async def test_a_part_that_no_name_server_knows_just_now_stays_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = "mongodb://one.example,two.example/"
    addresses = WebhookAddresses(
        Config(
            coordinator=CoordinatorSettings(middleware=GUARDED),
            datastore=DatastoreSettings(type="mongodb", mongodb=MongoDB(url=url)),
        )
    )
    known = {"one.example": "10.0.0.6", "two.example": "10.0.0.7"}

    async def resolved(host: str) -> frozenset[Any]:
        return frozenset(ip_address(known[name]) for name in known if name == host)

    monkeypatch.setattr(webhook_addresses, "_resolved", resolved)
    monkeypatch.setattr(webhook_addresses, "_OWN_EVERY", 0.0)
    await addresses.look()
    del known["one.example"]
    await addresses.look()
    assert addresses.refuses("10.0.0.6")
    assert addresses.refuses("10.0.0.7")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1"])
async def test_a_part_that_no_name_server_has_known_yet_is_refused_by_its_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async def unknown(_: str) -> frozenset[Any]:
        return frozenset()

    monkeypatch.setattr(webhook_addresses, "_resolved", unknown)
    monkeypatch.setattr(webhook_sender, "_FIRST_DELAY", 0.01)
    parts = Config(
        coordinator=ALLOWED.coordinator,
        broker=BrokerSettings(type="rabbitmq", rabbitmq=RabbitMQ(url="amqp://u:p@LocalHost/")),
    )
    (found,), heard = await delivered(folder, parts, host, "/")
    if host == "127.0.0.1":
        assert (found.state, len(heard)) == ("DELIVERED", 1)
    else:
        assert (found.state, found.error) == ("FAILED", f"gaierror: {NOT_RESOLVED}")
        assert not heard


@pytest.mark.parametrize(
    "name", ["Host", "content-length", "Transfer-Encoding", "Connection", "Proxy-Authorization"]
)
def test_headers_that_steer_the_connection(name: str) -> None:
    assert header_problem(name) == "this header can not be set: it steers the connection"


class Receiver:
    """Notes which headers came to which path, and answers each with a cookie; on `/moved`, that it is elsewhere."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Any]] = []

    async def listen(self, stack: AsyncExitStack) -> int:
        """Return the port on this host that it listens on."""
        app = web.Application()
        app.add_routes([web.post("/{path:.*}", self._answer)])
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        assert isinstance(port, int)
        return port

    async def _answer(self, request: web.Request) -> web.Response:
        self.heard.append((request.path, request.headers))
        headers = {"Set-Cookie": "a=b; Path=/"}
        if request.path != "/moved":
            return web.Response(headers=headers)
        status = int(request.query["status"])
        return web.Response(status=status, headers={**headers, "Location": "/elsewhere"})


async def delivered(
    folder: Path, config: Config, host: str, *paths: str
) -> tuple[list[DeliveryDocument], list[tuple[str, Any]]]:
    """Send a delivery to each path on this host, one after the other; return what became of them, and what came."""
    receiver = Receiver()
    async with AsyncExitStack() as stack:
        port = await receiver.listen(stack)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        headers = {"X-Mine": "1", "Host": "internal.example", "Transfer-Encoding": "chunked"}
        for number, path in enumerate(paths):
            url = f"http://{host}:{port}{path}"
            await store.insert(
                DeliveryDocument(
                    id=f"d{number}",
                    job_id="j",
                    url=url,
                    headers=headers,
                    body="{}",
                    line="l",
                    sequence=number,
                )
            )
        sender = WebhookSender(store, 3, 5.0, WebhookAddresses(config))
        sender.start()
        stack.push_async_callback(sender.close)
        async with asyncio.timeout(10):
            while await store.count(DeliveryDocument, {"state": "PENDING"}):  # noqa: ASYNC110  (a store tells nobody)
                await asyncio.sleep(0.02)
        return await store.find(DeliveryDocument, {}, ("sequence",)), receiver.heard


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_a_refused_address_is_given_up_at_once(folder: Path, host: str) -> None:
    (found,), heard = await delivered(folder, config(), host, "/")
    assert (found.state, found.attempts, found.error) == ("FAILED", 1, ADDRESS_REFUSED)
    assert not heard


ALLOWED = config(allow=("127.0.0.0/8", "::1"))


async def test_an_allowed_one_gets_no_header_that_steers(folder: Path) -> None:
    (found,), ((_, headers),) = await delivered(folder, ALLOWED, "127.0.0.1", "/")
    assert found.state == "DELIVERED", found.error
    assert headers["X-Mine"] == "1"
    assert headers["Host"].startswith("127.0.0.1:")
    assert "Transfer-Encoding" not in headers


@pytest.mark.parametrize("settings", [ALLOWED, config()])
async def test_what_was_sent_is_not_kept_once_that_is_over(folder: Path, settings: Config) -> None:
    (found,), _ = await delivered(folder, settings, "127.0.0.1", "/")
    assert found.body == ""


async def test_a_cookie_that_a_receiver_sets_is_never_sent_back(folder: Path) -> None:
    # Of an address in numbers, no jar would keep cookies.
    found, heard = await delivered(folder, ALLOWED, "localhost", "/", "/")
    assert [each.state for each in found] == ["DELIVERED", "DELIVERED"]
    assert [("Cookie" in headers) for _, headers in heard] == [False, False]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(folder: Path, status: int) -> None:
    (found,), heard = await delivered(folder, ALLOWED, "127.0.0.1", f"/moved?status={status}")
    assert found.error == f"the receiver answered {status}"
    assert (found.state, found.attempts) == ("FAILED", 1)
    assert [path for path, _ in heard] == ["/moved"]
