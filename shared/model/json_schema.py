"""Generates the JSON Schema of the job language from its types, for editors."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.model.language import JobDefinition
from shared.model.plans import FilePlan, MapPlan, StructPlan, plan_of, structs

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SCALARS: Final = ["string", "number", "boolean", "null"]
_REF: Final = "#/$defs/{name}"

PLANS: Final = {plan.cls.__name__: plan for plan in structs(plan_of(JobDefinition))}
"""The parts of the language by their names, the job first."""


def job_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that every valid job document meets.

    An editor sees YAML's values after their types are resolved, so where text is wanted it allows
    other scalars too (`cpus: .5`), and `null` for what may be absent.
    """
    models = [plan.cls for plan in PLANS.values()]
    (whole, *_), parts = msgspec.json.schema_components(models, ref_template=_REF)
    return {
        "$schema": _DIALECT,
        "title": "Haulier job",
        **whole,
        "$defs": {name: _part(part, PLANS[name]) for name, part in parts.items()},
    }


def documented_fields(part: Mapping[str, Any], plan: StructPlan, ref: str) -> dict[str, Any]:
    """Return the schemas of the fields of a part of the language as documents have them, out of those that are stored.

    `ref`: how a schema is referred to, with `{name}` for its name."""
    fields = {name: part["properties"][name] for name in plan.fields}
    for name, field in plan.fields.items():
        if isinstance(field.plan, MapPlan) and isinstance(field.plan.value, FilePlan):
            template = {"$ref": ref.format(name=field.plan.value.struct.cls.__name__)}
            kinds = [fields[name]["additionalProperties"], template]
            fields[name] = {**fields[name], "additionalProperties": {"anyOf": kinds}}
    return fields


def _part(part: dict[str, Any], plan: StructPlan) -> dict[str, Any]:
    required = [name for name, field in plan.fields.items() if field.required]
    documented = documented_fields(part, plan, _REF)
    fields = {name: _field(field) for name, field in documented.items()}
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
    if "anyOf" in schema:
        result["anyOf"] = [_loosened(kind) for kind in schema["anyOf"]]
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
