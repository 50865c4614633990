"""Endpoints that describe the API: the OpenAPI document, a page that shows it, and the JSON Schema of jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from aiohttp import web

from coordinator.api.http import Media, Route, answer
from coordinator.page.serving import FRONT, docs_page, page_file
from shared.errors import NotFound
from shared.model.json_schema import job_schema

OPENAPI: Final[web.AppKey[Callable[[], dict[str, Any]]]] = web.AppKey("OPENAPI")


async def openapi_document(request: web.Request) -> web.StreamResponse:
    """Answer the OpenAPI document."""
    return answer(request.app[OPENAPI]())


async def job_language(_request: web.Request) -> web.StreamResponse:
    """Answer the JSON Schema of the job language."""
    return answer(job_schema())


async def api_docs(_request: web.Request) -> web.StreamResponse:
    """Answer the page that shows the OpenAPI document."""
    return docs_page()


async def front_page(request: web.Request) -> web.StreamResponse:
    """Answer the web page."""
    found = page_file(request, FRONT)
    assert found is not None
    return found


async def front_file(request: web.Request) -> web.StreamResponse:
    """Answer a script or style of the web page."""
    found = page_file(request, request.match_info["name"], request.match_info["version"])
    if found is None:
        raise NotFound("there is no such file")
    return found


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
        handler=api_docs,
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
    Route(
        method="GET",
        path="/page/{version}/{name}",
        handler=front_file,
        group="web",
        summary="Get a script or style of the web page",
        answer=Media("text/javascript", "The file."),
        errors={404: "There is no such file."},
        public=True,
    ),
)
