"""Generates the JSON Schema of the job language from its types, for editors."""

from typing import Any, Final

import msgspec

from shared.model.language import JobDefinition
from shared.model.plans import StructPlan, plan_of, structs

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Final = ["string", "number", "boolean", "null"]


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that every valid job document meets.

    An editor sees YAML's values after their types are resolved, so where text is wanted it allows
    other scalars too (`cpus: .5`), and `null` for what may be absent.
    """
    (whole,), parts = msgspec.json.schema_components([JobDefinition], ref_template="#/$defs/{name}")
    plans = {plan.cls.__name__: plan for plan in structs(plan_of(JobDefinition))}
    return {
        "$schema": _DIALECT,
        "title": "Haulier job",
        **whole,
        "$defs": {name: _part(part, plans[name]) for name, part in parts.items()},
    }


def _part(part: dict[str, Any], plan: StructPlan) -> dict[str, Any]:
    required = [name for name, field in plan.fields.items() if field.required]
    fields = {name: _field(field) for name, field in part["properties"].items()}
    for name in required:
        fields[name] = _filled(fields[name])
    return {
        "title": part["title"],
        "description": part.get("description", ""),
        "type": "object",
        "properties": fields,
        "required": required,
        "additionalProperties": False,
    }


def _field(schema: dict[str, Any]) -> dict[str, Any]:
    loosened = _loosened(schema)
    loosened.pop("default", None)
    if loosened.get("type") in ("array", "object", "boolean"):
        loosened["type"] = [loosened["type"], "null"]
    return loosened


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    result = dict(schema)
    for inner in ("items", "additionalProperties"):
        if isinstance(schema.get(inner), dict):
            result[inner] = _loosened(schema[inner])
    if schema.get("type") == "string":
        result["type"] = _SCALARS
        if "enum" in schema:
            result["enum"] = [*schema["enum"], "", None]
    return result


def _filled(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a field that must be there and say something."""
    result = dict(schema)
    if "anyOf" in result:
        result["anyOf"] = [kind for kind in result["anyOf"] if kind != {"type": "null"}]
    if isinstance(result.get("type"), list):
        result["type"] = [kind for kind in result["type"] if kind != "null"]
    if "array" in result.get("type", ()):
        result["minItems"] = 1
    if "enum" in result:
        result["enum"] = [word for word in result["enum"] if word]
    return result
