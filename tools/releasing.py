"""Makes a release: checks, wheel, image, SBOM, notes and tag. It publishes nothing: it says how to."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
UNRELEASED: Final = "unreleased"
_VERSION: Final = re.compile(r"[0-9]+\.[0-9]+\.[0-9]+((a|b|rc)[0-9]+)?")


class NotReadyError(Exception):
    """There can be no release yet, and why."""


# --- the version, and what says it --------------------------------------------------------------------------------


def version_of(root: Path) -> str:
    """Return the version; `pyproject.toml` has it, and all else takes it from there or is compared with it."""
    return str(tomllib.loads((root / "pyproject.toml").read_text())["project"]["version"])


def set_version(root: Path, version: str) -> None:
    """Begin a version: write it to `pyproject.toml` and the chart, and begin its section in the changelog.

    Raises `NotReadyError` where it is no version."""
    if not _VERSION.fullmatch(version):
        raise NotReadyError(f"{version!r} is no version like 1.2.3 or 1.2.3rc1")
    _replace(root / "pyproject.toml", r'^version = ".*"$', f'version = "{version}"')
    chart = root / "deploy" / "chart" / "Chart.yaml"
    _replace(chart, r"^version: .*$", f"version: {version}")
    _replace(chart, r"^appVersion: .*$", f'appVersion: "{version}"')
    if section_of(root, version) is None:
        _replace(root / "CHANGELOG.md", r"^(?=## \[)", f"## [{version}] - {UNRELEASED}\n\n")


def _replace(file: Path, pattern: str, text: str) -> None:
    found, count = re.subn(pattern, lambda _: text, file.read_text(), count=1, flags=re.MULTILINE)
    if not count:
        raise NotReadyError(f"{file.name}: there is no {pattern}")
    file.write_text(found)


def section_of(root: Path, version: str) -> str | None:
    """Return what the changelog says of a version; None where it has no section."""
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(
        rf"^## \[{re.escape(version)}\][^\n]*\n(.*?)(?=^## \[|\Z)", text, re.MULTILINE | re.DOTALL
    )
    return found[1].strip() if found is not None else None


def date_section(root: Path, version: str, day: date) -> None:
    """Say in the changelog when a version was released."""
    pattern = rf"^## \[{re.escape(version)}\] - .*$"
    _replace(root / "CHANGELOG.md", pattern, f"## [{version}] - {day.isoformat()}")


def check_ready(root: Path) -> str:
    """Return the version to release. Raises `NotReadyError` with all that is missing."""
    version = version_of(root)
    chart = (root / "deploy" / "chart" / "Chart.yaml").read_text()
    missing = []
    if _git(root, "status", "--porcelain"):
        missing.append("there are changes that are not committed")
    if _git(root, "tag", "--list", f"v{version}"):
        missing.append(
            f"there is a tag v{version} already: tools/release --set VERSION begins the next version"
        )
    if not section_of(root, version):
        missing.append(f"CHANGELOG.md says nothing of {version}")
    if f"\nversion: {version}\n" not in chart or f'\nappVersion: "{version}"' not in chart:
        missing.append(f"deploy/chart/Chart.yaml has another version than {version}")
    if shutil.which("helm") is None:
        missing.append(
            "there is no helm, which checks the chart: go install helm.sh/helm/v3/cmd/helm@latest"
        )
    if missing:
        raise NotReadyError("\n".join(missing))
    return version


# --- what is made -------------------------------------------------------------------------------------------------


def build(root: Path, dist: Path) -> list[Path]:
    """Make the wheel and the source archive."""
    _run(
        root,
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "-t",
        "sdist",
        "-t",
        "wheel",
        "-d",
        str(dist),
    )
    return sorted(dist.glob("haulier-*.whl")) + sorted(dist.glob("haulier-*.tar.gz"))


def install(root: Path, wheel: Path, venv: Path) -> Path:
    """Install a wheel as its users do, in the versions that are tested; return the environment's Python."""
    _run(root, sys.executable, "-m", "venv", str(venv))
    python = venv / "bin" / "python"
    options = ("--quiet", "--disable-pip-version-check", "--constraint", "requirements.lock")
    _run(root, str(python), "-m", "pip", "install", *options, f"{wheel}[telemetry]")
    _run(root, str(venv / "bin" / "haulier"), "version")
    return python


