"""The web page in a real Chromium, against real processes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import APIResponse, BrowserContext, Page, Request, Route, expect

from tests.acceptance.browser import Contexts, at, faults_of_access, go
from tests.acceptance.processes import Cluster, Standalone, wait_for

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]

FAILS = """
name: fetch and report
inputs: {city: Bern}
tasks:
  - {name: prepare, run: "true"}
  - name: fetch numbers
    retry: {limit: 1, initialDelay: 100ms}
    run: printf '\\033[31mconnection refused\\033[0m\\n' && exit 2
  - {name: report, run: "true"}
"""
BAD = {"name": "bad", "run": "echo oh no; exit 3"}
TICKS = "name: ticks\ntasks:\n  - {name: tick, run: 'for i in $(seq 600); do echo tick $i; sleep 0.1; done'}\n"
HARMFUL = r"""
name: "<img src=x onerror=alert(1)>"
tags: ["<b>"]
tasks:
  - name: "evil \u202e \u0007 name"
    run: printf '<script>alert(1)</script>\n\033]0;title\007after\n\001 ctl\n::group::more\na\n::endgroup::\n'; exit 1
"""
EVIL_ERROR = (
    r"printf 'before\n\033[31m<script>alert(1)</script>\033]0;title\007\001\342\200\256'; exit 1"
)
EVIL_QUEUE = "<img src=x onerror=alert(1)>"
HARMFUL_LETTERS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202e]")
MISTAKEN = "name: mistaken\ntasks:\n  - name: say\n    imgae: x\n    run: sleep 60\n"


def test_write_a_job_with_a_mistake_mend_it_run_it_cancel_and_restart(
    page: Page, shell: Standalone
) -> None:
    go(page, at(shell))
    page.get_by_role("link", name="New job").click()
    text = page.get_by_role("textbox", name="Job in YAML")
    text.fill(MISTAKEN)
    expect(page.locator(".codeline.wrong")).to_contain_text("imgae")
    expect(page.locator("#faults")).to_contain_text('did you mean "image"?')
    page.reload()
    expect(page.get_by_role("textbox", name="Job in YAML")).to_have_value(MISTAKEN)
    text.fill(TICKS)
    expect(page.locator("#faults")).to_contain_text("Valid")
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.locator(".pane .row").filter(has_text=re.compile("tick 5$"))).to_be_visible()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".title")).to_contain_text("cancelled after")
    page.get_by_role("button", name="Restart from “tick”").click()
    expect(page.locator(".title")).to_contain_text("running for")
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.locator(".title")).to_contain_text("cancelled after")


def test_a_failed_job_says_where_and_why_and_runs_again(page: Page, shell: Standalone) -> None:
    job = shell.submit(FAILS)
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    banner = page.locator(".banner")
    expect(banner).to_contain_text("Failed at fetch numbers — exit code 2, after 2 attempts")
    expect(banner).to_contain_text("connection refused")
    expect(page.locator(".pane .row .text")).to_have_text("connection refused")
    expect(page.locator(".step.chosen")).to_contain_text("fetch numbers ×2")
    expect(page.locator(".step.never")).to_contain_text("report")
    page.get_by_role("link", name="Run again…").click()
    page.get_by_label("city").fill("Basel")
    page.get_by_label("from").select_option("2")
    plan = page.locator(".plan li")
    expect(plan).to_have_text(
        [re.compile("kept.*prepare"), re.compile("runs.*fetch"), re.compile("runs.*report")]
    )
    page.get_by_role("button", name="Run", exact=True).click()
    expect(page.get_by_role("link", name="run again from another job")).to_be_visible()
    again = page.url.rpartition("/")[2].partition("?")[0]
    shown = shell.wait_job(again)
    assert (shown["inputs"], shown["rerunOf"]) == ({"city": "Basel"}, job)
    assert [task["name"] for task in shown["execution"]] == ["prepare", *["fetch numbers"] * 2]


def test_a_failed_job_is_restarted_from_the_step_that_failed(
    page: Page, shell: Standalone, tmp_path: Path
) -> None:
    flaky = f"mkdir {tmp_path}/tried 2>/dev/null && exit 2; echo better"  # fails once
    steps = {"prepare": "true", "fetch": flaky, "report": "true"}
    tasks = [{"name": name, "run": run} for name, run in steps.items()]
    job = shell.submit({"name": "flaky", "tasks": tasks})
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".step.never")).to_contain_text("report")
    page.locator(".step").filter(has_text="prepare").locator("button").click()
    page.get_by_role("button", name="Restart from “fetch”").click()
    expect(page.locator(".title")).to_contain_text("completed after")
    expect(page.locator(".step.never")).to_have_count(0)
    expect(page.locator(".banner")).to_have_count(0)
    expect(page.locator(".step .mark.completed")).to_have_count(3)
    expect(page.locator(".step.chosen")).to_contain_text("report")
    page.locator(".step").filter(has_text="fetch").locator("button").click()
    expect(page.locator(".pane .row .text")).to_have_text("better")
    ran = [task["name"] for task in shell.job(job)["execution"]]
    assert ran == ["prepare", "fetch", "fetch", "report"]


def test_a_failed_sub_job_is_opened_where_it_failed(page: Page, shell: Standalone) -> None:
    inner = {"name": "inner", "tasks": [{"name": "good", "run": "true"}, BAD]}
    job = shell.submit({"name": "outer", "tasks": [{"name": "child", "subjob": inner}]})
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".banner")).to_contain_text(
        "Failed at bad — exit code 3, in the sub-job of child"
    )
    expect(page.locator(".step.chosen")).to_contain_text("bad")
    expect(page.locator(".pane .row .text")).to_have_text("oh no")


@pytest.mark.parametrize(
    ("task", "banner", "said"),
    [
        (BAD, "Failed at bad — exit code 3oh no", "bad: oh no"),
        (
            {"name": "slow", "timeout": "1s", "run": "echo began; sleep 60"},
            "Failed at slow — timed out after 1sbegan",
            "slow: timed out after 1s",
        ),
        (
            {"name": "encode", "queue": "nobodys", "run": "true"},
            "Waiting: encode: no worker takes from nobodys",
            "no worker takes from nobodys",
        ),
    ],
    ids=["exit code", "timeout", "no worker"],
)
def test_the_reason_is_seen_at_once(
    page: Page, shell: Standalone, task: dict[str, Any], banner: str, said: str
) -> None:
    name = f"reason of {task['name']}"
    job = shell.submit({"name": name, "tasks": [task]})
    go(page, at(shell))
    expect(page.locator("a.line").filter(has_text=name)).to_contain_text(said)
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".banner")).to_contain_text(banner)
    if task["name"] == "encode":
        expect(page.locator(".blank")).to_have_text("Waiting for the first line…")
        shell.call("PUT", f"/jobs/{job}/cancel")
        expect(page.locator(".blank")).to_have_text("It did not start.")


def test_inputs_are_filled_in_by_a_form(page: Page, shell: Standalone) -> None:
    go(page, at(shell, "new"))
    text = page.get_by_role("textbox", name="Job in YAML")
    text.fill(f"# a job\n{FAILS.strip()}\n# its end\n")
    field = page.get_by_role("textbox", name="city")
    field.fill('a "b": 1')
    expect(field).to_be_focused()
    wanted = FAILS.strip().replace("inputs: {city: Bern}", 'inputs:\n  city: "a \\"b\\": 1"')
    expect(text).to_have_value(f"# a job\n{wanted}\n# its end\n")
    expect(page.locator("#faults")).to_contain_text("Valid")
    text.hover(position={"x": 60, "y": 50})
    expect(page.locator(".hint")).to_contain_text("inputs: ")
    field.press("Enter")
    expect(page.locator(".title")).to_contain_text("fetch and report")
    made = page.url.rpartition("/")[2].partition("?")[0]
    assert shell.job(made)["inputs"] == {"city": 'a "b": 1'}


def test_a_schedule_is_added_run_and_paused(page: Page, shell: Standalone) -> None:
    go(page, at(shell, "new?kind=schedule"))
    text = page.get_by_role("textbox", name="Job in YAML")
    text.fill("name: by night\nschedule: {cron: '0 3 * * *'}\ntasks:\n  - {name: a, run: 'true'}\n")
    page.get_by_role("button", name="Add schedule").click()
    row = page.locator(".schedule").filter(has_text="by night")
    expect(row).to_contain_text("every day at 03:00")
    expect(row.locator("time")).to_have_count(3)
    row.get_by_role("button", name="Run now").click()
    expect(row.locator(".run.completed")).to_be_visible()
    row.get_by_role("button", name="Pause").click()
    expect(row.locator(".mark").first).to_contain_text("paused")


def test_all_of_a_long_log_is_reached_and_found(page: Page, shell: Standalone) -> None:
    script = "seq 1 100000 | sed 's/^/number /'; echo the needle"
    job = shell.submit({"name": "long", "tasks": [{"name": "print", "run": script}]})
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".log")).to_contain_text("100,001 lines")
    expect(page.locator(".row").filter(has_text="the needle")).to_be_visible()
    page.locator(".pane").focus()
    page.keyboard.press("Home")
    expect(page.locator(".row .text").first).to_have_text("number 1")
    page.keyboard.press("/")
    page.keyboard.type("number 77777")
    expect(page.locator(".row.here .text")).to_have_text("number 77777")
    expect(page.locator(".tally").first).to_have_text("1 of 1")
    assert page.locator(".row").count() < 200
    go(page, at(shell, f"jobs/{job}?task={shell.job(job)['execution'][0]['id']}#L50000"))
    page.reload()
    expect(page.locator(".row.marked .text")).to_have_text("number 50000")


def test_all_steps_of_a_job_of_very_many_are_shown(page: Page, shell: Standalone) -> None:
    tasks = [{"name": f"step {number}", "if": "false", "run": "true"} for number in range(1_010)]
    job = shell.submit({"name": "many steps", "tasks": tasks})
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".step")).to_have_count(1_010)
    expect(page.locator(".step.never")).to_have_count(0)


def test_a_line_that_was_begun_is_one_line_once_it_has_ended(page: Page, shell: Standalone) -> None:
    script = "printf 'waiting ... '; sleep 4; echo done; echo next"
    job = shell.submit({"name": "prompt", "tasks": [{"name": "ask", "run": script}]})
    go(page, at(shell, f"jobs/{job}"))
    row = page.locator(".row .text").first
    expect(row).to_have_text("waiting ...")
    expect(row).to_have_text("waiting ... done")
    expect(page.locator(".log")).to_contain_text("2 lines")


def test_the_failed_of_many_tasks_are_seen_first(page: Page, shell: Standalone) -> None:
    task = {
        "name": "shard {{ item.value }}",
        "run": "exit $((N == 60))",
        "env": {"N": "{{ item.value }}"},
    }
    each = {"list": "{{ 1..70 }}", "concurrency": 8, "task": task}
    job = shell.submit({"name": "many", "tasks": [{"name": "all", "each": each}]})
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".banner")).to_contain_text("Failed at shard 60")
    expect(page.locator(".cell").first).to_have_class(re.compile("failed"))
    expect(page.locator(".step.chosen")).to_contain_text("shard 60")
    expect(page.locator(".cell")).to_have_count(70)
    page.locator(".cellsrow .chip").filter(has_text="failed").click()
    expect(page.locator(".cell")).to_have_count(1)


def test_one_finds_ones_way(page: Page, shell: Standalone) -> None:
    """Filters end with the link to all jobs; focus, title and what a reader says go along; a line has an address."""
    job = shell.submit(FAILS)
    shell.wait_job(job)
    go(page, at(shell))
    chip = page.locator(".chips .chip").filter(has_text="failed")
    chip.click()
    expect(chip).to_have_attribute("aria-pressed", "true")
    page.get_by_role("link", name="Jobs").click()
    expect(chip).to_have_attribute("aria-pressed", "false")
    page.locator(f"a.line[href='#/jobs/{job}']").press("Enter")
    expect(page.locator("#main")).to_be_focused()
    expect(page.locator("#said")).to_have_text("✕ fetch and report")
    page.locator(".pane .row").wait_for()
    page.get_by_label("Find in log").fill("refused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.locator(".row .number").click()
    expect(page.locator(".row.marked")).to_contain_text("connection refused")
    expect(page.get_by_label("Find in log")).to_have_value("refused")
    assert page.url.endswith("#L1")
    assert asked == []
    page.evaluate("location.hash = '#/jobs/%'")
    expect(page.locator("main h1")).to_have_text("Not found")


def test_all_schedules_are_reached(page: Page, shell: Standalone) -> None:
    text = "name: {}\nschedule: {{cron: '0 3 * * *'}}\ntasks: [{{name: a, run: 'true'}}]\n"
    names = ["<img src=x onerror=alert(1)>", *(f"by day {number}" for number in range(20))]
    for name in names:
        body = text.format(json.dumps(name))
        assert shell.call("POST", "/scheduled-jobs", body, {"Content-Type": "text/yaml"})[0] == 200
    go(page, at(shell, "schedules"))
    expect(page.locator(".schedule").first).to_contain_text("by day 19")
    page.get_by_role("button", name="Older").click()
    expect(page.locator(".schedule").filter(has_text="<img src=x")).to_be_visible()
    assert page.locator("main img").count() == 0


@pytest.mark.parametrize("hours", [-2, 2], ids=["behind", "ahead"])
def test_a_clock_that_differs_tells_no_other_times(
    context: BrowserContext, shell: Standalone, hours: int
) -> None:
    job = shell.submit(TICKS)
    shell.wait_state(job, "RUNNING")
    context.clock.install(time=datetime.now(UTC) + timedelta(hours=hours))
    page = context.new_page()
    go(page, at(shell, f"jobs/{job}"))
    facts = page.locator(".facts")
    expect(facts).to_contain_text(
        re.compile(r"running for \d+\.\d s · started (just now|\d+ s ago)")
    )
    expect(page.locator(".step .took").first).to_have_text(re.compile(r"\d+\.\d s"))
    shell.call("PUT", f"/jobs/{job}/cancel")
    expect(facts).to_contain_text("cancelled after")
    go(page, at(shell))
    line = page.locator(f"a.line[href='#/jobs/{job}']")
    expect(line.locator(".ago")).to_have_text(re.compile(r"just now|\d+ s ago"))


def test_what_is_harmful_is_only_text(page: Page, shell: Standalone) -> None:
    job = shell.submit(HARMFUL)
    shell.wait_job(job)
    go(page, at(shell))
    expect(page.locator("a.line .name").filter(has_text="<img")).to_be_visible()
    go(page, at(shell, f"jobs/{job}"))
    rows = page.locator(".row .text")
    expect(rows.first).to_have_text("<script>alert(1)</script>")
    expect(rows.nth(1)).to_have_text("after")
    expect(rows.nth(2)).to_have_text("\u2401 ctl")
    assert page.locator("main img, main script").count() == 0
    assert "\u202e" not in (page.locator("main").text_content() or "")
    page.get_by_role("button", name="▾ more").click()
    expect(rows).to_have_count(4)


@pytest.mark.parametrize(
    ("task", "said", "places"),
    [
        ({"run": EVIL_ERROR}, "<script>alert(1)</script>\u2401\ufffd", ("", "jobs/{}")),
        ({"run": "true", "queue": EVIL_QUEUE}, EVIL_QUEUE, ("", "jobs/{}", "workers")),
    ],
    ids=["error", "queue"],
)
def test_what_is_harmful_in_a_reason_is_only_text(
    page: Page, shell: Standalone, task: dict[str, Any], said: str, places: tuple[str, ...]
) -> None:
    job = shell.submit({"name": "evil", "tasks": [{"name": "a", **task}]})
    main = page.locator("main")
    for place in places:
        go(page, at(shell, place.format(job)))
        expect(main.get_by_text(said).first).to_be_visible()
        assert main.locator("img, script").count() == 0
        assert not HARMFUL_LETTERS.search(main.text_content() or "")
    shell.call("PUT", f"/jobs/{job}/cancel")


@pytest.mark.parametrize("queue", ["\x1b[31mred", "\x1b]0;title\x07", "a\u202eb", "\x01"])
def test_no_queue_is_named_by_what_a_terminal_obeys(
    page: Page, shell: Standalone, queue: str
) -> None:
    go(page, at(shell, "new"))
    task = {"name": "a", "run": "true", "queue": queue}
    text = page.get_by_role("textbox", name="Job in YAML")
    text.fill(json.dumps({"name": "evil", "tasks": [task]}))
    expect(page.locator("#faults")).to_contain_text("printable characters")
    assert not HARMFUL_LETTERS.search(page.locator("#faults").inner_text())


@pytest.mark.parametrize(
    "look",
    [
        {"viewport": {"width": 1300, "height": 850}},
        {"viewport": {"width": 1300, "height": 850}, "color_scheme": "dark"},
        {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
    ],
    ids=["light", "dark", "phone"],
)
def test_nobody_is_kept_out(contexts: Contexts, shell: Standalone, look: dict[str, Any]) -> None:
    child = {"name": "x" * 100, "run": "false"}
    many = {"name": "all", "each": {"list": "{{ 1..60 }}", "task": child}}
    job, cells = shell.submit(FAILS), shell.submit({"name": "y" * 200, "tasks": [many]})
    waits = shell.submit({"name": "waits", "tasks": [{"name": "a", "queue": "no", "run": "true"}]})
    shell.wait_job(job)
    shell.wait_job(cells)
    page = contexts.open(shell.url, **look).new_page()
    places = {
        "": "a.line",
        f"jobs/{job}": ".row",
        f"jobs/{job}/rerun": ".plan",
        f"jobs/{cells}": ".cell",
        f"jobs/{waits}": ".banner",
        "new": ".codeline",
        "schedules": "h1",
        "workers": ".node",
        "access": "form",
    }
    for place, there in places.items():
        go(page, at(shell, place))
        page.locator(there).first.wait_for()
        assert faults_of_access(page) == [], place
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"{place} is {wide} pixels too wide"
    shell.call("PUT", f"/jobs/{waits}/cancel")
    page.locator("#helpopen").click()
    assert faults_of_access(page) == []
    page.keyboard.press("Escape")
    expect(page.locator("#helpopen")).to_be_focused()
    go(page, at(shell, "new"))
    text = page.get_by_role("textbox", name="Job in YAML")
    text.fill(MISTAKEN)
    expect(page.locator("#faults")).to_contain_text("imgae")
    text.press_sequentially("    ret")
    expect(text).to_have_attribute("aria-activedescendant", "completion0")
    expect(page.locator("#completion0")).to_contain_text("retry")
    assert faults_of_access(page) == []


def last_line(page: Page) -> int:
    """The number of the last line that is seen."""
    return int(page.locator(".row .number").last.inner_text())


def has_more(page: Page, seen: int) -> bool:
    return last_line(page) > seen


def test_twelve_tabs_are_all_live(context: BrowserContext, shell: Standalone) -> None:
    jobs = [shell.submit(TICKS) for _ in range(3)]
    try:
        pages = [context.new_page() for _ in range(12)]
        for number, page in enumerate(pages):
            go(page, at(shell, f"jobs/{jobs[number % 3]}"))
        for page in pages:
            expect(page.locator(".row").nth(2)).to_be_attached()
        before = [last_line(page) for page in pages]
        for page, seen in zip(pages, before, strict=True):
            wait_for(partial(has_more, page, seen), 30, "another line")
    finally:
        for job in jobs:
            shell.call("PUT", f"/jobs/{job}/cancel")
    for page in pages:
        expect(page.locator(".title")).to_contain_text("cancelled after")


def test_an_idle_list_and_an_ended_job_ask_for_nothing(page: Page, shell: Standalone) -> None:
    job = shell.submit(FAILS)
    shell.wait_job(job)
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    for place, there in (("", "a.line"), (f"jobs/{job}", ".row")):
        go(page, at(shell, place))
        page.locator(there).first.wait_for()
        page.on("request", note)
        for _ in range(20):  # until all is there that the page asks for at the beginning
            asked.clear()
            page.wait_for_timeout(1500)
            if not asked:
                break
        page.wait_for_timeout(6000)
        assert asked == []
        page.remove_listener("request", note)


def test_nothing_is_missed_before_the_stream_is_open(page: Page, shell: Standalone) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.add_init_script("delete globalThis.SharedWorker")  # whose requests nobody can hold
    page.route("**/events", hold)
    job = shell.submit(TICKS)
    shell.wait_state(job, "RUNNING")
    go(page, at(shell))
    line = page.locator(f"a.line[href='#/jobs/{job}']")
    expect(line).to_contain_text("running")
    shell.call("PUT", f"/jobs/{job}/cancel")
    shell.wait_job(job)
    held[0].continue_()
    expect(line).to_contain_text("cancelled")


def test_an_older_answer_replaces_no_newer_one(page: Page, shell: Standalone) -> None:
    for number in range(21):
        body = f"name: daily {number}\nschedule: {{cron: '0 3 * * *'}}\ntasks: [{{name: a, run: 'true'}}]\n"
        assert shell.call("POST", "/scheduled-jobs", body, {"Content-Type": "text/yaml"})[0] == 200
    go(page, at(shell, "schedules"))
    newest = page.locator(".schedule").filter(has_text="daily 20")
    expect(newest).to_be_visible()
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    page.route("**/scheduled-jobs?size=20&page=1", hold)
    newest.get_by_role("button", name="Pause").click()
    while not held:
        page.wait_for_timeout(100)
    page.get_by_role("button", name="Older").click()
    expect(newest).to_have_count(0)
    held[0].continue_()
    page.wait_for_timeout(1000)
    expect(newest).to_have_count(0)


def test_what_was_not_answered_is_asked_for_again(page: Page, shell: Standalone) -> None:
    job = shell.submit(TICKS)
    shell.wait_state(job, "RUNNING")
    go(page, at(shell, f"jobs/{job}"))
    expect(page.locator(".title")).to_contain_text("running for")
    page.wait_for_timeout(2500)  # until nothing of the beginning is asked for any more
    failed: list[str] = []

    def fail(route: Route) -> None:
        failed.append(route.request.url)
        if len(failed) > 2:
            route.continue_()
        else:
            route.abort("failed")

    page.route(f"**/jobs/{job}?execution=false", fail)
    shell.call("PUT", f"/jobs/{job}/cancel")
    expect(page.locator(".title")).to_contain_text("cancelled after")
    assert len(failed) > 2


def test_focus_and_selection_survive_what_is_live(page: Page, shell: Standalone) -> None:
    job = shell.submit(TICKS)
    go(page, at(shell))
    line = page.locator(f"a.line[href='#/jobs/{job}']")
    line.focus()
    name = line.locator(".name")
    name.select_text()
    took = line.locator(".took").inner_text()
    other = shell.submit(TICKS)
    expect(page.locator(f"a.line[href='#/jobs/{other}']")).to_be_visible()
    expect(line.locator(".took")).not_to_have_text(took)
    assert page.evaluate("document.activeElement.getAttribute('href')") == f"#/jobs/{job}"
    assert page.evaluate("String(getSelection())") == "ticks"
    for each in (job, other):
        shell.call("PUT", f"/jobs/{each}/cancel")


def test_the_server_goes_away_and_comes_back(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    server = standalone()
    page = contexts.open(server.url).new_page()
    go(page, at(server))
    expect(page.locator("main")).to_contain_text("No jobs yet")
    page.wait_for_timeout(300)
    server.kill()
    expect(page.locator("#connection")).to_contain_text("Not connected, showing")
    page.get_by_role("link", name="Workers").click()
    expect(page.locator("main")).to_contain_text("The server can't be reached.")
    server.start()
    expect(page.locator("#connection")).to_be_hidden(timeout=15_000)
    expect(page.locator(".node").first).to_be_visible()
    page.get_by_role("link", name="Jobs").click()
    server.submit({"name": "afterwards", "tasks": [{"name": "a", "run": "true"}]})
    expect(page.locator("a.line").filter(has_text="afterwards")).to_contain_text("completed")


def with_a_password(standalone: Callable[..., Standalone]) -> Standalone:
    """Return a server at which one signs in as ann."""
    prefix = "HAULIER_COORDINATOR_MIDDLEWARE_BASIC_AUTH_"
    return standalone(
        **{f"{prefix}ENABLED": "true", f"{prefix}USERNAME": "ann", f"{prefix}PASSWORD": "right"}
    )


def test_signing_in_wrong_and_right_and_a_session_that_ends(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    server = with_a_password(standalone)
    context = contexts.open(server.url)
    page = context.new_page()
    go(page, at(server))

    def sign_in(password: str) -> None:
        form = page.locator("#sign")  # what is behind it has fields of these names too
        form.get_by_label("User name").fill("ann")
        form.get_by_label("Password").fill(password)
        form.get_by_role("button", name="Sign in").click()
        if password == "right":  # what is behind the form is there before its answer is
            expect(form).to_be_hidden()

    assert faults_of_access(page) == []
    sign_in("wrong")
    expect(page.locator("#sign")).to_contain_text("not right")
    sign_in("right")
    expect(page.locator("main")).to_contain_text("No jobs yet")
    second = context.new_page()
    go(second, at(server, "workers"))
    expect(second.locator(".node").first).to_be_visible()
    for place, there in (
        ("schedules", "No schedules"),
        ("new", "Valid"),
        ("access", "What was done"),
        ("workers", "Nodes"),
        ("", "No jobs yet"),
    ):
        context.clear_cookies()
        page.evaluate(f"location.hash = '#/{place}'")
        sign_in("right")
        expect(page.locator("main")).to_contain_text(there)


def test_what_was_refused_before_the_sign_in_asks_for_no_second_one(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    server = with_a_password(standalone)
    context = contexts.open(server.url)
    page = context.new_page()
    late: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if late:
            route.continue_()
        else:
            late.append((route, route.fetch()))

    page.route("**/jobs/counts*", hold)
    go(page, at(server))
    form = page.locator("#sign")
    form.get_by_label("User name").fill("ann")
    form.get_by_label("Password").fill("right")
    form.get_by_role("button", name="Sign in").click()
    expect(form).to_be_hidden()
    ((route, response),) = late
    assert response.status == 401
    route.fulfill(response=response)
    expect(page.locator("main")).to_contain_text("No jobs yet")
    expect(page.locator("#sign")).to_be_hidden()


def test_a_key_a_disabled_user_and_a_download_without_a_session(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    prefix = "HAULIER_COORDINATOR_MIDDLEWARE_"
    server = standalone(
        **{
            f"{prefix}BASIC_AUTH_ENABLED": "true",
            f"{prefix}BASIC_AUTH_USERNAME": "ann",
            f"{prefix}BASIC_AUTH_PASSWORD": "right",
            f"{prefix}KEY_AUTH_ENABLED": "true",
            f"{prefix}KEY_AUTH_KEY": "the-key",
        }
    )

    def admin(method: str, path: str, body: dict[str, Any]) -> Any:
        headers = {"Authorization": "Bearer the-key", "Content-Type": "application/json"}
        status, answer = server.call(method, path, json.dumps(body), headers=headers)
        assert status == 200, answer
        return answer

    admin("POST", "/users", {"username": "bob", "password": "bobs password"})
    context = contexts.open(server.url)
    page = context.new_page()
    go(page, at(server))
    form = page.locator("#sign")
    form.get_by_role("button", name="Use a key").click()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for key, ends in (("wrong", "This key or token is not right"), ("the-key", "")):
        form.get_by_label("Key").fill(key)
        form.get_by_role("button", name="Sign in").click()
        expect(form).to_contain_text(ends) if ends else expect(form).to_be_hidden()
    assert sum(url.endswith("/login") for url in asked) == 2
    job = admin("POST", "/jobs", {"name": "fails", "tasks": [BAD]})["id"]
    go(page, at(server, f"jobs/{job}"))
    expect(page.locator(".pane .row")).to_contain_text("oh no")
    with page.expect_download() as saved:
        page.get_by_role("link", name="download").click()
    assert "oh no" in saved.value.path().read_text()
    page.get_by_role("button", name="Sign out").click()
    token = admin("POST", "/tokens", {"name": "wall", "role": "viewer"})
    form.get_by_role("button", name="Use a key or token").click()
    form.get_by_label("Key or token").fill(token["token"])
    form.get_by_role("button", name="Sign in").click()
    expect(page.locator("main")).to_contain_text("oh no")
    admin("DELETE", f"/tokens/{token['id']}", {})
    page.evaluate("location.hash = '#/workers'")
    expect(form).to_be_visible()
    form.get_by_role("button", name="Use a name and password").click()

    def sign_in_as_bob() -> None:
        form.get_by_label("User name").fill("bob")
        form.get_by_label("Password").fill("bobs password")
        form.get_by_role("button", name="Sign in").click()

    sign_in_as_bob()
    expect(form).to_be_hidden()
    admin("PUT", "/users/bob", {"disabled": True})
    # Whatever the page asks next opens the form, over every link: by its own look for news, or this.
    page.evaluate("location.hash = '#/schedules'")
    sign_in_as_bob()
    expect(form).to_contain_text("not right")


@pytest.mark.rabbitmq
@pytest.mark.mongodb
def test_a_killed_worker_and_the_run_that_it_lost_are_seen(
    contexts: Contexts, quick: Cluster
) -> None:
    server = quick.add_coordinator()
    worker = quick.add_worker()
    quick.wait_ready()
    job = server.submit({"name": "lost", "tasks": [{"name": "long", "run": "sleep 300"}]})
    server.wait_state(job, "RUNNING")
    page = contexts.open(server.url).new_page()
    go(page, at(server, f"jobs/{job}"))
    expect(page.locator(".step.chosen .mark.running")).to_be_visible()
    worker.kill()
    quick.add_worker()
    expect(page.locator(".lost")).to_have_text("1 lost run", timeout=60_000)
    page.get_by_role("tab", name="Details").click()
    expect(page.locator(".details")).to_contain_text("Lost runs")
    go(page, at(server, "workers"))
    expect(page.get_by_text("Offline (1)")).to_be_visible(timeout=30_000)
    server.call("PUT", f"/jobs/{job}/cancel")
