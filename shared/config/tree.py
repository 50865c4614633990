"""The settings: one typed tree, each with its default and meaning (the configuration spec, Groups).

Durations are seconds inside (`float`) and Go durations outside (`1m30s`); sizes are bytes inside
and `500K` outside. A list is a tuple. The defaults that depend on the machine (the SQLite file's
path, the worker's slots and folder) are empty here and filled in by `shared.config.load`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from shared.redaction import KEY_PATTERNS

KIB = 1024
_MIB = 1024 * KIB
MINUTE = 60.0
HOUR = 60 * MINUTE
DAY = 24 * HOUR

AMQP_HEARTBEAT = 5.0
"""Whole seconds between the heartbeats of a connection to RabbitMQ (the engine spec, Queues). A peer that is frozen
has its deliveries taken back after two to three of them."""

BrokerType = Literal["memory", "rabbitmq"]
DatastoreType = Literal["sqlite", "mongodb"]
QueueType = Literal["classic", "quorum"]
RuntimeType = Literal["docker", "shell"]
LogLevel = Literal["debug", "info", "warn", "error"]
LogFormat = Literal["pretty", "json"]


def _says(description: str, kind: str | None = None, **more: Any) -> Meta:
    """Describe a setting. `kind`: how it is written, where its type does not say; `secret`: masked.

    `least`, `above` and `most` bound a number, in the unit that it has inside.
    """
    return Meta(description=description, extra={"kind": kind, **more})


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that belong together."""


class RabbitMQ(Group, frozen=True):
    """How RabbitMQ is reached."""

    url: Annotated[
        str, _says("Where RabbitMQ listens, with user, password and virtual host", "amqp-url")
    ] = "amqp://guest:guest@localhost:5672/"
    management_url: Annotated[
        str,
        _says(
            "Its management API, for the figures of queues; empty: they are asked for over AMQP",
            "http-url",
        ),
    ] = ""
    queue_type: Annotated[
        QueueType, _says("Type of the durable queues; quorum ones are replicated")
    ] = "classic"


class BrokerSettings(Group, frozen=True):
    """What carries messages between coordinators and workers."""

    type: Annotated[BrokerType, _says("What carries messages; memory serves a single process")] = (
        "memory"
    )
    rabbitmq: RabbitMQ = RabbitMQ()


class SQLite(Group, frozen=True):
    """Where the SQLite datastore keeps its file."""

    path: Annotated[
        str,
        _says(
            "The database file; by default haulier/haulier.db in the user's data directory", "path"
        ),
    ] = ""


class MongoDB(Group, frozen=True):
    """How MongoDB is reached."""

    url: Annotated[
        str, _says("Where MongoDB listens, with user, password and options", "mongodb-url")
    ] = "mongodb://localhost:27017"
    database: Annotated[str, _says("The database's name", "mongodb-name")] = "haulier"


class RetentionSettings(Group, frozen=True):
    """How long what has ended is kept."""

    jobs: Annotated[
        float,
        _says("An ended job, with its tasks, is deleted after this; 0: never", "duration", least=0),
    ] = 365 * DAY
    logs: Annotated[
        float, _says("The log of an ended job is deleted after this; 0: never", "duration", least=0)
    ] = 7 * DAY


class DatastoreSettings(Group, frozen=True):
    """What keeps jobs and all else that must last."""

    type: Annotated[DatastoreType, _says("What keeps jobs; sqlite serves one coordinator")] = (
        "sqlite"
    )
    sqlite: SQLite = SQLite()
    mongodb: MongoDB = MongoDB()
    retention: RetentionSettings = RetentionSettings()


class Encryption(Group, frozen=True):
    """How secrets rest; the same in coordinators and workers."""

    key: Annotated[
        str,
        _says(
            "Key that encrypts secrets wherever they rest; empty: they rest as they are",
            secret=True,
        ),
    ] = ""
    old_keys: Annotated[
        tuple[str, ...], _says("Former keys, still good for reading", secret=True)
    ] = ()


