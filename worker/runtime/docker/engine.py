"""The connection to a Docker engine: its address, and Docker's blocking SDK on threads of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
import requests
import urllib3
from docker import APIClient
from docker.context import ContextAPI
from docker.errors import APIError, DockerException
from docker.tls import TLSConfig
from docker.utils import kwargs_from_env, version_lt

from shared.errors import RuntimeUnavailable
from shared.supervision import to_its_end, waiting
from worker.runtime.docker.credentials import Credentials
from worker.runtime.port import SCARCE, RunLostError, says_hosts, says_no_addresses

USUAL = "unix:///var/run/docker.sock"
PODMAN_SOCKET = "podman/podman.sock"


class Address(msgspec.Struct, frozen=True):
    """An engine's address, with what TLS needs, and where it came from, for messages."""

    host: str
    origin: str
    tls: TLSConfig | bool = False

    @property
    def socket(self) -> Path | None:
        """The engine's socket, where it is one of this machine."""
        return Path(self.host.removeprefix("unix://")) if self.host.startswith("unix://") else None


def find_address(configured: str, environ: Mapping[str, str], *, podman: bool = False) -> Address:
    """Return the engine's address; with `podman`, of Podman's service, where nothing is configured. Raises
    RuntimeUnavailable for settings that can't be read."""
    try:
        if configured:
            return _by_variables(configured, "runtime.docker.host", environ)
        if podman:
            if host := environ.get("CONTAINER_HOST"):
                return _by_variables(host, "CONTAINER_HOST", environ)
            return Address(_podman_socket(environ), "Podman's usual socket")
        if host := environ.get("DOCKER_HOST"):
            return _by_variables(host, "DOCKER_HOST", environ)
        return _by_context(environ.get("DOCKER_CONTEXT")) or Address(
            _usual(environ), "the usual socket"
        )
    except (DockerException, OSError, ValueError, AttributeError, TypeError) as error:
        raise RuntimeUnavailable(f"the Docker engine's address cannot be read: {error}") from None


def _by_variables(host: str, origin: str, environ: Mapping[str, str]) -> Address:
    if "://" not in host:
        host = f"unix://{host}" if host.startswith("/") else f"tcp://{host}"
    found = kwargs_from_env({**environ, "DOCKER_HOST": host})
    tls = found.get("tls", False) if not host.startswith("unix://") else False
    return Address(host, origin, tls)


def _by_context(name: str | None) -> Address | None:
    context = ContextAPI.get_context(name) if name else ContextAPI.get_current_context()
    if context is None:
        raise ValueError(f"there is no Docker context {name!r}")
    if context.name == "default":
        return None
    host = context.Host or USUAL
    return Address(host, f"the context {context.name!r}", context.TLSConfig or False)


def _usual(environ: Mapping[str, str]) -> str:
    candidates = [Path("/var/run/docker.sock"), Path.home() / ".docker/run/docker.sock"]
    if folder := environ.get("XDG_RUNTIME_DIR"):
        candidates.insert(1, Path(folder, "docker.sock"))
    for path in candidates:
        if path.exists() and os.access(path, os.R_OK | os.W_OK):
            return f"unix://{path}"
    return USUAL


def _podman_socket(environ: Mapping[str, str]) -> str:
    """Return the socket of the user's own service, or else of the one that root runs."""
    own = Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", PODMAN_SOCKET)
    path = own if own.exists() and os.getuid() else Path("/run", PODMAN_SOCKET)
    return f"unix://{path}"


P = ParamSpec("P")
_T = TypeVar("_T")

LEAST_API = "1.41"
REQUEST_TIMEOUT = 120
"""Seconds for one request that does not wait for a task."""
LONGEST_SILENCE = 20 * 60
"""Seconds that a pull's connection is kept on which the engine says nothing; longer than a pull may stand still."""
ANSWERS_WITHIN = 10.0
"""Seconds after which an engine that was asked to end a container is no longer waited for."""
THREADS = 512
"""At most; a thread is made when all others are busy: one or two for each running task."""
SCARCE_PAUSE = 0.5
"""Seconds until something is tried again for which this process had no descriptors."""
_PATIENCE = 45.0
"""Seconds that an engine may be away (a restart of it) before its runs are given up."""

