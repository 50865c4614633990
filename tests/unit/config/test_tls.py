"""The settings of TLS: each fault of a file is a line that names the setting and the file, before anything starts."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp
import pytest

from haulier import Client, HaulierError, TlsFiles, UnreachableError
from shared.config.cross_checks import role_problems
from shared.config.load import load
from shared.config.problems import ConfigurationError
from shared.config.schema import ClientTls, Config, ServerTls
from shared.config.sources import Override
from shared.tls import client_context, server_context, tls_problems, tls_refusal
from tests.acceptance.processes import clean_environment
from tests.certificates import Authority
from tests.faults.whole import Process, configured


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def faults(tls: ClientTls | ServerTls) -> list[tuple[str, str]]:
    return list(tls_problems("here.tls", tls))


def test_files_in_order_make_contexts(authority: Authority, tmp_path: Path) -> None:
    cert, key = map(str, authority.sign("node"))
    both = tmp_path / "both.pem"
    both.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
    for tls in (
        ClientTls(ca=str(authority.file), cert=cert, key=key),
        ClientTls(ca=str(authority.file)),
        ClientTls(cert=str(both)),
    ):
        assert faults(tls) == []
        assert client_context(tls) is not None
    assert client_context(ClientTls()) is None
    assert server_context(ServerTls()) is None
    served = ServerTls(cert=cert, key=key, ca=str(authority.file))
    assert faults(served) == []
    assert server_context(served) is not None


@pytest.fixture
def faulty(authority: Authority, tmp_path: Path) -> Callable[[str], tuple[ClientTls, str, str]]:
    """Gives settings with a fault by its name, with the setting to blame and what is said."""
    cert, key = map(str, authority.sign("node"))
    _, other = map(str, authority.sign("other"))
    old, old_key = map(str, authority.sign("old", days=-1))
    text = tmp_path / "text"
    text.write_text("no certificate")
    cases = {
        "no ca": (ClientTls(ca="/no/ca.pem"), "ca", "there is no file /no/ca.pem"),
        "no cert": (ClientTls(cert="/no/c.pem"), "cert", "there is no file /no/c.pem"),
        "no key": (ClientTls(cert=cert, key="/no/k.pem"), "key", "there is no file /no/k.pem"),
        "a folder": (ClientTls(ca=str(tmp_path)), "ca", f"the file {tmp_path} can't be read"),
        "key alone": (ClientTls(key=key), "key", "is of no use without here.tls.cert"),
        "text as ca": (ClientTls(ca=str(text)), "ca", f"{text} holds no certificates in PEM"),
        "text as cert": (ClientTls(cert=str(text), key=key), "cert", f"{text} holds no certif"),
        "text as key": (ClientTls(cert=cert, key=str(text)), "key", f"{text} holds no key in PEM"),
        "cert alone": (ClientTls(cert=cert), "key", f"{cert} holds no key in PEM"),
        "expired": (ClientTls(cert=old, key=old_key), "cert", f"{old} has expired on 2"),
        "other key": (ClientTls(cert=cert, key=other), "key", f"{other} is not the one of the"),
    }
    return cases.__getitem__


@pytest.mark.parametrize(
    "case",
    [
        *("no ca", "no cert", "no key", "a folder", "key alone"),
        *("text as ca", "text as cert", "text as key", "cert alone", "other key", "expired"),
    ],
)
def test_each_fault_of_a_file_is_one_line_that_names_it(
    case: str, faulty: Callable[[str], tuple[ClientTls, str, str]]
) -> None:
    tls, name, said = faulty(case)
    [(path, problem)] = faults(tls)
    assert path == f"here.tls.{name}"
    assert said in problem


def named(settings: Mapping[str, str], role: str) -> list[str]:
    """The settings that a start as `role` complains of."""
    given = [Override("--set", path, text) for path, text in settings.items()]
    with pytest.raises(ConfigurationError) as refused:
        load(given, environ={}, role=role)
    return [path for path in settings if path in str(refused.value)]


def test_each_process_looks_at_the_files_that_it_uses() -> None:
    of_broker, of_store, of_api = (
        {"broker.rabbitmq.tls.ca": "/no/1"},
        {"datastore.mongodb.tls.ca": "/no/2"},
        {"coordinator.tls.cert": "/no/3"},
    )
    url = {"broker.rabbitmq.url": "amqps://localhost/"}
    types = {"broker.type": "rabbitmq", "datastore.type": "mongodb"}
    every = {**of_broker, **of_store, **of_api}
    assert named({**types, **url, **every}, "coordinator") == list(every)
    assert named({**types, **url, **every}, "worker") == list(of_broker)
    assert named({**url, **every}, "standalone") == list(of_api)
    assert named({**types, "broker.rabbitmq.url": "amqp://x/", **of_broker}, "worker") == [
        "broker.rabbitmq.url",
        *of_broker,
    ]


def test_a_missing_file_ends_the_start_with_one_line(tmp_path: Path) -> None:
    settings = {
        "HAULIER_BROKER_TYPE": "rabbitmq",
        "HAULIER_BROKER_RABBITMQ_URL": "amqps://localhost:1/",
        "HAULIER_BROKER_RABBITMQ_TLS_CA": "/no/such/ca.pem",
        "HOME": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "worker"],
        env=clean_environment(settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert "broker.rabbitmq.tls.ca" in line
    assert "there is no file /no/such/ca.pem" in line


async def test_the_api_is_served_by_tls(authority: Authority, tmp_path: Path) -> None:
    cert, key = map(str, authority.sign("api"))
    settings = {"HAULIER_COORDINATOR_TLS_CERT": cert, "HAULIER_COORDINATOR_TLS_KEY": key}
    process = Process()
    await process.do(process.stand_alone(configured(tmp_path, settings)))
    trusting = client_context(ClientTls(ca=str(authority.file)))
    assert trusting is not None
    try:
        assert process.url.startswith("https://127.0.0.1:")
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{process.url}/health", ssl=trusting) as answer:
                assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"{process.url}/health")
    finally:
        await process.close()


TEXT = {"Accept": "text/plain"}


def end_of_certificate(scraped: bytes) -> float:
    """Return when the API's certificate will have expired, in seconds from now, as a scrape has it."""
    [line] = [line for line in scraped.decode().splitlines() if 'setting="coordinator.tls' in line]
    return float(line.split()[-1]) - time.time()


