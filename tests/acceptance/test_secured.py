"""A cluster of the wheel, in an environment of its own, whose three links are TLS, and whose users have the least
rights that docs/how-to/tls.md gives them."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import aiormq
import msgspec
import pymongo
import pytest
from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelAccessRefused

from devservices.mongodb_node import Node as MongoNode
from devservices.nodes import node_folder
from devservices.places import free_port
from devservices.processes import wait_until
from devservices.rabbitmq_node import Node as RabbitNode
from shared.model.queues import COORDINATOR_QUEUES
from tests.acceptance.installed import install
from tests.acceptance.processes import Process, clean_environment, stop_all
from tests.certificates import Authority
from tests.services.management import Management
from tests.services.need import need

pytestmark = [
    pytest.mark.rabbitmq,
    pytest.mark.mongodb,
    pytest.mark.slow,
    pytest.mark.xdist_group("secured"),  # one pair of servers, and one wheel
    pytest.mark.timeout(600),  # the wheel is built and installed meanwhile
]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "tls.md"
ROOT, ROOT_PASSWORD = "root", "root-pw"


class Secured(msgspec.Struct, frozen=True):
    """The servers, and what processes need to reach them."""

    folder: Path
    programs: Path
    rabbit: RabbitNode
    tls_port: int
    mongo: MongoNode
    authority: Authority

    def settings(self, user: str) -> dict[str, str]:
        ca = str(self.authority.file)
        cert, key = map(str, self.authority.sign(user))
        return {
            "HAULIER_BROKER_TYPE": "rabbitmq",
            "HAULIER_BROKER_RABBITMQ_URL": f"amqps://{user}:pw@127.0.0.1:{self.tls_port}/haulier",
            "HAULIER_BROKER_RABBITMQ_TLS_CA": ca,
            "HAULIER_BROKER_RABBITMQ_TLS_CERT": cert,
            "HAULIER_BROKER_RABBITMQ_TLS_KEY": key,
            "HAULIER_DATASTORE_TYPE": "mongodb",
            "HAULIER_DATASTORE_MONGODB_URL": f"mongodb://haulier:pw@{self.mongo.host}/?replicaSet=rs0"
            "&authSource=haulier",
            "HAULIER_DATASTORE_MONGODB_TLS_CA": ca,
            "HAULIER_DATASTORE_MONGODB_TLS_CERT": cert,
            "HAULIER_DATASTORE_MONGODB_TLS_KEY": key,
            "HAULIER_RUNTIME_TYPE": "shell",
            "HAULIER_RUNTIME_SHELL_IGNORE_IMAGE": "true",
            "HAULIER_WORKER_DATA": str(self.folder / "worker"),
            "HAULIER_WORKER_ADDRESS": "127.0.0.1:0",
            "HAULIER_WORKER_QUEUES_DEFAULT": "1",
        }


def rights_of(user: str) -> dict[str, str]:
    """The rights that the page gives a user of RabbitMQ."""
    found = re.search(rf"set_permissions -p haulier {user} '(.*)' '(.*)' '(.*)'", PAGE.read_text())
    assert found is not None, user
    return dict(zip(("configure", "write", "read"), found.groups(), strict=True))


def role_of_the_page() -> list[dict[str, object]]:
    """The privileges of the role that the page makes in MongoDB."""
    text = PAGE.read_text()
    roles = re.search(r'user: "haulier".*roles: (\[.*?\])', text)
    assert roles is not None
    found: list[dict[str, object]] = json.loads(re.sub(r"(\w+):", r'"\1":', roles.group(1)))
    return found


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    need("rabbitmq")
    need("mongodb")
    with node_folder("rabbitmq") as rabbit_folder, node_folder("mongodb") as mongo_folder:
        authority = Authority(mongo_folder)
        cert, key = authority.sign("server", "127.0.0.1")
        port = free_port()
        rabbit = RabbitNode(rabbit_folder, settings=rabbit_tls(authority, cert, key, port))
        mongo = MongoNode(mongo_folder, options=mongo_tls(mongo_folder, authority, cert, key))
        rabbit.start()
        mongo.start()
        add_users_to_rabbitmq(rabbit)
        add_user_to_mongodb(mongo)
        programs = install(mongo_folder / "wheel")
        yield Secured(mongo_folder, programs, rabbit, port, mongo, authority)
        mongo.stop()
        rabbit.stop()


def rabbit_tls(authority: Authority, cert: Path, key: Path, port: int) -> str:
    return (
        f"listeners.ssl.1 = 127.0.0.1:{port}\n"
        f"ssl_options.cacertfile = {authority.file}\n"
        f"ssl_options.certfile = {cert}\n"
        f"ssl_options.keyfile = {key}\n"
        "ssl_options.verify = verify_peer\n"
        "ssl_options.fail_if_no_peer_cert = true\n"
    )


def mongo_tls(folder: Path, authority: Authority, cert: Path, key: Path) -> tuple[str, ...]:
    both, members = folder / "both.pem", folder / "members"
    both.write_bytes(cert.read_bytes() + key.read_bytes())
    members.write_text("c2VjcmV0IG9mIHRoZSBtZW1iZXJz")
    members.chmod(0o600)
    return (
        *("--auth", "--keyFile", str(members)),
        *("--tlsMode", "preferTLS", "--tlsCertificateKeyFile", str(both)),
        *("--tlsCAFile", str(authority.file), "--tlsAllowConnectionsWithoutCertificates"),
    )


def add_users_to_rabbitmq(rabbit: RabbitNode) -> None:
    management = Management(rabbit.management_url)
    management.add_vhost("haulier")
    for user in ("coordinator", "worker"):
        add_user_to_rabbitmq(rabbit, user, rights_of(user))


def add_user_to_rabbitmq(rabbit: RabbitNode, user: str, rights: Mapping[str, str]) -> None:
    management = Management(rabbit.management_url)
    management.send("PUT", f"/users/{quote(user)}", {"password": "pw", "tags": ""})
    management.send("PUT", f"/permissions/haulier/{quote(user)}", rights)


def add_user_to_mongodb(mongo: MongoNode) -> None:
    host, port = mongo.host.split(":")
    with pymongo.MongoClient[dict[str, object]](host, int(port), directConnection=True) as client:
        members = [{"_id": 0, "host": mongo.host}]
        client.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
        wait_until(lambda: bool(client.admin.command("hello")["isWritablePrimary"]), 30)
        client.admin.command("createUser", ROOT, pwd=ROOT_PASSWORD, roles=["root"])
    with pymongo.MongoClient[dict[str, object]](
        host, int(port), directConnection=True, username=ROOT, password=ROOT_PASSWORD
    ) as client:
        client["haulier"].command("createUser", "haulier", pwd="pw", roles=role_of_the_page())


class Daemon(Process):
    """`haulier run ROLE` of the wheel."""

    def __init__(self, role: str, name: str, settings: Mapping[str, str], programs: Path) -> None:
        self.ready = f"{role} started"
        folder = programs.parent
        super().__init__(["run", role], settings, folder / f"{name}.log")
        self.program = (str(programs / "haulier"),)
        self.folder = folder


Haulier = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def haulier(secured: Secured) -> Haulier:
    """Runs a command of the wheel to its end."""

    def run(environment: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [secured.programs / "haulier", *arguments],
            cwd=secured.programs.parent,
            env=clean_environment(environment),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


def test_the_wheels_environment_has_nothing_of_the_source_or_of_the_tests(
    secured: Secured,
) -> None:
    ask = "import coordinator, importlib.util as u; print(coordinator.__file__, u.find_spec('pytest'))"
    command = [str(secured.programs / "python"), "-c", ask]
    done = subprocess.run(
        command, cwd=secured.programs.parent, env=clean_environment({}), capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    file, pytest_found = done.stdout.split()
    assert file.startswith(f"{secured.programs.parent}/lib/")
    assert pytest_found == "None"


class Api(msgspec.Struct, frozen=True):
    """A coordinator's API by TLS, for the name `localhost` alone."""

    settings: dict[str, str]
    port: int

    @property
    def server(self) -> tuple[str, str]:
        return "--server", f"https://localhost:{self.port}"