WAYS_ON = (
    "Start Docker (or set runtime.docker.host), or run the scripts as local processes "
    "without isolation: --runtime shell --ignore-image"
)


class EngineGoneError(RunLostError):
    """The engine does not answer."""


class EngineHangsError(EngineGoneError):
    """The engine takes a request and does not answer it in time."""


class _Client(APIClient):
    """The SDK's client, with a time limit also for a pull, which else would keep its thread for as long as nothing is
    said."""

    def _set_request_timeout(self, kwargs: dict[str, Any]) -> dict[str, Any]:
        if kwargs.setdefault("timeout", self.timeout) is None:
            kwargs["timeout"] = LONGEST_SILENCE
        return kwargs


class Engine:
    """One engine's API. `call` keeps its blocking off the event loop."""

    def __init__(self, configured: str, docker_config: str, *, podman: bool = False) -> None:
        """Take `configured`, the address in the settings; `docker_config`: the file of credentials; `podman`: whether
        Podman's service is looked for where none is configured."""
        self._configured = configured
        self._podman = podman
        self.credentials = Credentials(docker_config)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="docker")
        self.address = Address("", "")
        self.info: dict[str, Any] = {}
        self.is_podman = False
        self._api: APIClient | None = None

    @property
    def api(self) -> APIClient:
        """The SDK's client; connected."""
        assert self._api is not None
        return self._api

    async def connect(self) -> None:
        """Find the engine. Raises RuntimeUnavailable that says where it was looked for."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._connect)

    def _connect(self) -> None:
        self.address = find_address(self._configured, os.environ, podman=self._podman)
        try:
            self._api = self._client()
            self.info = self._api.info()
            parts = self._api.version().get("Components") or []
            self.is_podman = any("Podman" in part["Name"] for part in parts)
        except (DockerException, requests.RequestException, OSError) as error:
            raise RuntimeUnavailable(self._silent(error)) from None
        if self.address.socket:
            self._api.trust_env = False  # a proxy is never in the way of a socket
        if version_lt(self._api.api_version, LEAST_API):
            raise RuntimeUnavailable(
                f"the engine at {self.address.host} supports version {self._api.api_version} of "
                f"Docker's API; {LEAST_API} (Docker 20.10) or later is required"
            )

    def _client(self) -> APIClient:
        with _empty_config():  # the SDK fails at an odd file, and `credentials` reads it
            return _Client(
                base_url=self.address.host,
                tls=self.address.tls,
                timeout=REQUEST_TIMEOUT,
                max_pool_size=64,
                use_ssh_client=self.address.host.startswith("ssh://"),
            )

    def _silent(self, error: Exception) -> str:
        reason = _root_of(error)
        where = f"{self.address.host} ({self.address.origin})"
        return f"no Docker engine answers at {where}: {reason}. {WAYS_ON}"

    async def call(self, function: Callable[P, _T], *args: P.args, **kwargs: P.kwargs) -> _T:
        """Do something short with the engine. Cancelled, it is done first: nothing is half made.

        Raises EngineGoneError where the engine does not answer, and what `function` raises.
        """
        loop = asyncio.get_running_loop()
        work = loop.run_in_executor(self._threads, partial(_translated, function, *args, **kwargs))
        return await to_its_end(work)

    async def call_until_answered(
        self, function: Callable[P, _T], *args: P.args, **kwargs: P.kwargs
    ) -> _T:
        """Do what may be done twice, again and again while the engine hangs, or this process has no descriptors to ask
        it. Raises what `call` does else.

        Cancelled, it does not wait for the engine."""
        while True:
            with contextlib.suppress(EngineHangsError), waiting():
                return await self.watch(function, *args, **kwargs)

    async def asked(self, function: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> bool:
        """Ask for something, whether it can be done or not; False where the engine hangs: it may do it later."""
        try:
            async with asyncio.timeout(ANSWERS_WITHIN):
                with contextlib.suppress(APIError, EngineGoneError):
                    await self.call_until_answered(function, *args, **kwargs)
        except TimeoutError:
            return False
        return True

    async def watch(self, function: Callable[P, _T], *args: P.args, **kwargs: P.kwargs) -> _T:
        """Look, or do something that lasts; cancelled, the thread goes on until it ends by itself."""
        loop = asyncio.get_running_loop()
        with waiting():
            return await loop.run_in_executor(
                self._threads, partial(_translated, function, *args, **kwargs)
            )

    async def ping(self) -> None:
        """Return if it answers on a new connection. Raises RuntimeUnavailable."""
        try:
            await self.watch(self._ping)
        except (EngineGoneError, DockerException) as error:
            raise RuntimeUnavailable(self._silent(error)) from None

    def _ping(self) -> None:
        if self.address.socket:  # one that is shutting down still answers on old connections
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(5)
                try:
                    probe.connect(str(self.address.socket))
                except OSError as error:
                    raise EngineGoneError(str(error)) from None
        self.api.ping()

    async def lives(self) -> bool:
        """Return whether it answers on a new connection; where it does not, once it does again or was away for long."""
        try:
            await self.call_until_answered(self._ping)
        except (EngineGoneError, DockerException):
            await self.back()
            return False
        return True

    async def back(self) -> bool:
        """Wait until it answers again; False if it does not for long."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _PATIENCE
        while loop.time() < until:
            try:
                await self.ping()
            except RuntimeUnavailable:
                await asyncio.sleep(0.5)
            else:
                return True
        return False

    async def close(self) -> None:
        """Close the connections."""
        if self._api is not None:
            self._api.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


