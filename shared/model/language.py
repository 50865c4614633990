"""The job language as types (job language spec).

A value is kept as it was written: an absent field is empty or None, no default is filled in, no
template evaluated. So a job reads back as it was submitted and can be submitted again. What holds
where a field is absent is said by the constants and properties here.

Decoding a stored job with msgspec is tolerant (unknown fields pass, so versions can mix); a user's
document goes through `decode_job`, which is strict.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final

import msgspec

from shared.durations import NANOS_PER_MINUTE
from shared.model import checks
from shared.model.plans import TextRole, about
from shared.model.states import TaskKind

DEFAULT_RETRY_LIMIT: Final = 1
DEFAULT_RETRY_DELAY: Final = "1s"
DEFAULT_RETRY_SCALING: Final = 2
DEFAULT_EACH_VAR: Final = "item"
DEFAULT_PROBE_PORT: Final = 80
DEFAULT_PROBE_TIMEOUT: Final = "1m"
MAX_COMPOSITE_DEPTH: Final = 16
"""How deep parallel, each and subjob nest in one another."""
MAX_VAR: Final = 64
"""Characters of a task's `var`."""
MAX_TAGS: Final = 100
"""Tags of one job or task."""
MAX_TAG: Final = 256
"""Characters of a tag."""
MAX_PERMISSIONS: Final = 100
"""Users and roles that a job names."""
MAX_DESCRIPTION: Final = 10_000
"""Characters of a description."""
MAX_WEBHOOKS: Final = 100
"""Webhooks of one job."""
MAX_MOUNTS: Final = 100
MAX_NETWORKS: Final = 20
MAX_SMALL_TASKS: Final = 50
"""`pre` tasks of one task, and `post` tasks."""
MAX_SIDECARS: Final = 10
"""Each takes threads of its worker, and memory of the engine, for as long as its task runs."""

Template = Annotated[str, about(role=TextRole.TEMPLATE)]
Expression = Annotated[str, about(role=TextRole.EXPRESSION)]
Key = Annotated[str, about("", checks.KEY)]
FileName = Annotated[str, about("", checks.FILE_NAME_RULE)]
EnvironmentName = Annotated[str, about("", checks.ENVIRONMENT_NAME)]
HeaderName = Annotated[str, about("", checks.HEADER_NAME)]
HeaderValue = Annotated[str, about("", checks.HEADER_VALUE, role=TextRole.TEMPLATE)]
Timeout = Annotated[str, about("", checks.duration())]
Port = Annotated[int, about("", checks.between(1, 65_535))]
Priority = Annotated[int, about("", checks.between(0, 9))]
_Description = Annotated[
    str,
    about(
        "Description to display; at most 10,000 characters.",
        checks.at_most_characters(MAX_DESCRIPTION),
    ),
]
_Tags = Annotated[
    list[Annotated[str, about("", checks.at_most_characters(MAX_TAG))]],
    about(
        "Keywords for search; at most 100, of at most 256 characters each.",
        checks.at_most_items(MAX_TAGS),
    ),
]
_Queue = Annotated[str, about("", checks.QUEUE, role=TextRole.TEMPLATE)]


class _Node(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, eq=True):
    """Camel case on the wire, nothing written that was not given."""


class Retry(_Node, frozen=True):
    """Further attempts after a failure."""

    limit: Annotated[
        Annotated[int, about("", checks.between(1, 10))] | None,
        about("Number of attempts after the first, 1 to 10."),
    ] = None
    initial_delay: Annotated[
        Annotated[str, about("", checks.duration(zero=True, most=5 * NANOS_PER_MINUTE))],
        about("Delay before the second attempt, at most 5m (default: 1s)."),
    ] = ""
    scaling_factor: Annotated[
        Annotated[int | float, about("", checks.between(1, 10))] | None,
        about(
            "Factor by which the delay grows from one attempt to the next, 1 to 10 (default: 2)."
        ),
    ] = None
    jitter: Annotated[
        Annotated[int | float, about("", checks.between(0, 1))] | None,
        about("Share of each delay that is random, 0 to 1 (default: 0)."),
    ] = None


