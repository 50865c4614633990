"""Every job that a page of the documentation shows whole runs to the end that the page says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.acceptance.processes import Standalone, wait_for
from tests.acceptance.receiving import Receiver, receiver
from tests.pages import ROOT, whole_jobs

NOT_RUN = {
    "with mistakes": "it shows what is refused, which tests/unit/test_docs.py looks at",
    "an image from a private registry": "examples/registry.yaml, which runs on a real registry",
}
"""Jobs that are not run here, and why."""

FAILING = {"broken"}
"""Jobs that show what a failure is like."""


def name_of(text: str) -> str:
    return text.partition("\n")[0].removeprefix("name: ")


JOBS = {name_of(text): text for _, text in whole_jobs()}
RUN = sorted({*JOBS} - {*NOT_RUN})


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with receiver() as found:
        yield found


@pytest.fixture(scope="module")
def server(shell: Standalone) -> Standalone:
    role = json.dumps({"name": "operators"})
    status, body = shell.call("POST", "/roles", role, {"Content-Type": "application/json"})
    assert status in (200, 400), body
    return shell


@pytest.mark.parametrize("name", RUN)
def test_a_job_of_a_page_runs_to_its_end(server: Standalone, hooks: Receiver, name: str) -> None:
    text = JOBS[name].replace("http://localhost:9999", hooks.url)
    job_id = first_firing(server, text) if "\nschedule:" in text else server.submit(text)
    job = server.wait_job(job_id)
    assert job["state"] == ("FAILED" if name in FAILING else "COMPLETED"), server.log_of(job_id)
    if "\nwebhooks:" in text:
        wait_for(lambda: job_id in str(hooks.at("/jobs")), 10, "the webhook")


def first_firing(server: Standalone, text: str) -> str:
    """Return the first job of a schedule, which fires at once."""
    soon = re.sub(r"cron: .*", 'cron: "@every 1s"', text)
    status, body = server.call("POST", "/scheduled-jobs", soon, {"Content-Type": "text/yaml"})
    assert status == 200, body
    try:
        fired = wait_for(lambda: jobs_of(server, body["id"]), 10, "a job of the schedule")
    finally:
        server.call("DELETE", f"/scheduled-jobs/{body['id']}")
    return str(fired[0])


def jobs_of(server: Standalone, schedule: str) -> list[str]:
    jobs = server.get("/jobs?size=20")["items"]
    return [job["id"] for job in jobs if job.get("schedule", {}).get("id") == schedule]


def test_what_is_not_run_here_is_what_its_reason_says() -> None:
    assert len(JOBS) == len(list(whole_jobs())), "two jobs have one name"
    assert {*NOT_RUN} <= {*JOBS}
    assert {*FAILING} <= {*RUN}
    example = (ROOT / "examples" / "registry.yaml").read_text()
    assert JOBS["an image from a private registry"] in example
