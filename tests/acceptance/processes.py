"""Real processes of Haulier, started as a user starts them, and what tests ask of them over HTTP."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from devservices.places import free_port

READY_WITHIN = 60.0
"""Seconds within which a process must say that it is ready."""

ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED"})


def wait_for(what: Callable[[], Any], within: float, why: str, every: float = 0.1) -> Any:
    """Return the first true thing that `what` gives; fail with `why` where there is none in time."""
    deadline = time.monotonic() + within
    while True:
        found = what()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {why}")
        time.sleep(every)


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Hold so many connections open that say nothing."""
    with ExitStack() as stack:
        for _ in range(count):
            line = stack.enter_context(socket.socket())
            line.setblocking(False)
            line.connect_ex(("127.0.0.1", port))
        yield


class Process:
    """A process of ours with a log of its own."""

    ready: str

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._command = command
        self._environment = clean_environment(environment)
        self.log = log
        self.prefix: Sequence[str] = ()
        """What it is started by, as `ip netns exec NAME`."""
        self.program: Sequence[str] = (sys.executable, "-m")
        """What takes the command."""
        self.folder: Path | None = None
        """Where it is started, if not here, where Python finds the source."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, within: float = READY_WITHIN) -> None:
        """Start it, and return once it says that it is ready."""
        self.launch()
        self.wait_ready(within)

    def launch(self) -> None:
        """Start it."""
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.prefix, *self.program, *self._command],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def wait_ready(self, within: float = READY_WITHIN) -> None:
        """Return once it says that it is ready."""
        wait_for(self._is_ready, within, f"{self.ready!r} in its log", every=0.05)

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"it ended by itself:\n{self.text()}")
        return self.ready in self.text()

    def text(self) -> str:
        """Return what it logged since it was last started."""
        with self.log.open("rb") as log:
            log.seek(self._seen)
            return log.read().decode(errors="replace")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running process."""
        assert self._process is not None
        return self._process

    def runs(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a crash does: SIGKILL, and nothing is put in order."""
        self.signal(signal.SIGKILL)
        self.process.wait(10)

    def terminate(self, within: float = 60.0) -> int:
        """Ask it to stop, and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.process.wait(within)

    def stop(self) -> None:
        """Have it gone, whatever state it is in."""
        stop_all([self])


def stop_all(processes: Iterable[Process]) -> None:
    """Have them all gone, whatever state they are in: asked at once, killed after 30 s."""
    running = [each for each in processes if each.runs()]
    for each in running:
        each.signal(signal.SIGCONT)
        each.signal(signal.SIGTERM)
    for each in running:
        try:
            each.process.wait(30)
        except subprocess.TimeoutExpired:
            each.kill()


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of ours, and with `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HAULIER_")}
    return {**kept, **extra}


class Server(Process):
    """A process that serves the REST API."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], log: Path, port: int
    ) -> None:
        self.url = f"http://localhost:{port}"
        super().__init__(command, environment, log)

    def call(
        self,
        method: str,
        path: str,
        body: bytes | str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> tuple[int, Any]:
        """Make a request; return the status and the decoded JSON."""
        data = body.encode() if isinstance(body, str) else body
        request = urllib.request.Request(
            self.url + path, data=data, method=method, headers=dict(headers or {})
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or b"null")

    def get(self, path: str) -> Any:
        """Return what a GET answers; it must be 200."""
        status, body = self.call("GET", path)
        assert status == 200, (status, body)
        return body

    def submit(self, job: Mapping[str, Any] | str) -> str:
        """Submit a job, as a mapping or as YAML; return its id."""
        text = job if isinstance(job, str) else json.dumps(job)
        kind = "text/yaml" if isinstance(job, str) else "application/json"
        status, body = self.call("POST", "/jobs", text, {"Content-Type": kind})
        assert status == 200, (status, body)
        return str(body["id"])

    def job(self, job_id: str) -> Any:
        """Return a job."""
        return self.get(f"/jobs/{job_id}")

    def wait_job(self, job_id: str, within: float = 60.0) -> Any:
        """Return a job once it has ended."""

        def ended() -> Any:
            job = self.job(job_id)
            return job if job["state"] in ENDED else None

        return wait_for(ended, within, f"the end of job {job_id}")

    def wait_jobs(self, job_ids: Iterable[str], within: float) -> dict[str, Any]:
        """Return jobs by id once all have ended."""
        left, done = set(job_ids), {}
        deadline = time.monotonic() + within
        while left:
            for job_id in sorted(left):
                job = self.job(job_id)
                if job["state"] not in ENDED:
                    break
                done[job_id] = job
            left -= set(done)
            assert time.monotonic() < deadline, f"{len(left)} jobs have not ended in {within} s"
            time.sleep(0.1)
        return done

    def wait_state(self, job_id: str, state: str, within: float = 30.0) -> Any:
        """Return a job once it is in a state."""

        def there() -> Any:
            job = self.job(job_id)
            return job if job["state"] == state else None

        return wait_for(there, within, f"job {job_id} {state}")

    def noted(self, what: str) -> float:
        """Return how often its metrics say that something happened."""
        request = urllib.request.Request(f"{self.url}/metrics", headers={"Accept": "text/plain"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        begin = f'haulier_noted_total{{what="{what}"}} '
        (value,) = (line.removeprefix(begin) for line in lines if line.startswith(begin))
        return float(value)

    def log_of(self, job_id: str) -> str:
        """Return the whole log of a job."""
        with urllib.request.urlopen(f"{self.url}/jobs/{job_id}/log/download", timeout=60) as answer:
            return str(answer.read().decode())


class Standalone(Server):
    """`haulier run standalone` on data of its own."""

    ready = "haulier is ready"

    def __init__(self, folder: Path, slots: int = 4, /, **settings: str) -> None:
        port = free_port()
        folder.mkdir(parents=True, exist_ok=True)
        environment = {
            "HAULIER_DATASTORE_SQLITE_PATH": str(folder / "haulier.db"),
            "HAULIER_WORKER_DATA": str(folder / "worker"),
            "HAULIER_COORDINATOR_ADDRESS": f"localhost:{port}",
            "HAULIER_WORKER_ADDRESS": "localhost:0",
            "HAULIER_WORKER_QUEUES_DEFAULT": str(slots),
            **settings,
        }
        command = ["haulier.cli", "run", "standalone"]
        super().__init__(command, environment, folder / "log", port)


class Coordinator(Server):
    """`python -m coordinator`."""

    ready = "coordinator started"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, str]) -> None:
        port = free_port()
        environment = {
            **settings,
            "HAULIER_COORDINATOR_NAME": name,
            "HAULIER_COORDINATOR_ADDRESS": f"localhost:{port}",
        }
        super().__init__(["coordinator"], environment, folder / f"{name}.log", port)


class Worker(Process):
    """`python -m worker`."""

    ready = "worker started"

    def __init__(self, folder: Path, name: str, settings: Mapping[str, str]) -> None:
        environment = {
            "HAULIER_WORKER_QUEUES_DEFAULT": "4",
            "HAULIER_WORKER_DATA": str(folder / name),
            **settings,
            "HAULIER_WORKER_NAME": name,
            "HAULIER_WORKER_ADDRESS": "localhost:0",
        }
        super().__init__(["worker"], environment, folder / f"{name}.log")

    @property
    def health_port(self) -> int:
        """The port that its health is served on."""
        found = re.search(r"health_port=(\d+)", self.text())
        assert found is not None
        return int(found[1])


SHELL = {"HAULIER_RUNTIME_TYPE": "shell", "HAULIER_RUNTIME_SHELL_IGNORE_IMAGE": "true"}
"""Settings of a worker that runs tasks as local processes."""


class Cluster:
    """Coordinators and workers that meet at RabbitMQ, with their state in MongoDB."""

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self.folder = folder
        self.settings = dict(settings)
        self.prefix: Sequence[str] = ()
        """What its processes are started by."""
        self.coordinators: list[Coordinator] = []
        self.workers: list[Worker] = []

    def add_coordinator(self, **settings: str) -> Coordinator:
        """Launch one more coordinator; wait for it by `wait_ready`."""
        name = f"coordinator-{len(self.coordinators) + 1}"
        made = Coordinator(self.folder, name, {**self.settings, **settings})
        self.coordinators.append(made)
        made.prefix = self.prefix
        made.launch()
        return made

    def add_worker(self, **settings: str) -> Worker:
        """Launch one more worker, of the shell runtime where nothing else is said."""
        name = settings.pop("name", f"worker-{len(self.workers) + 1}")
        made = Worker(self.folder, name, {**SHELL, **self.settings, **settings})
        self.workers.append(made)
        made.prefix = self.prefix
        made.launch()
        return made

    def wait_ready(self) -> None:
        """Return once all are ready."""
        for part in (*self.coordinators, *self.workers):
            part.wait_ready()

    def stop(self) -> None:
        """Have all gone; workers first, whom coordinators must answer until then."""
        stop_all(self.workers)
        stop_all(self.coordinators)
