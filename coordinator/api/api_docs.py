"""Endpoints that describe the API: the OpenAPI document, a page that shows it, and the JSON Schema of jobs."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from coordinator.api.http import answer
from coordinator.api.routes import Media, Route
from coordinator.page.serving import page
from shared.model.schema import job_schema

OPENAPI: Final = web.AppKey("OPENAPI", dict)
_SCHEMA: Final = web.AppKey("SCHEMA", dict)


async def openapi_document(request: web.Request) -> web.StreamResponse:
    """Answer the OpenAPI document."""
    return answer(request.app[OPENAPI])


async def job_language(_request: web.Request) -> web.StreamResponse:
    """Answer the JSON Schema of the job language."""
    return answer(job_schema())


async def docs_page(_request: web.Request) -> web.StreamResponse:
    """Answer the page that shows the OpenAPI document."""
    return page("docs")


async def front_page(_request: web.Request) -> web.StreamResponse:
    """Answer the web page."""
    return page("index")


_OBJECT: Final[dict[str, Any]] = {"type": "object"}
_HTML: Final = Media("text/html", "The page.")

DOCS_ROUTES: Final = (
    Route(
        method="GET",
        path="/openapi.json",
        handler=openapi_document,
        group="docs",
        summary="Get this document",
        answer=Media("application/json", "OpenAPI 3.1.", _OBJECT),
        dataless=True,
    ),
    Route(
        method="GET",
        path="/docs",
        handler=docs_page,
        group="docs",
        summary="Show this document as a web page",
        answer=_HTML,
        dataless=True,
    ),
    Route(
        method="GET",
        path="/schemas/job.json",
        handler=job_language,
        group="docs",
        summary="Get the JSON Schema of the job language",
        answer=Media("application/json", "JSON Schema 2020-12.", _OBJECT),
        dataless=True,
    ),
    Route(
        method="GET",
        path="/",
        handler=front_page,
        group="web",
        summary="Show the web page",
        answer=_HTML,
        dataless=True,
    ),
)
