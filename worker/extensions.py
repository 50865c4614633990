"""What extensions do in a worker: they change tasks before their runs, and make mounts of types of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence

import msgspec

from shared.errors import ApplicationError
from shared.extensions import Extension, Guard
from shared.model.language import Mount
from worker.runtime.port import Assignment, Outcome, Run, Runtime, Sink


class ExtendedRuntime:
    """A runtime whose tasks extensions see first. Implements `worker.runtime.port.Runtime`."""

    def __init__(
        self,
        runtime: Runtime,
        guard: Guard,
        middlewares: Sequence[Extension],
        mounters: Sequence[Extension],
    ) -> None:
        self._runtime = runtime
        self._guard = guard
        self._middlewares = [each for each in middlewares if hasattr(each.made, "before_run")]
        self._mounters = {each.name: each for each in mounters}

    async def prepare(self, assignment: Assignment, sink: Sink) -> Run:
        """Have extensions change the task, and make its mounts; then make it ready."""
        made: list[tuple[Extension, Mount]] = []
        try:
            assignment = await self._changed(assignment)
            assignment = await self._mounted(assignment, made)
            run = await self._runtime.prepare(assignment, sink)
        except ApplicationError as error:
            await self._unmount(made)
            return _Refused(str(error))
        except BaseException:
            await self._unmount(made)
            raise
        return _MountedRun(run, lambda: self._unmount(made)) if made else run

    async def _changed(self, assignment: Assignment) -> Assignment:
        for extension in self._middlewares:
            task = await self._guard.call(
                extension, extension.made.before_run, assignment, may_refuse=True
            )
            if task is not None:
                assignment = msgspec.structs.replace(assignment, task=task)
        return assignment

    async def _mounted(
        self, assignment: Assignment, made: list[tuple[Extension, Mount]]
    ) -> Assignment:
        """Return an assignment whose mounts are only of types that the runtime knows. Raises `ApplicationError`:
        without its mount a task is not what its user meant."""
        mounts = []
        for mount in assignment.task.mounts:
            extension = self._mounters.get(mount.type)
            if extension is None:
                mounts.append(mount)
                continue
            made.append((extension, mount))
            done = await self._guard.call(
                extension, extension.made.mount, mount, assignment, may_refuse=True
            )
            if done is None:
                raise ApplicationError(
                    f"the mount {mount.target} of type {mount.type} can't be made"
                )
            mounts.append(done)
        task = msgspec.structs.replace(assignment.task, mounts=mounts)
        return msgspec.structs.replace(assignment, task=task)

    async def _unmount(self, made: Sequence[tuple[Extension, Mount]]) -> None:
        for extension, mount in reversed(made):
            if hasattr(extension.made, "unmount"):
                await self._guard.call(extension, extension.made.unmount, mount)

    # --- the rest is the runtime's own ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Find the engine."""
        await self._runtime.start()

    def warm_up(self) -> None:
        """Begin to keep warm what runs need."""
        self._runtime.warm_up()

    async def sweep(
        self, dead: Callable[[Collection[str]], Awaitable[Collection[str]]], mine: str
    ) -> int:
        """Remove what dead nodes left behind."""
        return await self._runtime.sweep(dead, mine)

    async def ping(self) -> None:
        """Return if the engine answers."""
        await self._runtime.ping()

    async def close(self) -> None:
        """Close the runtime."""
        await self._runtime.close()


class _MountedRun:
    """A run whose mounts are unmade when it is removed."""

    def __init__(self, run: Run, unmount: Callable[[], Awaitable[None]]) -> None:
        self._run = run
        self._unmount = unmount

    async def run(self) -> Outcome:
        return await self._run.run()

    async def stop(self, reason: str) -> None:
        await self._run.stop(reason)

    async def remove(self) -> None:
        await self._run.remove()
        await self._unmount()


class _Refused:
    """A run that an extension refused, or could not make ready."""

    def __init__(self, error: str) -> None:
        self._error = error

    async def run(self) -> Outcome:
        return Outcome(error=self._error)

    async def stop(self, reason: str) -> None:
        """Nothing runs."""

    async def remove(self) -> None:
        """Nothing was made."""
