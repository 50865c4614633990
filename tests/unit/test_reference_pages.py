"""The reference pages are those that the code makes."""

from __future__ import annotations

import re

import pytest

from coordinator.api.app import ALL_ROUTES
from docs.functions import FUNCTIONS as SHOWN
from docs.pages import FOLDER, PAGES
from shared.expressions.functions.registry import EXTRA_FUNCTIONS, FUNCTIONS
from shared.expressions.grammar.vocabulary import BINARY, LOOPS
from shared.model.reference import FIELDS


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_current(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert text == PAGES[name](), "make docs makes it anew"


def test_every_field_has_a_row() -> None:
    rows = re.findall(r"^\| \**`(\w+)`", PAGES["job-fields.md"](), re.MULTILINE)
    assert rows == [field.name for field in FIELDS]


def test_every_endpoint_is_told_of() -> None:
    page = PAGES["rest-api.md"]()
    for route in ALL_ROUTES:
        assert f"### {route.method} {route.path}\n" in page


def test_every_function_and_operator_has_an_example() -> None:
    shown = {name: example for group in SHOWN.values() for name, _, example in group}
    assert shown.keys() == {*FUNCTIONS, *EXTRA_FUNCTIONS, *LOOPS}
    assert [name for name, example in shown.items() if f"{name}(" not in example] == []
    text = PAGES["expressions.md"]().replace("\\|", "|")
    assert [word for word in BINARY if f"`{word}`" not in text and word != "^"] == []


@pytest.mark.parametrize("name", PAGES)
def test_links_within_a_page_lead_somewhere(name: str) -> None:
    page = PAGES[name]()
    headings = {
        re.sub(r"[^\w -]", "", title).strip().lower().replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= headings
