"""The settings as one typed tree, each with its default and description (configuration spec, Groups).

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
RuntimeType = Literal["docker", "podman", "shell"]
PullPolicy = Literal["missing", "private", "always"]
LogLevel = Literal["debug", "info", "warn", "error"]
LogFormat = Literal["pretty", "json"]


def _says(description: str, kind: str | None = None, **more: Any) -> Meta:
    """Describe a setting. `kind`: how it is written, where its type does not say; `secret`: masked.

    `least`, `above` and `most` bound a number, in the unit that it has inside.
    """
    return Meta(description=description, extra={"kind": kind, **more})


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that belong together."""


class ClientTls(Group, frozen=True):
    """TLS of a connection that we make."""

    ca: Annotated[
        str,
        _says(
            "PEM file of the authorities that sign the server's certificate; empty: the system's",
            "path",
        ),
    ] = ""
    cert: Annotated[
        str, _says("PEM file of the certificate to show; empty: none is shown", "path")
    ] = ""
    key: Annotated[
        str, _says("PEM file of its key; empty: the key is in the file of the certificate", "path")
    ] = ""


class ServerTls(Group, frozen=True):
    """TLS of a server of ours."""

    cert: Annotated[
        str,
        _says(
            "PEM file of the certificate and those between it and its root; empty: no TLS", "path"
        ),
    ] = ""
    key: Annotated[
        str, _says("PEM file of its key; empty: the key is in the file of the certificate", "path")
    ] = ""
    ca: Annotated[
        str,
        _says(
            "PEM file of the authorities of which clients must show a certificate; empty: they show none",
            "path",
        ),
    ] = ""


class RabbitMQ(Group, frozen=True):
    """The connection to RabbitMQ."""

    url: Annotated[
        str, _says("URL of RabbitMQ, with user, password and virtual host", "amqp-url")
    ] = "amqp://guest:guest@localhost:5672/"
    management_url: Annotated[
        str,
        _says(
            "URL of its management API, for queue statistics; empty: tried at port 15672 of the host, else over AMQP",
            "http-url",
        ),
    ] = ""
    queue_type: Annotated[
        QueueType, _says("Type of the durable queues; quorum queues are replicated")
    ] = "classic"
    tls: ClientTls = ClientTls()


class BrokerSettings(Group, frozen=True):
    """The broker between coordinators and workers."""

    type: Annotated[
        BrokerType, _says("The message broker; memory works only within one process")
    ] = "memory"
    rabbitmq: RabbitMQ = RabbitMQ()


class SQLite(Group, frozen=True):
    """The SQLite datastore."""

    path: Annotated[
        str,
        _says(
            "The database file; by default haulier/haulier.db in the user's data directory", "path"
        ),
    ] = ""


class MongoDB(Group, frozen=True):
    """The connection to MongoDB."""

    url: Annotated[str, _says("URL of MongoDB, with user, password and options", "mongodb-url")] = (
        "mongodb://localhost:27017"
    )
    database: Annotated[str, _says("Name of the database", "mongodb-name")] = "haulier"
    tls: ClientTls = ClientTls()


class RetentionSettings(Group, frozen=True):
    """How long ended jobs and their logs are kept."""

    jobs: Annotated[
        float,
        _says(
            "Time after which an ended job and its tasks are deleted; 0: never", "duration", least=0
        ),
    ] = 365 * DAY
    logs: Annotated[
        float,
        _says("Time after which the log of an ended job is deleted; 0: never", "duration", least=0),
    ] = 7 * DAY
    audit: Annotated[
        float,
        _says(
            "Time after which an entry of the audit log is deleted; 0: never", "duration", least=0
        ),
    ] = 365 * DAY


class DatastoreSettings(Group, frozen=True):
    """The database that stores jobs and everything else that must last."""

    type: Annotated[
        DatastoreType, _says("The database; sqlite works only with one coordinator")
    ] = "sqlite"
    sqlite: SQLite = SQLite()
    mongodb: MongoDB = MongoDB()
    retention: RetentionSettings = RetentionSettings()


