"""Users and tokens on the web page, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.acceptance.browser import Contexts, at, go
from tests.acceptance.processes import Standalone

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]

PREFIX = "HAULIER_COORDINATOR_MIDDLEWARE_KEY_AUTH_"
ADMIN = {"Authorization": "Bearer the-key"}


@pytest.fixture
def server(standalone: Callable[..., Standalone]) -> Standalone:
    return standalone(**{f"{PREFIX}ENABLED": "true", f"{PREFIX}KEY": "the-key"})


@pytest.fixture
def access(contexts: Contexts, server: Standalone) -> Page:
    """The page of an administrator, who looks at who may do what."""
    page = contexts.open(server.url).new_page()
    go(page, at(server, "access"))
    form = page.locator("#sign")
    form.get_by_role("button", name="Use a key").click()
    form.get_by_label("Key").fill("the-key")
    form.get_by_role("button", name="Sign in").click()
    expect(page.locator("main h1")).to_have_text("Access")
    return page


def test_a_user_is_added_given_a_role_and_disabled(access: Page, server: Standalone) -> None:
    def carol() -> dict[str, Any]:
        status, users = server.call("GET", "/users", headers=ADMIN)
        assert status == 200
        return next(user for user in users if user["username"] == "carol")

    section = access.locator("section").filter(has_text="Users")
    section.get_by_label("User name").fill("carol")
    section.get_by_label("Full name").fill("Carol <b>C.</b>")
    section.get_by_label("Password").fill("carols password")
    section.get_by_role("button", name="Add").click()
    row = section.locator("li.line").filter(has_text="carol")
    expect(row).to_contain_text("Carol <b>C.</b>")
    expect(section.get_by_label("Password")).to_have_value("")
    row.get_by_label("Give a role to carol").select_option("operator")
    expect(row.locator(".what")).to_contain_text("operator")
    assert "operator" in carol()["roles"]
    row.get_by_role("button", name="Disable").click()
    expect(row).to_contain_text("disabled")
    assert carol()["disabled"]
    done = access.locator("section").filter(has_text="What was done").locator("li .what")
    expect(done.filter(has_text="carol")).to_have_count(3)


def test_a_token_is_shown_once_and_revoked(access: Page, server: Standalone) -> None:
    section = access.locator("section").filter(has_text="Tokens")
    section.get_by_label("Name of a new token").fill("wall")
    section.get_by_label("Role").select_option("viewer")
    section.get_by_role("button", name="Create").click()
    token = section.locator(".banner code").inner_text()
    as_wall = {"Authorization": f"Bearer {token}"}
    assert server.call("GET", "/jobs", headers=as_wall)[0] == 200
    access.reload()
    row = section.locator("li.line").filter(has_text="wall")
    expect(row).to_contain_text("viewer")
    assert token not in access.content()
    row.get_by_role("button", name="Revoke").click()
    expect(row).to_have_count(0)
    assert server.call("GET", "/jobs", headers=as_wall)[0] == 401
