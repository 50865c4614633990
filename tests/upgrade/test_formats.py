"""What one version stores or sends, the other reads: every document and message, with every field and word."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from devservices.places import ROOT
from tests.upgrade.conftest import PREVIOUS, have_commit

SCRIPT = Path(__file__).parent / "formats.py"

pytestmark = pytest.mark.xdist_group("upgrade")


def spoken_by(tree: Path, word: str, text: str = "") -> str:
    """Return what this version says: what it writes, or what it can not read of `text`."""
    done = subprocess.run(
        [sys.executable, SCRIPT, word],
        input=text,
        env={**os.environ, "PYTHONPATH": str(tree)},
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("direction", ["upgraded", "downgraded"])
def test_what_one_version_writes_the_other_reads(previous_version: Path, direction: str) -> None:
    writer, reader = (
        (previous_version, ROOT) if direction == "upgraded" else (ROOT, previous_version)
    )
    written = spoken_by(writer, "write")
    assert len(written.splitlines()) > 50
    assert json.loads(spoken_by(reader, "read", written)) == []


def test_a_clone_without_the_commit_fails_in_ci_and_is_skipped_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    either = (pytest.fail.Exception, pytest.skip.Exception)
    for ci, kind in (("true", pytest.fail.Exception), ("", pytest.skip.Exception)):
        monkeypatch.setenv("CI", ci)
        with pytest.raises(either, match="a shallow clone") as raised:
            have_commit("0" * 40)
        assert raised.type is kind
    have_commit(PREVIOUS)
