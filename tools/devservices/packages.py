"""Debian's packages: what is missing is installed, as root, without starting anything."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devservices.places import SERVICES
from devservices.processes import ServiceError

POLICY = Path("/usr/sbin/policy-rc.d")
"""Where Debian looks whether a package may start its daemon (invoke-rc.d(8))."""


def ensure(programs: dict[str, str]) -> None:
    """Install the packages of the missing programs (a map from program to package).

    A program is a name on the path or an absolute path. Raises ServiceError where something is
    missing and can't be installed.
    """
    missing = sorted({package for program, package in programs.items() if not find(program)})
    if missing:
        _install(missing)


def can_have(program: str) -> bool:
    """Whether a program or file is there or could be installed."""
    return find(program) is not None or Path(program).exists() or _installable()


def ensure_file(path: str, package: str) -> None:
    """Install the package where the file is missing. Raises ServiceError where it can't be."""
    if not Path(path).exists():
        _install([package])


def first_known(*names: str) -> str:
    """The first of the packages that this release of Debian has; the last where none is."""
    for name in names[:-1]:
        shown = subprocess.run(["apt-cache", "show", name], capture_output=True, check=False)
        if shown.returncode == 0:
            return name
    return names[-1]


def find(program: str) -> str | None:
    """The path of a program; system folders count also where the caller's PATH lacks them."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _installable() -> bool:
    return shutil.which("apt-get") is not None and os.geteuid() == 0


def _install(names: list[str]) -> None:
    if not _installable():
        raise ServiceError(f"needs {', '.join(names)}: install it, or run as root on Debian")
    print(f"installing {' '.join(names)}", flush=True)
    with _alone(), _daemons_stay_off():
        _apt("update", "-qq")
        _apt("install", "-qq", "-y", "--no-install-recommends", *names)


def _apt(*arguments: str) -> None:
    SERVICES.mkdir(exist_ok=True)
    log = SERVICES / "apt.log"
    with log.open("ab") as output:
        done = subprocess.run(
            ["apt-get", "-o", "DPkg::Lock::Timeout=600", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
            check=False,
        )
    if done.returncode != 0:
        raise ServiceError(f"apt-get {' '.join(arguments)} failed; see {log}")


@contextmanager
def _alone() -> Iterator[None]:
    """One installation at a time, since apt-get update does not wait for its lock."""
    SERVICES.mkdir(exist_ok=True)
    with (SERVICES / "apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _daemons_stay_off() -> Iterator[None]:
    """A package that brings a daemon must not start it on its default port."""
    if POLICY.exists():
        yield
        return
    POLICY.write_text("#!/bin/sh\nexit 101\n")
    POLICY.chmod(0o755)
    try:
        yield
    finally:
        POLICY.unlink()
