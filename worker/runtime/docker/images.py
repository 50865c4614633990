"""Images: used if present, pulled if not, one pull of an image at a time; unused ones pruned."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.utils.json_stream import json_stream

from shared.errors import RuntimeUnavailable
from shared.model.language import Registry
from shared.supervision import start_task
from shared.threads import in_thread
from worker.runtime.docker.credentials import CredentialsError
from worker.runtime.docker.engine import Engine, EngineHangsError, blames_host, explain
from worker.runtime.port import RunLostError, TaskError

Say = Callable[[str], Awaitable[None]]
"""Puts a line into a task's log."""

SAY_EVERY = 2.0
"""Seconds between two lines about a pull."""
STALLED_AFTER = 15 * 60.0
"""Seconds without progress after which a pull is given up."""
_LEAST_PROGRESS = 64 * 1024
"""Bytes of a layer: fewer more are no progress of its download."""

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

    async def pull(
        self, image: str, registry: Registry | None, say: Say, *, anew: bool = False
    ) -> None:
        """Have an image that the engine said it has not, or `anew` whether it has it or not. Raises TaskError."""
        self._listeners[image].add(say)
        try:
            async with self._pulling[image]:
                if anew or not await self._present(image):
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
            self._engine.call_until_answered(self._blocking_pull, image, registry, layers, done),
            f"pull {image}",
        )
        try:
            while not (await asyncio.wait({work}, timeout=SAY_EVERY))[0]:
                await self._end_stalled(layers)
                if text := layers.text():
                    await self._tell(image, f"pulling {image}: {text}")
            work.result()
        except CredentialsError as error:
            raise TaskError(f"image {image!r} cannot be pulled: {error}") from None
        except DockerException as error:
            raise pull_error(image, error, given=registry is not None) from None
        finally:
            done.set()
            work.cancel()
        await in_thread(self._used.note_pulled, image, private=registry is not None)
        await self._tell(image, f"pulled {image}")

    async def _end_stalled(self, layers: Layers) -> None:
        """Raise DockerException where a pull stands still, and not because its engine hangs."""
        if layers.standstill() <= STALLED_AFTER:
            return
        try:
            await self._engine.ping()
        except RuntimeUnavailable:
            layers.wait_anew()
        if layers.standstill() > STALLED_AFTER:
            raise DockerException(
                f"no progress for {STALLED_AFTER / 60:.0f} minutes: its registry does not answer, or is too slow"
            )

    def _blocking_pull(
        self, image: str, registry: Registry | None, layers: Layers, done: threading.Event
    ) -> None:
        api = self._engine.api
        if registry:
            auth = {"username": registry.username, "password": registry.password}
        else:
            auth = self._engine.credentials.of(image)
        answer = api.pull(image, stream=True, auth_config=auth)
        step: Any
        for step in json_stream(_until(done, answer)):
            if "error" in step:
                raise DockerException(str(step["error"]))
            layers.hear(step)

    async def _tell(self, image: str, text: str) -> None:
        for say in list(self._listeners[image]):
            await say(text)

    async def prune(self, ttl: float) -> int:
        """Remove images that were pulled for tasks and not used for `ttl` seconds."""
        removed = 0
        for image in await in_thread(self._used.unused, ttl):
            async with self._pulling[image]:
                removed += await self._prune(image)
        return removed

    async def _prune(self, image: str) -> int:
        removed = 1
        try:
            await self._engine.call(self._engine.api.remove_image, image)
        except NotFound:
            removed = 0
        except (APIError, EngineHangsError):  # a container uses it, or an image is built on it
            return 0
        await in_thread(self._used.forget, image)
        return removed


def _until(done: threading.Event, stream: Any) -> Iterator[Any]:
    """Yield what comes until nobody wants it any more; then close the stream."""
    with contextlib.closing(stream):
        for part in stream:
            if done.is_set():
                return
            yield part


def pull_error(image: str, error: DockerException, *, given: bool) -> TaskError | RunLostError:
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
    kind = RunLostError if blames_host(error, image) else TaskError
    return kind(f"image {image!r} cannot be pulled: {words}")


