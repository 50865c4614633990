"""The floor of the control plane: what the drivers alone need for a task's messages and writes.

For each task four persistent messages are published with confirms, consumed and acknowledged, and one document is
written four times, majority-acknowledged and journalled: by aio-pika and motor as they come, 64 tasks at once.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage
from motor.motor_asyncio import AsyncIOMotorClient

AT_ONCE = 64
STEPS = 4
BODY = b"x" * 400
"""About as much as the message of a small task."""


class Floor:
    """Its queues and its collection, from `start` to `close`."""

    def __init__(self, amqp: str, mongodb: str, database: str) -> None:
        self._amqp = amqp
        self._mongo: Any = AsyncIOMotorClient(mongodb, w="majority", journal=True)
        self._documents: Any = self._mongo[database]["floor"]
        self._arrivals: dict[str, asyncio.Future[AbstractIncomingMessage]] = {}
        self._numbers = itertools.count()

    async def start(self) -> None:
        """Connect, and begin to consume."""
        self._publishing = await aio_pika.connect(self._amqp)
        self._consuming = await aio_pika.connect(self._amqp)
        self._out = await self._publishing.channel(publisher_confirms=True)
        incoming = await self._consuming.channel()
        await incoming.set_qos(prefetch_count=AT_ONCE)
        for step in range(STEPS):
            queue = await incoming.declare_queue(f"floor-{step}", durable=True)
            await queue.consume(self._arrived)

    async def close(self) -> None:
        """Disconnect."""
        await self._publishing.close()
        await self._consuming.close()
        self._mongo.close()

    async def run(self, tasks: int) -> None:
        """Do what `tasks` tasks need."""
        left = iter(range(tasks))
        await asyncio.gather(*(self._work(left) for _ in range(AT_ONCE)))

    async def _work(self, left: Any) -> None:
        for _ in left:
            await self._task(f"task-{next(self._numbers)}")

    async def _task(self, name: str) -> None:
        for step in range(STEPS):
            await self._message(step, f"{name}.{step}")
            await self._write(step, name)

    async def _message(self, step: int, id: str) -> None:
        arrival: asyncio.Future[AbstractIncomingMessage] = asyncio.Future()
        self._arrivals[id] = arrival
        message = aio_pika.Message(
            BODY, message_id=id, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
        )
        await self._out.default_exchange.publish(message, f"floor-{step}")
        await (await arrival).ack()

    async def _write(self, step: int, id: str) -> None:
        if step == 0:
            await self._documents.insert_one({"_id": id, "step": step, "body": BODY})
        else:
            await self._documents.update_one({"_id": id}, {"$set": {"step": step, "body": BODY}})

    async def _arrived(self, message: AbstractIncomingMessage) -> None:
        arrival = self._arrivals.pop(message.message_id or "", None)
        if arrival is not None:
            arrival.set_result(message)
