"""The `tools/demo [FILE]` command: one job on a Haulier of its own, from first line to last.

Everything is on a free port and in a temporary folder, and is gone afterwards. The exit code is 0
where the job completed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from devservices import docker_engine, images
from devservices.places import ROOT, free_port
from devservices.processes import ServiceError, wait_until

HAULIER = ROOT / ".venv" / "bin" / "haulier"
JOB = ROOT / "examples" / "hello.yaml"
IMAGE = "alpine:3.18.3"
"""The image of that job's tasks."""

START_SECONDS = 60.0
STOP_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, submit, follow, stop."""
    parser = argparse.ArgumentParser(prog="tools/demo", description=__doc__)
    parser.add_argument("job", nargs="?", type=Path, default=JOB, help="a job file; %(default)s")
    job: Path = parser.parse_args(arguments).job
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with tempfile.TemporaryDirectory(prefix="haulier-demo-") as folder:
            return _demo(job, Path(folder))
    except ServiceError as fault:
        print(f"demo: {fault}", file=sys.stderr)
        return 1


def _demo(job: Path, folder: Path) -> int:
    runtime = _runtime()
    address = f"localhost:{free_port()}"
    env = _environment(address, folder)
    _say(f"serving on http://{address}")
    with _serving(address, runtime, env, folder / "server.log"):
        _say(f"submitting {job}")
        return subprocess.run([HAULIER, "submit", job, "--follow"], env=env, check=False).returncode


def _environment(address: str, folder: Path) -> dict[str, str]:
    """Settings of this demo alone: what the user's environment or files say does not count."""
    (folder / "haulier.toml").touch()
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HAULIER_")}
    return {
        **plain,
        "DOCKER_HOST": docker_engine.address(),
        "HAULIER_CONFIG": str(folder / "haulier.toml"),
        "HAULIER_SERVER": f"http://{address}",
        "HAULIER_DATASTORE_SQLITE_PATH": str(folder / "haulier.db"),
        "HAULIER_WORKER_DATA": str(folder / "worker"),
        "HAULIER_WORKER_ADDRESS": f"localhost:{free_port()}",
    }


def _runtime() -> list[str]:
    """The arguments that choose what tasks run in: containers, where an engine answers."""
    if docker_engine.answers():
        _say("Docker is available, so tasks run in containers")
        _say(f"image {IMAGE}: {images.have(IMAGE)}")
        return []
    _say("Docker is not available, so tasks run as local processes, without isolation")
    return ["--runtime", "shell", "--ignore-image"]


@contextmanager
def _serving(address: str, runtime: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Haulier up and healthy; ended in order on the way out."""
    command = [str(HAULIER), "run", "standalone", "--address", address, *runtime]
    with log.open("wb") as output:
        server = subprocess.Popen(command, env=env, stdout=output, stderr=subprocess.STDOUT)
    try:
        _await_health(server, f"http://{address}/health", log)
        yield
    finally:
        _end(server)


def _await_health(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    def settled() -> bool:
        return server.poll() is not None or _healthy(url)

    with contextlib.suppress(TimeoutError):
        wait_until(settled, START_SECONDS)
    if server.poll() is not None or not _healthy(url):
        raise ServiceError(f"haulier did not start:\n{log.read_text(errors='replace')}")


def _healthy(url: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


def _end(server: subprocess.Popen[bytes]) -> None:
    server.terminate()
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
