"""`haulier audit` beside the truth: it is clean where nothing is wrong, and names just what was made wrong."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Collection, Mapping
from typing import Any

import docker

from tests.acceptance.ledger import Ledger
from tests.acceptance.processes import clean_environment, wait_for
from tests.chaos.jobs import Jobs, Work
from tests.chaos.plant import Plant
from tests.chaos.truth import TWICE, Truth

PATIENCE = "5s"
"""A thing counts once it is older. That it is put right within the time promised is waited for."""

Findings = dict[str, set[str]]
"""What is wrong, and with what."""


def named(plant: Plant, expected: Findings, within: float) -> Findings:
    """Return what the audit finds, once it is as expected or the time is over. Beside other faults a dead node's own
    queue does not count: it expires at a time of its own."""
    found: Findings = {}

    def as_expected() -> bool:
        nonlocal found
        found = audit(plant)
        if expected:
            found.pop("queue of a dead node", None)
        return found == expected

    with contextlib.suppress(AssertionError):  # what is found says it
        wait_for(as_expected, within, "what is expected", every=2)
    return found


def findings(plant: Plant) -> Findings:
    """Return what the audit still finds when all had the time to be put right."""
    return named(plant, {}, 100)


def audit(plant: Plant) -> Findings:
    """Return what the audit finds now."""
    settings = {"HAULIER_RUNTIME_TYPE": "docker" if plant.contained else "shell"}
    done = subprocess.run(
        [sys.executable, "-m", "haulier.cli", "audit", "--json", "--patience", PATIENCE],
        env=clean_environment({**plant.cluster.settings, **settings}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    report = json.loads(done.stdout)
    assert report["not_seen"] == []
    assert done.returncode == bool(report["findings"])
    found: Findings = {}
    for finding in report["findings"]:
        found.setdefault(finding["what"], set()).add(finding["subject"])
    return found


def things_of(engine: docker.DockerClient, nodes: Collection[str]) -> set[str]:
    """Return the names of these nodes' containers, volumes and networks."""
    ours: Any = {"label": "haulier.node"}
    containers = engine.api.containers(all=True, filters=ours)
    volumes = engine.api.volumes(filters=ours)["Volumes"] or []
    listed = [(each["Names"][0].lstrip("/"), each["Labels"]) for each in containers]
    listed += [
        (each["Name"], each["Labels"]) for each in (*volumes, *engine.api.networks(filters=ours))
    ]
    return {name for name, labels in listed if labels["haulier.node"] in nodes}


def sees_an_end_applied_twice(plant: Plant, truth: Truth, accepted: Mapping[str, Work]) -> None:
    """A job whose position is moved behind everyone's back is seen by the harness, and named by the audit."""
    victim = [job_id for job_id, work in accepted.items() if work.kind == "chain"][-1]
    with plant.database() as database:
        moved = {"$inc": {"position": 1}}
        assert database["jobs"].update_one({"_id": victim}, moved).modified_count == 1
        wrong = truth.wrong({victim: accepted[victim]}, ())
        assert [each.kind for each in wrong if victim in each.detail] == [TWICE]
        assert named(plant, {"applied twice": {victim}}, 30) == {"applied twice": {victim}}
        database["jobs"].update_one({"_id": victim}, {"$inc": {"position": -1}})


def sees_what_dead_workers_leave(
    plant: Plant, ledger: Ledger, jobs: Jobs, engine: docker.DockerClient
) -> None:
    """All workers die under work, and one task is gone from the datastore: the audit names what the engine itself
    has of them, the queues that nobody takes from, and the job; and nothing once the workers are back."""
    works = (jobs.lasting(), jobs.lasting(), jobs.lasting(contained=True))
    ids = [submitted(plant, work) for work in works]
    names = {name for work in works for name in work.names}
    wait_for(lambda: names <= {words[4] for words in ledger.lines("start")}, 60, "their start")
    for worker in plant.workers:
        worker.kill()
    dead = plant.nodes()
    with plant.database() as database:
        database["tasks"].delete_many({"jobId": ids[0]})
    left = things_of(engine, dead)
    assert left, "the containers of a killed worker outlive it"
    expected = {
        "job stuck": {ids[0]},
        "left by a dead node": left,
        "queue without workers": {"default", "contained"},
    }
    assert named(plant, expected, 150) == expected
    for worker in plant.workers:
        worker.start()
    for job_id in ids:
        assert plant.ask("PUT", f"/jobs/{job_id}/cancel") == (200, {"status": "OK"})
    assert findings(plant) == {}
    wait_for(lambda: not left & things_of(engine, dead), 60, "what they left removed")


def submitted(plant: Plant, work: Work) -> str:
    """Submit a job to a plant that is well; return its id."""
    answer = plant.ask("POST", "/jobs", json.dumps(work.job))
    assert answer is not None
    assert answer[0] == 200, answer
    return str(answer[1]["id"])
