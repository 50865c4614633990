"""The job language: what a user may write, typed once (the job language spec).

A value is kept as it was written: an absent field is empty or None, no default is filled in, no
template evaluated. So a job reads back as it was submitted and can be submitted again. What holds
where a field is absent is said by the constants and properties here.

Decoding a stored job with msgspec is tolerant (unknown fields pass, so versions can mix); a user's
document goes through `decode_job`, which is strict.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

import msgspec

from shared.durations import NANOS_PER_MINUTE
from shared.model import checks
from shared.model.fields import TextRole, about

DEFAULT_RETRY_DELAY: Final = "1s"
DEFAULT_RETRY_SCALING: Final = 2
DEFAULT_EACH_VAR: Final = "item"
DEFAULT_PROBE_PATH: Final = "/"
DEFAULT_PROBE_PORT: Final = 80
DEFAULT_PROBE_TIMEOUT: Final = "1m"
DEFAULT_WEBHOOK_EVENT: Final = "job.StateChange"
DEFAULT_TIMEZONE: Final = "UTC"
DEFAULT_PRIORITY: Final = 0
MAX_COMPOSITE_DEPTH: Final = 16
"""How deep parallel, each and subjob nest in one another."""
MAX_VAR: Final = 64
"""Characters of a task's `var`."""

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
_Queue = Annotated[str, about("", checks.QUEUE, role=TextRole.TEMPLATE)]


class _Node(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True, eq=True):
    """Camel case on the wire, nothing written that was not given."""


class Retry(_Node, frozen=True):
    """Further attempts after a failure."""

    limit: Annotated[
        Annotated[int, about("", checks.between(1, 10))] | None,
        about("Further attempts after the first, 1 to 10."),
    ] = None
    initial_delay: Annotated[
        Annotated[str, about("", checks.duration(zero=True, most=5 * NANOS_PER_MINUTE))],
        about("How long to wait before the second attempt (1s), at most 5m."),
    ] = ""
    scaling_factor: Annotated[
        Annotated[int | float, about("", checks.between(1, 10))] | None,
        about("What each delay is multiplied by for the next (2), at most 10."),
    ] = None
    jitter: Annotated[
        Annotated[int | float, about("", checks.between(0, 1))] | None,
        about("Share of each delay that is random, 0 to 1 (0)."),
    ] = None


class Limits(_Node, frozen=True):
    """What a container may use of the machine, as in Docker."""

    cpus: Annotated[str, about('Number of CPUs, like ".5".', checks.CPUS)] = ""
    memory: Annotated[str, about('Memory, like "512m".', checks.MEMORY)] = ""
    pids: Annotated[
        Annotated[int, about("", checks.at_least_rule(-1))] | None,
        about("Most processes at once; -1 for no limit."),
    ] = None


class Registry(_Node, frozen=True):
    """Credentials for the registry that holds the image."""

    username: Annotated[Template, about("Who asks for the image.")] = ""
    password: Annotated[Template, about("The password; never shown in an answer.")] = ""


class Mount(_Node, frozen=True):
    """A place in the container that is not of its image."""

    type: Annotated[
        str,
        about(
            "volume (lives as long as the task), bind (a path of the host, where the worker allows "
            "it) or tmpfs (memory).",
            checks.one_of_rule("volume", "bind", "tmpfs"),
            required=True,
        ),
    ] = ""
    source: Annotated[str, about("For bind: the path on the host.")] = ""
    target: Annotated[
        str, about("Where in the container; not /tork.", checks.MOUNT_TARGET, required=True)
    ] = ""
    opts: Annotated[dict[Key, str], about("Options for the driver.")] = {}


class SidecarProbe(_Node, frozen=True):
    """How a sidecar is known to be ready: an HTTP GET that answers 200."""

    path: Annotated[str, about("Path of the request (/).", checks.PROBE_PATH)] = ""
    port: Annotated[Port | None, about("Port of the request (80).")] = None
    timeout: Annotated[Timeout, about("How long to wait for a 200 (1m).")] = ""