_MIB = 2**20


class Layers:
    """Hears the steps of a pull (in a thread), and says how far it is (in another)."""

    def __init__(self) -> None:
        self._sizes: dict[str, tuple[int, int]] = {}
        self._moved: dict[str, tuple[str, int]] = {}
        self._moved_at = time.monotonic()

    def standstill(self) -> float:
        """Return for how many seconds there was no progress."""
        return time.monotonic() - self._moved_at

    def wait_anew(self) -> None:
        """Don't count the time up to now."""
        self._moved_at = time.monotonic()

    def hear(self, step: dict[str, Any]) -> None:
        """Take a step as the engine tells it."""
        detail = step.get("progressDetail") or {}
        self._note(str(step.get("id")), str(step.get("status")), int(detail.get("current") or 0))
        if step.get("status") == "Downloading" and detail.get("total"):
            self._sizes[str(step.get("id"))] = (int(detail["current"]), int(detail["total"]))

    def _note(self, layer: str, status: str, current: int) -> None:
        """Take a step as progress unless it was told before, as by some engines. To begin anew is progress too."""
        before, reached = self._moved.get(layer, ("", 0))
        least = _LEAST_PROGRESS if status == "Downloading" else 1
        if status != before or abs(current - reached) >= least:
            self._moved[layer] = (status, current)
            self.wait_anew()

    def text(self) -> str:
        """Return how much has been downloaded; empty where that is not known."""
        sizes = list(self._sizes.values())
        if not sizes:
            return ""
        done, total = (sum(column) for column in zip(*sizes, strict=True))
        return f"{done / _MIB:.1f} of {total / _MIB:.1f} MiB"


_PRIVATE = "private"


def full_name(image: str) -> str:
    """Return an image's name in full: `docker.io/library/alpine:latest` for `alpine`."""
    name, at, digest = image.partition("@")
    domain, slash, path = name.partition("/")
    if not slash or not (set(".:") & set(domain) or domain == "localhost"):
        domain, path = "docker.io", name
    if domain in ("docker.io", "index.docker.io"):
        domain, path = "docker.io", path if "/" in path else f"library/{path}"
    if not at and ":" not in path.rpartition("/")[2]:
        path += ":latest"
    return f"{domain}/{path}{at}{digest}"


def allowed_image(image: str, patterns: Sequence[str]) -> str:
    """Return an image's full name, by which it can't be taken for another's id. Raises TaskError where no pattern
    allows it: `*` stands for any characters, and a pattern without a tag allows all tags."""
    full = full_name(image)
    path = full.partition("@")[0]
    repository = path[: path.rfind(":")] if ":" in path.rpartition("/")[2] else path
    for pattern in patterns:
        wanted = pattern if pattern.startswith("*") else full_name(pattern)
        if ":" not in pattern.rpartition("/")[2] and "@" not in pattern:
            wanted = wanted.removesuffix(":latest")
        if fnmatchcase(full, wanted) or fnmatchcase(repository, wanted):
            return full
    raise TaskError(f"image {image!r} is not allowed by this worker (runtime.docker.images)")


class UsedImages:
    """The images that are ours to remove."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note_pulled(self, image: str, *, private: bool = False) -> None:
        """Remember that an image was pulled for a task, and whether with credentials of the task's."""
        with contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._file(image).write_text(f"{image}\n{_PRIVATE}" if private else image)

    def is_private(self, image: str) -> bool:
        """Return whether an image was last pulled with credentials of a task's."""
        with contextlib.suppress(OSError):
            return self._file(image).read_text().endswith(f"\n{_PRIVATE}")
        return False

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
                    found.append(file.read_text().partition("\n")[0])  # noqa: PERF401 - what was found before an error counts
        return found

    def forget(self, image: str) -> None:
        """Forget an image that is gone."""
        with contextlib.suppress(OSError):
            self._file(image).unlink()

    def _file(self, image: str) -> Path:
        return self._folder / hashlib.sha256(image.encode()).hexdigest()[:32]