_EMPTY_CONFIG = str(Path(__file__).parent / "empty_config")
_config_lock = threading.Lock()


@contextlib.contextmanager
def _empty_config() -> Iterator[None]:
    """Have the SDK find an empty file: where `DOCKER_CONFIG` names none, it goes on to the home folder's."""
    with _config_lock:
        before = os.environ.get("DOCKER_CONFIG")
        os.environ["DOCKER_CONFIG"] = _EMPTY_CONFIG
        try:
            yield
        finally:
            del os.environ["DOCKER_CONFIG"]
            if before is not None:
                os.environ["DOCKER_CONFIG"] = before


def _translated(function: Callable[P, _T], *args: P.args, **kwargs: P.kwargs) -> _T:
    try:
        return function(*args, **kwargs)
    except APIError:
        raise
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        if any(isinstance(one, OSError) and one.errno in SCARCE for one in _below(error)):
            time.sleep(SCARCE_PAUSE)
            raise EngineHangsError(f"the engine could not be asked: {_root_of(error)}") from error
        kind = EngineHangsError if "timed out" in str(error).lower() else EngineGoneError
        raise kind(f"the engine does not answer: {error}") from error


def explain(error: APIError) -> str:
    """Return the engine's own words, in one line."""
    words = str(error.explanation or error)
    return " ".join(words.split())


def blames_host(error: DockerException, own: object) -> bool:
    """Return whether the engine says that its host is to blame, and does not repeat `own`, what a user gave.

    A request that it finds faulty (a status below 500) is nothing of its host's, unless addresses are lacking.
    """
    if any(map(says_hosts, _texts(msgspec.to_builtins(own)))):
        return False
    if not isinstance(error, APIError):
        return says_hosts(str(error))
    words = explain(error)
    return says_no_addresses(words) if error.is_client_error() else says_hosts(words)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts([*value, *value.values()])
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)


def _below(error: BaseException) -> Iterator[BaseException]:
    below: BaseException | None = error
    while below is not None:
        yield below
        nested = [part for part in below.args if isinstance(part, BaseException)]
        below = below.__cause__ or below.__context__ or (nested[0] if nested else None)


def _root_of(error: BaseException) -> str:
    """Say why nobody answers: the operating system's words, where they are at the bottom of it."""
    for one in _below(error):
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    return str(error).rsplit("server API version: ", 1)[-1]
