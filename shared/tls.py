"""TLS as the settings describe it: contexts for our connections and servers, and what is wrong with their files."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the checks of the configuration import this module
    from shared.config.schema import ClientTls, Config, ServerTls


def client_context(tls: ClientTls) -> ssl.SSLContext | None:
    """Return the context of connections that we make; None where nothing is set, so that the default holds."""
    if not (tls.ca or tls.cert):
        return None
    context = ssl.create_default_context(cafile=tls.ca or None)
    if tls.cert:
        _show(context, tls)
    return context


def server_context(tls: ServerTls) -> ssl.SSLContext | None:
    """Return the context of a server of ours; None where it is to have no TLS."""
    if not tls.cert:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.ca or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if tls.ca:
        context.verify_mode = ssl.CERT_REQUIRED
    _show(context, tls)
    return context


def _show(context: ssl.SSLContext, tls: ClientTls | ServerTls) -> None:
    # With a password given, the empty one, nobody is asked for it on the terminal.
    context.load_cert_chain(tls.cert, tls.key or None, password="")


def tls_problems(
    path: str, tls: ClientTls | ServerTls, only_with_cert: Sequence[str] = ("key",)
) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the files that the settings below `path` name: the setting, and what."""
    if not tls.cert:
        for name in only_with_cert:
            if getattr(tls, name):
                yield f"{path}.{name}", f"is of no use without {path}.cert"
                return
    unreadable = False
    for name in ("ca", "cert", "key"):
        if problem := _unreadable(getattr(tls, name)):
            unreadable = True
            yield f"{path}.{name}", problem
    if not unreadable:
        yield from _unusable(path, tls)


def _unreadable(file: str) -> str | None:
    if not file:
        return None
    try:
        with Path(file).open("rb"):
            return None
    except FileNotFoundError:
        return f"there is no file {file}"
    except OSError as error:
        return f"the file {file} can't be read: {error.strerror}"


def _unusable(path: str, tls: ClientTls | ServerTls) -> Iterator[tuple[str, str]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if tls.ca:
        try:
            context.load_verify_locations(tls.ca)
        except ssl.SSLError:
            yield f"{path}.ca", f"the file {tls.ca} holds no certificates in PEM format"
    if not tls.cert:
        return
    try:
        _show(context, tls)
        if (end := certificate_end(tls.cert)) < datetime.now(UTC):
            yield f"{path}.cert", f"the certificate in {tls.cert} has expired on {end:%Y-%m-%d}"
    except ssl.SSLError as error:
        if "VALUES_MISMATCH" in (error.reason or ""):
            yield (
                f"{path}.key",
                f"the key in {tls.key or tls.cert} is not the one of the certificate in {tls.cert}",
            )
        elif _holds_certificate(tls.cert):
            yield (
                f"{path}.key",
                f"the file {tls.key or tls.cert} holds no key in PEM format without a password",
            )
        else:
            yield f"{path}.cert", f"the file {tls.cert} holds no certificate in PEM format"


def _holds_certificate(file: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
    except ssl.SSLError:
        return False
    return True


def shown_certificates(config: Config, role: str) -> dict[str, str]:
    """Return the files of the certificates that a `coordinator` or a `worker` shows, by setting."""
    files = {}
    if config.broker.type == "rabbitmq":
        files["broker.rabbitmq.tls.cert"] = config.broker.rabbitmq.tls.cert
    if role == "coordinator":
        files["coordinator.tls.cert"] = config.coordinator.tls.cert
        if config.datastore.type == "mongodb":
            files["datastore.mongodb.tls.cert"] = config.datastore.mongodb.tls.cert
    return files


def certificate_end(file: str) -> datetime:
    """Return until when the certificate in `file` is valid, the first where it holds several."""
    from cryptography.x509 import load_pem_x509_certificates

    return load_pem_x509_certificates(Path(file).read_bytes())[0].not_valid_after_utc


_DISTRUST: Final = re.compile(r"certificate verify failed: (.*?)\.?(?: \(_ssl|$)")
_ALERT: Final = re.compile(r"ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)")
_NO_TLS: Final = re.compile(r"WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE")


def tls_refusal(said: str, server: str, path: str, tls: ClientTls) -> str | None:
    """Return why there will be no connection by TLS to `server` however often it is tried, by what a driver said of a
    try; None where there may be one. `path`: of the settings that have its URL."""
    if (found := _DISTRUST.search(said)) is not None:
        return _distrust(found[1], server, path, tls.ca)
    if (found := _ALERT.search(said)) is not None:
        alert = found[1].lower().replace("_", " ")
        if tls.cert:
            return f"{server} rejects the certificate of {path}.tls.cert = {tls.cert}: {alert}"
        return f"{server} asks for a certificate: name its file in {path}.tls.cert ({alert})"
    if _NO_TLS.search(said):
        return f"{server} does not use TLS at this port, which {path} asks for"
    return None


def _distrust(reason: str, server: str, path: str, ca: str) -> str:
    if "expired" in reason:
        return f"the certificate of {server}, or of who signed it, has expired"
    if "mismatch" in reason:
        return f"the certificate of {server} is for another name than {path}.url has: {reason}"
    if ca:
        return f"the certificate of {server} is not from an authority in {path}.tls.ca = {ca}: {reason}"
    return (
        f"the certificate of {server} is not from an authority that this system trusts: name the file of its authority "
        f"in {path}.tls.ca ({reason})"
    )
