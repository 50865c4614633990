"""What a coordinator writes, in metrics, the log and traces: how jobs and tasks ended, how long they waited and ran."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram

from coordinator.engine.lost_runs import LOST_TOO_OFTEN
from shared.ids import derived_id
from shared.metrics import LONG_TIMES, BoundedNames, process_registry
from shared.model.documents import MICROS_PER_SECOND, JobDocument, Micros, TaskDocument
from shared.model.queues import DEFAULT_QUEUE
from shared.model.states import JOB_ENDED, TASK_ENDED, JobState, TaskKind, TaskState
from shared.telemetry import past_span, span_in, traces
from shared.version import version

log = structlog.get_logger(__name__)

NO_CAUSE: Final = "none"
TASK_CAUSES: Final = (
    "exit_code", "out_of_memory", "timeout", "lost", "expression", "below", "runtime", "engine",
)  # fmt: skip
"""Why a task FAILED: its command; memory; time; runs lost; a template; something inside it; what was needed to run it;
the engine gave up."""
JOB_CAUSES: Final = ("task", "output", "engine")
"""Why a job FAILED: a task of it; its `output`; the engine gave up."""


class Measures:
    """The metrics of one coordinator's engine, in a registry that its API adds to."""

    def __init__(self) -> None:
        self.version = version()
        self.registry: CollectorRegistry = process_registry(self.version)
        self._queues = BoundedNames()
        self._jobs = _counter(self, "haulier_jobs_ended", "Jobs that ended", "state", "cause")
        self._tasks = _counter(self, "haulier_tasks_ended", "Tasks that ended", "state", "cause")
        self._retries = _counter(self, "haulier_task_retries", "Further attempts at failed tasks")
        self._wait = _histogram(
            self, "haulier_queue_wait_seconds", "Time from the queue to the start of a run", "queue"
        )
        self._run = _histogram(
            self, "haulier_task_run_seconds", "Time from start to end of tasks", "queue"
        )
        self._job_run = _histogram(
            self, "haulier_job_run_seconds", "Time from start to end of jobs"
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """Show what may come before it comes: a rate needs a figure to begin with."""
        for counter, states, causes in (
            (self._jobs, JOB_ENDED, JOB_CAUSES),
            (self._tasks, TASK_ENDED, TASK_CAUSES),
        ):
            for state in states:
                for cause in causes if state == JobState.FAILED else (NO_CAUSE,):
                    counter.labels(state.value, cause)

    def inserted(self, document: object) -> None:
        """Note a document that is new."""
        if not isinstance(document, TaskDocument):
            return
        if document.attempt > 1:
            self._retries.inc()
        if document.state in TASK_ENDED:
            self._task_ended(document)

    def changed(self, image: object, fields: Mapping[str, Any]) -> None:
        """Note a document as it is after a change of these fields."""
        if "state" not in fields:
            return
        if isinstance(image, TaskDocument):
            if image.state in TASK_ENDED:
                self._task_ended(image)
            elif image.state == TaskState.RUNNING and "nonce" in fields:
                self._wait.labels(self._queue(image)).observe(
                    _seconds(image.published_at, image.started_at)
                )
        elif isinstance(image, JobDocument) and image.state in JOB_ENDED:
            self._job_ended(image)

    def changed_unread(self, fields: Mapping[str, Any], count: int, *, job: bool) -> None:
        """Note `count` jobs or tasks that a change of these fields ended, and that nobody read back."""
        state = fields.get("state")
        if not count or state not in (JOB_ENDED if job else TASK_ENDED):
            return
        counter, what = (self._jobs, "jobs") if job else (self._tasks, "tasks")
        counter.labels(str(state), "engine" if state == TaskState.FAILED else NO_CAUSE).inc(count)
        log.info(f"{what} ended", state=str(state), count=count)

    def _task_ended(self, task: TaskDocument) -> None:
        cause = task_cause(task)
        self._tasks.labels(task.state.value, cause).inc()
        seconds = _seconds(task.started_at, task.ended_at)
        if task.kind == TaskKind.CONTAINER and task.started_at:
            self._run.labels(self._queue(task)).observe(seconds)
        log.info(
            "task ended", task=task.id, job=task.job_id, state=task.state.value, cause=cause,
            attempt=task.attempt, run=task.run, node=task.node_id, seconds=round(seconds, 3), version=self.version,
        )  # fmt: skip

    def _job_ended(self, job: JobDocument) -> None:
        cause = job_cause(job)
        self._jobs.labels(job.state.value, cause).inc()
        seconds = _seconds(job.started_at, job.ended_at)
        if job.started_at:
            self._job_run.observe(seconds)
        log.info(
            "job ended", job=job.id, state=job.state.value, cause=cause, parent_task=job.parent_id,
            user=job.created_by.username, restarts=job.restarts, seconds=round(seconds, 3), version=self.version,
        )  # fmt: skip

    def _queue(self, task: TaskDocument) -> str:
        return self._queues.label(task.queue or DEFAULT_QUEUE)


def _job_trace(job: JobDocument) -> str:
    """Return what a job is a part of, as a `traceparent`: what its user sent with it, else where this process traces, a
    trace of its root job's own; "" for none."""
    if job.trace or not traces():
        return job.trace
    return f"00-{derived_id('trace', job.root_id)}-{derived_id('span', 'none')[:16]}-01"


def task_trace(job: JobDocument, task_id: str) -> str:
    """Return the span of a task of `job`, as a `traceparent`. Where nothing is traced here, what the user sent."""
    return span_in(_job_trace(job), task_id) if traces() else job.trace


def trace_end(document: object, job: JobDocument | None) -> None:
    """Trace a task of `job`, or a job, that has ended: all the time from when it was made."""
    if isinstance(document, TaskDocument) and job is not None and document.state in TASK_ENDED:
        _trace_task(document, job)
    elif isinstance(document, JobDocument) and document.state in JOB_ENDED:
        _trace_job(document)


def _trace_task(task: TaskDocument, job: JobDocument) -> None:
    trace = _job_trace(job)
    above = (task.parent_id,) if task.parent_id else _job_key(job)
    attributes = {
        "haulier.job_id": task.job_id, "haulier.task_id": task.id, "haulier.state": task.state.value,
        "haulier.cause": task_cause(task), "haulier.kind": task.kind.value, "haulier.attempt": task.attempt,
        "haulier.run": task.run, "haulier.node_id": task.node_id or "", "haulier.queue": task.queue or "",
    }  # fmt: skip
    past_span(
        "task",
        attributes,
        task.created_at,
        task.ended_at or task.created_at,
        parent=span_in(trace, *above),
        own=span_in(trace, task.id),
        error="the task failed" if task.state == TaskState.FAILED else None,
    )


def _trace_job(job: JobDocument) -> None:
    trace = _job_trace(job)
    above = job.parent_id or job.detached_from
    attributes = {
        "haulier.job_id": job.id, "haulier.state": job.state.value, "haulier.cause": job_cause(job),
        "haulier.restarts": job.restarts, "haulier.user": job.created_by.username,
    }  # fmt: skip
    past_span(
        "job",
        attributes,
        job.created_at,
        job.ended_at or job.created_at,
        parent=span_in(trace, above) if above else job.trace,
        own=span_in(trace, *_job_key(job)),
        error="the job failed" if job.state == JobState.FAILED else None,
    )


def _job_key(job: JobDocument) -> tuple[object, ...]:
    return job.id, job.restarts


def task_cause(task: TaskDocument) -> str:
    """Return why a task failed, as one of `TASK_CAUSES`; `none` where it did not."""
    if task.state != TaskState.FAILED:
        return NO_CAUSE
    error = (task.error or "").partition("\n")[0]
    if error.startswith(LOST_TOO_OFTEN):
        return "lost"
    if "timed out after" in error:
        return "timeout"
    if "killed: out of memory" in error:
        return "out_of_memory"
    if task.exit_code:
        return "exit_code"
    if task.kind != TaskKind.CONTAINER and task.started_at:
        return "below"
    if task.evaluated_at and not task.evaluated:
        return "expression"
    return "runtime" if task.node_id else "engine"


def job_cause(job: JobDocument) -> str:
    """Return why a job failed, as one of `JOB_CAUSES`; `none` where it did not."""
    if job.state != JobState.FAILED:
        return NO_CAUSE
    return "output" if (job.error or "").startswith("output: ") else "task"


def _counter(measures: Measures, name: str, about: str, *labels: str) -> Counter:
    return Counter(name, about, labels, registry=measures.registry)


def _histogram(measures: Measures, name: str, about: str, *labels: str) -> Histogram:
    return Histogram(name, about, labels, buckets=LONG_TIMES, registry=measures.registry)


def _seconds(begin: Micros | None, end: Micros | None) -> float:
    return max(0, end - begin) / MICROS_PER_SECOND if begin and end else 0.0
