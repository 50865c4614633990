"""The OpenAPI document serves generators: of requests, which find no answer that it does not know, and of clients."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from coordinator.api import auth
from coordinator.api.app import ALL_ROUTES
from coordinator.api.openapi import openapi, statuses
from shared.config.schema import BasicAuth, KeyAuth, Middleware
from shared.model.documents import JobDocument
from shared.model.states import JobState
from tests.unit.api.conftest import Serve
from tests.unit.api.served import Served, configured, signed_in

BASIC = BasicAuth(enabled=True, username="root", password="first")
EXAMPLES = 4
"""Requests made for each endpoint, in each way: it is a net for what is new, and must not take long."""
SEED = 20260301
JOB = "6e5ffbc52cb64910a8a8ced3c22a452e"


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "SLOWED", 0.0)


def operations(document: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def everything() -> dict[str, Any]:
    return openapi(ALL_ROUTES, "1")


# --- what the document says -------------------------------------------------------------------------------------------


def test_each_operation_has_a_description_and_an_example() -> None:
    for name, operation in operations(everything()):
        assert operation["description"], name
        bodies = [operation.get("requestBody", {}), operation["responses"]["200"]]
        forms = [
            form
            for body in bodies
            for kind, form in body.get("content", {}).items()
            if "yaml" not in kind
        ]
        assert all("example" in each for each in forms), name
        for parameter in operation["parameters"]:
            assert parameter["in"] != "path" or "example" in parameter, name


def every_schema(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, Mapping):
        if "properties" in node or "type" in node:
            yield node
        for value in node.values():
            yield from every_schema(value)
    elif isinstance(node, list):
        for value in node:
            yield from every_schema(value)


def test_no_default_is_none() -> None:
    for schema in every_schema(everything()["components"]["schemas"]):
        assert schema.get("default", 0) not in ("", [], {}, None), schema
        assert {"type": "null"} not in schema.get("anyOf", [])


def test_what_must_be_there_and_what_states_there_are() -> None:
    schemas = everything()["components"]["schemas"]
    assert {"name", "tasks"} <= set(schemas["JobDefinition"]["required"])
    assert schemas["NewUser"]["required"] == ["username", "password"]
    assert "RUNNING" in schemas["JobSummaryView"]["properties"]["state"]["enum"]
    assert "SKIPPED" in schemas["TaskView"]["properties"]["state"]["enum"]
    assert "DRAINING" in schemas["NodeView"]["properties"]["status"]["enum"]
    sizes = [
        p["schema"]
        for _, o in operations(everything())
        for p in o["parameters"]
        if p["name"] == "size"
    ]
    assert sizes
    (of_node,) = [
        p["schema"]["maximum"]
        for p in everything()["paths"]["/tasks"]["get"]["parameters"]
        if p["name"] == "size"
    ]
    assert of_node == 1000
    assert all(schema["minimum"] == 1 and schema["maximum"] <= 1000 for schema in sizes)


def test_what_may_be_left_out_and_what_a_shortened_id_may_meet() -> None:
    paths = everything()["paths"]
    assert not paths["/jobs/{id}/rerun"]["post"]["requestBody"]["required"]
    assert paths["/jobs"]["post"]["requestBody"]["required"]
    for path in ("/jobs/{id}/log", "/jobs/{id}/log/stream", "/jobs/{id}/log/download"):
        assert "409" in paths[path]["get"]["responses"], path
    for path in ("/tasks/{id}/log", "/tasks/{id}/log/stream"):
        assert "409" in paths[path]["get"]["responses"], path


@pytest.mark.parametrize(
    ("middleware", "schemes"),
    [
        (Middleware(), []),
        (Middleware(basic_auth=BASIC), ["basic", "token", "session"]),
        (Middleware(key_auth=KeyAuth(enabled=True, key="k")), ["token", "session"]),
    ],
)
def test_security_is_as_configured(middleware: Middleware, schemes: list[str]) -> None:
    document = openapi(ALL_ROUTES, "1", middleware)
    assert [next(iter(each)) for each in document["security"]] == schemes
    assert list(document["components"].get("securitySchemes", {})) == schemes
    assert document["paths"]["/health"]["get"]["security"] == []


def test_every_route_says_all_it_may_answer() -> None:
    for route in ALL_ROUTES:
        said = statuses(route)
        if not route.public:
            assert {401, 403, 421, 429, 500, 503} <= set(said), route.path
        if route.body is not None:
            assert {400, 408, 413, 415} <= set(said), route.path


# --- requests made from it --------------------------------------------------------------------------------------------

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
)
ENDLESS = ("/events", "/jobs/{id}/log/stream", "/tasks/{id}/log/stream")


def made_up(operation: Any, mode: GenerationMode) -> list[Any]:
    """Return requests to an operation that fit the document, or that do not: none where none can be made."""
    found: list[Any] = []

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def collect(case: Any) -> None:
        found.append(case)

    with suppress(Unsatisfiable):
        collect()
    return found


def operations_of(document: dict[str, Any]) -> Iterator[Any]:
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok), found
        yield found.ok()


def all_made_up(*, endless: bool) -> list[Any]:
    """Return requests to all operations of a kind; every other one is about the job, or task, that there is."""
    with warnings.catch_warnings(
        action="ignore"
    ):  # a plain random number inside a strategy of theirs
        made = [
            case
            for operation in operations_of(everything())
            if (operation.path in ENDLESS) == endless
            for mode in GenerationMode
            for case in made_up(operation, mode)
        ]
    for case in made[::2]:
        if "id" in case.path_parameters:
            case.path_parameters["id"] = JOB
    return made


@pytest.fixture
def cases() -> list[Any]:
    made = all_made_up(endless=False)
    for case in made:
        if isinstance(case.body, dict):
            case.body.pop("wait", None)  # nothing runs here, so nothing would ever end
    return made


def faults(case: Any, url: str, headers: Mapping[str, str]) -> str:
    """Ask, and return what is wrong with the answer."""
    answer = case.call(base_url=url, headers=dict(headers), timeout=20)
    try:
        case.validate_response(answer, checks=CHECKS)
    except Exception as error:
        return f"{case.method} {case.path}: {error}"
    return ""


def faults_of_all(cases: list[Any], url: str, headers: Mapping[str, str]) -> list[str]:
    return [fault for case in cases if (fault := faults(case, url, headers))]


def head(case: Any, url: str, headers: Mapping[str, str]) -> tuple[str, str]:
    """Ask for what never ends, and return the status and the content type."""
    asked = case.as_transport_kwargs(base_url=url, headers=dict(headers))
    with requests.request(**asked, stream=True, timeout=20) as answer:
        return str(answer.status_code), answer.headers["Content-Type"].partition(";")[0]


@pytest.mark.parametrize("path", ENDLESS)
async def test_no_head_of_what_never_ends_is_unknown_to_the_document(
    start: Serve, path: str
) -> None:
    api: Served = await start()
    job = JobDocument(id=JOB, name="j", created_at=api.store.now(), state=JobState.RUNNING)
    assert await api.store.insert(job)
    await api.task(JOB, id=JOB, state="RUNNING")
    guarded: Served = await start(configured(basic_auth=BASIC), api.store)
    cases = [case for case in all_made_up(endless=True) if case.operation.path == path]
    heads = {
        await asyncio.to_thread(head, case, url, who)
        for case in cases
        for url, who in [(guarded.url, {}), (guarded.url, signed_in("root", "first"))]
    }
    responses = everything()["paths"][path]["get"]["responses"]
    assert heads <= {
        (status, kind) for status in responses for kind in responses[status]["content"]
    }
    assert {"200", "401"} <= {status for status, _ in heads}


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_no_answer_is_unknown_to_the_document(start: Serve, cases: list[Any]) -> None:
    api: Served = await start()
    job = JobDocument(id=JOB, name="j", created_at=api.store.now(), state=JobState.RUNNING)
    assert await api.store.insert(job)
    guarded: Served = await start(configured(basic_auth=BASIC), api.store)
    root = signed_in("root", "first")
    for url, who in [(guarded.url, {}), (guarded.url, root), (api.url, {})]:
        problems = await asyncio.to_thread(faults_of_all, cases, url, who)
        assert problems == []
    assert len(cases) > len(ALL_ROUTES)


# --- a client made from it --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def client_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client as openapi-python-client makes it."""
    folder = tmp_path_factory.mktemp("client")
    (folder / "openapi.json").write_text(json.dumps(everything()))
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    command += ["--path", "openapi.json", "--output-path", "generated_client"]
    (folder / "config.yaml").write_text("post_hooks: []\n")
    done = subprocess.run(
        [*command, "--config", "config.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Endpoint will not be generated" not in done.stdout + done.stderr
    assert "response will be omitted" not in done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_a_client_has_every_endpoint(client_folder: Path) -> None:
    made = {path.stem for path in (client_folder / "generated_client" / "api").glob("*/*.py")}
    assert {route.handler.__name__ for route in ALL_ROUTES} <= made


@pytest.mark.slow
async def test_a_client_submits_lists_and_reads(
    api: Served, client_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(client_folder))
    module = importlib.import_module("generated_client")
    jobs = {
        name: importlib.import_module(f"generated_client.api.jobs.{name}")
        for name in ("submit_job", "list_jobs", "get_job")
    }
    definition = importlib.import_module("generated_client.models").JobDefinition

    def use() -> tuple[Any, Any, Any]:
        with module.Client(base_url=api.url) as client:
            body = definition.from_dict({"name": "hello", "tasks": [{"name": "t", "run": "echo"}]})
            made = jobs["submit_job"].sync(client=client, body=body)
            listed = jobs["list_jobs"].sync(client=client)
            return made, listed, jobs["get_job"].sync(made.id, client=client)

    made, listed, read = await asyncio.to_thread(use)
    assert made.state.value == "PENDING"
    assert [job.id for job in listed.items] == [made.id]
    assert (read.id, read.tasks[0].name) == (made.id, "t")
