"""Receivers of webhooks do not wait for one another."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from coordinator.due import webhook_names, webhook_sender, webhooks_due
from coordinator.due.webhook_addresses import WebhookAddresses
from coordinator.due.webhook_limits import (
    DELIVERIES_AT_ONCE,
    LIMIT_AFTER_A_TIMEOUT,
    LIMIT_OF_A_HOST,
    LIMIT_OF_A_USER,
    Place,
    Places,
)
from coordinator.due.webhook_names import LOOKUPS_OF_A_USER
from coordinator.due.webhook_sender import WebhookSender
from coordinator.due.webhooks_due import DELIVERIES_A_LOOK, WebhooksDue
from coordinator.store.port import Below, Change
from coordinator.store.sqlite import SqliteStore
from shared.config.schema import Config
from shared.encryption import Vault
from shared.model.documents import DeliveryDocument
from shared.model.states import DeliveryState
from tests.datastores import sqlite_file

MANY = DELIVERIES_A_LOOK * 2


class Receivers:
    """One that hangs, and one that answers."""

    def __init__(self) -> None:
        self.hanging = 0
        self.answered = asyncio.Event()
        self.let_go = asyncio.Event()
        self.all_came = asyncio.Event()

    async def serve(self, stack: AsyncExitStack) -> tuple[str, str]:
        """Return the addresses of the two."""
        return await self.listen(stack, self._hang), await self.listen(stack, self._answer)

    async def listen(self, stack: AsyncExitStack, handler: object) -> str:
        """Have a handler answer at the address that is returned."""
        app = web.Application()
        app.add_routes([web.post("/", handler)])  # type: ignore[arg-type]  # one of the two below
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        return f"http://{host}:{port}/"

    async def _hang(self, _: web.Request) -> web.Response:
        self.hanging += 1
        if self.hanging == MANY:
            self.all_came.set()
        await self.let_go.wait()
        return web.Response()

    async def _answer(self, _: web.Request) -> web.Response:
        self.answered.set()
        return web.Response()


@pytest.mark.slow
async def test_a_receiver_that_hangs_keeps_no_other_waiting(folder: Path) -> None:
    receivers = Receivers()
    async with AsyncExitStack() as stack:
        hangs, answers = await receivers.serve(stack)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        urls = [hangs] * (MANY) + [answers]
        for number, url in enumerate(urls):
            await store.insert(
                DeliveryDocument(id=f"d{number}", job_id="j", url=url, due_at=number)
            )
        sender = WebhookSender(store, attempts=1, timeout=60, addresses=WebhookAddresses(Config()))
        sender.start()
        stack.push_async_callback(sender.close)
        async with asyncio.timeout(10):
            await receivers.answered.wait()
        assert receivers.hanging <= LIMIT_OF_A_HOST
        receivers.let_go.set()
        async with asyncio.timeout(20):
            await receivers.all_came.wait()


def of_ann(number: int, url: str) -> DeliveryDocument:
    """One of very many that have been due for long, each in a line of its own."""
    id = f"a{number}"
    return DeliveryDocument(id=id, job_id="j", user="ann", url=url, due_at=1 + number, line=id)


@pytest.mark.parametrize("user", ["bob", "abe", "", None])
async def test_all_that_one_user_has_due_is_not_read_before_anothers(
    folder: Path, user: Any
) -> None:
    """Older versions stored no user."""
    receivers, many = Receivers(), DELIVERIES_A_LOOK * 7
    async with AsyncExitStack() as stack:
        hangs, answers = await receivers.serve(stack)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        await store.insert_many([of_ann(number, hangs) for number in range(many)])
        other = DeliveryDocument(id="d", job_id="k", user=user, url=answers, due_at=many + 1)
        await store.insert(other)
        sender = WebhookSender(store, attempts=1, timeout=60, addresses=WebhookAddresses(Config()))
        sender.start()
        stack.push_async_callback(sender.close)
        async with asyncio.timeout(20):
            await receivers.answered.wait()
        unread = await store.count(DeliveryDocument, {"due_at": Below(many + 1)})
        assert unread > many - 3 * DELIVERIES_A_LOOK


async def test_a_round_through_the_users_goes_on_where_the_last_look_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many they are, and whether or not anything of theirs is due."""
    monkeypatch.setattr(webhooks_due, "DELIVERIES_A_LOOK", 10)
    monkeypatch.setattr(webhooks_due, "STEPS_A_LOOK", 2)
    monkeypatch.setattr(webhooks_due, "OF_A_USER", 3)
    async with AsyncExitStack() as stack:
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        far = store.now() + 3_600_000_000
        others = [
            DeliveryDocument(
                id=f"{user:02}{number}",
                job_id="j",
                user=f"u{user:02}",
                due_at=far if user % 3 == 0 else 1_000,
            )
            for user in range(20)
            for number in range(1 + user % 5)
        ]
        await store.insert_many([*others, *(of_ann(number, "") for number in range(100))])
        due = WebhooksDue(store)
        seen: list[set[str]] = []
        for _ in range(40):
            found, is_all = await due.look(store.now())
            assert not is_all
            assert len(found) <= 10 + 2 * 3
            assert all(each.due_at <= store.now() for each in found)
            seen.append({each.user for each in found})
        wanted = {each.user for each in others if each.due_at == 1_000}
        assert set.union(*seen[:20]) == set.union(*seen[20:]) == wanted | {"ann"}


