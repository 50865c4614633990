"""Another process that replaces a folder by a link and back, over and over."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SWAP = """
import os, random, sys
folder, aside, link = sys.argv[1:]
print("begun", flush=True)
while True:
    os.rename(folder, aside)
    os.rename(link, folder)
    for _ in range(random.randrange(2_000)): pass
    os.rename(folder, link)
    os.rename(aside, folder)
    for _ in range(random.randrange(2_000)): pass
"""


@contextmanager
def swapping(folder: Path, target: Path) -> Iterator[None]:
    """Have `folder` be a link to `target` every other moment, as fast as a process can."""
    aside, link = folder.with_name("aside"), folder.with_name("link")
    link.symlink_to(target)
    command = [sys.executable, "-c", _SWAP, *map(str, (folder, aside, link))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        try:
            yield
            assert process.poll() is None, "it swaps to the end"
        finally:
            process.kill()
