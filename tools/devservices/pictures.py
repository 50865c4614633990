"""Takes the pictures of the web page and the command that README and docs show: `tools/pictures`."""

from __future__ import annotations

import io
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pexpect
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from devservices.browser import Server, chromium, standalone

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
WIDE = {"width": 1200, "height": 760}
FAILS = """
name: fetch and report
tags: [nightly]
inputs: {city: Bern}
tasks:
  - {name: prepare workspace, run: "echo ready; sleep 0.9"}
  - name: fetch numbers
    retry: {limit: 2, initialDelay: 600ms}
    run: |
      echo "connecting to the warehouse"
      sleep 0.7
      printf '\\033[31mpsql: error: connection to server at "warehouse" failed: Connection refused\\033[0m\\n'
      exit 2
  - {name: aggregate, run: "true"}
  - {name: mail report, run: "true"}
"""
NESTED = """
name: release build
tags: [release]
tasks:
  - name: build
    parallel:
      tasks:
        - {name: linux, run: "echo compiling; sleep 2"}
        - {name: mac, run: "echo compiling; sleep 1.2"}
        - {name: windows, run: "echo compiling; sleep 1.6"}
  - name: tests
    each:
      list: "{{ 1..120 }}"
      concurrency: 12
      task: {name: "shard {{ item.value }}", run: "sleep 0.2; test $N != 118", env: {N: "{{ item.value }}"}}
"""
WAITS = (
    "name: encode the talk\ntags: [video]\ntasks:\n  - {name: encode, queue: video, run: 'true'}\n"
)
LOG = """
name: import
tasks:
  - name: import
    run: |
      echo "::group::read"
      seq 1 30 | sed 's/^/reading file /'
      echo "::endgroup::"
      seq 1 99990 | sed 's/^/imported row /'
      printf '\\033[32mdone\\033[0m, with \\033[33m2 warnings\\033[0m\\n'
output: "99,990 rows"
"""
MISTAKES = """name: with mistakes
tasks:
  - name: say hello
    imgae: alpine:3.18.3
    run: echo hello
    retry:
      limt: 3
    timeout: ten minutes
"""
SCHEDULE = (
    "name: nightly report\nschedule: {cron: '0 3 * * 1-5'}\ntasks:\n  - {name: a, run: 'echo a'}\n"
)


def jobs(server: Server) -> dict[str, str]:
    """Run what the pictures show; return the jobs' ids."""
    schedule = server.ask("POST", "/scheduled-jobs", SCHEDULE)["id"]
    for _ in range(3):
        server.wait(server.ask("POST", f"/scheduled-jobs/{schedule}/run")["id"])
    made = {"waits": server.submit(WAITS)}
    for name, text in (("log", LOG), ("nested", NESTED), ("failed", FAILS)):
        made[name] = server.submit(text)
        server.wait(made[name])
    return made


SESSIONS: dict[str, tuple[str, ...]] = {
    "cli-submit": ("submit mistakes.yaml", "submit report.yaml --follow"),
    "cli-job": ("jobs", "job {failed}", "why {waits}"),
}
"""What the pictures of the command show: what is typed, in turn."""
_FONTS = re.compile(r"@font-face \{.*?\}", re.DOTALL)
"""Fonts that the picture would load from another host."""


def typed(server: Server, folder: Path, command: str) -> str:
    """Return what a terminal of 80 columns shows of a command, with its colours."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "haulier.cli", *command.split()],
        cwd=folder,
        env={**os.environ, "HAULIER_SERVER": server.url, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        dimensions=(50, 80),
        encoding="utf-8",
        timeout=60,
    )
    child.expect(pexpect.EOF)
    child.close()
    shown = (child.before or "").replace("\r\n", "\n")
    return shown.rpartition("\x1b[J")[2] if "\x1b[J" in shown else shown


def terminal(server: Server, folder: Path, made: Mapping[str, str]) -> None:
    """Take the pictures of the command line."""
    (folder / "mistakes.yaml").write_text(MISTAKES)
    (folder / "report.yaml").write_text(FAILS)
    for name, commands in SESSIONS.items():
        console = Console(record=True, width=80, file=io.StringIO(), force_terminal=True)
        for template in commands:
            command = template.format(**{key: id[:8] for key, id in made.items()})
            console.print(f"[bold green]$[/] haulier {command}", highlight=False)
            console.print(Text.from_ansi(typed(server, folder, command)), highlight=False)
        svg = console.export_svg(title="haulier", theme=MONOKAI, unique_id=name)
        (IMAGES / f"{name}.svg").write_text(_FONTS.sub("", svg))


def main() -> None:
    """Take them all."""
    with tempfile.TemporaryDirectory() as folder, standalone(Path(folder)) as server:
        made = jobs(server)
        terminal(server, Path(folder), made)
        with chromium() as browser:
            for look, name, place, there in (
                ("light", "page-jobs", "", "a.line"),
                ("light", "page-job-failed", f"jobs/{made['failed']}", ".row"),
                ("dark", "page-job-nested", f"jobs/{made['nested']}", ".cell"),
                ("light", "page-log", f"jobs/{made['log']}", ".row"),
                ("light", "page-editor", "new", ".codeline"),
                ("phone", "page-phone", f"jobs/{made['failed']}", ".row"),
            ):
                phone = look == "phone"
                page = browser.new_page(
                    viewport={"width": 390, "height": 760} if phone else WIDE,  # type: ignore[arg-type]
                    color_scheme="dark" if look == "dark" else "light",
                    is_mobile=phone,
                )
                page.goto(f"{server.url}/#/{place}")
                page.locator(there).first.wait_for()
                if name == "page-editor":
                    page.locator("textarea").fill(MISTAKES)
                    page.locator(".codeline.wrong").first.wait_for()
                page.wait_for_timeout(700)
                page.screenshot(path=IMAGES / f"{name}.png")
                page.close()


if __name__ == "__main__":
    main()
