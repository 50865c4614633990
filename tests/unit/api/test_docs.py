"""What the API says of itself is true: every endpoint, every answer, every page."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from typing import Any

import pytest

from coordinator.api.app import ALL_ROUTES
from coordinator.page.serving import page_files
from shared.model.documents import NodeDocument
from shared.model.states import NodeKind
from tests.unit.api.served import VERSION, Served


async def test_the_document_holds_every_endpoint(api: Served) -> None:
    document = (await api.get("/openapi.json")).json
    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == VERSION
    shown = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    assert shown == {(route.method, route.path) for route in ALL_ROUTES}
    names = [
        said["operationId"] for methods in document["paths"].values() for said in methods.values()
    ]
    assert len(names) == len(set(names))


async def test_every_reference_leads_somewhere(api: Served) -> None:
    document = (await api.get("/openapi.json")).json
    references = set(re.findall(r'"\$ref": "#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references
    assert references <= set(document["components"]["schemas"])


def _fits(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What of `value` the schema does not know or does not allow: fields and types, all the way."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return _fits(value, document["components"]["schemas"][name], document)
    if "anyOf" in schema:
        tries = [_fits(value, part, document) for part in schema["anyOf"]]
        return [] if [] in tries else tries[0]
    kind = schema.get("type")
    if kind == "object" and "properties" in schema:
        return _fields_fit(value, schema, document)
    if kind == "array":
        return [problem for item in value for problem in _fits(item, schema["items"], document)]
    types: dict[str, Any] = {
        "string": str,
        "integer": int,
        "number": (int, float),
        "boolean": bool,
        "object": dict,
        "null": type(None),
    }
    return [] if kind is None or isinstance(value, types[kind]) else [f"{value!r} is no {kind}"]


def _fields_fit(value: Any, schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    known = schema["properties"]
    problems = [f"unknown: {name}" for name in value if name not in known]
    problems += [f"missing: {name}" for name in schema.get("required", []) if name not in value]
    for name, item in value.items():
        if name in known:
            problems += _fits(item, known[name], document)
    return problems


async def test_answers_are_as_the_document_says(api: Served) -> None:
    document = (await api.get("/openapi.json")).json
    job = await api.submit()
    task = await api.task(job["id"], state="RUNNING", run=1)
    await api.log(task, "a\n")
    now = api.store.now()
    await api.store.insert(
        NodeDocument(id="n", kind=NodeKind.WORKER, name="Worker", hostname="h", version="1", started_at=now,
             last_heartbeat_at=now, queue="x-n", queues={"default": 1}, port=8001)
    )  # fmt: skip
    paths = {
        "/health": "/health",
        "/jobs": "/jobs",
        "/jobs/{id}": f"/jobs/{job['id']}",
        "/jobs/{id}/tasks": f"/jobs/{job['id']}/tasks",
        "/jobs/{id}/log": f"/jobs/{job['id']}/log",
        "/tasks/{id}": "/tasks/t1",
        "/nodes": "/nodes",
        "/queues": "/queues",
        "/metrics": "/metrics",
        "/scheduled-jobs": "/scheduled-jobs",
        "/users": "/users",
    }
    for path, address in paths.items():
        answer = await api.get(address)
        assert answer.status == 200
        said = document["paths"][path]["get"]["responses"]["200"]["content"]
        assert _fits(answer.json, said["application/json"]["schema"], document) == [], path


async def test_the_schema_of_jobs(api: Served) -> None:
    schema = (await api.get("/schemas/job.json")).json
    assert "2020-12" in schema["$schema"]
    assert {"name", "tasks"} <= set(schema["$defs"]["JobDefinition"]["properties"])


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_load_nothing_from_elsewhere(api: Served, path: str) -> None:
    answer = await api.get(path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    outside = re.findall(r"""(?:src|href)=["']?(https?:|//)[^"'\s>]*""", answer.text)
    assert outside == []
    assert "/*script*/" not in answer.text
    assert "innerHTML" not in answer.text


async def test_the_page_that_shows_the_api_may_run_what_it_holds(api: Served) -> None:
    answer = await api.get("/docs")
    policy = answer.headers["Content-Security-Policy"]
    for tag in ("script", "style"):
        (inside,) = re.findall(rf"<{tag}>(.*?)</{tag}>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


async def test_the_page_is_small_and_loads_only_files_of_its_own(api: Served) -> None:
    html = await api.get("/")
    (version,) = set(re.findall(r"/page/([0-9a-f]+)/[a-z]+\.(?:js|css)", html.text))
    assert html.headers["Cache-Control"] == "no-cache"
    kept = (await api.get(f"/page/{version}/app.js")).headers["Cache-Control"]
    assert "immutable" in kept
    assert (await api.get("/page/old/app.js")).headers["Cache-Control"] == "no-cache"
    size = 0
    for name in page_files():
        if not name.endswith((".js", ".css")):
            continue
        plain = await api.get(f"/page/{version}/{name}", headers={"Accept-Encoding": "identity"})
        assert plain.status == 200
        assert "'self'" in plain.headers["Content-Security-Policy"]
        assert not re.search(r"https?://(?!www\.w3\.org/)", plain.text), name
        assert "innerHTML" not in plain.text
        for found in re.findall(r"from \"\./([a-z]+\.js)\"", plain.text):
            assert found in page_files()
        again = await api.get(
            f"/page/{version}/{name}", headers={"If-None-Match": plain.headers["ETag"]}
        )
        assert (again.status, again.body) == (304, b"")
        size += 0 if name == "editor.js" else len(gzip.compress(plain.body, 9))
    assert size <= 40 * 1024
    for name in ("nothing.js", "serving.py", "docs.js", "%2e%2e%2fapp.py"):
        assert (await api.get(f"/page/{version}/{name}")).status == 404
    small = await api.ask("GET", f"/page/{version}/app.js", headers={"Accept-Encoding": "gzip"})
    assert small.headers["Content-Encoding"] == "gzip"
