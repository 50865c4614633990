"""The folder through which a task and its worker exchange files, which the task sees as `/tork`, and where these are.

The task may do what it likes in there: replace a file by a link to the host's, by a FIFO that
nobody writes, by a device, by a folder. So nothing is followed, nothing is waited for, and nothing
is read past its limit.
"""

from __future__ import annotations

import contextlib
import math
import os
import posixpath
import shutil
import stat
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path

from shared.errors import RuntimeUnavailable
from worker.runtime.port import TaskError

SCRIPT_FILE = "entrypoint"
OUTPUT_FILE = "stdout"
PROGRESS_FILE = "progress"
WORKDIR_FOLDER = "workdir"

_PROGRESS_BYTES = 64
_MODES = {stat.S_IFDIR: 0o777, stat.S_IFREG: 0o666}
"""Of what everyone may write to."""


def make(folder: Path, script: str) -> None:
    """Make the folder with the script (none where it is empty) and the files to write to.

    Everyone may write to it and replace what is in it, whatever user the image runs as; so it has
    no sticky bit. Only those get to it who know the random name of the folder above.
    """
    folder.mkdir(parents=True)
    folder.chmod(_MODES[stat.S_IFDIR])
    for name in (OUTPUT_FILE, PROGRESS_FILE):
        write_file(folder / name, b"", _MODES[stat.S_IFREG])
    renew(folder, script)


def renew(folder: Path, script: str) -> None:
    """Make a folder that is `emptied` ready for another script."""
    if script:
        write_file(folder / SCRIPT_FILE, encoded(script), 0o555)


def emptied(folder: Path) -> bool:
    """Take out what a run wrote, so that the folder can serve another one. False where it cannot.

    That is where anything in it, its working directory included, is not as it was made but for the
    contents of the files: more than was made, less, another's, or reachable by another name.
    """
    workdir = folder / WORKDIR_FOLDER
    try:
        same = (
            _names(folder) - {SCRIPT_FILE} == {OUTPUT_FILE, PROGRESS_FILE, WORKDIR_FOLDER}
            and _is_made(folder.lstat(), stat.S_IFDIR)
            and _is_made(workdir.lstat(), stat.S_IFDIR)
            and not _names(workdir)
            and _empty(folder / OUTPUT_FILE)
            and _empty(folder / PROGRESS_FILE)
        )
        (folder / SCRIPT_FILE).unlink(missing_ok=True)
    except OSError:
        return False
    return same


def _names(folder: Path) -> set[str]:
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _is_made(status: os.stat_result, kind: int) -> bool:
    return (
        status.st_mode == kind | _MODES[kind]
        and status.st_uid == os.geteuid()
        and (kind == stat.S_IFDIR or status.st_nlink == 1)
    )


def _empty(path: Path) -> bool:
    """Take out what is in a file, if that is one of ours."""
    file = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not _is_made(os.fstat(file), stat.S_IFREG):
            return False
        os.ftruncate(file, 0)
        return True
    finally:
        os.close(file)


def write_file(path: Path, contents: bytes, mode: int) -> None:
    """Write a new file with exactly this mode."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.write(contents)
        os.fchmod(file.fileno(), mode)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write the files of a task, mode 0444, in a folder that everyone may write to."""
    _make_folders(folder, folder)
    for name, contents in files.items():
        path = folder / safe_name(name)
        _make_folders(path.parent, folder)
        write_file(path, encoded(contents), 0o444)


def _make_folders(path: Path, top: Path) -> None:
    if path.is_dir():
        return
    if path != top:
        _make_folders(path.parent, top)
    path.mkdir(parents=path == top)
    path.chmod(_MODES[stat.S_IFDIR])