def api_of(authority: Authority, name: str, **settings: str) -> Api:
    cert, key = map(str, authority.sign(name, "localhost"))
    port = free_port()
    of_it = {
        "HAULIER_COORDINATOR_NAME": name,
        "HAULIER_COORDINATOR_ADDRESS": f"localhost:{port}",
        "HAULIER_COORDINATOR_TLS_CERT": cert,
        "HAULIER_COORDINATOR_TLS_KEY": key,
    }
    return Api({**of_it, **settings}, port)


TWO_AT_ONCE = """
name: two at once
tasks:
  - name: both
    parallel:
      tasks:
        - {name: a, image: any, run: "touch FOLDER/a; until [ -e FOLDER/b ]; do sleep 0.1; done"}
        - {name: b, image: any, run: "touch FOLDER/b; until [ -e FOLDER/a ]; do sleep 0.1; done"}
"""
"""Each waits for the other: two workers with a slot each run them, or they never end."""


def test_a_job_runs_over_three_links_of_tls_with_the_least_rights(
    secured: Secured, haulier: Haulier, tmp_path: Path
) -> None:
    authority, ca = secured.authority, str(secured.authority.file)
    first = api_of(authority, "first")
    second = api_of(authority, "second", HAULIER_COORDINATOR_TLS_CA=ca)
    of_coordinators, of_workers = secured.settings("coordinator"), secured.settings("worker")
    coordinators = [
        Daemon(
            "coordinator", f"coordinator-{port}", {**of_coordinators, **settings}, secured.programs
        )
        for settings, port in ((first.settings, 1), (second.settings, 2))
    ]
    workers = [Daemon("worker", f"worker-{n}", of_workers, secured.programs) for n in (1, 2)]
    job = tmp_path / "job.yaml"
    job.write_text(TWO_AT_ONCE.replace("FOLDER", str(tmp_path)))
    trusting = {"SSL_CERT_FILE": ca}
    try:
        coordinators[0].start()  # it makes the queues, which a worker can't
        for each in (coordinators[1], *workers):
            each.launch()
        for each in (coordinators[1], *workers):
            each.wait_ready()
        done = haulier(trusting, "submit", str(job), "--follow", *first.server)
        logs = "".join(each.text() for each in (*coordinators, *workers))
        assert done.returncode == 0, done.stdout + done.stderr + logs
        assert "COMPLETED" in done.stdout + done.stderr
        trusted = ssl.create_default_context(cafile=ca)
        dead = f"https://localhost:{first.port}/queues/dead/messages"
        with urllib.request.urlopen(dead, context=trusted, timeout=30) as answer:
            assert json.load(answer) == []
        assert "may not use" not in logs

        cert, key = map(str, authority.sign("somebody"))
        known = ("--ca", ca, "--cert", cert, "--cert-key", key)
        seen = haulier({}, "jobs", *second.server, *known)
        assert (seen.returncode, "two at once" in seen.stdout) == (0, True), seen.stderr
        bad_cert, bad_key = map(str, Authority(tmp_path, "other").sign("stranger"))
        unknown = ("--ca", ca, "--cert", bad_cert, "--cert-key", bad_key)
        elsewhere = ("--server", f"https://127.0.0.1:{first.port}")
        for arguments, said in (
            (first.server, "name the file of its authority with --ca"),
            ((*elsewhere, "--ca", ca), "certificate is not valid for '127.0.0.1'"),
            ((*second.server, "--ca", ca), "the server wants a certificate that it trusts"),
            ((*second.server, *unknown), "the server wants a certificate that it trusts"),
        ):
            refused = haulier({}, "jobs", *arguments)
            assert refused.returncode != 0
            assert said in refused.stderr
            assert "Traceback" not in refused.stderr
    finally:
        stop_all([*workers, *coordinators])