async def test_a_quiet_look_is_one_question(folder: Path) -> None:
    asked: list[object] = []

    class Counting(SqliteStore):
        async def find(self, *args: Any, **options: Any) -> Any:
            asked.append(args)
            return await super().find(*args, **options)

    store = Counting(sqlite_file(folder))
    await store.start()
    far = store.now() + 3_600_000_000
    await store.insert_many(
        [DeliveryDocument(id=f"d{n}", job_id="j", user=f"u{n}", due_at=far) for n in range(50)]
    )
    assert await WebhooksDue(store).look(store.now()) == ([], True)
    assert len(asked) == 1
    await store.close()


async def test_a_delivery_whose_key_is_gone_keeps_no_other_waiting(folder: Path) -> None:
    receivers = Receivers()
    async with AsyncExitStack() as stack:
        _, answers = await receivers.serve(stack)
        for number, vault in enumerate(
            (Vault("first"), Vault("second", ["first"]), Vault("second"))
        ):
            store = SqliteStore(folder / "haulier.db", vault)
            await store.start()
            stack.push_async_callback(store.close)
            await store.insert(DeliveryDocument(id=f"d{number}", job_id="j", url=answers, due_at=1))
            if number < 2:
                await store.close()
        sender = WebhookSender(store, attempts=1, timeout=60, addresses=WebhookAddresses(Config()))
        sender.start()
        stack.push_async_callback(sender.close)
        for _ in range(100):
            if not await store.count(DeliveryDocument, {"state": DeliveryState.PENDING}):
                break
            await asyncio.sleep(0.1)
        found = await store.find(DeliveryDocument, {}, ("id",))
        assert [each.state for each in found] == ["FAILED", "DELIVERED", "DELIVERED"]
        assert "encryption.old_keys" in (found[0].error or "")