class EngineSettings(Group, frozen=True):
    """Times and bounds of the engine; the same for coordinators and workers."""

    beat: Annotated[
        float, _says("Time between the beats of a node", "duration", least=0.1, most=MINUTE)
    ] = 5.0
    lease: Annotated[
        float,
        _says(
            "Time a beat renews a node's lease by; at least 15s (3 heartbeats of AMQP) and 2 beats",
            "duration",
            least=1,
            most=HOUR,
        ),
    ] = 30.0
    sweep: Annotated[
        float, _says("Time between two rounds of the sweeper", "duration", least=0.1, most=MINUTE)
    ] = 5.0
    reconnect_cap: Annotated[
        float,
        _says(
            "Longest wait between two tries to reach a broker or datastore",
            "duration",
            least=0.1,
            most=MINUTE,
        ),
    ] = 10.0
    redeliveries: Annotated[
        int, _says("How often a task whose run was lost is run again", least=0, most=1000)
    ] = 5
    job_window: Annotated[
        int,
        _says(
            "Container tasks of one root job that are published at a time", least=1, most=100_000
        ),
    ] = 1000


class ApiSwitches(Group, frozen=True):
    """Which groups of endpoints are served."""

    jobs: Annotated[bool, _says("Serve /jobs")] = True
    scheduled_jobs: Annotated[bool, _says("Serve /scheduled-jobs")] = True
    tasks: Annotated[bool, _says("Serve /tasks")] = True
    logs: Annotated[bool, _says("Serve the logs of jobs and tasks")] = True
    events: Annotated[bool, _says("Serve /events")] = True
    nodes: Annotated[bool, _says("Serve /nodes")] = True
    queues: Annotated[bool, _says("Serve /queues")] = True
    metrics: Annotated[bool, _says("Serve /metrics")] = True
    users: Annotated[bool, _says("Serve /users and /roles")] = True
    docs: Annotated[bool, _says("Serve /openapi.json, /docs and /schemas")] = True
    web: Annotated[bool, _says("Serve the web page")] = True


class Cors(Group, frozen=True):
    """Answers to browsers from other origins."""

    enabled: Annotated[bool, _says("Answer cross-origin requests")] = False
    origins: Annotated[tuple[str, ...], _says("Origins that may ask; * is any")] = ("*",)
    methods: Annotated[tuple[str, ...], _says("Methods that they may use")] = (
        "GET",
        "POST",
        "PUT",
        "DELETE",
    )
    headers: Annotated[tuple[str, ...], _says("Headers that they may send")] = (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
    )
    credentials: Annotated[
        bool, _says("Whether they may send credentials; then origins must be named")
    ] = False


class BasicAuth(Group, frozen=True):
    """User names and passwords, against the stored users."""

    enabled: Annotated[bool, _says("Ask for a user name and a password")] = False
    username: Annotated[
        str, _says("A user to be made at the start where it is missing: the first one")
    ] = ""
    password: Annotated[str, _says("That user's password", secret=True)] = ""


class KeyAuth(Group, frozen=True):
    """One key for all, as `Authorization: Bearer <key>`."""

    enabled: Annotated[bool, _says("Ask for the key")] = False
    key: Annotated[str, _says("The key", secret=True)] = ""


class RateLimit(Group, frozen=True):
    """A limit on requests from one client address."""

    enabled: Annotated[bool, _says("Limit requests by client address")] = False
    rate: Annotated[
        float, _says("Requests a second that one address may go on making", above=0, most=1_000_000)
    ] = 20.0
    burst: Annotated[
        int, _says("Requests that one address may make at once", least=1, most=1_000_000)
    ] = 40


class RequestLog(Group, frozen=True):
    """One line in the log for each request."""

    enabled: Annotated[bool, _says("Log requests")] = True
    skip: Annotated[
        tuple[str, ...],
        _says("Requests not to log: METHOD /path, where * stands for any run of characters"),
    ] = ("GET /health",)


class Middleware(Group, frozen=True):
    """What each request passes through."""

    cors: Cors = Cors()
    basic_auth: BasicAuth = BasicAuth()
    key_auth: KeyAuth = KeyAuth()
    rate_limit: RateLimit = RateLimit()
    body_limit: Annotated[
        int, _says("Largest body of a request", "size", least=KIB, most=64 * _MIB)
    ] = 500 * KIB
    request_log: RequestLog = RequestLog()