def safe_name(name: str) -> str:
    """Return a file's name without `.` and doubled slashes. Raises TaskError for a bad one."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise TaskError(f"files: {name!r} is not a path inside the working directory")
    return posixpath.join(*parts)


def encoded(text: str) -> bytes:
    """Return the bytes of a script or a file."""
    return text.encode("utf-8", "surrogatepass")


def read_output(path: Path, limit: int) -> str:
    """Return what a task wrote as its output, at most `limit` bytes.

    Raises TaskError for more than that, for what is no plain file, and for what is no UTF-8.
    PermissionError where a user of the image's left a file that the worker may not read.
    """
    data = _read_plain(path, limit)
    if data is None:
        return ""
    return decoded_output(data, limit)


def decoded_output(data: bytes, limit: int) -> str:
    """Return the text of an output. Raises TaskError where it is too large or no UTF-8."""
    if len(data) > limit:
        raise output_too_large(limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TaskError(
            f"the output is not UTF-8 text (byte {error.start}): encode binary data, for example with base64"
        ) from None


def output_too_large(limit: int) -> TaskError:
    """Return the fault of an output past its limit."""
    return TaskError(f"the output is larger than the limit of {_amount(limit)}")


def output_not_plain() -> TaskError:
    """Return the fault of an output that is a link, a folder, a FIFO or a device."""
    return TaskError("the output is not a regular file")


def _amount(size: int) -> str:
    return f"{size // 2**20} MiB" if size % 2**20 == 0 else f"{size} bytes"


def _read_plain(path: Path, limit: int) -> bytes | None:
    """Return at most `limit` + 1 bytes of a plain file; None where there is none."""
    try:
        # O_PATH opens nothing: no FIFO is waited for, no device touched, no link followed.
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise output_not_plain()
        if status.st_size > limit:
            raise output_too_large(limit)
        with Path(f"/proc/self/fd/{found}").open("rb") as file:
            return file.read(limit + 1)
    finally:
        os.close(found)


def read_progress(path: Path) -> float | None:
    """Return the progress that a task has written, 0 to 100; None where there is none."""
    try:
        data = _read_plain(path, _PROGRESS_BYTES)
    except (OSError, TaskError):
        return None
    return parse_progress(data or b"")


def parse_progress(data: bytes) -> float | None:
    """Return the number in a progress file, 0 to 100; None where it holds none."""
    try:
        value = float(data.decode("ascii").strip().removesuffix("%"))
    except ValueError:
        return None
    return value if math.isfinite(value) and 0 <= value <= 100 else None


def remove_folder(folder: Path) -> bool:
    """Remove a folder and all in it, following no link. Returns whether it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


class Folders:
    """The folders of the runs of one node, and what other nodes on this machine have left."""

    def __init__(self, data: str, node_id: str) -> None:
        """Take `data`, the worker's data folder; empty for one in the system's temporary folder."""
        base = Path(data) if data else Path(tempfile.gettempdir(), f"haulier-{os.geteuid()}")
        self.top = (base / "runs").absolute()
        self.mine = self.top / node_id

    def open(self) -> None:
        """Make what is needed. Raises RuntimeUnavailable."""
        try:
            for folder in (self.top.parent, self.top, self.mine):
                folder.mkdir(parents=True, exist_ok=True)
            _check_owner(self.top.parent)
            for folder in (self.top, self.mine):
                folder.chmod(
                    0o711
                )  # entered by those who know a run's random name, listed by nobody
        except OSError as error:
            raise RuntimeUnavailable(
                f"worker.data: {self.top} cannot be used: {error.strerror}"
            ) from None

    def new(self) -> Path:
        """Return the path of a folder for a run; it is not made."""
        return self.mine / uuid.uuid4().hex

    def owners(self) -> set[str]:
        """Return the ids of the nodes that have folders here."""
        with contextlib.suppress(OSError):
            return {entry.name for entry in self.top.iterdir() if entry.is_dir()}
        return set()

    def remove_all(self, node_id: str) -> int:
        """Remove what a node left. Returns 1 if that was something, else 0."""
        folder = self.top / node_id
        if folder.parent != self.top or folder.is_symlink() or not folder.is_dir():
            return 0
        return int(remove_folder(folder))

    def close(self) -> None:
        """Remove the node's folder where no run has left anything in it."""
        with contextlib.suppress(OSError):
            self.mine.rmdir()


def _check_owner(folder: Path) -> None:
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in (0, os.geteuid()):
        raise RuntimeUnavailable(
            f"worker.data: {folder} belongs to another user: choose another folder"
        )