async def test_names_that_nobody_answers_for_keep_nobody_else_waiting(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither another user's webhooks nor whatever the process looks up itself."""
    receivers, end = Receivers(), threading.Event()
    real = socket.getaddrinfo

    def look(host: Any, *more: Any, **named: Any) -> Any:
        if str(host).startswith("silent"):
            end.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real("127.0.0.1" if host == "receiver.example" else host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", look)
    async with AsyncExitStack() as stack:
        stack.callback(end.set)
        _, answers = await receivers.serve(stack)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        urls = {f"http://silent{number}.example/": "ann" for number in range(60)}
        urls[answers.replace("127.0.0.1", "receiver.example")] = "bob"
        for number, (url, user) in enumerate(urls.items()):
            await store.insert(
                DeliveryDocument(
                    id=f"d{number}", job_id=f"j{number}", user=user, url=url, due_at=number
                )
            )
        sender = WebhookSender(store, attempts=1, timeout=60, addresses=WebhookAddresses(Config()))
        sender.start()
        stack.push_async_callback(sender.close)
        async with asyncio.timeout(10):
            await receivers.answered.wait()
            await asyncio.get_running_loop().getaddrinfo("127.0.0.1", 80)
        silent = [each for each in threading.enumerate() if each.name == "receiver's name"]
        assert len(silent) == LOOKUPS_OF_A_USER


HANGS_UP = 1_000_000


class Line:
    """A receiver that notes what it hears, and refuses what it is told to, so often."""

    def __init__(self, refuse: dict[str, int]) -> None:
        self.heard: list[str] = []
        self._refuse = refuse

    async def answer(self, request: web.Request) -> web.Response:
        """Answer 503 as often as that body is to be refused; for `HANGS_UP` nothing."""
        body = await request.text()
        self.heard.append(body)
        left = self._refuse.get(body, 0)
        if left == HANGS_UP and request.transport is not None:
            request.transport.close()
        self._refuse[body] = left - 1
        return web.Response(status=503 if left > 0 else 200)


async def deliver_line(
    folder: Path, line: Line, deliveries: list[DeliveryDocument], *, attempts: int = 5
) -> list[DeliveryDocument]:
    """Deliver them all, and return how they ended, by sequence."""
    async with AsyncExitStack() as stack:
        url = await Receivers().listen(stack, line.answer)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        for delivery in deliveries:
            await store.insert(msgspec.structs.replace(delivery, url=url, job_id="j"))
        senders = [WebhookSender(store, attempts, 60, WebhookAddresses(Config())) for _ in range(2)]
        for sender in senders:
            sender.start()
            stack.push_async_callback(sender.close)
        async with asyncio.timeout(20):
            while await store.count(DeliveryDocument, {"state": DeliveryState.PENDING}):  # noqa: ASYNC110  (a store tells nobody)
                await asyncio.sleep(0.02)
        return await store.find(DeliveryDocument, {}, ("line", "sequence"))


def in_line(number: int, body: str, **fields: Any) -> DeliveryDocument:
    """A delivery that was due in the wrong order."""
    values = {"due_at": 100 - number, "url": "", "job_id": "", "line": "l", **fields}
    return DeliveryDocument(id=f"d{number}{body}", sequence=number, body=body, **values)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_sender, "_FIRST_DELAY", 0.1)


@pytest.mark.usefixtures("soon")
async def test_deliveries_of_a_line_come_in_order(folder: Path) -> None:
    """Case 7: one that is refused once keeps the later ones of its line waiting, and nobody else."""
    line = Line({"RUNNING": 2})
    names = ("PENDING", "RUNNING", "COMPLETED")
    made = [in_line(number, body) for number, body in enumerate(names, start=1)]
    ended = await deliver_line(folder, line, [*made, in_line(3, "other", line="m")])
    assert [body for body in line.heard if body != "other"] == [
        "PENDING", "RUNNING", "RUNNING", "RUNNING", "COMPLETED",
    ]  # fmt: skip
    assert line.heard.index("other") < line.heard.index("COMPLETED")
    assert {each.state for each in ended} == {DeliveryState.DELIVERED}


@pytest.mark.usefixtures("soon")
async def test_the_last_answer_of_a_receiver_is_kept_with_its_time(folder: Path) -> None:
    line = Line({"refused": 9})
    made = [in_line(1, "good"), in_line(2, "refused", line="m")]
    good, refused = await deliver_line(folder, line, made, attempts=1)
    assert (good.error, good.status) == (None, 200)
    assert (refused.error, refused.status) == ("the receiver answered 503", 503)
    for each in (good, refused):
        assert each.answered_at is not None
        assert abs(each.answered_at / 1_000_000 - time.time()) < 60


async def test_where_no_answer_came_none_is_kept(folder: Path) -> None:
    made = in_line(1, "x", status=503, answered_at=1, attempts=1, error="the receiver answered 503")
    (ended,) = await deliver_line(folder, Line({"x": HANGS_UP}), [made], attempts=2)
    assert (ended.error, ended.status, ended.answered_at) == ("ServerDisconnectedError", None, None)


@pytest.mark.usefixtures("soon")
async def test_behind_one_that_was_given_up_each_gets_one_try(folder: Path) -> None:
    line = Line({"1": 9, "2": 9, "4": 1})
    ended = await deliver_line(
        folder, line, [in_line(number, str(number)) for number in range(1, 5)], attempts=2
    )
    assert line.heard == ["1", "1", "2", "3", "4", "4"]
    failed, delivered = DeliveryState.FAILED, DeliveryState.DELIVERED
    assert [each.state for each in ended] == [failed, failed, delivered, delivered]


@pytest.mark.usefixtures("soon")
async def test_progress_gives_way_to_newer_progress(folder: Path) -> None:
    line = Line({"10": 1})
    made = [in_line(number * 10, str(number * 10), progress=True) for number in range(1, 9)]
    tried = msgspec.structs.replace(made[0], attempts=1, error="the receiver answered 503")
    ended = await deliver_line(folder, line, [tried, *made[1:], in_line(90, "end")])
    assert line.heard == ["10", "10", "end"]
    assert [each.sequence for each in ended] == [10, 90]


async def test_a_receiver_that_keeps_up_hears_all_progress(folder: Path) -> None:
    line = Line({})
    made = [in_line(number, str(number), progress=True) for number in range(1, 5)]
    await deliver_line(folder, line, made)
    assert line.heard == ["1", "2", "3", "4"]


@pytest.mark.slow
async def test_a_long_line_keeps_no_other_waiting_and_is_not_looked_at_again_and_again(
    folder: Path,
) -> None:
    receivers = Receivers()
    async with AsyncExitStack() as stack:
        hangs, answers = await receivers.serve(stack)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        stack.callback(receivers.let_go.set)
        far = store.now() + 3_600_000_000
        long = [
            in_line(number, "", url=hangs, line="a", due_at=number if number < 5 else far)
            for number in range(2_100)
        ]
        other = in_line(1, "other", url=answers, line="b", due_at=10)
        await store.insert_many([*long, other])
        sender = WebhookSender(store, attempts=1, timeout=60, addresses=WebhookAddresses(Config()))
        sender.start()
        stack.push_async_callback(sender.close)
        async with asyncio.timeout(10):
            await receivers.answered.wait()
        await asyncio.sleep(2)
        soon = {"line": "a", "due_at": Below(store.now() + 10_000_000)}
        assert await store.count(DeliveryDocument, soon) == 0, "they wait as long as the first may"


def refuse_sockets(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(_self: WebhookAddresses, _address: str) -> bool:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(WebhookAddresses, "refuses", refuse)  # asked as a socket is made


def refuse_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    real = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "receiver's name":
            raise RuntimeError("can't start new thread")
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)


def refuse_executors(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: WebhookAddresses) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(WebhookAddresses, "look", refuse)


def refuse_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_MEMORY, "Memory allocation failure")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def refuse_lookups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook_names, "LOOKUPS_AT_ONCE", 0)


