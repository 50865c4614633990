"""What users ask for, as it is stored: whose it is, and what of it must not be shown."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import msgspec
import pytest

from coordinator.commands import JobCommands
from coordinator.engine.evaluation import log_secrets
from shared import redaction
from shared.errors import Conflict, NotAllowed
from shared.model import language
from shared.model.declared_secrets import hidden_values
from shared.model.documents import Actor, RoleDocument, ScheduleDocument, UserDocument
from shared.redaction import KEY_PATTERNS
from tests.unit.engine.world import World, step

ANN = Actor(id="a1", username="ann", created_at=1)
BOB = Actor(id="b1", username="bob", created_at=1)
ANN_ANEW = msgspec.structs.replace(ANN, created_at=2)
TASK = language.TaskDefinition(name="t", image="a", run="b")
PLAIN = language.JobDefinition(name="j", tasks=[TASK])


@pytest.fixture
def commands(world: World) -> JobCommands:
    return JobCommands(world.driver, world.broker, world.codec)


async def test_a_key_is_its_users_and_of_nobody_who_is_called_so_later(
    commands: JobCommands,
) -> None:
    first = await commands.submit(PLAIN, ANN, key="k", body_hash="h")
    assert (await commands.submit(PLAIN, ANN, key="k", body_hash="h")).id == first.id
    with pytest.raises(Conflict, match="another user of this name"):
        await commands.submit(PLAIN, ANN_ANEW, key="k", body_hash="h")


async def test_names_of_permissions_are_looked_up_all_at_once(
    world: World, commands: JobCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[type] = []
    find = world.store.find

    async def noted(kind: Any, *args: Any, **more: Any) -> Any:
        asked.append(kind)
        return await find(kind, *args, **more)

    await world.store.insert(UserDocument(id="u1", username="bob", created_at=1))
    await world.store.insert(RoleDocument(id="r1", name="dev", created_at=1))
    monkeypatch.setattr(world.store, "find", noted)
    bob, dev = language.Permission(user="bob"), language.Permission(role="dev")
    guest, nobody = language.Permission(user="guest"), language.Permission(role="nobody")
    await commands.check_permissions([bob, dev, guest] * 30)
    assert asked == [UserDocument, RoleDocument]
    with pytest.raises(NotAllowed, match=r"permissions\[3\].role: there is no role 'nobody'"):
        await commands.check_permissions([bob, dev, guest, nobody, language.Permission(user="who")])


KEYED = msgspec.convert(
    {
        "name": "keyed",
        "inputs": {"API_TOKEN": "hidden-by-key", "MAX_TOKENS": "4096", "city": "Appenzell"},
        "tasks": [
            {
                "name": "t",
                "image": "a",
                "cmd": ["login", "--with={{ inputs.API_TOKEN }}"],
                "env": {"DB_PASSWORD": "of-the-task", "OTHER": "{{ inputs.API_TOKEN }}"},
            }
        ],
        "webhooks": [{"url": "http://h/?t={{ inputs.API_TOKEN }}"}],
    },
    language.JobDefinition,
)


async def test_what_a_key_hides_is_a_secret_of_the_job_from_when_it_is_made(
    commands: JobCommands,
) -> None:
    job = await commands.submit(KEYED, ANN)
    assert job.inherited_secrets == ["hidden-by-key", "of-the-task"]
    assert set(log_secrets(job, TASK, KEY_PATTERNS)) == {"hidden-by-key", "of-the-task"}
    assert (await commands.rerun(job, KEYED, ANN, position=1, kept=[])).inherited_secrets == (
        job.inherited_secrets
    )
    schedule = await commands.schedule(
        msgspec.structs.replace(KEYED, schedule=language.ScheduleDefinition(cron="@hourly")), ANN
    )
    assert (await commands.run_schedule(schedule)).inherited_secrets == job.inherited_secrets


async def test_what_a_template_gives_to_a_variable_with_the_key_of_a_secret_is_one_of_its_log(
    world: World,
) -> None:
    """Also in a companion; but not a short value, nor what has another key."""
    await world.worker()
    env = {
        "DB_PASSWORD": "{{ tasks.f }}-fetched",
        "API_TOKEN": "pre-{{ inputs.region }}-static",
        "ODD_TOKEN": "{{ '{{' }}-in-braces",
        "MAX_TOKENS": "{{ 4000 + 96 }}",
        "CITY": "{{ inputs.region }}-is-none",
    }
    post = [{"name": "p", "run": "r", "env": {"OTHER_TOKEN": "{{ inputs.region }}-of-post"}}]
    told: dict[str, list[str]] = {}
    job_id = await world.submit(
        step("f", var="f"),
        step("uses", env=env, post=post),
        inputs={"region": "eu"},
        secrets={"s": "hunter2"},
    )
    await world.run(lambda run: told.update({run.message.task.name: run.message.secrets}))
    assert await world.state(job_id) == "COMPLETED"
    assert told["f"] == ["hunter2"]
    assert set(told["uses"]) == {
        "hunter2", "f-fetched", "pre-eu-static", "{{-in-braces", "eu-of-post"
    }  # fmt: skip


async def test_secrets_that_were_replaced_are_inherited_only_with_what_is_kept(
    commands: JobCommands,
) -> None:
    def rotated(number: int) -> language.JobDefinition:
        return msgspec.structs.replace(PLAIN, secrets={"k": f"{number}" * 60 * 1024})

    job = await commands.submit(rotated(0), ANN)
    for number in range(1, 5):
        job = await commands.rerun(job, rotated(number), ANN, position=1, kept=[])
        assert job.inherited_secrets == []
    job = await commands.rerun(job, rotated(5), ANN, position=2, kept=[])
    with pytest.raises(NotAllowed, match="more than 128 KiB of secret values"):
        await commands.rerun(job, rotated(6), ANN, position=2, kept=[])


@pytest.mark.parametrize(
    "written",
    [
        {"name": "uses sesame-open"},
        {"description": "sesame-open"},
        {"tags": ["t-sesame-open"]},
        {"inputs": {"x": "c2VzYW1lLW9wZW4="}},
        {"tasks": [msgspec.structs.replace(TASK, run="echo sesame-open")]},
        {"webhooks": [language.Webhook(url="http://h/sesame-open")]},
    ],
)
async def test_a_secret_that_was_replaced_stays_hidden_where_it_is_written(
    commands: JobCommands, written: dict[str, Any]
) -> None:
    def rotated(secret: str) -> language.JobDefinition:
        return msgspec.structs.replace(PLAIN, secrets={"k": secret}, **written)

    job = await commands.submit(rotated("sesame-open"), ANN)
    for secret in ("second-secret", "third-secret"):
        job = await commands.rerun(job, rotated(secret), ANN, position=1, kept=[])
        assert job.inherited_secrets == ["sesame-open"], "those written nowhere are not"
        assert set(log_secrets(job, TASK, KEY_PATTERNS)) == {"sesame-open", secret}
        assert "sesame-open" not in f"{job.name} {job.description} {job.tags}"


async def test_who_runs_a_job_again_with_guesses_of_its_secrets_learns_nothing(
    commands: JobCommands,
) -> None:
    secret = msgspec.structs.replace(KEYED, secrets={"k": "sesame-open"})
    job = await commands.submit(secret, ANN)
    guess = language.TaskDefinition(name="t", image="a", run="echo sesame-open hidden-by-key")
    guesses = msgspec.structs.replace(PLAIN, secrets={"k": "bobs-own"}, tasks=[guess])
    made = await commands.rerun(job, guesses, BOB, position=1, kept=[])
    assert log_secrets(made, guess, KEY_PATTERNS) == ["bobs-own"]
    copy = await commands.rerun(job, secret, BOB, position=1, kept=[], hidden_by=ANN)
    assert {"sesame-open", "hidden-by-key"} <= set(log_secrets(copy, guess, KEY_PATTERNS))


async def test_permissions_are_kept_as_those_of_the_users_who_are_there(
    world: World, commands: JobCommands
) -> None:
    def cy(created_at: int) -> UserDocument:
        return UserDocument(id="c1", username="cy", permitted_as=f"cy:{created_at}")

    def kept(created_at: int) -> list[language.Permission]:
        return [language.Permission(user=f"cy:{created_at}")]

    await world.store.insert(cy(1))
    definition = msgspec.structs.replace(PLAIN, permissions=[language.Permission(user="cy")])
    hourly = msgspec.structs.replace(
        definition, schedule=language.ScheduleDefinition(cron="@hourly")
    )
    job, schedule = await commands.submit(definition, ANN), await commands.schedule(hourly, ANN)
    await world.store.delete(UserDocument, {"id": "c1"})
    await world.store.insert(cy(2))
    again = await commands.rerun(job, definition, ANN, position=1, kept=[])
    fired = await commands.run_schedule(schedule)
    for document in (job, again, schedule, fired):
        assert document.permissions == kept(1)
        assert document.definition.permissions == [language.Permission(user="cy")]
    changed = await commands.change_schedule(schedule, hourly, ANN)
    assert changed.permissions == (await commands.submit(definition, ANN)).permissions == kept(2)


async def test_whose_what_is_hidden_is_stays_known_in_sub_jobs(
    world: World, commands: JobCommands
) -> None:
    inner = language.TaskDefinition(name="sub", subjob=language.SubJob(name="s", tasks=[TASK]))
    job = await commands.submit(msgspec.structs.replace(PLAIN, tasks=[inner]), ANN)
    made = await commands.rerun(job, job.definition, BOB, position=1, kept=[], hidden_by=ANN)
    await world.settle()
    (child,) = await world.subjobs(await world.task(made.id, "sub"))
    assert (child.created_by, child.hidden_by) == (BOB, ANN)


def test_short_values_and_long_ones_are_hidden_only_where_their_key_is() -> None:
    def hidden(**inputs: str) -> list[str]:
        return hidden_values(msgspec.structs.replace(PLAIN, inputs=inputs), ["TOKEN"])

    assert hidden(A_TOKEN="1234567", B_TOKEN="x" * 4097) == []
    assert hidden(A_TOKEN="12345678", other="another value") == ["12345678"]
    many = hidden(**{f"TOKEN{n}": f"{n:04}" * 1000 for n in range(10)})
    assert len(many) == 4, "16 KiB in all"


HUSHED = msgspec.structs.replace(
    PLAIN,
    name="of hush-hush",
    description="a hush-hush",
    tags=["plain", "hush-hush-tag", "hidden-by-key"],
    secrets={"k": "hush-hush"},
    inputs={"API_TOKEN": "hidden-by-key"},
)
"""What it is found and counted by holds a secret, and a value that its key hides."""


async def test_what_a_job_is_found_and_counted_by_tells_no_secret(
    world: World, commands: JobCommands
) -> None:
    inner = language.SubJob(
        name="of hush-hush", tags=["a-hush-hush"], description="hush-hush", tasks=[TASK]
    )
    job = await commands.submit(
        msgspec.structs.replace(HUSHED, tasks=[language.TaskDefinition(name="sub", subjob=inner)]),
        ANN,
    )
    assert await world.store.tag_counts(None, 100) == {
        "plain": 1,
        "[REDACTED]-tag": 1,
        "[REDACTED]": 1,
    }
    assert (job.name, job.description) == ("of [REDACTED]", "a [REDACTED]")
    await world.settle()
    (child,) = await world.subjobs(await world.task(job.id, "sub"))
    assert (child.name, child.description, child.tags) == (
        "of [REDACTED]",
        "[REDACTED]",
        ["a-[REDACTED]"],
    )


async def test_what_a_scheduled_job_is_found_by_tells_no_secret(
    world: World, commands: JobCommands
) -> None:
    hourly = language.ScheduleDefinition(cron="@hourly")
    definition = msgspec.structs.replace(HUSHED, schedule=hourly)
    made = await commands.schedule(definition, ANN)
    changed = await commands.change_schedule(made, definition, ANN)
    stored = await world.store.get(ScheduleDocument, made.id)
    for each in (made, changed, stored):
        assert each is not None
        assert (each.name, each.description) == ("of [REDACTED]", "a [REDACTED]")
        assert each.tags == ["plain", "[REDACTED]-tag", "[REDACTED]"]
    assert await world.store.count(ScheduleDocument, {"name": "of hush-hush"}) == 0


async def test_what_looks_for_many_secrets_is_made_aside_when_a_job_is(
    world: World, commands: JobCommands, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop_thread, made_in, patterns = threading.get_ident(), list[int](), redaction._patterns

    def looked_for(values: Collection[str]) -> Any:
        if values:
            made_in.append(threading.get_ident())
        return patterns(values)

    redaction._automata.clear()
    redaction._wanted.cache_clear()
    monkeypatch.setattr(redaction, "_patterns", looked_for)
    large = language.SubJob(name="s", tasks=[TASK], secrets={"s": "{{ repeat(inputs.n, 2000) }}"})
    definition = msgspec.structs.replace(
        PLAIN,
        secrets={"k": "0123456789" * 200},
        inputs={"n": "abc"},
        tasks=[language.TaskDefinition(name="sub", subjob=large)],
    )
    job = await commands.submit(definition, ANN)
    await commands.rerun(
        job,
        msgspec.structs.replace(definition, secrets={"k": "9876543210" * 200}),
        ANN,
        position=1,
        kept=[],
    )
    at = language.ScheduleDefinition(cron="@hourly")
    first, second = (
        msgspec.structs.replace(definition, secrets={"k": text * 200}, schedule=at)
        for text in ("0246813579", "1357924680")
    )
    schedule = await commands.schedule(first, ANN)
    await commands.change_schedule(schedule, second, ANN)
    await world.settle()
    assert len(made_in) >= 5
    assert loop_thread not in made_in
