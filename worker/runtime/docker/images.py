"""Images: used if present, pulled if not, one pull of an image at a time; unused ones pruned."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from shared.model.language import Registry
from shared.supervision import start_task
from worker.runtime.docker.engine import Engine, explain
from worker.runtime.port import TaskError

Say = Callable[[str], Awaitable[None]]
"""Puts a line into a task's log."""

SAY_EVERY = 2.0
"""Seconds between two lines about a pull."""

_NO_ACCESS = (
    "unauthorized",
    "no basic auth",
    "authentication required",
    "denied",
    "forbidden",
    "incorrect username or password",
)
_NOT_FOUND = ("not found", "manifest unknown", "name unknown", "no such image", "not exist")


class Images:
    """The engine's images, as tasks use them."""

    def __init__(self, engine: Engine, used: UsedImages) -> None:
        self._engine = engine
        self._used = used
        self._pulling: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._listeners: defaultdict[str, set[Say]] = defaultdict(set)

    async def pull(self, image: str, registry: Registry | None, say: Say) -> None:
        """Have an image that the engine said it has not. Raises TaskError."""
        self._listeners[image].add(say)
        try:
            async with self._pulling[image]:
                if not await self._present(image):
                    await self._pull(image, registry)
        finally:
            self._listeners[image].discard(say)
            if not self._listeners[image]:
                del self._listeners[image]
                self._pulling.pop(image, None)

    async def _present(self, image: str) -> bool:
        try:
            await self._engine.watch(self._engine.api.inspect_image, image)
        except ImageNotFound:
            return False
        except APIError as error:
            raise TaskError(f"image {image!r}: {explain(error)}") from None
        return True

    async def _pull(self, image: str, registry: Registry | None) -> None:
        await self._tell(image, f"pulling {image}")
        layers, done = Layers(), threading.Event()
        work = start_task(
            self._engine.watch(self._blocking_pull, image, registry, layers, done), f"pull {image}"
        )
        try:
            while not (await asyncio.wait({work}, timeout=SAY_EVERY))[0]:
                if text := layers.text():
                    await self._tell(image, f"pulling {image}: {text}")
            work.result()
        except (APIError, DockerException) as error:
            raise pull_error(image, error, given=registry is not None) from None
        finally:
            done.set()
            work.cancel()
        await asyncio.to_thread(self._used.note_pulled, image)
        await self._tell(image, f"pulled {image}")

    def _blocking_pull(
        self, image: str, registry: Registry | None, layers: Layers, done: threading.Event
    ) -> None:
        api = self._engine.api
        api.reload_config(self._engine.docker_config)  # somebody may have logged in since
        auth = {"username": registry.username, "password": registry.password} if registry else None
        for step in _steps(api.pull(image, stream=True, decode=True, auth_config=auth)):
            if done.is_set():
                return
            if "error" in step:
                raise DockerException(str(step["error"]))
            layers.hear(step)

    async def _tell(self, image: str, text: str) -> None:
        for say in list(self._listeners[image]):
            await say(text)

    async def prune(self, ttl: float) -> int:
        """Remove images that were pulled for tasks and not used for `ttl` seconds."""
        removed = 0
        for image in await asyncio.to_thread(self._used.unused, ttl):
            async with self._pulling[image]:
                removed += await self._prune(image)
        return removed

    async def _prune(self, image: str) -> int:
        removed = 1
        try:
            await self._engine.call(self._engine.api.remove_image, image)
        except NotFound:
            removed = 0
        except APIError:  # a container uses it, or an image is built on it
            return 0
        await asyncio.to_thread(self._used.forget, image)
        return removed


def _steps(stream: Any) -> Iterator[dict[str, Any]]:
    with contextlib.closing(stream):
        yield from stream


def pull_error(image: str, error: Exception, *, given: bool) -> TaskError:
    """Return the fault of a failed pull: not found, no access, or what else the engine says."""
    words = explain(error) if isinstance(error, APIError) else str(error)
    lower = words.lower()
    if "repository does not exist or may require" in lower:
        return TaskError(
            f"image {image!r} not found: it does not exist, or it is private and needs "
            f"{'other' if given else 'credentials in'} registry"
            f"{' credentials' if given else ''} ({words})"
        )
    if any(word in lower for word in _NO_ACCESS):
        hint = "check the task's registry" if given else "give credentials in the task's registry"
        return TaskError(f"image {image!r}: no access, the registry refused it: {hint} ({words})")
    if any(word in lower for word in _NOT_FOUND):
        return TaskError(f"image {image!r} not found ({words})")
    return TaskError(f"image {image!r} cannot be pulled: {words}")


_MIB = 2**20


class Layers:
    """Hears the steps of a pull (in a thread), and says how far it is (in another)."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}

    def hear(self, step: dict[str, Any]) -> None:
        """Take a step as the engine tells it."""
        detail = step.get("progressDetail") or {}
        if step.get("status") == "Downloading" and detail.get("total"):
            self._sizes[str(step.get("id"))] = (int(detail["current"]), int(detail["total"]))

    def text(self) -> str:
        """Return how much has been downloaded; empty where that is not known."""
        sizes = list(self._sizes.values())
        if not sizes:
            return ""
        done, total = (sum(column) for column in zip(*sizes, strict=True))
        return f"{done / _MIB:.1f} of {total / _MIB:.1f} MiB"


class UsedImages:
    """The images that are ours to remove."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note_pulled(self, image: str) -> None:
        """Remember that an image was pulled for a task. Called again, nothing more."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(image).write_text(image)

    def note_used(self, image: str) -> None:
        """Remember that an image is used now, where it was pulled for a task."""
        with contextlib.suppress(OSError):
            os.utime(self._file(image))

    def unused(self, ttl: float) -> list[str]:
        """Return the images that were not used for `ttl` seconds."""
        before, found = time.time() - ttl, []
        with contextlib.suppress(OSError):
            for file in self._folder.iterdir():
                if file.stat().st_mtime < before:
                    found.append(file.read_text())  # noqa: PERF401 - what was found before an error counts
        return found

    def forget(self, image: str) -> None:
        """Forget an image that is gone."""
        with contextlib.suppress(OSError):
            self._file(image).unlink()

    def _file(self, image: str) -> Path:
        return self._folder / hashlib.sha256(image.encode()).hexdigest()[:32]