WRONG = {
    "another authority of RabbitMQ": (
        {"HAULIER_BROKER_RABBITMQ_TLS_CA": "{other}"},
        "is not from an authority in broker.rabbitmq.tls.ca = {other}: ",
    ),
    "another authority of MongoDB": (
        {"HAULIER_DATASTORE_MONGODB_TLS_CA": "{other}"},
        "is not from an authority in datastore.mongodb.tls.ca = {other}: ",
    ),
    "no certificate": (
        {"HAULIER_BROKER_RABBITMQ_TLS_CERT": "", "HAULIER_BROKER_RABBITMQ_TLS_KEY": ""},
        "asks for a certificate: name its file in broker.rabbitmq.tls.cert (certificate required)",
    ),
    "another authority's certificate": (
        {
            "HAULIER_BROKER_RABBITMQ_TLS_CERT": "{cert}",
            "HAULIER_BROKER_RABBITMQ_TLS_KEY": "{key}",
        },
        "rejects the certificate of broker.rabbitmq.tls.cert = {cert}: unknown ca",
    ),
    "no TLS at the port": (
        {"HAULIER_BROKER_RABBITMQ_URL": "amqps://coordinator:pw@127.0.0.1:{plain}/haulier"},
        "does not use TLS at this port, which broker.rabbitmq asks for",
    ),
    "TLS at the port": (
        {
            "HAULIER_BROKER_RABBITMQ_URL": "amqp://coordinator:pw@127.0.0.1:{tls}/haulier",
            "HAULIER_BROKER_RABBITMQ_TLS_CA": "",
            "HAULIER_BROKER_RABBITMQ_TLS_CERT": "",
            "HAULIER_BROKER_RABBITMQ_TLS_KEY": "",
        },
        "uses TLS at this port: broker.rabbitmq.url must begin with amqps://",
    ),
    "another name of RabbitMQ's": (
        {"HAULIER_BROKER_RABBITMQ_URL": "amqps://coordinator:pw@localhost:{tls}/haulier"},
        "is for another name than broker.rabbitmq.url has: Hostname mismatch, certificate is not",
    ),
    "another name of MongoDB's": (
        {"HAULIER_DATASTORE_MONGODB_URL": "mongodb://haulier:pw@localhost:{mongo_port}/"},
        "is for another name than datastore.mongodb.url has: Hostname mismatch, certificate is not",
    ),
    "another password of RabbitMQ": (
        {"HAULIER_BROKER_RABBITMQ_URL": "amqps://coordinator:no@127.0.0.1:{tls}/haulier"},
        "refuses the user or the password of broker.rabbitmq.url",
    ),
    "another password of MongoDB": (
        {"HAULIER_DATASTORE_MONGODB_URL": "mongodb://haulier:no@{mongo}/?authSource=haulier"},
        "rejected the credentials in datastore.mongodb.url: Authentication failed",
    ),
    "no user of MongoDB": (
        {"HAULIER_DATASTORE_MONGODB_URL": "mongodb://{mongo}/?replicaSet=rs0"},
        "MongoDB asks for a user and a password, which datastore.mongodb.url lacks: command ",
    ),
    "another virtual host": (
        {"HAULIER_BROKER_RABBITMQ_URL": "amqps://coordinator:pw@127.0.0.1:{tls}/another"},
        "refuses the virtual host of ",
    ),
    "no right to write": (
        {"HAULIER_DATASTORE_MONGODB_DATABASE": "elsewhere"},
        "needs the role readWrite in its database: not authorized on elsewhere",
    ),
    "another replica set": (
        {"HAULIER_DATASTORE_MONGODB_URL": "mongodb://{mongo}/?replicaSet=another"},
        'datastore.mongodb.url: No replica set members available for replica set name "another"',
    ),
    "a file in the URL that is not there": (
        {"HAULIER_DATASTORE_MONGODB_URL": "mongodb://{mongo}/?tls=true&tlsCRLFile=/no/crl"},
        "datastore.mongodb.url: ",
    ),
}
"""Settings that no waiting makes right, and what is said of them."""


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_between_us_and_a_server_ends_the_start_with_a_sentence(
    secured: Secured, haulier: Haulier, tmp_path: Path, what: str
) -> None:
    other = Authority(tmp_path, "other")
    cert, key = other.sign("other client")
    found = {
        "other": other.file, "cert": cert, "key": key,
        "mongo": secured.mongo.host, "mongo_port": secured.mongo.host.split(":")[1],
        "plain": secured.rabbit.port, "tls": secured.tls_port,
    }  # fmt: skip
    settings, said = WRONG[what]
    given = {name: text.format(**found) for name, text in settings.items()}
    began = time.monotonic()
    done = haulier({**secured.settings("coordinator"), **given}, "run", "coordinator")
    assert (done.returncode, time.monotonic() - began < 30) == (2, True), done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("haulier: ")]
    assert said.format(**found) in line
    assert "Traceback" not in done.stderr