class Encryption(Group, frozen=True):
    """Encryption of stored secrets; must be the same for coordinators and workers."""

    key: Annotated[
        str,
        _says(
            "Key that encrypts stored secrets; empty: they are stored in plain text",
            secret=True,
        ),
    ] = ""
    old_keys: Annotated[
        tuple[str, ...],
        _says("Keys that only decrypt: former ones, and during a change the next", secret=True),
    ] = ()


class EngineSettings(Group, frozen=True):
    """Times and limits of the engine; must be the same for coordinators and workers."""

    beat: Annotated[
        float, _says("Time between two heartbeats of a node", "duration", least=0.1, most=MINUTE)
    ] = 5.0
    lease: Annotated[
        float,
        _says(
            "Length of a node's lease; at least 15s (3 AMQP heartbeats) plus 2 x engine.beat",
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
            "Longest wait between two attempts to connect to the broker or datastore",
            "duration",
            least=0.1,
            most=MINUTE,
        ),
    ] = 10.0
    redeliveries: Annotated[
        int, _says("How often a lost run of a task is repeated", least=0, most=1000)
    ] = 5
    job_window: Annotated[
        int,
        _says("Maximum number of active container tasks of one root job", least=1, most=100_000),
    ] = 1000
    expression_steps: Annotated[
        int,
        _says(
            "Maximum number of steps that all templates of one task take together",
            least=10_000,
            most=1_000_000_000,
        ),
    ] = 5_000_000
    expression_bytes: Annotated[
        int,
        _says(
            "Maximum size of all texts, lists and maps that the templates of one task build, and of the results that "
            "they name",
            "size",
            least=64 * KIB,
            most=1024 * _MIB,
        ),
    ] = 16 * _MIB


class ApiSwitches(Group, frozen=True):
    """Groups of endpoints to serve."""

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
    """Cross-origin requests from browsers (CORS)."""

    enabled: Annotated[bool, _says("Allow cross-origin requests")] = False
    origins: Annotated[tuple[str, ...], _says("Allowed origins; * allows any")] = ("*",)
    methods: Annotated[tuple[str, ...], _says("Allowed methods")] = (
        "GET",
        "POST",
        "PUT",
        "DELETE",
    )
    headers: Annotated[tuple[str, ...], _says("Allowed request headers")] = (
        "Authorization",
        "Content-Type",
        "Idempotency-Key",
        "Last-Event-ID",
    )
    credentials: Annotated[
        bool, _says("Allow credentials; origins must then be listed by name")
    ] = False


class BasicAuth(Group, frozen=True):
    """User names and passwords, checked against the stored users."""

    enabled: Annotated[bool, _says("Require a user name and a password")] = False
    username: Annotated[
        str, _says("Name of the first user, created at the start if it does not exist")
    ] = ""
    password: Annotated[str, _says("That user's password", secret=True)] = ""


class KeyAuth(Group, frozen=True):
    """One shared key, sent as `Authorization: Bearer <key>`."""

    enabled: Annotated[bool, _says("Require the key")] = False
    key: Annotated[str, _says("The key", secret=True)] = ""


class RateLimit(Group, frozen=True):
    """Limits on the requests from one client address."""

    enabled: Annotated[bool, _says("Limit requests by client address")] = False
    rate: Annotated[
        float, _says("Requests per second that one address can sustain", above=0, most=1_000_000)
    ] = 20.0
    burst: Annotated[
        int, _says("Requests that one address can make at once", least=1, most=1_000_000)
    ] = 40


class RequestLog(Group, frozen=True):
    """A log entry for each request."""

    enabled: Annotated[bool, _says("Log requests")] = True
    skip: Annotated[
        tuple[str, ...],
        _says("Requests not to log, as METHOD /path; * matches any number of characters"),
    ] = ("GET /health",)


class Middleware(Group, frozen=True):
    """What every request passes through."""

    cors: Cors = Cors()
    basic_auth: BasicAuth = BasicAuth()
    key_auth: KeyAuth = KeyAuth()
    rate_limit: RateLimit = RateLimit()
    body_limit: Annotated[
        int, _says("Maximum size of a request body", "size", least=KIB, most=64 * _MIB)
    ] = 500 * KIB
    request_log: RequestLog = RequestLog()


