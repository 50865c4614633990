"""The documentation agrees with the code: states, links, files, settings and commands that it names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import pytest

from coordinator.engine.transitions import JOB_MAY, TASK_MAY
from coordinator.store.port import Store
from haulier.cli import cli
from shared.config.flat_settings import settings
from shared.config.sources import NOT_SETTINGS
from shared.model.decoding import decode_job
from shared.model.problems import InvalidDocument
from shared.redaction import KEY_PATTERNS
from tests.pages import DOCS, FENCE, PAGES, ROOT, name_of, text_of, whole_jobs
from worker.runtime.port import Runtime

ROOMS = "coordinator|worker|shared|haulier|deploy|tools|tests|examples|bench"

_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_EDGE = re.compile(r"^\s*([A-Z]+) --> ([A-Z]+)(?::.*)?$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"^(?:{ROOMS})/[\w./-]*$")
_VARIABLE = re.compile(r"\bHAULIER_[A-Z_]+\b")
_COMMAND = re.compile(r"(?:^|[$;&|] |[A-Z]=\S+ )haulier ([a-z]+)(?: ([a-z]+))?")


def prose_of(page: Path) -> str:
    """The page without its blocks of code."""
    return FENCE.sub("", text_of(page))


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    return re.split(r"^#+ ", text.split(f"\n{heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


@pytest.mark.parametrize(
    ("heading", "table"), [("### Job", JOB_MAY), ("### Task", TASK_MAY)], ids=["job", "task"]
)
def test_the_drawn_states_are_those_of_the_code(
    heading: str, table: dict[str, frozenset[str]]
) -> None:
    drawn = _EDGE.findall(section(text_of(DOCS / "architecture.md"), heading))
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == {(state, after) for state, those in table.items() for after in those}


def anchors_of(page: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text_of(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for target in _LINK.findall(prose_of(page)):
            if not re.match(r"[a-z]+:", target):
                yield page, target


def test_every_relative_link_leads_somewhere() -> None:
    broken = []
    for page, target in links():
        path, _, anchor = unquote(target).partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            broken.append(f"{name_of(page)}: {target}")
    assert broken == []


def test_every_page_can_be_reached_from_the_index() -> None:
    reached: set[Path] = set()
    waiting = [DOCS / "index.md", ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        targets = _LINK.findall(prose_of(page))
        waiting += [
            (page.parent / unquote(target).partition("#")[0]).resolve() for target in targets
        ]
    assert [name_of(page) for page in PAGES if page not in reached] == []


def test_every_example_is_shown() -> None:
    shown = text_of(DOCS / "examples.md")
    files = [file.name for file in (ROOT / "examples").iterdir()]
    assert [name for name in files if f"(../examples/{name})" not in shown] == []


def test_every_decision_is_listed() -> None:
    listed = text_of(DOCS / "decisions" / "index.md")
    pages = [page.name for page in (DOCS / "decisions").glob("[0-9]*.md")]
    assert len(pages) > 1
    assert [name for name in pages if f"({name})" not in listed] == []


def test_every_file_that_is_named_exists() -> None:
    named = [(page, code) for page in PAGES for code in _CODE.findall(prose_of(page))]
    paths = [(page, code) for page, code in named if _PATH.match(code)]
    assert len(paths) > 50
    missing = [f"{name_of(page)}: {code}" for page, code in paths if not (ROOT / code).exists()]
    assert missing == []


def test_every_test_that_is_named_exists() -> None:
    named = [(page, code) for page in PAGES for code in _CODE.findall(prose_of(page))]
    missing = []
    for page, code in named:
        file, separator, test = code.partition("::")
        if not (separator and _PATH.match(file)):
            continue
        if not re.search(
            rf"^\s*(?:async )?def {re.escape(test)}\(", text_of(ROOT / file), re.MULTILINE
        ):
            missing.append(f"{name_of(page)}: {code}")
    assert missing == []


@pytest.mark.parametrize("what", ["the API", "workers"])
def test_each_attack_names_the_tests_that_cover_it(what: str) -> None:
    page = text_of(DOCS / "security.md")
    table = section(page, f"### Attacks on {what}, and what stops them")
    attacks = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(attacks) > 10
    assert [line for line in attacks if "`tests/" not in line.rsplit(" | ", 1)[1]] == []


def known_settings() -> set[str]:
    return set(settings())


def test_every_setting_that_is_named_exists() -> None:
    known = known_settings()
    groups = {path.partition(".")[0] for path in known}
    unknown = []
    for page in PAGES:
        for code in _CODE.findall(prose_of(page)):
            path = code.partition(" = ")[0]
            if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", path) or path.split(".")[0] not in groups:
                continue
            is_known = path in known or path.rpartition(".")[0] in known
            if not is_known and not any(name.startswith(f"{path}.") for name in known):
                unknown.append(f"{name_of(page)}: {path}")
    assert unknown == []


def variables_of_scripts() -> set[str]:
    """What the scripts and tests read from the environment for themselves."""
    sources = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "tools").rglob("*.py")]
    return {name for file in sources for name in _VARIABLE.findall(file.read_text())}


def test_every_variable_that_is_named_exists() -> None:
    known = {"HAULIER_" + path.replace(".", "_").upper() for path in known_settings()}
    known |= NOT_SETTINGS | variables_of_scripts()
    unknown = [
        f"{name_of(page)}: {name}"
        for page in PAGES
        for name in _VARIABLE.findall(text_of(page))
        if name not in known and not name.startswith("HAULIER_WORKER_QUEUES_")
    ]
    assert unknown == []


def blocks() -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for language, body in FENCE.findall(text_of(page)):
            if language in ("shell", "console"):
                yield page, body


def test_every_command_that_is_shown_exists() -> None:
    shown = [
        (page, found)
        for page, body in blocks()
        for line in body.splitlines()
        for found in _COMMAND.findall(line)
    ]
    assert len(shown) > 30
    unknown = []
    context = click.Context(cli)
    for page, (name, sub) in shown:
        command = cli.get_command(context, name)
        if isinstance(command, click.Group):
            command = command.commands.get(sub)
        if command is None:
            unknown.append(f"{name_of(page)}: haulier {name} {sub}")
    assert unknown == []


def test_every_whole_job_that_is_shown_is_valid() -> None:
    jobs = [(page, body) for page, body in whole_jobs() if "name: with mistakes" not in body]
    assert len(jobs) > 5
    for page, body in jobs:
        job = decode_job(body.encode(), "yaml", scheduled="\nschedule:" in body)
        assert job.tasks, name_of(page)


def test_the_mistakes_that_are_shown_are_told_as_shown() -> None:
    [(page, body)] = [found for found in whole_jobs() if "name: with mistakes" in found[1]]
    with pytest.raises(InvalidDocument) as caught:
        decode_job(body.encode(), "yaml")
    for fault in caught.value.problems:
        assert f"wrong.yaml:{fault.line}:{fault.column}: {fault}" in text_of(page)


def test_the_keys_that_are_redacted_are_those_that_are_named() -> None:
    named = ", ".join(f"`{key}`" for key in KEY_PATTERNS)
    for page, word in (
        (DOCS / "how-to" / "secrets.md", "or"),
        (DOCS / "how-to" / "from-tork.md", "and"),
    ):
        head, _, last = named.rpartition(", ")
        assert f"{head} {word} {last}" in " ".join(text_of(page).split()), name_of(page)


@pytest.mark.parametrize("port", [Store, Runtime], ids=lambda port: port.__name__)
def test_the_ports_are_where_the_architecture_says(port: type) -> None:
    path = port.__module__.replace(".", "/") + ".py"
    assert f"`{path}`" in text_of(DOCS / "architecture.md")