LACKING = {
    ("coordinator", "configure"): "the user may not use queue '",
    (
        "coordinator",
        "write",
    ): "the user lacks a right: ACCESS_REFUSED - access to exchange 'amq.def",
    ("coordinator", "read"): "the user lacks a right: ACCESS_REFUSED - access to ",
    ("worker", "configure"): "the user may not use queue '",
    (
        "worker",
        "write",
    ): "the user lacks a right: ACCESS_REFUSED - access to exchange 'amq.default'",
    ("worker", "read"): "the user lacks a right: ACCESS_REFUSED - access to queue 'x-",
}
"""Users of RabbitMQ that have all of the page's rights but one, and what is said of it."""


@pytest.mark.parametrize(("role", "right"), LACKING)
def test_a_right_that_is_missing_ends_the_start_with_a_sentence(
    secured: Secured, haulier: Haulier, role: str, right: str
) -> None:
    user = f"{role} without {right}"
    add_user_to_rabbitmq(secured.rabbit, user, {**rights_of(role), right: "^$"})
    url = f"amqps://{quote(user)}:pw@127.0.0.1:{secured.tls_port}/haulier"
    given = {
        "HAULIER_BROKER_RABBITMQ_URL": url,
        "HAULIER_COORDINATOR_ADDRESS": f"localhost:{free_port()}",
    }
    done = haulier({**secured.settings(role), **given}, "run", role)
    assert done.returncode == 2, done.stderr
    [line] = [line for line in done.stderr.splitlines() if line.startswith("haulier: ")]
    assert LACKING[role, right] in line
    assert f"refused for user '{user}'" in line
    assert "Traceback" not in done.stderr


