"""Serves the pages.

The web page is made of files that it loads from this server; the one that shows the API has its script and style
inlined. A policy forbids loading anything else.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

import msgspec
from aiohttp import web

_HERE: Final = Path(__file__).parent
_OURS: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "worker-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
FRONT: Final = "index.html"
VERSION_LENGTH: Final = 12
_FOR_EVER: Final = "public, max-age=31536000, immutable"
"""Of a file whose address says which version it is."""


class _File(msgspec.Struct, frozen=True):
    """A file of the page, plain and compressed, and its entity tag."""

    type: str
    plain: bytes
    small: bytes
    tag: str


@cache
def page_files() -> dict[str, _File]:
    """Return the files of the web page by their names.

    What `app.js` imports is joined with it, so that a first visit asks for one script; what it loads when a view wants
    it takes the shared modules from there.
    """
    sources = {path.stem: _source(path) for path in _HERE.glob("*.js")}
    sources = {name: text for name, text in sources.items() if not name.startswith("docs")}
    joined = _needed(sources, _MAIN)
    scripts = {_MAIN: _joined({name: sources[name] for name in joined}), _WORKER: sources[_WORKER]}
    for name in sources.keys() - set(joined):
        scripts[name] = _IMPORT.sub(_from_main, sources[name])
    found = {f"{name}.js": _packed("text/javascript", text) for name, text in scripts.items()}
    found["style.css"] = _packed("text/css", _source(_HERE / "style.css"))
    whole = "".join(found[name].tag for name in sorted(found)) + _read(FRONT)
    version = hashlib.blake2s(whole.encode()).hexdigest()[:VERSION_LENGTH]
    return {
        **found,
        FRONT: _packed("text/html", _read(FRONT).replace("/page/", f"/page/{version}/")),
    }


_MAIN: Final = "app"
_WORKER: Final = "hub"
"""It is in `app.js`, and a file too: browsers run it beside all tabs."""
_IMPORT: Final = re.compile(r'^import \{ (.+) \} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT: Final = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_COMMENT: Final = re.compile(r"^[ ]*(?://.*|/\*(?s:.*?)\*/)[ ]*\n", re.MULTILINE)
"""A comment that has lines for itself."""


def _source(path: Path) -> str:
    return _COMMENT.sub("", path.read_text(encoding="utf-8"))


def _needed(sources: Mapping[str, str], name: str) -> list[str]:
    """Return the modules that one imports, directly or not, itself last, each after what it imports."""
    found: dict[str, None] = {}
    for _, each in _IMPORT.findall(sources[name]):
        found.update(dict.fromkeys(_needed(sources, each)))
    return [*found, name]


def _joined(sources: Mapping[str, str]) -> str:
    """Return modules as one, which exports each by its name with a $ before it."""
    parts = []
    for name, source in sources.items():
        text = _IMPORT.sub(_from_joined, source)
        exported = ", ".join(_EXPORT.findall(text))
        parts.append(
            f"const ${name} = (() => {{\n{_EXPORT.sub('', text)}return {{ {exported} }};\n}})();\n"
        )
    return "".join(parts) + f"export {{ {', '.join(f'${name}' for name in sources)} }};\n"


def _from_joined(found: re.Match[str]) -> str:
    return f"const {{ {found[1].replace(' as ', ': ')} }} = ${found[2]};\n"


def _from_main(found: re.Match[str]) -> str:
    return f'import {{ ${found[2]} }} from "./{_MAIN}.js";\n{_from_joined(found)}'


def _packed(kind: str, text: str) -> _File:
    plain = text.encode()
    return _File(
        type=kind,
        plain=plain,
        small=gzip.compress(plain, 9, mtime=0),
        tag=hashlib.blake2s(plain, digest_size=12).hexdigest(),
    )


def page_file(request: web.BaseRequest, name: str, version: str = "") -> web.Response | None:
    """Return a file of the web page, compressed where the client takes it; None where there is none.

    Browsers keep one that is asked for by the `version` that the front page names."""
    found = page_files().get(name)
    if found is None:
        return None
    headers = {
        "ETag": f'"{found.tag}"',
        "Cache-Control": _FOR_EVER if version and _names(version) else "no-cache",
        "Content-Security-Policy": _OURS,
        "X-Frame-Options": "DENY",
        "Vary": "Accept-Encoding",
    }
    if any(each.value in (found.tag, "*") for each in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    body = found.plain
    if "gzip" in request.headers.get("Accept-Encoding", "").lower():
        body, headers["Content-Encoding"] = found.small, "gzip"
    return web.Response(body=body, content_type=found.type, charset="utf-8", headers=headers)


def _names(version: str) -> bool:
    """Tell whether the front page names this version."""
    return f"/page/{version}/".encode() in page_files()[FRONT].plain


def docs_page() -> web.Response:
    """Return the page that shows the OpenAPI document, as one document that loads nothing."""
    html, policy = _made("docs")
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
    style = _read(f"{name}_style.css") + _read(f"{name}.css")
    script = _read(f"{name}_common.js") + _read(f"{name}.js")
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