class Limits(_Node, frozen=True):
    """Limits on what a container can use of the machine, as in Docker."""

    cpus: Annotated[str, about('Number of CPUs, for example ".5".', checks.CPUS)] = ""
    memory: Annotated[str, about('Memory, for example "512m".', checks.MEMORY)] = ""
    pids: Annotated[
        Annotated[int, about("", checks.PIDS)] | None,
        about("Maximum number of processes; -1 for no limit."),
    ] = None


class Registry(_Node, frozen=True):
    """Credentials for the registry that holds the image."""

    username: Annotated[Template, about("The user name for the registry.")] = ""
    password: Annotated[
        Template, about("The password for the registry; never shown in API responses.")
    ] = ""


class Mount(_Node, frozen=True):
    """A volume, host path or memory file system mounted in the container."""

    type: Annotated[
        str,
        about(
            "volume (lives as long as the task), bind (a path of the host, if the worker allows it) "
            "or tmpfs (memory).",
            checks.one_of_rule("volume", "bind", "tmpfs", more=checks.MORE_MOUNT_TYPES),
            required=True,
        ),
    ] = ""
    source: Annotated[str, about("For bind: the path on the host.")] = ""
    target: Annotated[
        str, about("The path in the container; not /tork.", checks.MOUNT_TARGET, required=True)
    ] = ""
    opts: Annotated[dict[Key, str], about("Options for the volume driver.")] = {}


class SidecarProbe(_Node, frozen=True):
    """How to find out that a sidecar is ready: with an HTTP GET that must return 200."""

    path: Annotated[str, about("Path of the request (default: /).", checks.PROBE_PATH)] = ""
    port: Annotated[Port | None, about("Port of the request (default: 80).")] = None
    timeout: Annotated[Timeout, about("How long to wait for a 200 (default: 1m).")] = ""


class FileTemplate(_Node, frozen=True):
    """A file whose text is a template."""

    template: Annotated[Template, about("The text of the file.", required=True)] = ""


class SmallTask(_Node, frozen=True):
    """A container that runs before or after the main one, on the same worker."""

    name: Annotated[Template, about("Name to display; generated if absent.")] = ""
    description: _Description = ""
    image: Annotated[Template, about("Image of the container.")] = ""
    run: Annotated[
        str,
        about("A script, run with sh unless you set entrypoint; templates in it are not expanded."),
    ] = ""
    cmd: Annotated[list[Template], about("Arguments, as in Docker.")] = []
    entrypoint: Annotated[
        list[str], about("The command, as in Docker; templates in it are not expanded.")
    ] = []
    env: Annotated[dict[EnvironmentName, Template], about("Environment variables.")] = {}
    files: Annotated[
        dict[FileName, str],
        about(
            "Files to create in the working directory before the start. Templates in them are expanded only in the "
            "form {template: text}.",
            templates=(FileTemplate, "file_templates"),
        ),
    ] = {}
    file_templates: dict[FileName, str] = {}
    """The entries of `files` that a document has in the form of a `FileTemplate`: apart, for versions that know only
    texts read what is stored."""
    registry: Annotated[Registry | None, about("Credentials for the registry of the image.")] = None
    timeout: Annotated[
        Timeout, about("Time after which the task is stopped and fails, for example 90s.")
    ] = ""

    @property
    def file_names(self) -> list[str]:
        """The names of all its files."""
        return [*self.files, *self.file_templates]


class Sidecar(SmallTask, frozen=True):
    """A container that runs next to the main one, which can reach it by its name."""

    probe: Annotated[SidecarProbe | None, about("How to find out that the sidecar is ready.")] = (
        None
    )