class SmallTask(_Node, frozen=True):
    """A container that runs before or after the main one, on the same worker."""

    name: Annotated[Template, about("Name, for people; generated where absent.")] = ""
    description: Annotated[str, about("What it is for.")] = ""
    image: Annotated[Template, about("The container's image.")] = ""
    run: Annotated[
        str, about("A script, run by sh unless entrypoint says otherwise; never expanded.")
    ] = ""
    cmd: Annotated[list[Template], about("Arguments, as in Docker.")] = []
    entrypoint: Annotated[list[str], about("The command, as in Docker; never expanded.")] = []
    env: Annotated[dict[EnvironmentName, Template], about("Environment variables.")] = {}
    files: Annotated[
        dict[FileName, str],
        about("Files put into the working directory before the start; never expanded."),
    ] = {}
    registry: Annotated[Registry | None, about("Credentials for the image's registry.")] = None
    timeout: Annotated[Timeout, about("Stopped and failed after this long, like 90s.")] = ""


class Sidecar(SmallTask, frozen=True):
    """A container that runs beside the main one, reachable under its name."""

    probe: Annotated[SidecarProbe | None, about("When it counts as ready.")] = None


class TaskDefinition(SmallTask, frozen=True):
    """One step of a job: a container, or one of the composites parallel, each and subjob."""

    tags: Annotated[list[str], about("Words to find it by.")] = []
    workdir: Annotated[
        str,
        about("The working directory, made if missing.", checks.at_most_characters(256)),
    ] = ""
    var: Annotated[
        Template,
        about(
            "The output is stored as tasks.<var>; at most 64 characters.",
            checks.at_most_characters(MAX_VAR),
        ),
    ] = ""
    if_: Annotated[Expression, about("Skipped where this gives false.")] = msgspec.field(
        default="", name="if"
    )
    queue: Annotated[_Queue, about("The queue that workers take it from (default).")] = ""
    priority: Annotated[Priority | None, about("0 to 9, higher first within a queue (0).")] = None
    retry: Annotated[Retry | None, about("Further attempts after a failure.")] = None
    limits: Annotated[Limits | None, about("What it may use of the machine.")] = None
    gpus: Annotated[str, about("GPUs, as Docker's --gpus.", checks.GPUS)] = ""
    mounts: Annotated[list[Mount], about("Volumes, host paths and memory file systems.")] = []
    networks: Annotated[
        list[Annotated[str, about("", checks.NOT_BLANK)]], about("Networks it is joined to.")
    ] = []
    pre: Annotated[list[SmallTask], about("Run before it, on the same worker.")] = []
    post: Annotated[list[SmallTask], about("Run after it succeeded, on the same worker.")] = []
    sidecars: Annotated[list[Sidecar], about("Run beside it.")] = []
    parallel: Annotated[Parallel | None, about("Tasks that run all at once.")] = None
    each: Annotated[Each | None, about("One task for each item of a list.")] = None
    subjob: Annotated[SubJob | None, about("A job of its own, started by this task.")] = None


class Parallel(_Node, frozen=True):
    """Tasks that run all at once; the parent completes when all have."""

    tasks: Annotated[list[TaskDefinition], about("The tasks, at least one.", required=True)] = []


class Each(_Node, frozen=True):
    """One child for each item of a list."""

    list: Annotated[Expression, about("Gives the list (or map) to go through.", required=True)] = ""
    var: Annotated[
        str,
        about(
            "What the item is called in expressions (item): item.index, item.value.",
            checks.IDENTIFIER,
            checks.at_most_characters(MAX_VAR),
        ),
    ] = ""
    concurrency: Annotated[
        Annotated[int, about("", checks.between(0, 99_999))] | None,
        about("How many run at once; 0, the default, for all."),
    ] = None
    task: Annotated[TaskDefinition | None, about("What to do for each item.", required=True)] = None

    @property
    def variable(self) -> str:
        """The loop variable's name, the default included."""
        return self.var or DEFAULT_EACH_VAR


class Defaults(_Node, frozen=True):
    """What each task of the job gets that does not set its own."""

    retry: Annotated[Retry | None, about("Merged with a task's own field by field.")] = None
    limits: Annotated[Limits | None, about("Merged with a task's own field by field.")] = None
    timeout: Annotated[Timeout, about("Timeout of each container task.")] = ""
    queue: Annotated[_Queue, about("Queue of each container task.")] = ""
    priority: Annotated[Priority | None, about("Priority of each task.")] = None