class CoordinatorQueues(Group, frozen=True):
    """How many messages of each coordinator queue are handled at once (`heartbeat`: always one)."""

    jobs: Annotated[
        int, _says("Messages of the queue jobs handled at once", least=1, most=10_000)
    ] = 50
    claims: Annotated[
        int, _says("Messages of the queue claims handled at once", least=1, most=10_000)
    ] = 100
    completed: Annotated[
        int, _says("Messages of the queue completed handled at once", least=1, most=10_000)
    ] = 100
    error: Annotated[
        int, _says("Messages of the queue error handled at once", least=1, most=10_000)
    ] = 100
    logs: Annotated[
        int, _says("Messages of the queue logs handled at once", least=1, most=10_000)
    ] = 200
    progress: Annotated[
        int, _says("Messages of the queue progress handled at once", least=1, most=10_000)
    ] = 100


class WebhookSettings(Group, frozen=True):
    """Delivery of webhooks."""

    attempts: Annotated[
        int, _says("Maximum number of attempts for each delivery", least=1, most=100)
    ] = 5
    timeout: Annotated[
        float, _says("Timeout of each attempt", "duration", least=0.1, most=MINUTE)
    ] = 10.0
    allow: Annotated[
        tuple[str, ...],
        _says(
            "Addresses and networks that webhooks may reach though they are loopback, link-local, the datastore's or "
            "the broker's, which are refused where authentication is on",
            "networks",
        ),
    ] = ()
    deny: Annotated[
        tuple[str, ...],
        _says(
            "Addresses and networks that webhooks may not reach, for example 10.0.0.0/8", "networks"
        ),
    ] = ()


