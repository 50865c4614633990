"""Queues, nodes and dead letters on the web page, in a real Chromium."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.acceptance.browser import Contexts, at, go
from tests.acceptance.processes import Cluster, Standalone
from tests.acceptance.rabbit import put
from tests.services.fixtures import Vhost

pytestmark = [pytest.mark.xdist_group("page"), pytest.mark.timeout(120)]


def test_what_is_wrong_comes_first_and_a_node_says_what_it_runs(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    server = standalone(HAULIER_WORKER_QUEUES_DEFAULT="3", HAULIER_WORKER_QUEUES_ARCHIVE="1")
    busy = server.submit({"name": "busy", "tasks": [{"name": "long work", "run": "sleep 300"}]})
    server.wait_state(busy, "RUNNING")
    waits = {"name": "encode", "queue": "zoom", "run": "true"}
    server.submit({"name": "waits", "tasks": [waits]})
    page = contexts.open(server.url).new_page()
    go(page, at(server, "workers"))
    queues = page.locator("main > ul.list > li.line")
    expect(queues).to_contain_text(["zoom", "archive", "default"])
    expect(queues.first).to_contain_text("✕ 1 task waiting, nobody takes from it")
    expect(queues.nth(1)).to_contain_text("0 of 1 slot")
    expect(queues.nth(2)).to_contain_text("1 of 3 slots")
    node = page.locator(".node").filter(has_text="worker on")
    node.get_by_role("button", name="1 task", exact=True).click()
    node.get_by_role("link", name="long work").click()
    expect(page.locator(".step.chosen")).to_contain_text("long work")
    server.call("PUT", f"/jobs/{busy}/cancel")


def test_a_node_is_drained_and_resumed(
    contexts: Contexts, standalone: Callable[..., Standalone]
) -> None:
    server = standalone()
    page = contexts.open(server.url).new_page()
    go(page, at(server, "workers"))
    node = page.locator(".node").filter(has_text="worker on")
    node.get_by_role("button", name="Drain").click()
    expect(node.locator(".mark.draining")).to_be_visible()
    job = server.submit({"name": "late", "tasks": [{"name": "a", "run": "true"}]})
    server.wait_state(job, "SCHEDULED")
    node.get_by_role("button", name="Resume").click()
    expect(node.locator(".mark.up")).to_be_visible()
    assert server.wait_job(job)["state"] == "COMPLETED"


@pytest.mark.rabbitmq
@pytest.mark.mongodb
def test_a_dead_letter_is_seen_with_its_reason_and_discarded(
    contexts: Contexts, cluster: Cluster, rabbitmq_vhost: Vhost
) -> None:
    server = cluster.add_coordinator()
    cluster.wait_ready()
    page = contexts.open(server.url).new_page()
    go(page, at(server, "workers"))
    expect(page.locator(".node")).to_contain_text("coordinator on")
    expect(page.locator("main")).not_to_contain_text("Dead letters")
    put(rabbitmq_vhost, "jobs", b"<b>this is no JSON</b>")
    letters = page.locator("section").filter(has_text="Dead letters")
    expect(letters.locator("li strong")).to_have_text("jobs")
    expect(letters.locator("li .said")).to_contain_text("JSON")
    letters.get_by_role("button", name="Discard").click()
    expect(letters).to_have_count(0)
    assert server.get("/queues/dead/messages") == []