class CoordinatorQueues(Group, frozen=True):
    """Messages of a coordinator queue that are handled side by side (`heartbeat`: always one)."""

    jobs: Annotated[int, _says("Messages of jobs handled side by side", least=1, most=10_000)] = 50
    claims: Annotated[
        int, _says("Messages of claims handled side by side", least=1, most=10_000)
    ] = 100
    completed: Annotated[
        int, _says("Messages of completed handled side by side", least=1, most=10_000)
    ] = 100
    error: Annotated[int, _says("Messages of error handled side by side", least=1, most=10_000)] = (
        100
    )
    logs: Annotated[int, _says("Messages of logs handled side by side", least=1, most=10_000)] = 200
    progress: Annotated[
        int, _says("Messages of progress handled side by side", least=1, most=10_000)
    ] = 100


class WebhookSettings(Group, frozen=True):
    """Delivery of webhooks."""

    attempts: Annotated[int, _says("How often a delivery is tried", least=1, most=100)] = 5
    timeout: Annotated[
        float, _says("How long one try may take", "duration", least=0.1, most=MINUTE)
    ] = 10.0


class CoordinatorSettings(Group, frozen=True):
    """The control plane."""

    name: Annotated[str, _says("Name of the node in listings")] = "Coordinator"
    address: Annotated[str, _says("Where the REST API listens, host:port", "address")] = (
        "localhost:8000"
    )
    api: ApiSwitches = ApiSwitches()
    middleware: Middleware = Middleware()
    queues: CoordinatorQueues = CoordinatorQueues()
    webhooks: WebhookSettings = WebhookSettings()


class WorkerLimits(Group, frozen=True):
    """Limits of tasks that set none of their own, and the limit of outputs."""

    cpus: Annotated[
        str, _says("CPUs of a task that sets none, as .5 or 2; empty: no limit", "cpus")
    ] = ""
    memory: Annotated[
        str, _says("Memory of a task that sets none, as 512m or 2g; empty: no limit", "memory")
    ] = ""
    timeout: Annotated[
        float, _says("Time of a task that sets none; 0: no limit", "duration", least=0)
    ] = 0.0
    output: Annotated[
        int,
        _says("Largest output of a task; a larger one fails it", "size", least=1, most=8 * _MIB),
    ] = _MIB


class WorkerSettings(Group, frozen=True):
    """What runs tasks."""

    name: Annotated[str, _says("Name of the node in listings")] = "Worker"
    address: Annotated[
        str,
        _says(
            "Where GET /health listens, host:port; the next free port where that one is taken",
            "address",
        ),
    ] = "localhost:8001"
    queues: Annotated[
        dict[str, int],
        _says(
            "Queues to take tasks from, and how many at a time; by default one of default per CPU",
            "slots",
        ),
    ] = {}
    limits: WorkerLimits = WorkerLimits()
    drain_timeout: Annotated[
        float,
        _says(
            "Grace time: how long a stopping worker lets its tasks run before it hands them back",
            "duration",
        ),
    ] = MINUTE
    hostenv: Annotated[
        tuple[str, ...],
        _says(
            "Variables of the host that tasks get: NAME, or NAME:ALIAS under another name",
            "aliases",
        ),
    ] = ()
    data: Annotated[
        str,
        _says(
            "Folder for scripts, outputs and spooled logs; by default in the user's data directory",
            "path",
        ),
    ] = ""
    log_spool: Annotated[
        int,
        _says(
            "Logs kept on disk while the broker is slow or away; past that tasks are slowed",
            "size",
            least=_MIB,
        ),
    ] = 256 * _MIB


