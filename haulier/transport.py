"""Sends requests to one server, and turns its errors into the client's errors."""

from __future__ import annotations

import asyncio
import base64
import errno
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import msgspec
from yarl import URL

from haulier.errors import ApiError, Fault, HaulierError, MisuseError, UnreachableError
from haulier.sse import EventReader, ServerEvent

CONNECT_TIMEOUT: Final = 10.0
QUIET_TIMEOUT: Final = 60.0
"""Seconds without a byte after which a stream is taken up anew."""
CLOCKS_AGREE: Final = 2.0
"""Seconds that two clocks may differ without being taken for different."""
FIRST_PAUSE: Final = 0.25
LONGEST_PAUSE: Final = 5.0
LONGEST_ERROR: Final = 16_384
AWAY: Final = frozenset({429, 502, 503, 504})
"""Statuses of a server that may answer later."""

Params = Mapping[str, str | int | bool | None]


class TlsFiles(msgspec.Struct, frozen=True):
    """Files in PEM format: `ca` has the authorities whose certificates are trusted, the system's without it; `cert` and
    `key` are what is shown to servers that ask for a certificate. The key may be in the file of the certificate."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class Transport:
    """A connection pool to one server. Use it as an asynchronous context."""

    def __init__(
        self, server: str, *, key: str | None, timeout: float, patience: float, tls: TlsFiles
    ) -> None:
        self.server, credentials = _server_of(server)
        self._tls = tls
        authorization = f"Bearer {key}" if key else credentials
        self._headers = {"Authorization": authorization} if authorization else {}
        self._timeout = timeout
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None
        self.clock_ahead = 0.0
        """Seconds that the server's clock was ahead at its last answer; 0 where they agree."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers={"Accept": "application/json", **self._headers},
            connector=aiohttp.TCPConnector(ssl=_context(self._tls)),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        accept_status: frozenset[int] = frozenset(),
        limited: bool = True,
    ) -> bytes:
        """Return the answer's body. Any status but 2xx and `accept_status` is an `ApiError`.

        `limited`: whether the answer must come within the client's timeout.
        """
        total = self._timeout if limited else None
        timeout = aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_TIMEOUT)
        async with self._asked(method, path, timeout, params, body, headers) as response:
            self._note_clock(response)
            answer = await response.read()
            if response.status not in accept_status:
                _check_status(response, answer)
            return answer

    def _note_clock(self, response: aiohttp.ClientResponse) -> None:
        """Note how far the server's clock is ahead of this machine's, as far as its dates tell: to a second or two."""
        try:
            told = parsedate_to_datetime(response.headers.get("Date", ""))
        except ValueError:
            return
        ahead = (told - datetime.now(UTC)).total_seconds() if told.tzinfo else 0.0
        self.clock_ahead = ahead if abs(ahead) > CLOCKS_AGREE else 0.0

    async def chunks(self, path: str) -> AsyncGenerator[bytes]:
        """Yield the body of a long answer as it comes."""
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=QUIET_TIMEOUT)
        headers = {"Accept": "text/plain"}
        async with self._asked("GET", path, timeout, None, None, headers) as response:
            if response.status != 200:
                _check_status(response, await response.content.read(LONGEST_ERROR))
            async for chunk in response.content.iter_any():
                yield chunk

    async def stream(self, path: str, params: Params | None = None) -> AsyncGenerator[ServerEvent]:
        """Yield the events of a stream for ever, taking it up again where it was cut.

        Raises `UnreachableError` where that does not succeed within the patience, `ApiError` where
        the server refuses. The caller stops when the event comes that ends it.
        """
        reader = EventReader()
        pauses = Pauses(self._patience)
        while True:
            try:
                async with aclosing(self._stream_once(path, params, reader)) as events:
                    async for event in events:
                        pauses.reset()
                        yield event
                await pauses.wait(None, reader.retry)
            except UnreachableError as error:
                await pauses.wait(error, reader.retry)
            except ApiError as error:
                if error.status not in AWAY:
                    raise
                await pauses.wait(error, reader.retry)
            reader = EventReader(reader.last_id)

    async def _stream_once(
        self, path: str, params: Params | None, reader: EventReader
    ) -> AsyncGenerator[ServerEvent]:
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=QUIET_TIMEOUT)
        headers = {"Accept": "text/event-stream"}
        if reader.last_id:
            headers["Last-Event-ID"] = reader.last_id
        async with self._asked("GET", path, timeout, params, None, headers) as response:
            if response.status != 200:
                _check_status(response, await response.content.read(LONGEST_ERROR))
            if response.content_type != "text/event-stream":
                raise HaulierError(
                    f"{self.server}{path} did not return an event stream: is this a Haulier server?"
                )
            async for chunk in response.content.iter_any():
                for event in reader.feed(chunk):
                    yield event

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        timeout: aiohttp.ClientTimeout,
        params: Params | None,
        body: bytes | None,
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._session is not None, "use the client as an asynchronous context"
        url = URL(self.server + path, encoded=True).update_query(_query(params))
        try:
            async with self._session.request(
                method, url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                yield response
        except TimeoutError as error:
            raise UnreachableError(self.server, "the server did not answer in time") from error
        except aiohttp.ClientConnectorError as error:
            raise UnreachableError(self.server, _reason(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            reason = f"the connection failed: {str(error) or type(error).__name__}"
            if _was_cut(error):
                reason += f" ({_CUT_TLS if url.scheme == 'https' else _CUT_PLAIN})"
            raise UnreachableError(self.server, reason) from error


_CUT_TLS: Final = "if it goes on, the server wants a certificate that it trusts"
_CUT_PLAIN: Final = "if it goes on, the address may have to begin with https://"


def _was_cut(error: Exception) -> bool:
    """Whether the server cut a connection that it had taken: in order, or so that it was reset."""
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return True
    return isinstance(error, OSError) and error.errno in (errno.ECONNRESET, errno.EPIPE)


class Pauses:
    """Growing waits between tries, until nothing was heard for `patience` seconds."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self.reset()

    def reset(self) -> None:
        """Begin anew: something was heard."""
        self._pauses = growing(FIRST_PAUSE, LONGEST_PAUSE)
        self._deadline = asyncio.get_running_loop().time() + self._patience

    async def wait(self, error: HaulierError | None, asked: float | None) -> None:
        """Wait before the next try, as long as the server asked; raise `error` when too late."""
        now = asyncio.get_running_loop().time()
        if error is not None and now >= self._deadline:
            raise error
        await asyncio.sleep(min(max(next(self._pauses), asked or 0.0), LONGEST_PAUSE))


def growing(first: float, longest: float, factor: float = 2.0) -> Iterator[float]:
    """Yield seconds to wait: `first`, then `factor` times as long each time, up to `longest`."""
    pause = first
    while True:
        yield pause
        pause = min(pause * factor, longest)


def _server_of(text: str) -> tuple[str, str]:
    """Return the address without a slash at the end, and the Authorization that it holds."""
    address = text.strip() if "://" in text else f"http://{text.strip()}"
    try:
        url, parts = URL(address), urlsplit(address)
    except ValueError:
        url, parts = URL(), urlsplit("")
    complete = url.scheme in ("http", "https") and url.host and not re.search(r"\s", address)
    if not complete or parts.query or parts.fragment:
        raise MisuseError(f"not a server URL: {text!r}: use the form http://localhost:8000")
    pair = f"{url.user}:{url.password or ''}".encode()
    auth = f"Basic {base64.b64encode(pair).decode()}" if url.user else ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", "")), auth


def _query(params: Params | None) -> dict[str, str]:
    given = {name: value for name, value in (params or {}).items() if value is not None}
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in given.items()
    }


def _context(tls: TlsFiles) -> ssl.SSLContext | bool:
    """Return what TLS is made with; True for the default."""
    if tls == TlsFiles():
        return True
    try:
        context = ssl.create_default_context(cafile=_usable("authorities", tls.ca))
    except ssl.SSLError as error:
        raise MisuseError(f"the file of authorities has no certificates: {tls.ca}") from error
    if tls.key and not tls.cert:
        raise MisuseError("a certificate's key is of no use without the certificate")
    if cert := _usable("the certificate", tls.cert):
        key = _usable("the certificate's key", tls.key)
        try:
            context.load_cert_chain(cert, key, password="")
        except ssl.SSLError as error:
            raise MisuseError(
                f"{cert} and {key or cert} are not a certificate and its key, in PEM format and without a password: "
                f"{error.reason}"
            ) from error
    return context


def _usable(what: str, file: str) -> str | None:
    """Return the file, None for none. Raises `MisuseError` where it can't be read, or has no certificate or key."""
    if not file:
        return None
    try:
        text = Path(file).read_bytes()
    except OSError as error:
        raise MisuseError(f"the file of {what} can't be read: {file}: {error.strerror}") from error
    if b"-----BEGIN" not in text:
        raise MisuseError(f"the file of {what} is not in PEM format: {file}")
    return file


_TLS_HINTS: Final[Mapping[str, str]] = {
    "issuer certificate": ": name the file of its authority with --ca",
    "self-signed": ": name the file of its authority with --ca",
    "WRONG_VERSION_NUMBER": ": does its address begin with http://?",
    "RECORD_LAYER_FAILURE": ": does its address begin with http://?",
}
"""What to do, by what TLS says."""


def _reason(error: aiohttp.ClientConnectorError) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "no such host"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        said = str(error.os_error)
        hint = next((hint for sign, hint in _TLS_HINTS.items() if sign in said), "")
        return f"no secure connection: {said}{hint}"
    if isinstance(error.os_error, ConnectionRefusedError):
        return "connection refused (is the server running?)"
    return error.os_error.strerror or str(error.os_error)


def _check_status(response: aiohttp.ClientResponse, body: bytes) -> None:
    status = response.status
    if status < 300:
        return
    if status < 400:
        where = response.headers.get("Location", "elsewhere")
        raise ApiError(status, f"the server redirects to {where}: use that address")
    said = _said_in(body)
    message = said.message or f"the server answered {status} {response.reason}"
    raise ApiError(status, message, said.faults)


class _Said(msgspec.Struct):
    message: str = ""
    faults: list[Fault] = []


def _said_in(body: bytes) -> _Said:
    try:
        return msgspec.json.decode(body, type=_Said)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _Said()