def sbom(root: Path, python: Path, file: Path) -> None:
    """Write what is installed in an environment, as CycloneDX."""
    _run(
        root, sys.executable, "-m", "cyclonedx_py", "environment", str(python),
        "--pyproject", "pyproject.toml", "--output-reproducible", "--of", "JSON", "-o", str(file),
    )  # fmt: skip


def image(root: Path, version: str) -> str | None:
    """Build the image; None where there is no engine."""
    if shutil.which("docker") is None or not _succeeds(root, "docker", "version"):
        return None
    name = f"haulier:{version}"
    _run(root, "docker", "build", "--file", "deploy/Dockerfile", "--tag", name, ".")
    return name


def sums(dist: Path) -> None:
    """Write the digests of all that was made."""
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in sorted(dist.iterdir())
        if file.name != "SHA256SUMS"
    ]
    (dist / "SHA256SUMS").write_text("".join(lines))


def tag(root: Path, version: str, day: date) -> None:
    """Date the changelog's section, and tag the commit that does."""
    date_section(root, version, day)
    _git(root, "commit", "--quiet", "--message", f"Release {version}", "CHANGELOG.md")
    _git(root, "tag", "--annotate", f"v{version}", "--message", f"Haulier {version}")


# --- the command --------------------------------------------------------------------------------------------------


def release(root: Path, *, tests: bool, tagged: bool) -> None:
    """Make a release, up to what can't be taken back."""
    version = check_ready(root)
    _say(f"releasing {version}")
    _run(root, "tools/lint")
    if tests:
        _run(root, "make", "test")
    if tagged:
        tag(root, version, datetime.now(UTC).date())
    dist = root / "dist" / version
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir(parents=True)
    wheel, *_ = build(root, dist)
    venv = root / "dist" / "venv"
    shutil.rmtree(venv, ignore_errors=True)
    sbom(root, install(root, wheel, venv), dist / f"haulier-{version}.cdx.json")
    shutil.rmtree(venv)
    built = image(root, version)
    (dist / "NOTES.md").write_text((section_of(root, version) or "") + "\n")
    sums(dist)
    _say(f"made: {', '.join(sorted(file.name for file in dist.iterdir()))}")
    _say(f"image: {built or 'none, as there is no engine'}")
    _say("nothing is published. To do so:")
    for line in publishing(version, dist.relative_to(root), built, tagged=tagged):
        _say(f"  {line}")


def publishing(version: str, dist: Path, built: str | None, *, tagged: bool) -> list[str]:
    """Return the commands that publish what was made."""
    first = (
        f"git push origin HEAD v{version}"
        if tagged
        else "tools/release --tag (this was a rehearsal)"
    )
    push = [f"docker tag {built} REGISTRY/{built} && docker push REGISTRY/{built}"] if built else []
    return [first, f"twine upload {dist}/*.whl {dist}/*.tar.gz", *push]


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """Make a release; return the exit code."""
    parser = argparse.ArgumentParser(prog="tools/release", description=__doc__)
    parser.add_argument(
        "--tag",
        action="store_true",
        help="date the changelog, commit that, and tag it; else rehearse",
    )
    parser.add_argument("--no-tests", action="store_true", help="leave out make test")
    parser.add_argument("--set", metavar="VERSION", help="begin this version, and make nothing")
    given = parser.parse_args(arguments)
    try:
        if given.set:
            set_version(root, given.set)
        else:
            release(root, tests=not given.no_tests, tagged=given.tag)
    except NotReadyError as error:
        for line in str(error).splitlines():
            print(f"release: {line}", file=sys.stderr)
        return 2
    except subprocess.CalledProcessError as error:
        print(f"release: {' '.join(map(str, error.cmd))} failed", file=sys.stderr)
        return 1
    return 0


def _run(root: Path, *command: str) -> None:
    subprocess.run(command, cwd=root, check=True)


def _succeeds(root: Path, *command: str) -> bool:
    return not subprocess.run(command, cwd=root, capture_output=True, check=False).returncode


def _git(root: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", *command], cwd=root, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
