"""The log of a task on the web page, in a real Chromium, and a line of a megabyte on the command line too."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.browser import at, go
from tests.acceptance.processes import Standalone, clean_environment

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]

HALF = 500_000
MEGABYTE = f"""
head -c {HALF} /dev/zero | tr '\\0' x; printf needle; head -c {HALF} /dev/zero | tr '\\0' y
echo; echo after
"""
GROWS = "seq 200; for i in $(seq 600); do echo tick $i; sleep 0.1; done"
SECONDS_TO_WRAP = """() => {
    const began = performance.now();
    document.querySelectorAll(".toggle input")[1].click();
    document.querySelector(".row .text").getBoundingClientRect();
    return (performance.now() - began) / 1000;
}"""
FIRST_IS_WRAPPED = """() => {
    const [first, second] = [...document.querySelectorAll(".row")].map(row => row.getBoundingClientRect());
    return first.height > 2 * second.height && first.bottom === second.top;
}"""


def submitted(server: Standalone, script: str) -> str:
    return server.submit({"name": "prints", "tasks": [{"name": "print", "run": script}]})


def test_a_line_of_a_megabyte_is_cut_and_found(page: Page, shell: Standalone) -> None:
    job = submitted(shell, MEGABYTE)
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    text = page.locator(".row .text").first
    expect(text).to_contain_text("996,006 more characters")
    assert len(text.text_content() or "") < 5000
    find = page.get_by_label("Find in log")
    find.fill("xy")  # is nowhere
    expect(page.locator(".tally").first).to_have_text("nothing found")
    find.fill("needle")
    expect(page.locator(".tally").first).to_have_text("1 of 1")
    expect(page.locator(".row.here mark")).to_have_text("needle")
    expect(page.locator(".row.here mark")).to_be_in_viewport(ratio=1)
    assert page.evaluate(SECONDS_TO_WRAP) < 5
    expect(page.locator(".row.here mark")).to_have_text("needle")


def test_the_rest_of_a_long_line_is_shown_when_asked_for(page: Page, shell: Standalone) -> None:
    job = submitted(shell, "printf 'x%.0s' $(seq 4100); echo ' the end'")
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    text = page.locator(".row .text")
    expect(text).not_to_contain_text("the end")
    text.get_by_role("button", name="108 more characters").click()
    expect(text).to_contain_text("the end")


def test_a_line_of_a_megabyte_is_whole_on_the_command_line(shell: Standalone) -> None:
    job = submitted(shell, MEGABYTE)
    shell.wait_job(job)
    done = subprocess.run(
        [sys.executable, "-m", "haulier.cli", "logs", job, "--server", shell.url],
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    line, after = done.stdout.splitlines()
    assert line.endswith(" " + "x" * HALF + "needle" + "y" * HALF), line[:100]
    assert after.endswith(" after")


def test_times_are_shown_and_long_lines_wrapped_on_demand(page: Page, shell: Standalone) -> None:
    job = submitted(shell, "printf 'x%.0s' $(seq 1000); echo; echo short")
    shell.wait_job(job)
    go(page, at(shell, f"jobs/{job}"))
    rows = page.locator(".row")
    expect(rows).to_have_count(2)
    expect(page.locator(".row .time")).to_have_count(0)
    page.get_by_label("times").check()
    expect(page.locator(".row .time")).to_have_text([re.compile(r"^\d+:\d\d:\d\d")] * 2)
    sideways = "(e => e.scrollWidth > e.clientWidth)(document.querySelector('.pane'))"
    page.wait_for_function(sideways)
    page.get_by_label("wrap").check()
    page.wait_for_function(f"!{sideways}")
    page.wait_for_function(FIRST_IS_WRAPPED)
    first = rows.first.bounding_box()
    assert first is not None
    text = page.locator(".row .text").first.bounding_box()
    assert text is not None
    assert text["height"] <= first["height"]


def test_a_log_is_followed_until_one_scrolls_up_and_again_on_demand(
    page: Page, shell: Standalone
) -> None:
    job = submitted(shell, GROWS)
    go(page, at(shell, f"jobs/{job}"))
    ticks = page.locator(".row .text").filter(has_text="tick")
    expect(ticks.last).to_be_in_viewport()
    more = page.locator(".more")
    expect(more).to_be_hidden()
    page.locator(".pane").focus()
    page.keyboard.press("Home")
    expect(more).to_have_text(re.compile(r"↓ \d+ new lines"))
    expect(page.locator(".row .text").first).to_have_text("1")
    expect(ticks).to_have_count(0)
    more.click()
    expect(more).to_be_hidden()
    expect(ticks.last).to_be_in_viewport()
    seen = ticks.last.inner_text()
    expect(ticks.last).not_to_have_text(seen)
    expect(ticks.last).to_be_in_viewport()
    shell.call("PUT", f"/jobs/{job}/cancel")
