"""The screen of one job on the web page, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from playwright.sync_api import Locator, Page, expect

from tests.acceptance.browser import Contexts, at, go
from tests.acceptance.definitions import IMAGE
from tests.acceptance.processes import Standalone

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]

SUMS = {
    "name": "sums",
    "inputs": {"a": "<b>1</b>"},
    "tasks": [
        {"name": "one", "var": "one", "run": 'echo "# comment"\nprintf first > $HAULIER_OUTPUT\n'},
        {"name": "two", "run": "printf 'second\\n2' > $HAULIER_OUTPUT"},
    ],
    "output": "{{ tasks.one }} and more",
}


def opened(page: Page, server: Standalone, job: dict[str, Any]) -> str:
    """Run a job to its end and show it; return its id."""
    id = server.submit(job)
    server.wait_job(id)
    go(page, at(server, f"jobs/{id}"))
    expect(page.locator(".title")).to_contain_text("completed after")
    return id


def test_results_and_what_was_submitted_are_shown(page: Page, shell: Standalone) -> None:
    opened(page, shell, SUMS)
    expect(page.locator(".step.chosen")).to_contain_text("two")
    page.get_by_role("tab", name="Result").click()
    expect(page.locator(".panel pre")).to_have_text(["second\n2", "first and more"])
    page.locator(".step").filter(has_text="one").locator("button").click()
    expect(page.locator(".panel pre")).to_have_text(["first", "first and more"])
    page.keyboard.press("Tab")  # from the steps to the tabs
    page.get_by_role("tab", name="Result").press("ArrowRight")
    expect(page.get_by_role("tab", name="YAML")).to_be_focused()
    submitted = page.locator(".panel pre")
    expect(submitted).to_have_count(1)
    assert yaml.safe_load(submitted.inner_text()) == SUMS


@pytest.mark.docker
def test_details_say_what_a_container_was_and_used(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    server = standalone(docker=True)
    page = contexts.open(server.url).new_page()
    task = {
        "name": "work",
        "image": IMAGE,
        "run": "i=0; while [ $i -lt 50000 ]; do i=$((i+1)); done",
    }
    opened(page, server, {"name": "uses", "tasks": [{**task, "env": {"GREETING": "hello"}}]})
    page.get_by_role("tab", name="Details").click()
    details = page.locator(".details")

    def fact(name: str) -> Locator:
        return (
            details.locator("dl > div").filter(has=page.get_by_text(name, exact=True)).locator("dd")
        )

    expect(fact("Image")).to_have_text(IMAGE)
    expect(fact("CPU")).to_have_text(re.compile(r"^\d+ ms$|^\d+\.\d s$"))
    expect(fact("Peak memory")).to_have_text(re.compile(r"^\d+(\.\d)? [KM]iB$"))
    expect(fact("Exit code")).to_have_text("0")
    expect(fact("Node")).to_have_text(
        server.job(page.url.rpartition("/")[2])["execution"][0]["nodeId"]
    )
    expect(details.get_by_text("GREETING=hello")).to_be_visible()


def test_bars_of_steps_stand_in_the_order_of_their_times(page: Page, shell: Standalone) -> None:
    tasks = [{"name": "first", "run": "sleep 0.5"}, {"name": "second", "run": "sleep 1"}]
    opened(page, shell, {"name": "bars", "tasks": tasks})
    bars = page.locator(".bars .bar")
    expect(bars).to_have_count(2)
    axis = page.locator(".axis .ends").bounding_box()
    first, second = (bars.nth(number).bounding_box() for number in (0, 1))
    assert axis is not None
    assert first is not None
    assert second is not None
    assert axis["x"] - 1 <= first["x"]
    assert first["x"] + first["width"] <= second["x"] + 1
    assert second["x"] + second["width"] <= axis["x"] + axis["width"] + 1
    assert second["width"] > first["width"] > axis["width"] / 10


def test_a_job_is_deleted_only_when_asked_twice(page: Page, shell: Standalone) -> None:
    job = opened(page, shell, {"name": "to be deleted", "tasks": [{"name": "a", "run": "true"}]})
    page.get_by_role("button", name="Delete", exact=True).click()
    assert shell.job(job)["id"] == job
    page.get_by_role("button", name="Really delete").click()
    expect(page.locator("#notice")).to_contain_text("Deleted.")
    expect(page.locator("#search")).to_be_visible()
    expect(page.locator(f"a.line[href='#/jobs/{job}']")).to_have_count(0)
    assert shell.call("GET", f"/jobs/{job}")[0] == 404


def test_the_end_of_a_job_is_told_to_a_screen_reader(page: Page, shell: Standalone) -> None:
    job = shell.submit({"name": "short", "tasks": [{"name": "a", "run": "sleep 300"}]})
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".title")).to_contain_text("running for")
    shell.call("PUT", f"/jobs/{job}/cancel")
    said = page.locator("#said")
    expect(said).to_have_text("short: cancelled")
    expect(said).to_have_attribute("role", "status")
