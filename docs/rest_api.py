"""Generates the page of the REST API from its OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from coordinator.api.app import ALL_ROUTES
from coordinator.api.openapi import openapi
from shared.version import version

_INTRODUCTION: Final = """\
# REST API

This page is generated from the code (`make docs`). A running coordinator serves the same information as OpenAPI 3.1 at
`GET /openapi.json`, and as a web page at `GET /docs`.

Requests and responses are JSON in UTF-8 unless noted otherwise; times are RFC 3339 in UTC. Errors have the form
`{"message": "…"}`; errors in a job document also list `faults`, each with its `path`, `message`, `line` and `column`.
Responses omit empty strings, maps and lists. If an object has `abridged: true`, its large fields are left out, because
the response would be too large: request the object by itself to get all of its fields. Every endpoint can also return:
"""

_REF: Final = "#/components/schemas/"


def page() -> str:
    """Return the page, in Markdown."""
    document = openapi(ALL_ROUTES, version())
    everywhere = _everywhere(document)
    parts = [_INTRODUCTION, "| status | when |\n|---|---|"]
    parts[-1] += "".join(f"\n| {status} | {when} |" for status, when in everywhere.items())
    parts.append("\n## Endpoints\n")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            parts.append("\n".join(_endpoint(f"{method.upper()} {path}", operation, everywhere)))
    parts.append("## Objects\n")
    for name, schema in document["components"]["schemas"].items():
        parts.append("\n".join(_object(name, schema)))
    return "\n".join(parts)


def _everywhere(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the errors that every operation with credentials has in common."""
    common: dict[str, str] | None = None
    for operations in document["paths"].values():
        for operation in operations.values():
            if operation.get("security") == []:
                continue
            said = {s: r["description"] for s, r in operation["responses"].items() if s != "200"}
            kept = said if common is None else {s: w for s, w in common.items() if said.get(s) == w}
            common = kept
    return common or {}


def _endpoint(
    title: str, operation: Mapping[str, Any], everywhere: Mapping[str, str]
) -> Iterator[str]:
    yield f"### {title}\n\n{operation['summary']}.\n"
    rows = [_parameter(given) for given in operation["parameters"] if given["in"] != "path"]
    if rows:
        yield "| parameter | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    if body := operation.get("requestBody"):
        kinds = ", ".join(f"`{kind}`" for kind in body["content"])
        model = _type(next(iter(body["content"].values()))["schema"])
        yield f"Body: {model}, as {kinds}.\n"
    yield "| status | |\n|---|---|"
    for status, answer in operation["responses"].items():
        said = answer["description"]
        if everywhere.get(status) != said:
            yield f"| {status} | {_answer(answer) if status == '200' else said} |"
    yield ""


def _parameter(given: Mapping[str, Any]) -> str:
    schema = given["schema"]
    default = f", `{json.dumps(schema['default'])}` by default" if "default" in schema else ""
    place = " (header)" if given["in"] == "header" else ""
    description = given["description"].replace("|", "\\|")
    return f"| `{given['name']}`{place} | {schema['type']}{default} | {description} |"


def _answer(answer: Mapping[str, Any]) -> str:
    forms = []
    for kind, form in answer["content"].items():
        shown = _type(form["schema"])
        forms.append(shown if kind == "application/json" else f"`{kind}`")
    return " or ".join(forms)


def _object(name: str, schema: Mapping[str, Any]) -> Iterator[str]:
    description = " ".join((schema.get("description") or "").split("\n\n")[0].split())
    yield f"### {name}\n\n{description}\n"
    required = set(schema.get("required", ()))
    if schema.get("properties"):
        yield "| field | type | |\n|---|---|---|"
    for field, inner in schema.get("properties", {}).items():
        always = "always present" if field in required else ""
        said = inner.get("description", always).replace("|", "\\|")
        yield f"| `{field}` | {_type(inner)} | {said} |"
    yield ""


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema in words, with links to what it names."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix(_REF)
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        kinds = [_type(one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    match schema.get("type"):
        case "array":
            return f"list of {_type(schema.get('items', {}))}"
        case "object" if "additionalProperties" in schema:
            inner = schema["additionalProperties"]
            return f"map of {_type(inner)}" if isinstance(inner, dict) else "object"
        case None:
            return "anything"
        case kind:
            return "time" if schema.get("format") == "date-time" else str(kind)