async def test_the_api_asks_for_certificates_of_clients(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = map(str, authority.sign("api"))
    own_cert, own_key = map(str, authority.sign("client"))
    ca = str(authority.file)
    settings = {
        "HAULIER_COORDINATOR_TLS_CERT": cert,
        "HAULIER_COORDINATOR_TLS_KEY": key,
        "HAULIER_COORDINATOR_TLS_CA": ca,
    }
    process = Process()
    await process.do(process.stand_alone(configured(tmp_path, settings)))
    try:
        files = TlsFiles(ca, own_cert, own_key)
        async with Client(process.url, tls=files) as client:
            assert (await client.health()).status == "UP"
            assert end_of_certificate(await client.request("GET", "/metrics", headers=TEXT)) > 0
        async with Client(process.url, tls=TlsFiles(ca)) as client:
            with pytest.raises(UnreachableError, match="wants a certificate that it trusts"):
                await client.health()
        async with Client(process.url.replace("https", "http")) as client:
            with pytest.raises(UnreachableError, match="may have to begin with https"):
                await client.health()
        async with aiohttp.ClientSession() as session:
            with_own = client_context(ClientTls(ca=ca, cert=own_cert, key=own_key))
            assert with_own is not None
            async with session.get(f"{process.url}/health", ssl=with_own) as answer:
                assert answer.status == 200
            without = client_context(ClientTls(ca=ca))
            assert without is not None
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"{process.url}/health", ssl=without)
    finally:
        await process.close()


async def test_each_fault_of_the_clients_files_is_a_sentence_that_names_it(
    authority: Authority, tmp_path: Path
) -> None:
    cert, key = map(str, authority.sign("client"))
    _, other = map(str, authority.sign("other"))
    text = tmp_path / "text"
    text.write_text("no certificate")
    for files, said in (
        (TlsFiles(ca="/no/ca.pem"), "the file of authorities can't be read: /no/ca.pem: No such"),
        (TlsFiles(ca=str(tmp_path)), f"can't be read: {tmp_path}: Is a directory"),
        (TlsFiles(ca=str(text)), f"the file of authorities is not in PEM format: {text}"),
        (TlsFiles(ca=key), f"the file of authorities has no certificates: {key}"),
        (TlsFiles(cert="/no/c.pem"), "the file of the certificate can't be read: /no/c.pem"),
        (TlsFiles(cert=cert, key="/no/k"), "the certificate's key can't be read: /no/k: No such"),
        (TlsFiles(cert=cert, key=other), f"{cert} and {other} are not a certificate and its key"),
        (TlsFiles(key=key), "a certificate's key is of no use without the certificate"),
    ):
        with pytest.raises(HaulierError) as fault:
            async with Client("https://localhost:1", tls=files):
                pass
        assert said in str(fault.value)


OF_TRIES = {
    "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired (_ssl.c:1006)": (
        "the certificate of X, or of who signed it, has expired"
    ),
    "certificate verify failed: Hostname mismatch, certificate is not valid for 'a'. (_ssl.c:1)": (
        "the certificate of X is for another name than b.url has: Hostname mismatch, certificate is not valid for 'a'"
    ),
    "certificate verify failed: unable to get local issuer certificate (_ssl.c:1006)": (
        "the certificate of X is not from an authority in b.tls.ca = /ca: unable to get local issuer certificate"
    ),
    "SSLError(1, '[SSL: TLSV1_ALERT_UNKNOWN_CA] tlsv1 alert unknown ca (_ssl.c:2580)')": (
        "X rejects the certificate of b.tls.cert = /cert: unknown ca"
    ),
    "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)": (
        "X does not use TLS at this port, which b asks for"
    ),
}


@pytest.mark.parametrize("said", OF_TRIES)
def test_what_a_driver_says_of_tls_becomes_a_sentence_that_names_setting_and_file(
    said: str,
) -> None:
    assert tls_refusal(said, "X", "b", ClientTls(ca="/ca", cert="/cert")) == OF_TRIES[said]


def test_a_setting_that_is_missing_is_named_too() -> None:
    said = "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required"
    asks = "X asks for a certificate: name its file in b.tls.cert (certificate required)"
    assert tls_refusal(said, "X", "b", ClientTls()) == asks
    said = "certificate verify failed: self-signed certificate in certificate chain (_ssl.c:1)"
    found = tls_refusal(said, "X", "b", ClientTls())
    assert found is not None
    assert "name the file of its authority in b.tls.ca" in found
    for passing in ("[Errno 111] Connection refused", "Server connection reset", "timed out"):
        assert tls_refusal(passing, "X", "b", ClientTls()) is None


def test_nothing_is_checked_where_nothing_is_set() -> None:
    for role in ("coordinator", "worker", "standalone"):
        assert [path for path, _ in role_problems(Config(), role) if "tls" in path] == []
