"""Figures of the web page in a real Chromium: `python -m bench.page`.

A log of 100,000 lines, one of 1,000,000 that grows, a job of 10,000 tasks of which 5 failed, twelve tabs, and what is
asked for in idle minutes. Each line is a figure, and what it should be. The exit code is 1 if one is not.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path

from playwright.sync_api import Browser, Page, Request

from coordinator.page.serving import page_files
from devservices.browser import Server, chromium, standalone

LINES = 100_000
TASKS = 10_000
TABS = 12
QUIET = 60.0
TICKS = "for i in $(seq 3000); do echo tick $i; sleep 0.1; done"


SIZE = 40.0
"""kB, compressed, of the page without its editor."""
FIRST_LINES, FIND, OPEN = 1.0, 0.2, 1.5
"""Seconds at most."""


class Figures:
    """What was measured; `missed`: what was not as it should be."""

    def __init__(self) -> None:
        self.missed: list[str] = []

    def say(self, name: str, value: str, wanted: str = "", *, good: bool = True) -> None:
        """Print a figure, and what it should be."""
        print(f"{name:<52} {value:>12}   {wanted}{'' if good else '   MISSED'}", flush=True)
        if not good:
            self.missed.append(name.strip())


def opened(browser: Browser, url: str) -> Page:
    """Return a page in a context of its own, so that nothing of it is cached."""
    page = browser.new_context(viewport={"width": 1300, "height": 850}).new_page()
    page.goto(url)
    return page


def size(figures: Figures) -> None:
    files = page_files()
    whole = sum(len(file.small) for file in files.values())
    editor = len(files["editor.js"].small)
    page = (whole - editor) / 1000
    figures.say(
        "page without editor, compressed", f"{page:.2f} kB", f"<= {SIZE:g} kB", good=page <= SIZE
    )
    figures.say("editor, compressed", f"{editor / 1000:.1f} kB")


def long_log(figures: Figures, browser: Browser, server: Server) -> None:
    script = f"seq 1 {LINES} | sed 's/^/this is line number /'"
    job = server.submit({"name": "long", "tasks": [{"name": "print", "run": script}]})
    server.wait(job)
    began = time.monotonic()
    page = opened(browser, f"{server.url}/#/jobs/{job}")
    page.locator(".row").first.wait_for()
    took = time.monotonic() - began
    figures.say(
        f"{LINES} lines: first lines are seen",
        f"{took:.2f} s",
        f"< {FIRST_LINES:g} s",
        good=took < FIRST_LINES,
    )
    page.get_by_text(f"{LINES:,} lines").wait_for()
    figures.say(f"{LINES} lines: all are there", f"{time.monotonic() - began:.2f} s")
    took = page.evaluate(
        """() => { const field = document.querySelector('.find'); const began = performance.now();
        field.value = 'number 77777'; field.oninput(); return (performance.now() - began) / 1000; }"""
    )
    found = page.locator(".row.here").inner_text().endswith("number 77777")
    figures.say(
        f"{LINES} lines: find", f"{took:.3f} s", f"< {FIND:g} s", good=found and took < FIND
    )
    page.context.close()


def growing_log(figures: Figures, browser: Browser, server: Server) -> None:
    script = f"seq 1 1000000 | sed 's/^/line number /'; {TICKS}"
    job = server.submit({"name": "million", "tasks": [{"name": "print", "run": script}]})
    page = opened(browser, f"{server.url}/#/jobs/{job}")
    page.locator(".row").filter(has_text="tick").first.wait_for(timeout=120_000)
    rows = page.locator(".row .number")
    seen = int(rows.last.inner_text())
    page.wait_for_timeout(2000)
    grown = int(rows.last.inner_text()) - seen
    figures.say(
        "a log of 1,000,000 lines that grows: lines in 2 s", f"{grown}", "> 0", good=grown > 0
    )
    page.locator(".pane").focus()
    page.keyboard.press("Home")
    page.locator(".row .text").filter(has_text="line number 1").first.wait_for()
    figures.say("  its first line is reached", "yes", "yes")
    server.ask("PUT", f"/jobs/{job}/cancel")
    page.context.close()


def many_tasks(figures: Figures, browser: Browser, server: Server) -> None:
    # The first that fails ends the job: so the five fail together, and last.
    run = f"[ $N -le {TASKS - 5} ] || {{ sleep 2; exit 3; }}"
    task = {"name": "shard {{ item.value }}", "run": run, "env": {"N": "{{ item.value }}"}}
    tasks = [{"name": "all", "each": {"list": f"{{{{ 1..{TASKS} }}}}", "task": task}}]
    job = server.submit({"name": "many", "tasks": tasks})
    server.wait(job)
    began = time.monotonic()
    page = opened(browser, f"{server.url}/#/jobs/{job}")
    page.locator(".step.chosen .mark.failed").wait_for()
    took = time.monotonic() - began
    name = f"{TASKS} tasks, 5 failed: the failed is seen"
    figures.say(name, f"{took:.2f} s", f"< {OPEN:g} s", good=took < OPEN)
    box = page.locator(".step.chosen").bounding_box()
    seen = box is not None and box["y"] + box["height"] < 850
    figures.say("  without scrolling", "yes" if seen else "no", "yes", good=seen)
    page.context.close()


def tabs(figures: Figures, browser: Browser, server: Server, *, jobs: int) -> None:
    ticks = {"name": "ticks", "tasks": [{"name": "tick", "run": TICKS}]}
    submitted = [server.submit(ticks) for _ in range(jobs)]
    context = browser.new_context()
    pages = [context.new_page() for _ in range(TABS)]
    for number, page in enumerate(pages):
        page.goto(f"{server.url}/#/jobs/{submitted[number % jobs]}")
    last = [-1] * TABS
    for page in pages:
        page.locator(".row").nth(2).wait_for()
    live = 0
    for _ in range(2):
        for number, page in enumerate(pages):
            seen = int(page.locator(".row .number").last.inner_text())
            live += last[number] >= 0 and seen > last[number]
            last[number] = seen
        time.sleep(4)
    name = f"{TABS} tabs on {jobs} running jobs: live"
    figures.say(name, f"{live}", f"{TABS}", good=live == TABS)
    for job in submitted:
        server.ask("PUT", f"/jobs/{job}/cancel")
    context.close()


def quiet(figures: Figures, browser: Browser, server: Server) -> None:
    job = server.submit({"name": "done", "tasks": [{"name": "a", "run": "echo a"}]})
    server.wait(job)
    asked: list[str] = []

    def note(request: Request) -> None:
        asked.append(request.url)

    pages = [opened(browser, f"{server.url}/#/{place}") for place in ("", f"jobs/{job}")]
    time.sleep(3)
    for page in pages:
        page.context.on("request", note)
    pages[0].wait_for_timeout(QUIET * 1000)
    name = f"idle list and ended job: requests in {QUIET:.0f} s"
    figures.say(name, f"{len(asked)}", "0", good=not asked)
    for page in pages:
        page.context.close()


def live(figures: Figures, browser: Browser, server: Server) -> None:
    job = server.submit({"name": "ticks", "tasks": [{"name": "tick", "run": TICKS}]})
    page = opened(browser, f"{server.url}/#/")
    line = page.locator(f"a.line[href='#/jobs/{job}']")
    line.focus()
    line.locator(".name").select_text()
    page.wait_for_timeout(QUIET * 1000)
    kept = page.evaluate("[String(getSelection()), document.activeElement.getAttribute('href')]")
    good = kept == ["ticks", f"#/jobs/{job}"]
    name = f"focus and selection after {QUIET:.0f} s of live update"
    figures.say(name, "kept" if good else "lost", "kept", good=good)
    server.ask("PUT", f"/jobs/{job}/cancel")


def main() -> None:
    figures = Figures()
    size(figures)
    with (
        tempfile.TemporaryDirectory() as folder,
        standalone(Path(folder)) as server,
        chromium() as browser,
    ):
        # The browser starts its own processes with its first page: people have theirs open.
        opened(browser, "about:blank").context.close()
        for part in (
            long_log,
            growing_log,
            many_tasks,
            partial(tabs, jobs=1),
            partial(tabs, jobs=6),
            quiet,
            live,
        ):
            part(figures, browser, server)
    if figures.missed:
        raise SystemExit("missed: " + "; ".join(figures.missed))


if __name__ == "__main__":
    main()
