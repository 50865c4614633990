"""A release is made from what is committed, says everywhere the same version, and publishes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from datetime import date
from pathlib import Path

import pytest

import releasing

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## [1.1.0] - unreleased

### Added

- What is new.

## [1.0.0] - 2026-01-01

- The first.
"""


def git(root: Path, *command: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@example.com")
    done = subprocess.run(
        ["git", *who, *command], cwd=root, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "t")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    (tmp_path / "deploy" / "chart").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "haulier"\nversion = "1.1.0"\n')
    chart = 'name: haulier\nversion: 1.1.0\nappVersion: "1.1.0"\n'
    (tmp_path / "deploy" / "chart" / "Chart.yaml").write_text(chart)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "config", "user.name", "t")
    git(tmp_path, "config", "user.email", "t@example.com")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    return tmp_path


def test_a_version_that_is_ready_is_known(project: Path) -> None:
    assert releasing.check_ready(project) == "1.1.0"
    assert releasing.section_of(project, "1.1.0") == "### Added\n\n- What is new."
    assert releasing.section_of(project, "1.0.0") == "- The first."
    assert releasing.section_of(project, "1.0") is None


def test_all_that_is_missing_is_said_at_once(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    git(project, "tag", "v1.1.0")
    (project / "CHANGELOG.md").write_text("# Changelog\n\n## [1.0.0] - 2026-01-01\n")
    (project / "deploy" / "chart" / "Chart.yaml").write_text("name: haulier\nversion: 1.0.0\n")
    assert releasing.main(["--no-tests"], project) == 2
    said = capsys.readouterr().err
    assert said.count("release: ") == 5
    for words in (
        "not committed",
        "tag v1.1.0 already",
        "says nothing of 1.1.0",
        "another version",
        "there is no helm",
    ):
        assert words in said


def test_the_tag_is_of_the_commit_that_dates_the_changelog(project: Path) -> None:
    releasing.tag(project, "1.1.0", date(2026, 11, 26))
    assert "## [1.1.0] - 2026-11-26" in git(project, "show", "v1.1.0:CHANGELOG.md")
    assert git(project, "rev-parse", "v1.1.0^{commit}") == git(project, "rev-parse", "HEAD")
    assert git(project, "status", "--porcelain") == ""
    with pytest.raises(releasing.NotReadyError, match=r"tag v1\.1\.0 already"):
        releasing.check_ready(project)


def test_the_next_version_begins_everywhere(project: Path) -> None:
    assert releasing.main(["--set", "1.2.0rc1"], project) == 0
    assert releasing.version_of(project) == "1.2.0rc1"
    assert releasing.section_of(project, "1.2.0rc1") == ""
    assert releasing.section_of(project, "1.1.0") == "### Added\n\n- What is new."
    git(project, "commit", "--quiet", "--all", "--message", "next")
    with pytest.raises(
        releasing.NotReadyError, match=r"^CHANGELOG\.md says nothing of 1\.2\.0rc1$"
    ):
        releasing.check_ready(project)
    assert releasing.main(["--set", "next"], project) == 2


def test_what_publishes_is_only_said(tmp_path: Path) -> None:
    rehearsed = releasing.publishing("1.1.0", Path("dist/1.1.0"), None, tagged=False)
    assert (rehearsed[0].startswith("tools/release --tag"), len(rehearsed)) == (True, 2)
    tagged = releasing.publishing("1.1.0", Path("dist/1.1.0"), "haulier:1.1.0", tagged=True)
    assert tagged[0] == "git push origin HEAD v1.1.0"
    assert "docker push REGISTRY/haulier:1.1.0" in tagged[2]
    (tmp_path / "a.whl").write_bytes(b"a")
    releasing.sums(tmp_path)
    releasing.sums(tmp_path)
    digest = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
    assert (tmp_path / "SHA256SUMS").read_text() == f"{digest}  a.whl\n"


@pytest.mark.slow
def test_the_wheel_has_all_rooms_and_the_page(tmp_path: Path) -> None:
    wheel, _ = releasing.build(ROOT, tmp_path)
    assert wheel.name == f"haulier-{releasing.version_of(ROOT)}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names if name.endswith("/py.typed")} == {
        "coordinator", "worker", "shared", "haulier",
    }  # fmt: skip
    assert [
        name for name in names if name.startswith("coordinator/page/") and name.endswith(".html")
    ]
    assert not [name for name in names if name.startswith(("tests/", "tools/"))]


@pytest.mark.slow
def test_the_bill_of_materials_names_packages_and_versions(tmp_path: Path) -> None:
    file = tmp_path / "sbom.json"
    releasing.sbom(ROOT, Path(sys.executable), file)
    bill = json.loads(file.read_text())
    versions = {each["name"]: each["version"] for each in bill["components"]}
    locked = (ROOT / "requirements.lock").read_text()
    assert f"aiohttp=={versions['aiohttp']}\n" in locked
    assert (bill["bomFormat"], bill["metadata"]["component"]["name"]) == ("CycloneDX", "haulier")
