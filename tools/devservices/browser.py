"""A real Chromium and a standalone Haulier: for tests of the page, its figures and its pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright

from devservices import packages
from devservices.places import free_port, one_at_a_time

PATIENCE = 300.0
"""Seconds that a job may take."""


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser of Debian's package, installed where it is missing. `ServiceError` where it can't be had."""
    with one_at_a_time():
        packages.ensure({"chromium": "chromium"})
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=packages.find("chromium"), args=["--no-sandbox"]
        )
        yield browser
        browser.close()


class Server:
    """A standalone Haulier that runs tasks as local processes."""

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, method: str, path: str, body: Mapping[str, Any] | str | None = None) -> Any:
        """Return what the API answers. A text is YAML."""
        text = body if isinstance(body, str | None) else json.dumps(body)
        kind = "text/yaml" if isinstance(body, str) else "application/json"
        request = urllib.request.Request(
            self.url + path,
            data=None if text is None else text.encode(),
            method=method,
            headers={"Content-Type": kind},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def submit(self, body: Mapping[str, Any] | str) -> str:
        """Submit a job; return its id."""
        return str(self.ask("POST", "/jobs", body)["id"])

    def wait(self, job: str) -> Any:
        """Return a job once it has ended."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.ask("GET", f"/jobs/{job}?execution=false")
            if found["state"] in ("COMPLETED", "FAILED", "CANCELLED"):
                return found
            time.sleep(0.2)
        raise TimeoutError(f"job {job} has not ended in {PATIENCE} s")


@contextmanager
def standalone(folder: Path, slots: int = 16) -> Iterator[Server]:
    """Run one on data of its own, until it is no longer needed."""
    port = free_port()
    settings = {
        "HAULIER_DATASTORE_SQLITE_PATH": str(folder / "haulier.db"),
        "HAULIER_WORKER_DATA": str(folder / "worker"),
        "HAULIER_COORDINATOR_ADDRESS": f"localhost:{port}",
        "HAULIER_WORKER_ADDRESS": "localhost:0",
        "HAULIER_WORKER_QUEUES_DEFAULT": str(slots),
        "HAULIER_RUNTIME_TYPE": "shell",
        "HAULIER_RUNTIME_SHELL_IGNORE_IMAGE": "true",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "haulier.cli", "run", "standalone"],
            env={**os.environ, **settings},
            stdout=log,
            stderr=log,
        )
    try:
        server = Server(f"http://localhost:{port}")
        _await(server, process, folder / "log")
        yield server
    finally:
        process.terminate()
        process.wait()


def _await(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    while process.poll() is None:
        try:
            server.ask("GET", "/health")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"it ended by itself:\n{log.read_text()}")