class CoordinatorSettings(Group, frozen=True):
    """The control plane."""

    name: Annotated[str, _says("Name of the node in lists")] = "Coordinator"
    address: Annotated[str, _says("Address of the REST API, host:port", "address")] = (
        "localhost:8000"
    )
    hosts: Annotated[
        tuple[str, ...],
        _says(
            "Names with a dot by which the REST API may be asked for, for example haulier.example.com or "
            "*.example.com; IP addresses, names without a dot and the host's own always may"
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        _says(
            "Addresses and networks of proxies whose X-Forwarded-For tells a client's address",
            "networks",
        ),
    ] = ()
    tls: ServerTls = ServerTls()
    api: ApiSwitches = ApiSwitches()
    middleware: Middleware = Middleware()
    queues: CoordinatorQueues = CoordinatorQueues()
    webhooks: WebhookSettings = WebhookSettings()


class LimitCeilings(Group, frozen=True):
    """What a task can have at most; one that asks for more fails, one that asks for nothing gets no more."""

    cpus: Annotated[
        str, _says("Highest CPU limit of a container, for example 4; empty: any", "cpus")
    ] = ""
    memory: Annotated[
        str, _says("Highest memory limit of a container, for example 8g; empty: any", "memory")
    ] = ""
    pids: Annotated[
        int,
        _says("Highest limit on the processes of a container; 0: any", least=0, most=4_194_304),
    ] = 32_768


class WorkerLimits(Group, frozen=True):
    """Limits for tasks that set none of their own, their ceilings, and limits on what tasks write."""

    cpus: Annotated[
        str, _says("Default CPU limit of tasks, for example .5 or 2; empty: no limit", "cpus")
    ] = ""
    memory: Annotated[
        str, _says("Default memory limit of tasks, for example 512m; empty: no limit", "memory")
    ] = ""
    timeout: Annotated[
        float, _says("Default timeout of tasks; 0: no timeout", "duration", least=0)
    ] = 0.0
    output: Annotated[
        int,
        _says(
            "Maximum output of a task (set for workers) and of a job (set for coordinators); with more, it fails",
            "size",
            least=1,
            most=8 * _MIB,
        ),
    ] = _MIB
    log: Annotated[
        int,
        _says(
            "Maximum log of a task; beyond that, the task goes on and its output is dropped",
            "size",
            least=KIB,
        ),
    ] = 1024 * _MIB
    scratch: Annotated[
        int,
        _says(
            "Maximum size of the folder /tork of a task, in which each file counts as 4 KiB at least; a task with more "
            "in it fails; 0: any",
            "size",
            least=0,
        ),
    ] = 10 * 1024 * _MIB
    max: LimitCeilings = LimitCeilings()


class WorkerSettings(Group, frozen=True):
    """The worker."""

    name: Annotated[str, _says("Name of the node in lists")] = "Worker"
    address: Annotated[
        str,
        _says(
            "Address of GET /health, host:port; if the port is taken, the next free one is used",
            "address",
        ),
    ] = "localhost:8001"
    queues: Annotated[
        dict[str, int],
        _says(
            "Queues to take tasks from, with the number of slots; by default one slot of default per CPU",
            "slots",
        ),
    ] = {}
    limits: WorkerLimits = WorkerLimits()
    once: Annotated[
        bool,
        _says(
            "Take one task, and exit when it has ended and that is stored; one slot for each queue"
        ),
    ] = False
    drain_timeout: Annotated[
        float,
        _says(
            "How long a stopping worker lets its tasks run before it hands them back",
            "duration",
        ),
    ] = MINUTE
    hostenv: Annotated[
        tuple[str, ...],
        _says(
            "Host environment variables to pass to tasks: NAME, or NAME:ALIAS to rename it",
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
            "Logs kept on disk while the broker is slow or down; beyond that, tasks are slowed",
            "size",
            least=_MIB,
        ),
    ] = 256 * _MIB


class Docker(Group, frozen=True):
    """Tasks in containers, with any engine that supports the Docker API."""

    host: Annotated[
        str,
        _says(
            "Address of the engine, like unix:///run/docker.sock; empty: same as the docker command"
        ),
    ] = ""
    config: Annotated[
        str,
        _says("Docker config file with registry credentials; empty: the default one", "path"),
    ] = ""
    privileged: Annotated[bool, _says("Run containers in privileged mode")] = False
    host_network: Annotated[bool, _says("Let tasks join the host's network")] = False
    networks: Annotated[
        tuple[str, ...],
        _says(
            "Networks that tasks can join, by name or pattern; empty: any but those with the label haulier.internal"
        ),
    ] = ()
    own_network: Annotated[
        bool,
        _says("Run tasks on Haulier's own network, without traffic between containers"),
    ] = True
    no_new_privileges: Annotated[bool, _says("Keep processes from gaining privileges")] = True
    init: Annotated[bool, _says("Run an init process in each container")] = True
    cap_add: Annotated[tuple[str, ...], _says("Capabilities to add to the engine's defaults")] = ()
    cap_drop: Annotated[tuple[str, ...], _says("Capabilities to drop")] = ("NET_RAW",)
    readonly_root: Annotated[
        bool,
        _says("Make the containers' file systems read-only, but for /tork, /tmp and mounts"),
    ] = False
    seccomp: Annotated[
        str,
        _says("File with a seccomp profile, or unconfined; empty: the engine's default profile"),
    ] = ""
    apparmor: Annotated[str, _says("Name of an AppArmor profile; empty: the engine's default")] = ""
    oci_runtime: Annotated[
        str,
        _says("Name of the engine's OCI runtime, like runsc or kata; empty: the engine's default"),
    ] = ""
    userns: Annotated[
        str,
        _says("User namespace mode of containers, as the engine names it; empty: its default"),
    ] = ""
    images: Annotated[
        tuple[str, ...],
        _says("Images that tasks can use, by name or pattern, like ghcr.io/acme/*; empty: any"),
    ] = ()
    pull: Annotated[
        PullPolicy,
        _says(
            "Pull images that are missing, or also each time those that need a task's credentials (private), or all "
            "(always)"
        ),
    ] = "missing"
    pids_limit: Annotated[
        int,
        _says(
            "Default limit on the processes of a container; 0: no limit",
            least=0,
            most=4_194_304,
        ),
    ] = 4096
    image_ttl: Annotated[
        float,
        _says(
            "Time after which unused images that were pulled for tasks are removed; 0: never",
            "duration",
            least=0,
        ),
    ] = 72 * HOUR
    warm_sandboxes: Annotated[
        bool, _says("Keep a network namespace ready for each slot, so that containers start faster")
    ] = True
    sandbox_uses: Annotated[
        int,
        _says("Number of tasks after which such a namespace is replaced", least=1, most=1_000_000),
    ] = 100
    parent_cgroup: Annotated[
        str,
        _says("Parent cgroup of the containers; empty: the worker creates one if it can"),
    ] = ""


class Shell(Group, frozen=True):
    """Tasks as local processes without isolation, for a single trusted machine."""

    cmd: Annotated[
        tuple[str, ...], _says("Command that runs a script if the task has no entrypoint")
    ] = ("sh", "-c")
    uid: Annotated[
        int | None,
        _says("User id that processes run as; empty: the worker's", least=0, most=2**32 - 2),
    ] = None
    gid: Annotated[
        int | None,
        _says(
            "Group id that processes run as; empty: the main group of runtime.shell.uid, or the worker's",
            least=0,
            most=2**32 - 2,
        ),
    ] = None
    ignore_image: Annotated[
        bool, _says("Also run tasks that name an image: on the host, ignoring the image")
    ] = False


class RuntimeSettings(Group, frozen=True):
    """How a worker runs tasks."""

    type: Annotated[
        RuntimeType,
        _says(
            "Run tasks in containers of Docker (docker) or Podman (podman, with the settings of runtime.docker), or as "
            "local processes without isolation (shell)"
        ),
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
    """Bind mounts of host files."""

    allowed: Annotated[
        bool, _says("Let tasks mount host files, and volumes whose options reach host or network")
    ] = False
    sources: Annotated[
        tuple[str, ...],
        _says(
            "Paths that tasks can mount, including all below; empty: any but the engine's socket",
            "paths",
        ),
    ] = ()


class Mounts(Group, frozen=True):
    """What tasks can mount."""

    bind: Bind = Bind()


class Redaction(Group, frozen=True):
    """What is redacted in addition to declared secrets."""

    keys: Annotated[
        tuple[str, ...],
        _says(
            "Values whose key contains one of these words, in any case, are never shown; "
            "a word with * or ? must match the whole key"
        ),
    ] = KEY_PATTERNS


class LoggingSettings(Group, frozen=True):
    """The log of the process, on stderr."""

    level: Annotated[LogLevel, _says("Lowest level to log")] = "info"
    format: Annotated[
        LogFormat, _says("pretty for people, or json for machines, with one object per line")
    ] = "pretty"


class TelemetrySettings(Group, frozen=True):
    """OpenTelemetry traces; needs the extra `haulier[telemetry]`."""

    enabled: Annotated[bool, _says("Send traces")] = False
    endpoint: Annotated[str, _says("Where to send traces, over OTLP/HTTP", "http-url")] = (
        "http://localhost:4318"
    )
    service: Annotated[str, _says("Name of the service in traces")] = "haulier"


class ExtensionMiddleware(Group, frozen=True):
    """What packages that are installed add to the handling of requests, jobs, tasks, nodes and logs."""

    web: Annotated[
        tuple[str, ...], _says("Middleware for requests to the REST API, the outermost first")
    ] = ()
    job: Annotated[tuple[str, ...], _says("Middleware for jobs: submitted, and changed")] = ()
    task: Annotated[
        tuple[str, ...],
        _says("Middleware for tasks: changed (in coordinators), and before a run (in workers)"),
    ] = ()
    node: Annotated[tuple[str, ...], _says("Middleware for heartbeats of nodes")] = ()
    log: Annotated[tuple[str, ...], _says("Middleware for logs of tasks, as they are stored")] = ()


class ExtensionSettings(Group, frozen=True):
    """What packages that are installed add, each by the name of its entry point; none is loaded unless it is named."""

    middleware: ExtensionMiddleware = ExtensionMiddleware()
    endpoints: Annotated[tuple[str, ...], _says("Endpoints of the REST API")] = ()
    mounters: Annotated[
        tuple[str, ...],
        _says("Types of mounts; coordinators accept them in jobs, and workers make them"),
    ] = ()
    broker: Annotated[str, _says("Broker in place of broker.type; empty: that one")] = ""
    datastore: Annotated[str, _says("Datastore in place of datastore.type; empty: that one")] = ""
    runtime: Annotated[str, _says("Runtime in place of runtime.type; empty: that one")] = ""
    settings: Annotated[
        str, _says("TOML file with a table for each extension, by its name", "path")
    ] = ""
    timeout: Annotated[
        float,
        _says(
            "Time that a call of an extension has; the process goes on without it then",
            "duration",
            least=0.1,
            most=MINUTE,
        ),
    ] = 5.0


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
    extensions: ExtensionSettings = ExtensionSettings()
