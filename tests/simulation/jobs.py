"""Makes jobs over the language, and says how they may end."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec

from shared.model import language

SAW: Final = "SAW"
"""The variable by which a run is told of an earlier result."""


def job(chance: random.Random) -> language.JobDefinition:
    """Return a job of a few tasks of any kind."""
    tasks = [_task(chance, f"t{number}", depth=0) for number in range(chance.randint(1, 3))]
    made: dict[str, Any] = {"name": "simulated", "tasks": tasks, "output": "{{ tasks.t0 }}"}
    if chance.random() < 0.25:
        made["webhooks"] = [_webhook(chance) for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.15:
        made["autoDelete"] = {"after": "1s"}
    return msgspec.convert(made, language.JobDefinition)


def _webhook(chance: random.Random) -> dict[str, str]:
    event = chance.choice(("job.StateChange", "job.StateChange", "task.StateChange"))
    return {"url": f"http://receiver/{chance.choice(('calm', 'moody'))}", "event": event}


def lasting(seconds: float) -> language.JobDefinition:
    """Return a job of one task that takes a little longer than that."""
    made = {"name": "lasting", "tasks": [{"name": "t0", "run": f"{seconds + 15.0} ok"}]}
    return msgspec.convert(made, language.JobDefinition)


def scheduled(chance: random.Random) -> language.JobDefinition:
    """Return a job of one task that fires every few seconds."""
    made = {
        "name": "scheduled",
        "schedule": {
            "cron": f"@every {chance.randint(2, 6)}s",
            "catchup": chance.choice(("all", "", "last")),
            "overlap": chance.choice(("", "", "skip", "queue", "cancel")),
        },
        "tasks": [{"name": "t0", "run": f"{chance.choice((0.0, 1.0, 7.0, 40.0))} ok"}],
    }
    return msgspec.convert(made, language.JobDefinition)


def _task(chance: random.Random, name: str, depth: int) -> dict[str, Any]:
    kind = chance.choices(("plain", "parallel", "each", "subjob"), (6, 2, 3, 3))[0]
    if depth > 1 or kind == "plain":
        return _plain(chance, name, long=depth == 0)
    below = [_task(chance, f"{name}-{number}", depth + 1) for number in range(chance.randint(1, 3))]
    if kind == "parallel":
        return {"name": name, "parallel": {"tasks": below}}
    if kind == "each":
        return {"name": name, "each": _each(chance, below[0])}
    subjob: dict[str, Any] = {"name": f"sub {name}", "tasks": below}
    if chance.random() < 0.2:
        subjob["detached"] = True
    return {"name": name, "subjob": subjob}


def _each(chance: random.Random, task: dict[str, Any]) -> dict[str, Any]:
    """Return an `each`; one after another, its children are told what the one before gave."""
    each: dict[str, Any] = {"list": f"1..{chance.randint(1, 6)}", "task": task}
    if chance.random() < 0.6:
        each["concurrency"] = chance.randint(1, 2)
    if "run" in task:
        task["env"] = {SAW: f"{{{{ tasks.{task['var']} ?? '' }}}}"}
    return each


def _plain(chance: random.Random, name: str, *, long: bool) -> dict[str, Any]:
    seconds = round(chance.choice((0.0, 0.5, 2.0, 8.0)) * chance.uniform(0.5, 1.5), 2)
    if long and chance.random() < 0.1:
        seconds = 45.0
    made: dict[str, Any] = {"name": name, "var": name.replace("-", "_")}
    luck = chance.random()
    if luck < 0.06:
        made["run"] = f"{seconds} fail"
    elif luck < 0.18:
        made["run"] = f"{seconds} flaky"
        made["retry"] = {"limit": chance.randint(1, 3), "initialDelay": "1s"}
    elif luck < 0.19:
        made["run"] = "0.2 vanish"
    else:
        made["run"] = f"{seconds} ok"
    if chance.random() < 0.1:
        made["if"] = "{{ 1 > 2 }}"
    if chance.random() < 0.2:
        made["priority"] = chance.randint(0, 9)
    if chance.random() < 0.1:
        made["queue"] = "other"
    return made


def must_complete(definition: language.JobDefinition) -> bool:
    """Return whether a job that nobody cancels ends well: nothing in it fails for good."""
    made = msgspec.json.encode(definition).decode()
    return " fail" not in made and " vanish" not in made
