"""A running API, and what tests ask of it."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import aiohttp
from yarl import URL

from coordinator.api.app import ApiRunner
from coordinator.store.sqlite import SqliteStore
from haulier.sse import EventReader, ServerEvent
from shared.broker.memory import MemoryBroker
from shared.config.schema import Config, CoordinatorSettings, Middleware
from shared.model import language
from shared.model.documents import JobDocument, LogPartDocument, Micros, TaskDocument, log_part_id
from tests.unit.api.plain_commands import PlainCommands

VERSION = "1.2.3"
YAML = {"Content-Type": "text/yaml"}
HELLO = "name: hello\ntasks:\n  - name: say\n    image: alpine\n    run: echo hello\n"


def signed_in(name: str, password: str) -> dict[str, str]:
    """The headers of somebody's requests."""
    token = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"Authorization": f"Basic {token}"}


class Answer:
    """A response, read."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = body

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"] == "application/json; charset=utf-8", self.text
        return json.loads(self.body)

    @property
    def message(self) -> str:
        message = self.json["message"]
        assert isinstance(message, str)
        assert "Traceback" not in message
        return message


class Served:
    """The running API and what is behind it."""

    def __init__(
        self, store: SqliteStore, broker: MemoryBroker, runner: ApiRunner, commands: PlainCommands
    ) -> None:
        self.store = store
        self.broker = broker
        self.commands = commands
        self.runner = runner
        self.host, self.port = runner.addresses[0][:2]
        self.url = f"http://{self.host}:{self.port}"
        self.session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=30))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        who: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Answer:
        """Ask as `who`: headers as from `signed_in`."""
        options["headers"] = {**(headers or {}), **(who or {})}
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, **options) as response:
            return Answer(response, await response.read())

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.ask("GET", path, **options)

    async def stream(self, path: str, **headers: str) -> AsyncGenerator[ServerEvent, None]:
        """Yield the events of a stream until it closes."""
        reader = EventReader()
        async with self.session.get(self.url + path, headers=headers) as response:
            assert response.status == 200, await response.text()
            assert response.content_type == "text/event-stream"
            async for chunk in response.content.iter_any():
                for event in reader.feed(chunk):
                    yield event

    async def events(self, path: str, **headers: str) -> list[ServerEvent]:
        """Return all events of a stream that ends by itself."""
        return [event async for event in self.stream(path, **headers)]

    async def submit(self, text: str = HELLO, **headers: str) -> dict[str, Any]:
        answer = await self.ask("POST", "/jobs", data=text.encode(), headers={**YAML, **headers})
        assert answer.status == 200, answer.text
        found = answer.json
        assert isinstance(found, dict)
        return found

    async def task(self, job_id: str, **fields: Any) -> TaskDocument:
        """Store a task of a job."""
        definition = fields.pop("definition", language.TaskDefinition(name="say", run="echo"))
        task = TaskDocument(
            **{
                "id": f"t{fields.get('position', 1)}",
                "job_id": job_id,
                "root_id": job_id,
                "path": "1",
                "position": 1,
                "kind": language.kind_of_task(definition),
                "name": definition.name,
                "definition": definition,
                "created_at": self.store.now(),
                **fields,
            }
        )
        assert await self.store.insert(task)
        return task

    async def log(
        self,
        task: TaskDocument,
        *contents: str,
        first: int = 1,
        run: int = 1,
        at: Micros | None = None,
    ) -> None:
        """Store parts of a task's log, `at` a time or now."""
        await self.store.append_log(
            [
                LogPartDocument(
                    id=log_part_id(task.id, run, number),
                    task_id=task.id,
                    job_id=task.job_id,
                    run=run,
                    number=number,
                    contents=text,
                    created_at=self.store.now() if at is None else at,
                )
                for number, text in enumerate(contents, first)
            ]
        )

    async def job(self, job_id: str) -> JobDocument:
        found = await self.store.get(JobDocument, job_id)
        assert found is not None
        return found


def configured(**middleware: Any) -> Config:
    """A configuration with this middleware."""
    return Config(coordinator=CoordinatorSettings(middleware=Middleware(**middleware)))
