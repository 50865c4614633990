"""Every example runs to its end on real containers: in one process, and over RabbitMQ and MongoDB."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import docker
import pymongo
import pytest

from tests.acceptance.processes import Cluster, Server, Standalone, wait_for
from tests.acceptance.receiving import Received, Receiver, receiver
from tests.services.fixtures import Registry
from tests.services.management import Management

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.yaml"))

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("docker"), pytest.mark.timeout(240)]

IMAGE = "alpine:3.18.3"
WITHIN = 90.0
"""Seconds within which all examples together must have ended."""

SCHEDULED = ("scheduled", "once")
FAILING = {"gpus": "FAILED"}
"""Where no GPU is, a clear error is the right end."""


# --- the surroundings that some examples need ---------------------------------------------------------------------


@dataclass(frozen=True)
class Surroundings:
    """What is set up for the examples that need more than an engine."""

    hooks: Receiver
    registry: Registry
    folder: Path
    """A folder of the host that may be mounted; `a-file` is in it."""
    network: str
    """A network of the engine: of this run alone, for an engine takes a name twice, and then knows neither."""

    def text_of(self, name: str) -> str:
        """Return an example as a user would adapt it to these surroundings."""
        text = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
        for written, real in self._places().items():
            text = text.replace(written, real)
        return text

    def _places(self) -> dict[str, str]:
        return {
            "http://localhost:9999": self.hooks.url,
            "/var/lib/haulier-example": str(self.folder),
            "[haulier-example]": f"[{self.network}]",
            "localhost:5000/": f"{self.registry.address}/example/",
            "username: someone": f"username: {self.registry.username}",
            "password: keep-this-quiet": f"password: {self.registry.password}",
            '"30 6 * * MON-FRI"': '"@every 1s"',
            "2h30m": "1s",
        }

    @property
    def settings(self) -> dict[str, str]:
        """The worker's settings that let the bind mount pass."""
        return {
            "HAULIER_MOUNTS_BIND_ALLOWED": "true",
            "HAULIER_MOUNTS_BIND_SOURCES": str(self.folder),
        }


@pytest.fixture(scope="module")
def surroundings(
    tmp_path_factory: pytest.TempPathFactory,
    docker_engine: docker.DockerClient,
    registry: Registry,
) -> Iterator[Surroundings]:
    folder = tmp_path_factory.mktemp("bound")
    (folder / "a-file").touch()
    private = f"{registry.address}/example/{IMAGE}"
    docker_engine.images.get(IMAGE).tag(private)
    credentials = {"username": registry.username, "password": registry.password}
    pushed = docker_engine.images.push(private, auth_config=credentials)
    assert '"error"' not in pushed, pushed
    docker_engine.images.remove(private)
    name = f"haulier-example-{uuid4().hex}"
    network = docker_engine.networks.create(name)
    with receiver() as hooks:
        yield Surroundings(hooks, registry, folder, name)
    network.remove()


@contextmanager
def fresh_services() -> Iterator[dict[str, str]]:
    """A virtual host and a database of this module's own, as the settings that name them."""
    from tests.services.need import need

    broker, store = need("rabbitmq"), need("mongodb")
    amqp = broker["HAULIER_TEST_RABBITMQ_URL"]
    management = Management(broker["HAULIER_TEST_RABBITMQ_MANAGEMENT_URL"])
    mongodb = store["HAULIER_TEST_MONGODB_URL"]
    name = f"examples-{uuid4().hex}"
    management.add_vhost(name)
    yield {
        "HAULIER_BROKER_TYPE": "rabbitmq",
        "HAULIER_BROKER_RABBITMQ_URL": f"{amqp.rstrip('/')}/{name}",
        "HAULIER_DATASTORE_TYPE": "mongodb",
        "HAULIER_DATASTORE_MONGODB_URL": mongodb,
        "HAULIER_DATASTORE_MONGODB_DATABASE": name,
    }
    management.delete_vhost(name)
    with pymongo.MongoClient[dict[str, object]](mongodb) as client:
        client.drop_database(name)