class Docker(Group, frozen=True):
    """Tasks in containers, by any engine that speaks Docker's API."""

    host: Annotated[
        str,
        _says(
            "The engine's address, as unix:///run/docker.sock; empty: as the docker command does"
        ),
    ] = ""
    config: Annotated[
        str,
        _says("Docker config file with the registries' credentials; empty: the usual one", "path"),
    ] = ""
    privileged: Annotated[bool, _says("Run containers privileged")] = False
    host_network: Annotated[bool, _says("Let a task join the host's network")] = False
    no_new_privileges: Annotated[bool, _says("Keep processes from gaining privileges")] = True
    init: Annotated[bool, _says("Run an init process in each container")] = True
    cap_add: Annotated[tuple[str, ...], _says("Capabilities beyond the engine's default ones")] = ()
    cap_drop: Annotated[tuple[str, ...], _says("Capabilities to take away")] = ()
    pids_limit: Annotated[
        int,
        _says(
            "Processes of a container whose task sets no limit; 0: no limit",
            least=0,
            most=4_194_304,
        ),
    ] = 4096
    image_ttl: Annotated[
        float,
        _says(
            "Images pulled for tasks are removed when unused for this long; 0: never",
            "duration",
            least=0,
        ),
    ] = 72 * HOUR
    warm_sandboxes: Annotated[
        bool, _says("Keep a network namespace ready for each slot: containers start faster")
    ] = True
    sandbox_uses: Annotated[
        int, _says("Tasks after which such a namespace is replaced", least=1, most=1_000_000)
    ] = 100
    parent_cgroup: Annotated[
        str,
        _says("Parent of the containers' cgroups; empty: one of the worker's own where allowed"),
    ] = ""


class Shell(Group, frozen=True):
    """Tasks as local processes, without isolation: for a single trusted machine."""

    cmd: Annotated[
        tuple[str, ...], _says("Command that runs a script where the task has no entrypoint")
    ] = ("sh", "-c")
    uid: Annotated[
        int | None,
        _says("User id that processes run as; empty: the worker's own", least=0, most=2**32 - 2),
    ] = None
    gid: Annotated[
        int | None,
        _says("Group id that processes run as; empty: the worker's own", least=0, most=2**32 - 2),
    ] = None
    ignore_image: Annotated[
        bool, _says("Run tasks that name an image too, on the host, without it")
    ] = False


class RuntimeSettings(Group, frozen=True):
    """How a worker runs tasks."""

    type: Annotated[
        RuntimeType,
        _says("In containers (docker), or as local processes without isolation (shell)"),
    ] = "docker"
    stop_timeout: Annotated[
        float,
        _says(
            "Time between SIGTERM and SIGKILL when a task is stopped",
            "duration",
            least=0,
            most=HOUR,
        ),
    ] = 10.0
    docker: Docker = Docker()
    shell: Shell = Shell()


class Bind(Group, frozen=True):
    """Mounts of the host's files."""

    allowed: Annotated[bool, _says("Let tasks mount files of the host")] = False
    sources: Annotated[
        tuple[str, ...],
        _says(
            "Paths that may be mounted, and all below; empty: any but the engine's own socket",
            "paths",
        ),
    ] = ()


class Mounts(Group, frozen=True):
    """What tasks may mount."""

    bind: Bind = Bind()


class Redaction(Group, frozen=True):
    """What is redacted beside declared secrets."""

    keys: Annotated[
        tuple[str, ...],
        _says("Values whose key contains one of these, in any case, are never shown"),
    ] = KEY_PATTERNS


class LoggingSettings(Group, frozen=True):
    """The process's own log, on stderr."""

    level: Annotated[LogLevel, _says("Least level that is logged")] = "info"
    format: Annotated[
        LogFormat, _says("For people (pretty) or machines (json, an object a line)")
    ] = "pretty"


class TelemetrySettings(Group, frozen=True):
    """Traces by OpenTelemetry; needs the extra `haulier[telemetry]`."""

    enabled: Annotated[bool, _says("Send traces")] = False
    endpoint: Annotated[str, _says("Where to, over OTLP/HTTP", "http-url")] = (
        "http://localhost:4318"
    )
    service: Annotated[str, _says("Name of this service in traces")] = "haulier"


class Config(Group, frozen=True):
    """All settings of a process."""

    broker: BrokerSettings = BrokerSettings()
    datastore: DatastoreSettings = DatastoreSettings()
    encryption: Encryption = Encryption()
    engine: EngineSettings = EngineSettings()
    coordinator: CoordinatorSettings = CoordinatorSettings()
    worker: WorkerSettings = WorkerSettings()
    runtime: RuntimeSettings = RuntimeSettings()
    mounts: Mounts = Mounts()
    redaction: Redaction = Redaction()
    logging: LoggingSettings = LoggingSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
