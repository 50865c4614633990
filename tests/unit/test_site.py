"""The documentation can be built as a site, and nothing in it leads nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs")

from docs.site import outside

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("page", "link", "path"),
    [
        ("how-to/cluster.md", "../../deploy/haulier.toml", "deploy/haulier.toml"),
        ("index.md", "../CONTRIBUTING.md", "CONTRIBUTING.md"),
        ("index.md", "how-to/cluster.md", None),
        ("how-to/cluster.md", "../security.md", None),
    ],
)
def test_links_out_of_the_documentation_are_known(page: str, link: str, path: str | None) -> None:
    assert outside(page, link) == path


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    cluster = (tmp_path / "how-to" / "cluster.html").read_text()
    assert 'href="../source/deploy/docker-compose.yml.txt"' in cluster
    compose = tmp_path / "source" / "deploy" / "docker-compose.yml.txt"
    assert compose.read_bytes() == (ROOT / "deploy" / "docker-compose.yml").read_bytes()
    pages = {page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")}
    assert [page for page in pages if not (tmp_path / page.with_suffix(".html")).exists()] == []