class AutoDelete(_Node, frozen=True):
    """When a completed job goes away by itself."""

    after: Annotated[
        Annotated[str, about("", checks.duration(zero=True))],
        about("How long after COMPLETED, like 24h.", required=True),
    ] = ""


class Wait(_Node, frozen=True):
    """The submission answers when the job has ended."""

    timeout: Annotated[Timeout, about("How long to wait for that, like 1m.", required=True)] = ""


class Webhook(_Node, frozen=True):
    """A POST to a URL of the user's when something happens."""

    url: Annotated[Template, about("Where to POST.", checks.URL, required=True)] = ""
    event: Annotated[
        str,
        about(
            "What it is sent for (job.StateChange).",
            checks.one_of_rule(
                "job.StateChange", "job.Progress", "task.StateChange", "task.Progress"
            ),
        ),
    ] = ""
    headers: Annotated[dict[HeaderName, HeaderValue], about("Headers of the request.")] = {}
    if_: Annotated[Expression, about("Sent only where this gives true.")] = msgspec.field(
        default="", name="if"
    )
    secret: Annotated[str, about("Signs each request (Standard Webhooks).")] = ""


class Permission(_Node, frozen=True):
    """Someone who may see the job: a user or a role, never both."""

    user: Annotated[str, about("A user's name.")] = ""
    role: Annotated[str, about("A role's name.")] = ""


class ScheduleDefinition(_Node, frozen=True):
    """When a scheduled job fires."""

    cron: Annotated[
        str, about("Five fields, @hourly and its kin, or @every 90s.", checks.CRON, required=True)
    ] = ""
    timezone: Annotated[str, about("An IANA time zone (UTC).", checks.TIMEZONE)] = ""
    catchup: Annotated[
        str,
        about(
            "last: make up the latest firing missed while nobody ran (none).",
            checks.one_of_rule("none", "last"),
        ),
    ] = ""


class JobBody(_Node, frozen=True):
    """What a job and a sub-job have in common."""

    name: Annotated[str, about("Name, for people.", required=True)] = ""
    description: Annotated[str, about("What it is for.")] = ""
    tags: Annotated[list[str], about("Words to find it by.")] = []
    tasks: Annotated[
        list[TaskDefinition], about("The steps, from top to bottom.", required=True)
    ] = []
    inputs: Annotated[dict[Key, str], about("Values, as inputs.* in expressions.")] = {}
    secrets: Annotated[dict[Key, str], about("Values that are never shown, as secrets.*.")] = {}
    output: Annotated[Template, about("Becomes the job's result.")] = ""
    defaults: Annotated[Defaults | None, about("For tasks that don't set their own.")] = None
    auto_delete: Annotated[AutoDelete | None, about("Deleted by itself when completed.")] = None
    webhooks: Annotated[list[Webhook], about("Told when something happens.")] = []
    wait: Annotated[Wait | None, about("The submission waits for the end.")] = None


class JobDefinition(JobBody, frozen=True):
    """A list of tasks that run from top to bottom."""

    permissions: Annotated[list[Permission], about("Who may see it; none: everyone.")] = []
    schedule: Annotated[
        ScheduleDefinition | None, about("When it fires; only on POST /scheduled-jobs.")
    ] = None


class SubJob(JobBody, frozen=True):
    """A job of its own whose end is its parent task's."""

    REFUSED: ClassVar = {
        "permissions": "a sub-job has the permissions of its parent",
        "schedule": "only on POST /scheduled-jobs",
    }
    """Fields that one might look for here, and why there are none."""

    name: Annotated[Template, about("Name, for people.", required=True)] = ""
    inputs: Annotated[dict[Key, Template], about("Values, as inputs.* in its expressions.")] = {}
    secrets: Annotated[dict[Key, Template], about("Values that are never shown.")] = {}
    detached: Annotated[bool, about("The parent task completes at once.")] = False


_Kind = Literal["container", "parallel", "each", "subjob"]


def kind_of_task(task: TaskDefinition) -> _Kind:
    """Return which of the four kinds a task is."""
    if task.parallel is not None:
        return "parallel"
    if task.each is not None:
        return "each"
    return "container" if task.subjob is None else "subjob"
