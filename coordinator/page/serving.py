"""Serves the pages, each with its script and style inlined; a policy forbids loading anything else."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Final

from aiohttp import web

_HERE: Final = Path(__file__).parent


def page(name: str) -> web.Response:
    """Return the page `name`, as one document that loads nothing."""
    html, policy = _made(name)
    return web.Response(
        body=html,
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": policy,
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-cache",
        },
    )


@cache
def _made(name: str) -> tuple[bytes, str]:
    style = _read("style.css") + _read(f"{name}.css")
    script = _read("common.js") + _read(f"{name}.js")
    html = _read(f"{name}.html").replace("/*style*/", style).replace("/*script*/", script)
    policy = (
        "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    return html.encode(), policy


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return what the policy calls a text by that is inside the page."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
