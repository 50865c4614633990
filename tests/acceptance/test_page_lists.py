"""The lists of jobs and of schedules on the web page, and its keys, in a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import BrowserContext, Page, expect

from tests.acceptance.browser import Contexts, at, go
from tests.acceptance.processes import SHELL, Standalone

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]

NIGHTLY = "name: by night\nschedule: {cron: '0 3 * * *'}\ntasks:\n  - {name: a, run: 'true'}\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A process with two pages of jobs that have ended, the oldest of them `first of all`."""
    process = Standalone(tmp_path_factory.mktemp("lists"), 8, **SHELL)
    process.start()
    done = {"name": "a", "if": "false", "run": "true"}
    for name in ("first of all", *(f"number {number}" for number in range(21))):
        tags = ["paint"] if name == "number 7" else []
        process.submit({"name": name, "tags": tags, "tasks": [done]})
    yield process
    process.stop()


@pytest.fixture
def context(contexts: Contexts, server: Standalone) -> BrowserContext:
    return contexts.open(server.url)


def scheduled(server: Standalone) -> str:
    """Add a schedule; return its id."""
    status, made = server.call("POST", "/scheduled-jobs", NIGHTLY, {"Content-Type": "text/yaml"})
    assert status == 200, made
    return str(made["id"])


def test_jobs_are_found_as_one_types(page: Page, server: Standalone) -> None:
    go(page, at(server))
    names = page.locator("a.line .name")
    expect(names).to_have_count(20)
    search = page.get_by_label("Search jobs")
    search.press_sequentially("first")
    expect(names).to_have_text(["first of all"])
    expect(search).to_be_focused()
    page.reload()
    expect(names).to_have_text(["first of all"])
    search.fill("nothing of this name")
    expect(page.locator(".empty")).to_be_visible()
    search.fill("")
    expect(names).to_have_count(20)


def test_a_tag_shows_its_jobs_with_their_number(page: Page, server: Standalone) -> None:
    go(page, at(server))
    chip = page.locator(".chips .chip").filter(has_text="#paint")
    expect(chip).to_have_text("#paint1")
    chip.click()
    expect(page.locator("a.line .name")).to_have_text(["number 7"])
    expect(chip).to_have_attribute("aria-pressed", "true")
    chip.click()
    expect(page.locator("a.line .name")).to_have_count(20)


def test_older_jobs_are_reached(page: Page, server: Standalone) -> None:
    go(page, at(server))
    oldest = page.locator("a.line .name").filter(has_text="first of all")
    expect(page.locator(".pages")).to_contain_text("Page 1 of 2")
    expect(oldest).to_have_count(0)
    page.get_by_role("button", name="Older").click()
    expect(oldest).to_be_visible()
    expect(page.locator(".pages")).to_contain_text("Page 2 of 2")
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_role("button", name="Newer").click()
    expect(page.locator("a.line")).to_have_count(20)
    expect(oldest).to_have_count(0)


def test_jobs_of_a_schedule_stand_together_on_demand(page: Page, server: Standalone) -> None:
    schedule = scheduled(server)
    runs = [server.call("POST", f"/scheduled-jobs/{schedule}/run")[1]["id"] for _ in range(2)]
    go(page, at(server))
    expect(page.locator(f"a.line[href='#/jobs/{runs[1]}']")).to_be_visible()
    expect(page.locator("h2")).to_have_count(0)
    page.get_by_role("button", name="group by schedule").click()
    together = page.locator("section").filter(has_text="by night · every day at 03:00")
    expect(together).to_have_count(1)
    expect(together.locator("a.line")).to_have_count(2)
    others = page.locator("section").filter(has_text="Without a schedule")
    expect(others.locator("a.line")).to_have_count(18)
    server.call("DELETE", f"/scheduled-jobs/{schedule}")


def test_everything_is_reached_by_keys(page: Page, server: Standalone) -> None:
    go(page, at(server))
    lines = page.locator("a.line")
    expect(lines).to_have_count(20)
    for key, number in (("j", 0), ("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        expect(lines.nth(number)).to_be_focused()
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_visible()
    expect(page.locator("#help")).to_contain_text("next, previous")
    page.keyboard.press("?")
    expect(page.locator("#help")).to_be_hidden()
    expect(lines.nth(1)).to_be_focused()
    page.keyboard.press("/")
    search = page.get_by_label("Search jobs")
    expect(search).to_be_focused()
    page.keyboard.type("jkn?")  # only text, in a field
    expect(search).to_have_value("jkn?")
    expect(page.locator("#help")).to_be_hidden()
    search.fill("")
    page.keyboard.press("Escape")
    expect(lines).to_have_count(20)
    page.keyboard.press("n")
    expect(page.get_by_role("textbox", name="Job in YAML")).to_be_visible()
    assert page.url.endswith("#/new")
    page.go_back()
    expect(lines).to_have_count(20)
    page.keyboard.press("j")
    name = lines.first.locator(".name").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("main h1")).to_contain_text(name)


def test_a_schedule_is_resumed_changed_and_deleted(page: Page, server: Standalone) -> None:
    schedule = scheduled(server)
    assert server.call("PUT", f"/scheduled-jobs/{schedule}/pause")[0] == 200
    go(page, at(server, "schedules"))
    row = page.locator(".schedule")
    expect(row.locator(".mark").first).to_contain_text("paused")
    expect(row.locator("time")).to_have_count(0)
    row.get_by_role("button", name="Resume").click()
    expect(row.locator(".mark").first).to_contain_text("active")
    expect(row.locator("time")).to_have_count(3)
    row.get_by_role("link", name="Edit").click()
    text = page.get_by_role("textbox", name="Job in YAML")
    expect(text).to_have_value(re.compile("0 3"))
    text.fill(text.input_value().replace("0 3", "30 4").replace("by night", "by dawn"))
    page.get_by_role("button", name="Save").click()
    expect(row).to_contain_text("every day at 04:30")
    expect(row).to_contain_text("by dawn")
    assert server.get(f"/scheduled-jobs/{schedule}")["cron"] == "30 4 * * *"
    row.get_by_role("button", name="Delete", exact=True).click()
    assert server.get(f"/scheduled-jobs/{schedule}")["name"] == "by dawn"
    row.get_by_role("button", name="Really delete").click()
    expect(row).to_have_count(0)
    assert server.call("GET", f"/scheduled-jobs/{schedule}")[0] == 404
