"""What a scrape tells: a whole standalone process runs jobs that end in different ways, and its metrics say so; the
rules for alerts and the dashboard ask for metrics that there are."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from coordinator.api.metrics import NOTED, CoordinatorMeters
from coordinator.engine import repairs
from shared.broker import from_config
from shared.broker.port import Broker, QueueInfo
from shared.errors import StoreUnavailable
from shared.metrics import BoundedNames, Latencies
from shared.version import version
from tests.faults.whole import Process, configured
from tests.services.need import need_program

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = DEPLOY / "prometheus" / "haulier-alerts.yml"
ALERT_CASES = Path(__file__).parents[1] / "data" / "alerts.yml"
DASHBOARD = DEPLOY / "grafana" / "haulier.json"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]

JOBS: Mapping[str, dict[str, Any]] = {
    "COMPLETED": {"tasks": [{"name": "a", "image": "any", "run": "true"}]},
    "FAILED": {"tasks": [{"name": "a", "image": "any", "run": "exit 3", "retry": {"limit": 1}}]},
    "late": {"tasks": [{"name": "a", "image": "any", "run": "sleep 60", "timeout": "200ms"}]},
    "template": {"tasks": [{"name": "{{ fromJSON('[') }}", "image": "any", "run": "true"}]},
}


class Plant:
    """A standalone process with what was logged, and its scrapes."""

    def __init__(
        self, session: aiohttp.ClientSession, process: Process, broker: Broker, logged: list[Any]
    ) -> None:
        self._session = session
        self._process = process
        self.broker = broker
        self.logged = logged

    async def run(self, job: Mapping[str, Any]) -> str:
        return str((await self.submit({"wait": {"timeout": "30s"}, **job}))["state"])

    async def submit(self, job: Mapping[str, Any]) -> Any:
        body = {"name": "job", **job}
        async with self._session.post(f"{self._process.url}/jobs", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def until(self, true: Callable[[Samples], bool]) -> Samples:
        """Return the first scrape of which this is true."""
        deadline = time.monotonic() + 20
        while not true(found := await self.scrape()):
            assert time.monotonic() < deadline, found
            await asyncio.sleep(0.05)
        return found

    async def scrape(self) -> Samples:
        """Return the samples of the coordinator and of the worker."""
        found: Samples = {}
        for url in (self._process.url, self._process.worker_url):
            headers = {"Accept": "text/plain"}
            async with self._session.get(f"{url}/metrics", headers=headers) as answer:
                assert answer.status == 200
                for family in text_string_to_metric_families(await answer.text()):
                    for sample in family.samples:
                        found[sample.name, frozenset(sample.labels.items())] = sample.value
        return found


@pytest.fixture
async def plant(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Plant]:
    """With the settings that a test is parametrized with."""
    config = configured(tmp_path, getattr(request, "param", {}))
    process, broker = Process(), from_config.memory(config)
    monkeypatch.setattr(from_config, "memory", lambda _: broker)
    with capture_logs() as logged:
        await process.do(process.stand_alone(config))
        async with aiohttp.ClientSession() as session:
            yield Plant(session, process, broker, logged)
        await process.close()


ONE_SLOT = pytest.mark.parametrize("plant", [{"HAULIER_WORKER_QUEUES_DEFAULT": "1"}], indirect=True)


def told(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


def total(samples: Samples, name: str, **labels: str) -> float:
    """The sum over all labels that are not given, as `sum(name{…})` of Prometheus."""
    wanted = labels.items()
    return sum(
        value for (each, its), value in samples.items() if each == name and wanted <= set(its)
    )


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:haulier|process)_\w+", expression))


def expressions() -> Iterator[str]:
    for rule in yaml.safe_load(RULES.read_text())["groups"][0]["rules"]:
        yield rule["expr"]
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


@pytest.mark.slow
async def test_a_scrape_tells_how_jobs_and_tasks_ended_waited_and_ran(plant: Plant) -> None:
    before = await plant.scrape()
    assert told(before, "haulier_jobs_ended_total", state="FAILED", cause="task") == 0
    states = [await plant.run(job) for job in JOBS.values()]
    assert states == ["COMPLETED", "FAILED", "FAILED", "FAILED"]
    found = await plant.scrape()

    assert told(found, "haulier_jobs_ended_total", state="COMPLETED", cause="none") == 1
    assert told(found, "haulier_jobs_ended_total", state="FAILED", cause="task") == 3
    for cause, count in {"exit_code": 2, "timeout": 1, "expression": 1, "lost": 0}.items():
        assert told(found, "haulier_tasks_ended_total", state="FAILED", cause=cause) == count, cause
    assert told(found, "haulier_task_retries_total") == 1
    assert told(found, "haulier_queue_wait_seconds_count", queue="default") == 4
    assert told(found, "haulier_task_run_seconds_count", queue="default") == 4
    assert 0.2 <= told(found, "haulier_task_run_seconds_sum", queue="default") < 60
    assert told(found, "haulier_worker_runs_total", outcome="completed") == 1
    assert told(found, "haulier_worker_runs_total", outcome="failed") == 3
    assert told(found, "haulier_worker_prepare_seconds_count") == 4
    assert told(found, "haulier_worker_slots", queue="default") == 2
    assert told(found, "haulier_worker_slots_used", queue="default") == 0
    assert told(found, "haulier_store_seconds_count", operation="change") > 0
    assert told(found, "haulier_broker_seconds_count", operation="publish") > 0
    assert told(found, "haulier_loop_last_round_timestamp_seconds", loop="sweeper") > 1e9
    assert told(found, "haulier_info", version=version()) == 1
    posted = {"method": "POST", "path": "/jobs", "status": "200"}
    assert told(found, "haulier_http_requests_total", **posted) == 4

    ends = [line for line in plant.logged if line["event"] in ("job ended", "task ended")]
    late = next(line for line in ends if line["cause"] == "timeout")
    assert {"task", "job", "node", "run", "attempt", "version"} <= late.keys()
    assert [line["state"] for line in ends if line["event"] == "job ended"] == states


@pytest.mark.slow
async def test_two_scrapes_tell_how_many_jobs_failed_between_them(plant: Plant) -> None:
    await plant.run(JOBS["FAILED"])
    before = await plant.scrape()
    for job in (JOBS["FAILED"], JOBS["COMPLETED"], JOBS["late"]):
        await plant.run(job)
    after = await plant.scrape()
    failed = [total(each, "haulier_jobs_ended_total", state="FAILED") for each in (before, after)]
    assert failed[1] - failed[0] == 2


@pytest.mark.slow
@ONE_SLOT
async def test_a_scrape_tells_how_long_tasks_waited_and_which_slots_are_used(plant: Plant) -> None:
    task = {"name": "a", "image": "any", "run": "sleep 1"}
    two = {"tasks": [{"name": "both", "parallel": {"tasks": [task, task]}}]}
    await plant.submit(two)
    used = await plant.until(
        lambda found: told(found, "haulier_worker_slots_used", queue="default") == 1
    )
    assert told(used, "haulier_worker_slots", queue="default") == 1
    ended = await plant.until(
        lambda found: total(found, "haulier_jobs_ended_total", state="COMPLETED") == 1
    )
    assert told(ended, "haulier_queue_wait_seconds_count", queue="default") == 2
    assert 1 <= told(ended, "haulier_queue_wait_seconds_sum", queue="default") < 10
    assert told(ended, "haulier_worker_slots_used", queue="default") == 0


async def test_a_scrape_tells_which_queue_has_nobody(plant: Plant) -> None:
    await plant.submit({"tasks": [{"name": "a", "image": "any", "run": "true", "queue": "nobody"}]})
    found = await plant.until(lambda found: total(found, "haulier_queue_size", queue="nobody") == 1)
    assert told(found, "haulier_queue_subscribers", queue="nobody") == 0
    assert told(found, "haulier_queue_subscribers", queue="default") == 2


async def test_a_scrape_tells_of_dead_letters(plant: Plant) -> None:
    await plant.broker.publish("completed", b"nobody can read this")
    found = await plant.until(
        lambda found: told(found, "haulier_noted_total", what="dead_letter") == 1
    )
    assert told(found, "haulier_queue_size", queue="dead") == 1


@pytest.mark.slow
@ONE_SLOT
async def test_a_scrape_tells_of_what_the_sweeper_found(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairs, "UNHEARD", 0)
    task = {"name": "a", "image": "any", "run": "sleep 4"}
    await plant.submit({"tasks": [{"name": "both", "parallel": {"tasks": [task, task]}}]})
    await plant.until(lambda found: total(found, "haulier_queue_size", queue="default") == 1)
    await plant.broker.delete_queue("default")  # with the task that waits in it
    await plant.until(lambda found: told(found, "haulier_noted_total", what="swept_unheard") > 0)


def test_all_that_may_be_noted_is_told_before_it_happens() -> None:
    texts = [file.read_text() for file in (DEPLOY.parent / "coordinator").rglob("*.py")]
    noted = set(re.findall(r'(?:note_event\(|counts\[)"(\w+)"', "\n".join(texts)))
    assert {"run_lost", "swept_overdue", "swept_unheard"} <= noted <= {*NOTED}


async def test_no_label_changes_with_each_start(plant: Plant) -> None:
    await plant.run(JOBS["COMPLETED"])
    for name, labels in await plant.scrape():
        for label, value in labels:
            assert not value.startswith(("x-", "events-")), (name, label, value)


async def test_alerts_and_the_dashboard_ask_for_what_there_is(plant: Plant) -> None:
    await plant.run(JOBS["COMPLETED"])
    await plant.scrape()  # a request that the next one counts
    there = {name for name, _ in await plant.scrape()}
    there.add("haulier_certificate_expiry_timestamp_seconds")  # this plant shows none
    asked = set().union(*map(names_in, expressions()))
    assert len(asked) > 30
    assert asked - there == set()
    assert {
        name for name in there if name.startswith("haulier_") and name.endswith("_total")
    } <= asked


@pytest.mark.slow
def test_each_alert_fires_by_series_that_call_for_it_and_none_by_others() -> None:
    need_program("promtool", "prometheus")
    said = [promtool("check", "rules", RULES), promtool("test", "rules", ALERT_CASES)]
    assert [done.returncode for done in said] == [0, 0], said
    everything, nothing = yaml.safe_load(ALERT_CASES.read_text())["tests"]
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    (firing,) = everything["promql_expr_test"]
    assert {f'{{alertname="{rule["alert"]}"}}' for rule in rules} == {
        sample["labels"] for sample in firing["exp_samples"]
    }
    assert {metric_of(each) for each in everything["input_series"]} == {
        metric_of(each) for each in nothing["input_series"]
    }


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["promtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def metric_of(series: Mapping[str, str]) -> str:
    return series["series"].partition("{")[0]


async def test_calls_of_a_port_are_measured_and_its_faults_counted() -> None:
    class Port:
        other = 7

        async def good(self, number: int) -> int:
            return number

        async def bad(self) -> None:
            raise StoreUnavailable("away")

    registry = CollectorRegistry()
    port = Latencies("store", registry).watch(Port(), ("good", "bad"))
    assert (await port.good(5), port.other) == (5, 7)
    with pytest.raises(StoreUnavailable):
        await port.bad()
    for operation, failed in (("good", 0), ("bad", 1)):
        labels = {"operation": operation}
        assert registry.get_sample_value("haulier_store_seconds_count", labels) == 1
        assert registry.get_sample_value("haulier_store_errors_total", labels) == failed


def test_users_names_make_a_hundred_labels_at_most_besides_those_that_are_always_told_apart() -> (
    None
):
    names = BoundedNames({"dead"}, most=2)
    told = [names.label(name) for name in ("a", "b", "c", "a", "dead")]
    assert told == ["a", "b", "other", "a", "dead"]
    names.keep(["b", "c"])  # "a" is gone
    assert [names.label(name) for name in ("b", "c", "a", "dead")] == ["b", "c", "other", "dead"]


def test_queues_that_are_gone_hide_none_that_nobody_takes_from() -> None:
    """However many names a coordinator has seen; and of too many at once those that nobody takes from are told."""
    meters = CoordinatorMeters(CollectorRegistry())
    take_over = meters.take_over_queues
    take_over([QueueInfo(f"old-{number}", 0, 1, 0) for number in range(150)])
    take_over([QueueInfo(f"new-{number}", 0, 1, 0) for number in range(120)])
    assert meters.registry.get_sample_value("haulier_queue_size", {"queue": "new-0"}) == 0
    busy = [QueueInfo(f"busy-{number}", 1, 1, 0) for number in range(120)]
    take_over([*busy, QueueInfo("alone", 7, 0, 0)])
    assert meters.registry.get_sample_value("haulier_queue_size", {"queue": "alone"}) == 7
    assert meters.registry.get_sample_value("haulier_queue_subscribers", {"queue": "alone"}) == 0


@pytest.mark.parametrize("error", [StoreUnavailable("away"), TimeoutError()])
async def test_a_scrape_tells_what_a_process_counted_while_the_datastore_is_away(
    plant: Plant, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def away(_: object) -> None:
        raise error

    monkeypatch.setattr("coordinator.api.metrics.present_nodes", away)
    found = await plant.scrape()
    assert told(found, "haulier_store_errors_total", operation="find") >= 0
    assert told(found, "haulier_noted_total", what="lease_ran_out") == 0
    assert math.isnan(told(found, "haulier_jobs_running"))
    assert not [labels for name, labels in found if name == "haulier_queue_size"]
    monkeypatch.undo()
    found = await plant.scrape()
    assert told(found, "haulier_jobs_running") == 0
    assert told(found, "haulier_queue_subscribers", queue="default") == 2
