"""The OpenAPI 3.1 document, made from the routes and their models, and fit for generators of clients."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from coordinator.api.http import ERROR_SCHEMA, Media, Param, Route
from coordinator.api.roles import VIEWER
from coordinator.api.token_texts import SESSION_COOKIE
from shared.config.schema import Middleware
from shared.model.json_schema import PLANS, documented_fields

_REF: Final = "#/components/schemas/{name}"
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_PLAIN: Final = {str: "string", int: "integer", bool: "boolean"}
_EVERYWHERE: Final = {
    401: "Credentials are missing or wrong.",
    421: "The request is for a name that is not this server's; see `coordinator.hosts`.",
    429: "Too many requests or logins; `Retry-After` says when to try again.",
    500: "Internal error of the coordinator.",
    503: "The datastore is unavailable; the message says why.",
}
_BODY: Final = {
    408: "The body did not arrive in time.",
    413: "The body is too large.",
    415: "The content type or encoding is not supported.",
}
_SCHEMES: Final = {
    "basic": {"type": "http", "scheme": "basic", "description": "A user's name and password."},
    "token": {
        "type": "http",
        "scheme": "bearer",
        "description": "A token of `POST /tokens`, or the shared key.",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": SESSION_COOKIE,
        "description": "The cookie of `POST /login`.",
    },
}
_PATH_EXAMPLES: Final = {
    "id": "6e5ffbc52cb64910a8a8ced3c22a452e",
    "name": "default",
    "version": "0123456789ab",
    "role": "operator",
}
_MOMENT: Final = "2026-03-01T12:00:00.000000Z"


def openapi(
    routes: Sequence[Route], version: str, middleware: Middleware | None = None
) -> dict[str, Any]:
    """Return the document that describes `routes`, for a server with this middleware, or for any where it is None."""
    shown = [route for route in routes if route.documented]
    models = list(dict.fromkeys(_models(shown)))
    schemas, components = msgspec.json.schema_components(models, ref_template=_REF)
    by_model = dict(zip(models, map(_clean, schemas), strict=True))
    parts = {name: _component(name, part) for name, part in components.items()}
    schemes = _schemes(middleware)
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        made = _operation(route, by_model, parts)
        paths.setdefault(route.path, {})[route.method.lower()] = made
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Haulier",
            "version": version,
            "description": "A workflow engine that runs each task of a job in its own container.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": tag} for tag in dict.fromkeys(map(_tag, shown))],
        "paths": paths,
        "components": {"schemas": parts},
        "security": [{name: []} for name in schemes],
    }
    if schemes:
        document["components"]["securitySchemes"] = {name: _SCHEMES[name] for name in schemes}
    return document


def _schemes(middleware: Middleware | None) -> list[str]:
    """Return the ways to sign in that are on; all of them where nothing is known."""
    if middleware is None:
        return list(_SCHEMES)
    basic, key = middleware.basic_auth.enabled, middleware.key_auth.enabled
    return [*(["basic"] if basic else []), *(["token", "session"] if basic or key else [])]


def _models(routes: Iterable[Route]) -> Iterator[Any]:
    yield ERROR_SCHEMA
    for route in routes:
        yield from _forms(route.answer)
        if route.body is not None:
            yield route.body.model


def _forms(shown: Any) -> Iterator[Any]:
    """Yield the models that an answer may be of."""
    if not isinstance(shown, Media):
        yield from shown if isinstance(shown, tuple) else (shown,)


def _schema(shown: Any, schemas: Mapping[Any, Any]) -> Any:
    forms = [schemas[form] for form in _forms(shown)]
    return forms[0] if len(forms) == 1 else {"anyOf": forms}


# --- schemas ----------------------------------------------------------------------------------------------------------


def _component(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    if (plan := PLANS.get(name)) is None:
        return dict(_clean(schema))
    required = [name for name, field in plan.fields.items() if field.required]
    fields = documented_fields(schema, plan, _REF)
    return dict(_clean({**schema, "properties": fields, "required": required}))


def _clean(schema: Any) -> Any:
    """Return a schema that says of what may be left out only that: not that it is null, or an empty text where there
    should be a time, by default."""
    if isinstance(schema, list):
        return [_clean(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {key: _clean(value) for key, value in schema.items()}
    if found.get("default", 0) in ("", [], {}, None):
        del found["default"]
    if isinstance(found.get("anyOf"), list):
        kinds = [kind for kind in found["anyOf"] if kind != {"type": "null"}]
        found["anyOf"] = kinds
        if len(kinds) == 1:
            del found["anyOf"]
            found = {**kinds[0], **found}
    return found


def _example(schema: Mapping[str, Any], parts: Mapping[str, Any], depth: int = 0) -> Any:
    """Return something that a schema allows, with all that it requires."""
    if "$ref" in schema:
        return _example(parts[schema["$ref"].rpartition("/")[2]], parts, depth)
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], parts, depth)
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            fields = schema.get("properties", {})
            return {name: _example(fields[name], parts, depth + 1) for name in required}
        case "array":
            return [_example(schema.get("items", {}), parts, depth + 1)]
        case "string":
            said = schema.get("examples") or ["example"]
            return _MOMENT if schema.get("format") == "date-time" else said[0]
        case kind:
            return {"integer": 1, "number": 1.0, "boolean": True}.get(str(kind), {})


# --- operations -------------------------------------------------------------------------------------------------------


def _tag(route: Route) -> str:
    return route.group or "health"


def _operation(
    route: Route, schemas: Mapping[Any, Any], parts: Mapping[str, Any]
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": _description(route),
        "operationId": route.handler.__name__,
        "tags": [_tag(route)],
        "parameters": [*_path_parameters(route.path), *map(_parameter, route.params)],
        "responses": dict(_responses(route, schemas, parts)),
    }
    if route.public:
        operation["security"] = []
    if route.body is not None:
        schema = schemas[route.body.model]
        example = route.body.example or _example(schema, parts)
        content = {
            kind: {"schema": schema, **({"example": example} if "json" in kind else {})}
            for kind in route.body.types
        }
        operation["requestBody"] = {"required": route.body.required, "content": content}
    return operation


def _description(route: Route) -> str:
    said = inspect.cleandoc(route.handler.__doc__ or route.summary)
    return said if route.public else f"{said}\n\nNeeds the role `{route.needs}`."


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for name in _PLACEHOLDER.findall(path):
        example = "ann" if path.startswith("/users") and name == "name" else _PATH_EXAMPLES[name]
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            "example": example,
        }


def _parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _PLAIN[param.kind]}
    if param.kind is int:
        schema |= {"minimum": 1, "maximum": param.most}
    if param.kind is str:
        schema["maxLength"] = 4096
    if param.choices:
        schema["enum"] = list(param.choices)
    if param.default is not None:
        schema["default"] = param.default
    return {
        "name": param.name,
        "in": param.place,
        "required": False,
        "description": param.description,
        "schema": schema,
    }


def _weak(route: Route) -> str:
    if route.needs == VIEWER:
        return "A page of another site asks."
    return f"The caller lacks the role `{route.needs}`, or a page of another site asks."


def statuses(route: Route) -> dict[int, str]:
    """Return all statuses but 200 that a route may answer, each with when."""
    found = {} if route.public else {**_EVERYWHERE, 403: _weak(route)}
    if route.public and not route.path.startswith("/health"):
        found = {**_EVERYWHERE, 403: "A page of another site asks."}
        del found[401]
    if route.params:
        found[400] = "A parameter is wrong."
    if route.body is not None:
        found |= _BODY
    return dict(sorted({**found, **route.errors}.items()))


def _responses(
    route: Route, schemas: Mapping[Any, Any], parts: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    content: dict[str, Any] = {}
    for form in (route.answer, *route.also):
        if isinstance(form, Media):
            example = form.example or _example(form.schema, parts)
            content[form.type] = {"schema": dict(form.schema), "example": example}
        else:
            schema = _schema(form, schemas)
            content["application/json"] = {"schema": schema, "example": _example(schema, parts)}
    said = route.answer.description if isinstance(route.answer, Media) else "Success."
    yield "200", {"description": said, "content": content}
    for status, when in statuses(route).items():
        down = route.path.startswith("/health") and status == HTTPStatus.SERVICE_UNAVAILABLE
        schema = _schema(route.answer if down else ERROR_SCHEMA, schemas)
        yield (
            str(status),
            {"description": when, "content": {"application/json": {"schema": schema}}},
        )
