"""What the site needs besides the pages: files of the repository that pages link to, as text."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).resolve().parents[1]
SOURCE: Final = "source"
"""The folder of the site that such files are in."""

_LINK: Final = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(#[^)\s]*)?(?=\))")


def outside(page: str, link: str) -> str | None:
    """Return the path from the repository's root of what a page links to outside of the documentation; None for
    anything else."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), link))
    return None if path.startswith("docs/") else path


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that pages link to."""
    wanted = set()
    for file in files.documentation_pages():
        for link, _ in _LINK.findall(file.content_string):
            path = outside(file.src_uri, link)
            if path is not None and (ROOT / path).is_file():
                wanted.add(path)
    for path in sorted(wanted):
        text = (ROOT / path).read_bytes()
        files.append(File.generated(config, f"{SOURCE}/{path}.txt", content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Have links to files of the repository lead to their copies, and those to folders to nothing but their text."""
    del config, files
    here = posixpath.dirname(page.file.src_uri)

    def target(found: re.Match[str]) -> str:
        path = outside(page.file.src_uri, found[1])
        if path is None or not (ROOT / path).is_file():
            return found[0]
        return posixpath.relpath(f"{SOURCE}/{path}.txt", here or ".")

    return _FOLDER.sub(
        lambda found: _text_of(found, page.file.src_uri), _LINK.sub(target, markdown)
    )


_FOLDER: Final = re.compile(r"\[([^\]]+)\]\((?!\w+:|#|/)([^)\s#]+)\)")


def _text_of(found: re.Match[str], page: str) -> str:
    path = outside(page, found[2])
    return found[1] if path is not None and (ROOT / path).is_dir() else found[0]
