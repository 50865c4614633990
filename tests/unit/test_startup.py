"""How a process ends."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

WITHIN = 30.0
"""Seconds; the threads of these processes hang for longer."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "left",
    [
        "asyncio.get_running_loop().run_in_executor(None, time.sleep, 100)",
        "ThreadPoolExecutor(1).submit(time.sleep, 100)",
        "threading.Thread(target=time.sleep, args=(100,)).start()",
    ],
)
def test_a_thread_that_hangs_keeps_no_process_from_its_end(left: str) -> None:
    """A thread that waits for an engine or a disk cannot be ended; Python would wait for it."""
    program = f"""
        import asyncio, threading, time
        from concurrent.futures import ThreadPoolExecutor
        from shared.startup import process_command

        async def run(config):
            {left}
            return 5

        process_command("standalone", lambda: run).main(["--config", "/dev/null"], "program")
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], timeout=WITHIN, check=False
    )
    assert ended.returncode == 5
