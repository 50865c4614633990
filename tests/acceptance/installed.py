"""The wheel, installed in a virtual environment with nothing else in it but what the wheel requires."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import Distribution, distribution, distributions
from pathlib import Path

from packaging.requirements import Requirement

import releasing

ROOT = Path(__file__).parents[2]


def install(folder: Path) -> Path:
    """Build the wheel and install it in a new environment in `folder`; return the environment's programs.

    What it requires is lent by the environment of the tests: nothing is downloaded, and what the wheel does not name
    is not there."""
    (wheel,) = (each for each in releasing.build(ROOT, folder) if each.suffix == ".whl")
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    programs = environment / "bin"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    pip += ["--python", str(programs / "python")]
    options = ["--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True, timeout=60)
    (packages,) = environment.glob("lib/python*/site-packages")
    (haulier,) = distributions(path=[str(packages)])
    for required in _required(haulier, set()):
        _lend(distribution(required), packages)
    subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    return programs


def _required(of: Distribution, known: set[str]) -> set[str]:
    """Add to `known` what a distribution requires, and what that requires; return them."""
    for requirement in map(Requirement, of.requires or ()):
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and requirement.name not in known:
            known.add(requirement.name)
            _required(distribution(requirement.name), known)
    return known


def _lend(lent: Distribution, packages: Path) -> None:
    for name in {file.parts[0] for file in lent.files or ()} - {"..", "__pycache__"}:
        link = packages / name
        if not link.exists():
            link.symlink_to(str(lent.locate_file(name)))