@contextmanager
def standalone_server(folder: Path, settings: dict[str, str]) -> Iterator[Server]:
    server = Standalone(folder, **settings)
    server.start()
    yield server
    server.stop()


@contextmanager
def cluster_server(folder: Path, settings: dict[str, str]) -> Iterator[Server]:
    with fresh_services() as services:
        cluster = Cluster(folder, {**services, **settings})
        server = cluster.add_coordinator()
        cluster.add_worker(HAULIER_RUNTIME_TYPE="docker")
        cluster.wait_ready()
        yield server
        cluster.stop()


SERVERS = {"standalone": standalone_server, "cluster": cluster_server}


# --- running all of them at once ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """How one example ended."""

    server: Server
    job: Any
    log: str
    surroundings: Surroundings

    @property
    def tasks(self) -> list[Any]:
        """All tasks, in the order of execution."""
        return list(self.job["execution"])

    def task(self, name: str) -> Any:
        """Return the only task of a name."""
        found = [task for task in self.tasks if task["name"] == name]
        assert len(found) == 1, [task["name"] for task in self.tasks]
        return found[0]

    def hooks(self, path: str) -> list[Received]:
        """Return what came by webhook about this job."""
        return [
            request
            for request in self.surroundings.hooks.at(path)
            if self.job["id"] in (request.body.get("jobId"), request.body["id"])
        ]


@pytest.fixture(
    scope="module",
    params=[
        "standalone",
        pytest.param("cluster", marks=[pytest.mark.rabbitmq, pytest.mark.mongodb]),
    ],
)
def runs(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    surroundings: Surroundings,
) -> Iterator[dict[str, Run]]:
    """Submit every example at once, and wait until all have ended."""
    folder = tmp_path_factory.mktemp("examples")
    with ExitStack() as stack:
        server = stack.enter_context(SERVERS[request.param](folder, surroundings.settings))
        role = json.dumps({"name": "operators"})
        made = server.call("POST", "/roles", role, {"Content-Type": "application/json"})
        assert made[0] == 200, made
        ids = {name: submit(server, name, surroundings.text_of(name)) for name in NAMES}
        jobs = server.wait_jobs(ids.values(), within=WITHIN)
        yield {
            name: Run(server, jobs[job_id], server.log_of(job_id), surroundings)
            for name, job_id in ids.items()
        }


def submit(server: Server, name: str, text: str) -> str:
    """Submit an example; return the id of its job, or of the first that its schedule made."""
    if name in SCHEDULED:
        return first_firing(server, text)
    status, body = server.call("POST", "/jobs", text, {"Content-Type": "text/yaml"}, timeout=60)
    assert status == 200, (name, body)
    return str(body["id"])


def first_firing(server: Server, text: str) -> str:
    status, body = server.call("POST", "/scheduled-jobs", text, {"Content-Type": "text/yaml"})
    assert status == 200, body
    schedule = str(body["id"])

    def fired() -> list[str]:
        jobs = server.get("/jobs?size=20")["items"]
        return [job["id"] for job in jobs if job.get("schedule", {}).get("id") == schedule]

    made = wait_for(fired, 10, "a job of the schedule")
    assert server.call("DELETE", f"/scheduled-jobs/{schedule}") == (200, {"status": "OK"})
    return str(made[-1])


