"""The list of jobs, and their ids on the command line: `@last`, and what a shell completes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from haulier.cli.forms import Decorator
from haulier.cli.lists import Listing, id_argument
from haulier.cli.times import relative, time_between
from haulier.cli.tree import ended_at, short
from haulier.client import Client
from haulier.errors import HaulierError
from haulier.results import JobSummary

LAST: Final = "@last"
"""Stands for the id of the newest job."""


def _job_row(job: JobSummary, at: datetime) -> tuple[str, ...]:
    end = ended_at(job)
    took = time_between(job.started_at, end or at)
    state = job.state if end or not job.progress else f"{job.state} {job.progress:.0f}%"
    return short(job.id), job.name, state, took, relative(end or job.created_at, at)


JOBS: Final = Listing(
    path="/jobs",
    kind=JobSummary,
    noun="job",
    headings=("ID", "NAME", "STATE", "TOOK", "WHEN"),
    row=_job_row,
    name=lambda job: job.id,
    empty="no jobs",
    optional=("WHEN", "TOOK"),
    size=10,
    most=20,
)


def job_argument(name: str = "job_id", **more: Any) -> Decorator:
    """Return an argument that names a job, or several with `nargs`; shells complete it."""
    return id_argument(JOBS, name, **more)


async def whole_id(client: Client, job_id: str) -> str:
    """Return the id that was meant: `@last` is the newest job that is no sub-job."""
    if job_id != LAST:
        return job_id
    found = await client.jobs(parent="none", size=1)
    if found.items:
        return found.items[0].id
    raise HaulierError("@last: there is no job yet")
