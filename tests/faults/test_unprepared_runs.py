"""A host that can't prepare a run, over daemon and engine together: the task fails with the reasons, not for ever."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared.config import Config
from tests.faults.whole import configured, system
from worker.runtime.shell.runtime import ShellRuntime

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]

RUNS = Config().engine.redeliveries + 1
"""So often a task is tried: each hand-back but the last is followed by one more run."""

SHORT_OF = (errno.ENOSPC, errno.EMFILE)


async def test_hand_backs_of_what_is_not_prepared_have_an_end_and_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    async def refuse(*_: object) -> Any:
        tried.append(SHORT_OF[len(tried) % 2])
        raise OSError(tried[-1], os.strerror(tried[-1]))

    async with (
        system(configured(tmp_path, {})) as whole,
        aiohttp.ClientSession(whole.processes[0].url) as api,
    ):
        with monkeypatch.context() as short:
            short.setattr(ShellRuntime, "prepare", refuse)
            failed = await run_job(api)
        (task,) = failed["execution"]
        assert (task["state"], len(tried)) == ("FAILED", RUNS)
        reasons = [f"OSError: [Errno {each}] {os.strerror(each)}" for each in SHORT_OF]
        assert task["error"] == f"task redelivered too many times: {'; '.join(reasons)}"
        assert [run["why"] for run in task["runs"]] == (reasons * RUNS)[:RUNS]
        assert (await run_job(api))["state"] == "COMPLETED"


async def run_job(api: aiohttp.ClientSession) -> Any:
    """Run a job of one step; return it once it has ended."""
    step = {"name": "a", "image": "any", "run": "true"}
    job = {"name": "job", "wait": {"timeout": "30s"}, "tasks": [step]}
    async with api.post("/jobs", json=job) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()