def test_a_worker_that_is_the_first_in_a_virtual_host_asks_for_a_coordinator(
    secured: Secured, haulier: Haulier
) -> None:
    management = Management(secured.rabbit.management_url)
    management.add_vhost("new")
    management.send("PUT", "/permissions/new/worker", rights_of("worker"))
    settings = secured.settings("worker")
    url = settings["HAULIER_BROKER_RABBITMQ_URL"].removesuffix("haulier") + "new"
    done = haulier({**settings, "HAULIER_BROKER_RABBITMQ_URL": url}, "run", "worker")
    assert done.returncode == 2, done.stderr
    assert "a coordinator makes this queue, if its user may: start one first" in done.stderr


# --- what a worker's user can't do ---------------------------------------------------------------------------------


async def arrived(_: DeliveredMessage) -> None:
    """Nothing does."""


CALLS: dict[str, Callable[[AbstractChannel, str], Awaitable[object]]] = {
    "declare": lambda channel, queue: channel.queue_declare(queue, durable=True),
    "consume": lambda channel, queue: channel.basic_consume(queue, arrived),
    "get": lambda channel, queue: channel.basic_get(queue),
    "purge": lambda channel, queue: channel.queue_purge(queue),
    "delete": lambda channel, queue: channel.queue_delete(queue),
}


async def test_a_workers_user_reaches_no_queue_of_the_coordinators(secured: Secured) -> None:
    queues = sorted({*COORDINATOR_QUEUES, "events-of-another"})
    make_queues(secured.rabbit, [*queues, "video"])
    context = ssl.create_default_context(cafile=str(secured.authority.file))
    context.load_cert_chain(*map(str, secured.authority.sign("worker")))
    url = f"amqps://worker:pw@127.0.0.1:{secured.tls_port}/haulier"
    async with aiormq.connect(url, context=context) as connection:
        for queue in queues:
            for call in CALLS.values():
                channel = await connection.channel()
                with pytest.raises(ChannelAccessRefused, match=f"queue '{queue}' in"):
                    await call(channel, queue)
        channel = await connection.channel()
        for call in CALLS.values():
            await call(channel, "video")


def make_queues(rabbit: RabbitNode, names: Iterable[str]) -> None:
    management = Management(rabbit.management_url)
    there = {each["name"] for each in json.loads(management.send("GET", "/queues/haulier"))}
    for name in {*names} - there:
        management.send("PUT", f"/queues/haulier/{name}", {"durable": True})