class TaskDefinition(SmallTask, frozen=True):
    """One step of a job: a container, or one of the composites parallel, each and subjob."""

    tags: _Tags = []
    workdir: Annotated[
        str,
        about(
            "The working directory, an absolute path; created if it does not exist.",
            checks.WORKDIR_PATH,
        ),
    ] = ""
    var: Annotated[
        Template,
        about(
            "Name under which expressions find the output, tasks.<var>; at most 64 characters.",
            checks.at_most_characters(MAX_VAR, evaluated=True),
        ),
    ] = ""
    if_: Annotated[Expression, about("Condition; if it is false, the task is skipped.")] = (
        msgspec.field(default="", name="if")
    )
    queue: Annotated[_Queue, about("The queue to which the task is sent (default: default).")] = ""
    priority: Annotated[
        Priority | None, about("0 to 9; within a queue, higher priorities go first (default: 0).")
    ] = None
    retry: Annotated[Retry | None, about("Further attempts after a failure.")] = None
    limits: Annotated[Limits | None, about("Limits on what the task can use of the machine.")] = (
        None
    )
    gpus: Annotated[str, about("GPUs, as in Docker's --gpus option.", checks.GPUS)] = ""
    mounts: Annotated[
        list[Mount],
        about(
            "Volumes, host paths and memory file systems; at most 100.",
            checks.at_most_items(MAX_MOUNTS),
        ),
    ] = []
    networks: Annotated[
        list[Annotated[str, about("", checks.NOT_BLANK, checks.NETWORK_NAME)]],
        about(
            "Docker networks that the container joins; at most 20.",
            checks.at_most_items(MAX_NETWORKS),
        ),
    ] = []
    pre: Annotated[
        list[SmallTask],
        about(
            "Tasks to run before this one, on the same worker; at most 50.",
            checks.at_most_items(MAX_SMALL_TASKS),
        ),
    ] = []
    post: Annotated[
        list[SmallTask],
        about(
            "Tasks to run after this one has succeeded, on the same worker; at most 50.",
            checks.at_most_items(MAX_SMALL_TASKS),
        ),
    ] = []
    sidecars: Annotated[
        list[Sidecar],
        about(
            "Containers to run next to the task; at most 10.", checks.at_most_items(MAX_SIDECARS)
        ),
    ] = []
    parallel: Annotated[Parallel | None, about("Tasks that run at the same time.")] = None
    each: Annotated[Each | None, about("One task for each item of a list.")] = None
    subjob: Annotated[SubJob | None, about("A job that this task starts.")] = None


class Parallel(_Node, frozen=True):
    """Tasks that run at the same time; the parent completes when all of them have completed."""

    tasks: Annotated[list[TaskDefinition], about("The tasks, at least one.", required=True)] = []


class Each(_Node, frozen=True):
    """One child for each item of a list."""

    list: Annotated[
        Expression, about("Expression that produces the list or map.", required=True)
    ] = ""
    var: Annotated[
        str,
        about(
            "Name of the item in expressions, as in item.index and item.value (default: item).",
            checks.IDENTIFIER,
            checks.at_most_characters(MAX_VAR),
        ),
    ] = ""
    concurrency: Annotated[
        Annotated[int, about("", checks.between(0, 99_999))] | None,
        about("Maximum number of tasks that run at once; 0 for no limit (default: 0)."),
    ] = None
    task: Annotated[
        TaskDefinition | None, about("The task to run for each item.", required=True)
    ] = None

    @property
    def variable(self) -> str:
        """The loop variable's name, the default included."""
        return self.var or DEFAULT_EACH_VAR


class Defaults(_Node, frozen=True):
    """Values for tasks of the job that do not set their own."""

    retry: Annotated[Retry | None, about("Merged field by field with the task's own.")] = None
    limits: Annotated[Limits | None, about("Merged field by field with the task's own.")] = None
    timeout: Annotated[Timeout, about("Timeout of each container task.")] = ""
    queue: Annotated[_Queue, about("Queue of each container task.")] = ""
    priority: Annotated[Priority | None, about("Priority of each task.")] = None


class AutoDelete(_Node, frozen=True):
    """When to delete the job automatically after it has completed."""

    after: Annotated[
        Annotated[str, about("", checks.duration(zero=True))],
        about("Time after the job becomes COMPLETED, for example 24h.", required=True),
    ] = ""


class Wait(_Node, frozen=True):
    """Makes the server answer a submission only when the job has ended."""

    timeout: Annotated[
        Timeout, about("How long to wait for the end, for example 1m.", required=True)
    ] = ""


class Webhook(_Node, frozen=True):
    """A POST request that Haulier sends to your URL when something happens."""

    url: Annotated[
        Template, about("The URL to send the request to.", checks.URL, required=True)
    ] = ""
    event: Annotated[
        str,
        about(
            "The event that triggers it (default: job.StateChange).",
            checks.one_of_rule(
                "job.StateChange", "job.Progress", "task.StateChange", "task.Progress"
            ),
        ),
    ] = ""
    headers: Annotated[dict[HeaderName, HeaderValue], about("Headers of the request.")] = {}
    if_: Annotated[Expression, about("Condition; sent only if it is true.")] = msgspec.field(
        default="", name="if"
    )
    secret: Annotated[str, about("Key that signs each request (Standard Webhooks).")] = ""


