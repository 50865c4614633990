"""The OpenAPI 3.1 document, made from the routes and their models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec

from coordinator.api.routes import ERROR_SCHEMA, Media, Param, Route

_REF: Final = "#/components/schemas/{name}"
_PLACEHOLDER: Final = re.compile(r"\{(\w+)\}")
_PLAIN: Final = {str: "string", int: "integer", bool: "boolean"}
_EVERYWHERE: Final = {
    401: "Credentials are missing or wrong.",
    429: "Too many requests; `Retry-After` says when to try again.",
    500: "Internal error of the coordinator.",
    503: "The datastore is unavailable; the message says why.",
}


def openapi(routes: Sequence[Route], version: str) -> dict[str, Any]:
    """Return the document that describes `routes`."""
    shown = [route for route in routes if route.documented]
    models = list(dict.fromkeys(_models(shown)))
    schemas, components = msgspec.json.schema_components(models, ref_template=_REF)
    by_model = dict(zip(models, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in shown:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_model)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Haulier",
            "version": version,
            "description": "A workflow engine that runs each task of a job in its own container.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "basic": {"type": "http", "scheme": "basic"},
                "key": {"type": "http", "scheme": "bearer"},
            },
        },
        "security": [{}, {"basic": []}, {"key": []}],
    }


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


def _operation(route: Route, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__,
        "tags": [route.group or "health"],
        "parameters": [*_path_parameters(route.path), *map(_parameter, route.params)],
        "responses": dict(_responses(route, schemas)),
    }
    if route.public:
        operation["security"] = [{}]
    if route.body is not None:
        content = {kind: {"schema": schemas[route.body.model]} for kind in route.body.types}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _path_parameters(path: str) -> Iterator[dict[str, Any]]:
    for name in _PLACEHOLDER.findall(path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _parameter(param: Param) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": _PLAIN[param.kind]}
    if param.default is not None:
        schema["default"] = param.default
    return {
        "name": param.name,
        "in": param.place,
        "description": param.description,
        "schema": schema,
    }


def _responses(route: Route, schemas: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    answers = [route.answer, *route.also]
    content = {}
    for form in answers:
        if isinstance(form, Media):
            content[form.type] = {"schema": dict(form.schema)}
        else:
            content["application/json"] = {"schema": _schema(form, schemas)}
    said = route.answer.description if isinstance(route.answer, Media) else "Success."
    yield "200", {"description": said, "content": content}
    everywhere = {} if route.public else _EVERYWHERE
    for status, when in sorted({**everywhere, **route.errors}.items()):
        model = (
            route.answer
            if route.public and status == HTTPStatus.SERVICE_UNAVAILABLE
            else ERROR_SCHEMA
        )
        yield (
            str(status),
            {
                "description": when,
                "content": {"application/json": {"schema": _schema(model, schemas)}},
            },
        )