@pytest.mark.parametrize(
    "shorten",
    [
        partial(refuse_sockets, number=errno.EMFILE),
        partial(refuse_sockets, number=errno.ENFILE),
        partial(refuse_sockets, number=errno.ENOMEM),
        partial(refuse_sockets, number=errno.ENOBUFS),
        refuse_threads,
        refuse_executors,
        refuse_memory,
        refuse_lookups,
    ],
)
async def test_what_this_process_lacks_costs_a_delivery_no_try(
    folder: Path, monkeypatch: pytest.MonkeyPatch, shorten: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """It is tried again 5 to 15 s later, as if it had not been tried."""
    receivers = Receivers()
    async with AsyncExitStack() as stack:
        _, answers = await receivers.serve(stack)
        store = SqliteStore(sqlite_file(folder))
        await store.start()
        stack.push_async_callback(store.close)
        url = answers.replace("127.0.0.1", "localhost")
        earlier: dict[str, Any] = {
            "attempts": 3,
            "error": "the receiver answered 503",
            "status": 503,
        }
        made = DeliveryDocument(id="d", job_id="j", url=url, due_at=1, **earlier)
        await store.insert(made)
        sender = WebhookSender(store, attempts=4, timeout=1, addresses=WebhookAddresses(Config()))
        with monkeypatch.context() as patch:
            shorten(patch)
            sender.start()
            stack.push_async_callback(sender.close)
            async with asyncio.timeout(10):
                while (found := await store.get(DeliveryDocument, "d")) and (  # noqa: ASYNC110  (a store tells nobody)
                    found.attempts == 4 or found.due_at == 1
                ):
                    await asyncio.sleep(0.02)
        assert found is not None
        later = found.due_at - store.now()
        assert 4_000_000 < later < 15_000_000
        assert found == msgspec.structs.replace(made, due_at=found.due_at)
        await store.change(Change(kind=DeliveryDocument, id="d", set={"due_at": 1}))
        async with asyncio.timeout(10):
            await receivers.answered.wait()


def test_a_host_that_times_out_gets_one_place_until_it_answers() -> None:
    places = Places()
    for number in range(LIMIT_OF_A_HOST):
        assert places.has_room_for(Place("u", f"j{number}", "slow"))
        places.take(str(number), Place("u", f"j{number}", "slow"))
    assert not places.has_room_for(Place("u", "j", "slow"))
    for number in range(LIMIT_OF_A_HOST):
        places.give_back(str(number))
    places.tried("slow", 10.0, timed_out=True)
    places.take("again", Place("u", "j", "slow"))
    assert LIMIT_AFTER_A_TIMEOUT == 1
    assert not places.has_room_for(Place("u", "j", "slow"))
    assert places.has_room_for(Place("u", "j", "other"))
    places.tried("slow", 0.1, timed_out=False)
    assert places.has_room_for(Place("u", "j", "slow"))


def test_one_user_leaves_room_for_others_whatever_the_hosts() -> None:
    places = Places()
    for number in range(LIMIT_OF_A_USER):
        places.take(str(number), Place("greedy", f"j{number}", f"host{number}"))
    assert not places.has_room_for(Place("greedy", "j", "host"))
    assert places.has_room_for(Place("plain", "j", "host"))
    assert not places.full


def test_turns_go_by_user_then_job_then_host() -> None:
    """However many jobs a user has, or hosts a job."""
    waiting = [Place("ann", f"j{number}", "h") for number in range(3)]
    waiting += [Place("bob", "j", f"h{number}") for number in range(2)]
    waiting += [Place("ann", "j0", "other"), Place("bob", "k", "h0"), Place("cai", "l", "h")]
    turns = Places().in_turn(waiting, lambda place: place)
    assert [place.user for place in turns[:6]] == ["ann", "bob", "cai", "ann", "bob", "ann"]
    assert [place.job for place in turns if place.user == "ann"] == ["j0", "j1", "j2", "j0"]
    assert [place.host for place in turns if place.user == "bob"] == ["h0", "h0", "h1"]


def test_whoever_has_fewer_under_way_comes_first() -> None:
    """Two users with very many that hang must not have every place that becomes free."""
    places = Places()
    for number in range(DELIVERIES_AT_ONCE):
        places.take(str(number), Place(f"u{number % 2}", f"j{number}", f"host{number}"))
    waiting = [Place("u0", "j", "h"), Place("u1", "j", "h"), Place("plain", "j", "h")]
    places.give_back("0")
    assert places.in_turn(waiting, lambda place: place)[0].user == "plain"


def test_those_behind_many_wait_as_long_as_those_take() -> None:
    places = Places()
    places.tried("quick", 0.0, timed_out=False)
    places.tried("slow", 10.0, timed_out=True)
    assert places.wait("quick", 600) < 10
    assert places.wait("slow", 3) > 15
    assert places.wait("slow", 10_000) <= 60


def test_places_are_counted_in_all() -> None:
    places = Places()
    for number in range(DELIVERIES_AT_ONCE):
        places.take(str(number), Place(f"u{number}", f"j{number}", f"host{number}"))
    assert places.full
    assert "7" in places
    assert not places.has_room_for(Place("u", "j", "host"))
    places.give_back("7")
    assert places.has_room_for(Place("u", "j", "host"))