class Permission(_Node, frozen=True):
    """A user or a role that can see the job; never both."""

    user: Annotated[str, about("Name of a user.")] = ""
    role: Annotated[str, about("Name of a role.")] = ""


class ScheduleDefinition(_Node, frozen=True):
    """When a scheduled job fires."""

    cron: Annotated[
        str,
        about(
            "Five fields, a shorthand such as @hourly, or an interval such as @every 90s.",
            checks.CRON,
        ),
    ] = ""
    at: Annotated[
        str,
        about(
            "Instead of cron, to fire once: an RFC 3339 time, or a duration from now such as 2h30m.",
            checks.AT,
        ),
    ] = ""
    timezone: Annotated[str, about("An IANA time zone (default: UTC).", checks.TIMEZONE)] = ""
    catchup: Annotated[
        str,
        about(
            "What to do about firings missed while no coordinator ran. last: make up the latest; all: make up "
            "every one, the oldest first, at most 1,000 (default: none).",
            checks.one_of_rule("none", "last", "all"),
        ),
    ] = ""
    overlap: Annotated[
        str,
        about(
            "What a firing does while the job of the firing before still runs. allow: runs beside it; skip: is left "
            "out; queue: waits for its end; cancel: cancels it (default: allow).",
            checks.one_of_rule("allow", "skip", "queue", "cancel"),
        ),
    ] = ""


class JobBody(_Node, frozen=True):
    """The fields that jobs and sub-jobs have in common."""

    name: Annotated[str, about("Name to display.", required=True)] = ""
    description: _Description = ""
    tags: _Tags = []
    tasks: Annotated[
        list[TaskDefinition], about("The tasks, run one after another.", required=True)
    ] = []
    inputs: Annotated[dict[Key, str], about("Values that expressions read as inputs.*.")] = {}
    secrets: Annotated[
        dict[Key, str], about("Values that expressions read as secrets.*; never shown.")
    ] = {}
    output: Annotated[Template, about("Template for the job's result.")] = ""
    defaults: Annotated[Defaults | None, about("Values for tasks that don't set their own.")] = None
    auto_delete: Annotated[AutoDelete | None, about("When to delete the job automatically.")] = None
    webhooks: Annotated[
        list[Webhook],
        about(
            "Requests to send when something happens; at most 100.",
            checks.at_most_items(MAX_WEBHOOKS),
        ),
    ] = []
    wait: Annotated[Wait | None, about("Makes the submission wait until the job has ended.")] = None


class JobDefinition(JobBody, frozen=True):
    """A job: a list of tasks that run one after another."""

    permissions: Annotated[
        list[Permission],
        about(
            "Who can see the job, at most 100 users and roles; if empty, everyone.",
            checks.at_most_items(MAX_PERMISSIONS),
        ),
    ] = []
    schedule: Annotated[
        ScheduleDefinition | None, about("When it fires; only for POST /scheduled-jobs.")
    ] = None


class SubJob(JobBody, frozen=True):
    """A job that a task starts; the task ends when the job ends."""

    REFUSED: ClassVar = {
        "permissions": "a sub-job has the permissions of its parent",
        "schedule": "only on POST /scheduled-jobs",
    }
    """Fields that one might look for here, and why there are none."""

    name: Annotated[Template, about("Name to display.", required=True)] = ""
    inputs: Annotated[
        dict[Key, Template], about("Values that its expressions read as inputs.*.")
    ] = {}
    secrets: Annotated[
        dict[Key, Template], about("Values that its expressions read as secrets.*; never shown.")
    ] = {}
    detached: Annotated[
        bool, about("Whether the parent task completes at once, without waiting for the job.")
    ] = False


def kind_of_task(task: TaskDefinition) -> TaskKind:
    """Return which of the four kinds a task is."""
    if task.parallel is not None:
        return TaskKind.PARALLEL
    if task.each is not None:
        return TaskKind.EACH
    return TaskKind.CONTAINER if task.subjob is None else TaskKind.SUBJOB