@pytest.mark.parametrize("name", NAMES)
def test_an_example_runs_to_its_end(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    assert run.job["state"] == FAILING.get(name, "COMPLETED"), (run.job, run.log)
    CHECKS[name](run)


def test_each_example_has_a_check_of_its_own() -> None:
    assert sorted(CHECKS) == NAMES


# --- what each must have done -------------------------------------------------------------------------------------

CHECKS: dict[str, Callable[[Run], None]] = {}


def check(name: str) -> Callable[[Callable[[Run], None]], Callable[[Run], None]]:
    """Register what an example must have done."""

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        CHECKS[name] = function
        return function

    return register


@check("auto-delete")
def _(run: Run) -> None:
    assert run.log == "soon forgotten\n"
    assert seconds(run.job["deleteAt"]) - seconds(run.job["completedAt"]) == pytest.approx(3600)


@check("bind-mount")
def _(run: Run) -> None:
    assert run.log == "a-file\n"


@check("cmd")
def _(run: Run) -> None:
    assert run.log == "hello world\none\ntwo\n"


@check("defaults")
def _(run: Run) -> None:
    first, second = run.tasks
    assert (first["limits"], second["limits"]) == ({"memory": "64m"}, {"memory": "128m"})
    for task in run.tasks:
        assert (task["timeout"], task["queue"], task["priority"]) == ("1m", "default", 3)
        assert task["retry"]["limit"] == 2


@check("each")
def _(run: Run) -> None:
    assert run.job["result"] == "1 25"
    squares = [task for task in run.tasks if task["name"].startswith("square of")]
    assert sorted(task["result"] for task in squares) == ["1", "16", "25", "4", "9"]
    assert run.task("square the numbers")["each"]["completions"] == 5
    assert sorted(run.log.splitlines()) == ["hello ada", "hello grace"]


@check("entrypoint")
def _(run: Run) -> None:
    assert run.log == "from awk\nfrom /tork/entrypoint\n"


@check("env")
def _(run: Run) -> None:
    assert run.log == "hello, port 8080, ratio .5, answer no\n"


@check("expressions")
def _(run: Run) -> None:
    assert run.job["result"] == "ada!"
    assert run.log == "ADA, ada and grace, 30, expressions\n"
    assert run.tasks[0]["name"] == "greet 3 people"


@check("files")
def _(run: Run) -> None:
    assert run.job["result"] == "3 EUR"


@check("gpus")
def _(run: Run) -> None:
    assert "gpu" in run.job["error"].lower(), run.job["error"]
    assert "Traceback" not in run.job["error"]


@check("hello")
def _(run: Run) -> None:
    assert run.log == "writing the greeting\nhello world\n"
    assert run.job["result"] == "hello world"


@check("if")
def _(run: Run) -> None:
    assert [task["state"] for task in run.tasks] == ["COMPLETED", "SKIPPED", "COMPLETED"]
    assert run.log == "built\n"


@check("inputs")
def _(run: Run) -> None:
    assert run.job["inputs"] == {
        "version": "1.10",
        "verbose": "yes",
        "url": "https://example.com",
    }
    assert run.job["tags"] == ["example", "inputs"]
    assert run.tasks[0]["description"] == "Inputs come in by templates"


@check("limits")
def _(run: Run) -> None:
    assert run.log == "small\n"
    assert run.tasks[0]["limits"] == {"cpus": ".5", "memory": "64m", "pids": 64}


@check("mounts")
def _(run: Run) -> None:
    assert [mount["type"] for mount in run.tasks[0]["mounts"]] == ["volume", "tmpfs"]


@check("nested")
def _(run: Run) -> None:
    assert run.job["result"] == "deep"
    assert sorted(run.log.splitlines()) == ["a", "a", "b", "b"]
    assert run.task("a job inside")["result"] == "deep"


@check("networks")
def _(run: Run) -> None:
    assert "joined" in run.log
    assert run.tasks[0]["networks"] == [run.surroundings.network]


@check("output")
def _(run: Run) -> None:
    assert run.job["result"] == "the sum is 42"
    assert [task["result"] for task in run.tasks] == ["41", "42"]


@check("parallel")
def _(run: Run) -> None:
    assert run.job["result"] == "12"
    assert [task["name"] for task in run.tasks] == ["three at once", "one", "two", "task 3"]
    assert run.task("three at once")["parallel"]["completions"] == 3


@check("permissions-role")
def _(run: Run) -> None:
    assert run.job["permissions"] == [{"role": "operators"}]
    assert run.log == "for operators\n"


@check("permissions")
def _(run: Run) -> None:
    assert run.job["permissions"] == [{"user": "guest"}]
    assert run.log == "hidden\n"


@check("pre-post")
def _(run: Run) -> None:
    assert run.job["result"] == "prepared"


@check("progress")
def _(run: Run) -> None:
    assert run.tasks[0]["progress"] == 100
    assert run.job["progress"] == 100


@check("queue")
def _(run: Run) -> None:
    assert (run.tasks[0]["queue"], run.tasks[0]["priority"]) == ("default", 9)
    assert run.log == "urgent\n"


@check("registry")
def _(run: Run) -> None:
    assert "pulled" in run.log
    assert run.tasks[0]["image"] == f"{run.surroundings.registry.address}/example/{IMAGE}"
    assert run.surroundings.registry.password not in json.dumps(run.job) + run.log


@check("retry")
def _(run: Run) -> None:
    assert [task["state"] for task in run.tasks] == ["FAILED", "FAILED", "COMPLETED"]
    assert run.log == "attempt 1\nattempt 2\nattempt 3\n"


@check("scheduled")
def _(run: Run) -> None:
    assert run.job["schedule"]["cron"] == "@every 1s"
    assert run.log == f"report of {run.job['schedule']['time']}, after that of \n"


@check("once")
def _(run: Run) -> None:
    assert run.log == f"planned for {run.job['schedule']['time']}\n"


@check("secrets")
def _(run: Run) -> None:
    assert run.log == "the token is [REDACTED]\n"
    assert run.tasks[0]["result"] == "[REDACTED]"
    assert "open-sesame" not in json.dumps(run.job)


@check("sidecars")
def _(run: Run) -> None:
    assert run.job["result"] == "hello"


@check("subjob-detached")
def _(run: Run) -> None:
    child = run.server.wait_job(run.task("start it and go on")["subjob"]["id"])
    assert child["state"] == "COMPLETED"
    assert "parentId" not in child
    assert run.server.log_of(child["id"]) == "working\n"
    assert run.log == "not waiting\n"


@check("subjob")
def _(run: Run) -> None:
    task = run.task("ask another job")
    child = run.server.job(task["subjob"]["id"])
    assert (child["name"], child["parentId"]) == ("doubles 21", task["id"])
    assert child["result"] == task["result"] == run.job["result"] == "42"


@check("timeout")
def _(run: Run) -> None:
    assert run.tasks[0]["timeout"] == "1m30s"
    assert run.log == "done\n"


@check("volume-options")
def _(run: Run) -> None:
    assert "1024" in run.log
    assert "No space left" in run.log


@check("wait")
def _(run: Run) -> None:
    assert run.job["result"] == "42"


@check("webhooks")
def _(run: Run) -> None:
    wait_for(lambda: run.hooks("/jobs") and len(run.hooks("/tasks")) >= 3, 10, "the webhooks")
    (told,) = run.hooks("/jobs")
    assert told.body["state"] == "COMPLETED"
    assert told.headers["authorization"] == "Bearer a-secret-token"
    assert told.headers["webhook-signature"].startswith("v1,")
    states = {request.body["state"] for request in run.hooks("/tasks")}
    assert states == {"SCHEDULED", "RUNNING", "COMPLETED"}
    assert "a-secret-token" not in json.dumps(run.job)


@check("workdir")
def _(run: Run) -> None:
    assert run.tasks[0]["workdir"] == "/work/here"


@check("yaml")
def _(run: Run) -> None:
    assert run.log == "hello world\ngoodbye world\nhello world\n"


def seconds(time: str) -> float:
    """Return a time of the API as seconds."""
    from datetime import datetime

    return datetime.fromisoformat(time).timestamp()
