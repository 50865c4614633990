"""Lookups of receivers' names, when the machine has no room for them."""

from __future__ import annotations

import socket
import threading

import pytest

from coordinator.due.webhook_names import LOOKUPS_OF_A_USER, ReceiverNames


async def test_a_thread_that_can_not_start_takes_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    names = ReceiverNames()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        for _ in range(LOOKUPS_OF_A_USER + 1):
            with pytest.raises(socket.gaierror, match="can't start new thread"):
                await names.resolve("receiver.example")
    assert (await names.resolve("127.0.0.1", 80))[0]["host"] == "127.0.0.1"
