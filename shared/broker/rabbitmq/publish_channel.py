"""A long-lived channel for publishing, opened again whenever it was lost."""

from __future__ import annotations

import asyncio

from aiormq.channel import Channel

from shared.broker.rabbitmq.connection import Link
from shared.broker.rabbitmq.session import Session


class Lane:
    """One channel on `link`, shared by all who publish with or without `confirms`."""

    def __init__(self, link: Link, *, confirms: bool) -> None:
        self.link = link
        self._confirms = confirms
        self._lock = asyncio.Lock()
        self._open: tuple[Session, Channel] | None = None

    async def channel(self) -> tuple[Session, Channel]:
        """Wait for the connection and its channel. Raises `Interrupted` and as `Link.session`."""
        if (ready := self._ready()) is not None:
            return ready
        async with self._lock:
            while (ready := self._ready()) is None:
                session = await self.link.session()
                self._open = session, await session.channel(confirms=self._confirms)
            return ready

    def _ready(self) -> tuple[Session, Channel] | None:
        if self._open is None:
            return None
        session, channel = self._open
        return None if channel.is_closed or session is not self.link.present else self._open
