"""Fixtures: the version before, and a cluster of processes of either."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from devservices.places import ROOT
from tests.acceptance.conftest import cluster_settings, quick
from tests.chaos.conftest import ledger, receiver
from tests.services.need import REASON, go_without

__all__ = ["cluster_settings", "ledger", "quick", "receiver"]

PREVIOUS = (Path(__file__).parent / "previous").read_text().strip()
"""The commit that the present version is to run beside."""


@pytest.fixture(scope="session")
def previous_version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the version before, at its commit; it runs with the packages of the present one."""
    have_commit(PREVIOUS)
    tree = tmp_path_factory.mktemp("previous-version")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", PREVIOUS).stdout)) as files:
        files.extractall(tree, filter="data")
    return tree


def have_commit(commit: str) -> None:
    """Have a commit in this clone, fetched where it is a shallow one."""
    if not _has(commit):
        _git("fetch", "--quiet", "--depth=1", "origin", commit)
    if not _has(commit):
        go_without(
            f"{REASON}commit {commit}, which this clone lacks and could not fetch (a shallow clone?): "
            "git fetch --unshallow"
        )


def _has(commit: str) -> bool:
    return _git("cat-file", "-e", f"{commit}^{{commit}}").returncode == 0


def _git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # The clone may be another user's.
    command = ["git", "-c", f"safe.directory={ROOT}", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, check=False)
