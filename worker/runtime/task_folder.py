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
import stat
import tempfile
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from shared.errors import RuntimeUnavailable
from shared.model.quantities import past_limit
from shared.supervision import came_round
from worker.runtime.port import TaskError

SCRIPT_FILE = "entrypoint"
OUTPUT_FILE = "stdout"
PROGRESS_FILE = "progress"
WORKDIR_FOLDER = "workdir"

_PROGRESS_BYTES = 64
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_STEPS = 8
"""Names of at most 255 bytes that surely fit into one path."""
_ROUNDS = 3
"""In which a folder is removed: something may still write to it."""
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
        write_file(folder / SCRIPT_FILE, script_of(script), 0o555)


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
    make_folders(folder)
    for name, contents in files.items():
        path = folder / safe_name(name)
        make_folders(path.parent)
        write_file(path, encoded(contents), 0o444)


def make_folders(path: Path) -> None:
    """Make a folder that everyone may write to, and those above it that are missing."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for folder in reversed(missing):
        folder.mkdir()
        made = os.open(folder, _FOLDER | os.O_NOFOLLOW)
        try:
            os.fchmod(made, _MODES[stat.S_IFDIR])
        finally:
            os.close(made)


def safe_name(name: str) -> str:
    """Return a file's name without `.` and doubled slashes. Raises TaskError for a bad one."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or not parts or "\0" in name:
        raise TaskError(f"files: {name!r} is not a path inside the working directory")
    if not name.isascii() and encoded(name).decode("utf-8", "replace") != name:
        raise TaskError(f"files: {name!r} has a character that no file's name can have")
    return posixpath.join(*parts)


def script_of(text: str) -> bytes:
    """Return the bytes of a script, with the line ends of this system: a web form makes others."""
    return encoded(text.replace("\r\n", "\n"))


def encoded(text: str) -> bytes:
    """Return the bytes of a script or a file."""
    return text.encode("utf-8", "surrogatepass")


def read_output(path: Path, limit: int, owner: int | None = None) -> str:
    """Return what a task wrote as its output, at most `limit` bytes. `owner`: the user that it ran as, where it may
    reach files of others on the host that only the worker may read.

    Raises TaskError for more than that, for what is no plain file or another user's, and for what is no UTF-8.
    PermissionError where a user of the image's left a file that the worker may not read.
    """
    data = _read_plain(path, limit, owner)
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
    return TaskError(f"the output is {past_limit(limit)}")


def output_not_plain() -> TaskError:
    """Return the fault of an output that is a link, a folder, a FIFO or a device."""
    return TaskError("the output is not a regular file")


def _read_plain(path: Path, limit: int, owner: int | None) -> bytes | None:
    """Return at most `limit` + 1 bytes of a plain file; None where there is none.

    A task can link or move here what it may not read. So with an `owner` the file is theirs, or as the worker made it.
    """
    try:
        # O_PATH opens nothing: no FIFO is waited for, no device touched, no link followed.
        found = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        status = os.fstat(found)
        if not stat.S_ISREG(status.st_mode):
            raise output_not_plain()
        if owner not in (None, status.st_uid) and not _is_made(status, stat.S_IFREG):
            raise TaskError("the output is a file of another user than the task's")
        if status.st_size > limit:
            raise output_too_large(limit)
        with Path(f"/proc/self/fd/{found}").open("rb") as file:
            return file.read(limit + 1)
    finally:
        os.close(found)


def read_progress(path: Path, owner: int | None = None) -> float | None:
    """Return the progress that a task has written, 0 to 100; None where there is none. `owner` as of the output."""
    try:
        data = _read_plain(path, _PROGRESS_BYTES, owner)
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


LEAST_SIZE = 4096
"""Bytes that each file and folder counts as at least: a disk has only so many of them."""


DEEPEST = 1000
"""Folders in one another that are measured: each is looked up from the top."""

MEASURING = ThreadPoolExecutor(2, thread_name_prefix="measure")
"""Threads that measure folders."""

REMOVING = ThreadPoolExecutor(2, thread_name_prefix="remove")
"""Threads that remove folders."""


def size_of(folder: Path, most: float = math.inf) -> tuple[int, int]:
    """Return about how many bytes a folder takes on its disk, and in how many files and folders; past `most` bytes no
    more is looked at, and what can't be read counts nothing. Raises TaskError where folders are too deep."""
    try:
        top = os.open(folder, _FOLDER | os.O_NOFOLLOW)
    except OSError:
        return 0, 0
    size = files = 0
    waiting: list[_Place | None] = [None]
    try:
        while waiting and size <= most:
            place = waiting.pop()
            with contextlib.suppress(OSError):
                more, here = _look_into(top, place, waiting)
                size, files = size + more, files + here
    finally:
        os.close(top)
    return size, files


class _Place(msgspec.Struct, frozen=True):
    """A folder: the place of the one that it is in (None: the top), its name, and how deep that is."""

    above: _Place | None
    name: str
    depth: int


def _place(above: _Place | None, name: str) -> _Place:
    depth = above.depth + 1 if above else 1
    if depth > DEEPEST:
        raise TaskError(f"/tork holds folders more than {DEEPEST:,} deep in one another")
    return _Place(above, name, depth)


def _look_into(top: int, place: _Place | None, found: list[_Place | None]) -> tuple[int, int]:
    """Return what a folder's entries take and how many there are; add the folders in it to `found`. Raises OSError."""
    size = files = 0
    here = _walked(top, place)
    try:
        with os.scandir(here) as entries:
            for entry in entries:
                came_round()
                files += 1
                if entry.is_dir(follow_symlinks=False):
                    found.append(_place(place, entry.name))
                    size += LEAST_SIZE
                else:
                    status = entry.stat(follow_symlinks=False)
                    size += max(LEAST_SIZE, status.st_blocks * 512) // max(1, status.st_nlink)
    finally:
        os.close(here)
    return size, files


def _walked(top: int, place: _Place | None) -> int:
    """Open a place, by steps that are short enough for a path. Raises OSError."""
    names: list[str] = []
    while place is not None:
        names.append(place.name)
        place = place.above
    names.reverse()
    here = os.dup(top)
    for start in range(0, len(names), _STEPS):
        try:
            below = os.open(
                "/".join(names[start : start + _STEPS]), _FOLDER | os.O_NOFOLLOW, dir_fd=here
            )
        finally:
            os.close(here)
        here = below
    return here


def remove_folder(folder: Path) -> bool:
    """Remove a folder and all in it, following no link. Returns whether it is gone."""
    try:
        above = os.open(folder.parent, _FOLDER)
    except OSError:
        return not os.path.lexists(folder)
    try:
        for _ in range(_ROUNDS):
            if _remove_tree(above, folder.name):
                break
    finally:
        os.close(above)
    return not os.path.lexists(folder)


def _remove_tree(above: int, name: str) -> bool:
    """Remove what is at a name, in one round. Returns whether nothing is left.

    However deep a folder is, nothing is ever more than two levels down: the folders in a folder are first moved up
    to the top, under new names.
    """
    try:
        top = _opened(above, name)
    except FileNotFoundError:
        return True
    except OSError:
        return _gone(os.unlink, above, name)
    try:
        while folders := _without_files(top):
            if sum(_flattened(top, inner) for inner in folders) == 0:
                break  # what is left can't be removed
    finally:
        os.close(top)
    return _gone(os.rmdir, above, name)


def _without_files(folder: int) -> list[str]:
    """Remove all in an open folder that is no folder; return the names of those."""
    folders = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            came_round()
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            else:
                _gone(os.unlink, folder, entry.name)
    return folders


def _flattened(top: int, name: str) -> bool:
    """Move the folders in a folder of `top` up to that, and remove it. Returns whether anything was done."""
    done = False
    try:
        inner = _opened(top, name)
    except OSError:
        return _gone(os.unlink, top, name)
    try:
        for below in _without_files(inner):
            with contextlib.suppress(OSError):
                _let_in(inner, below)  # to move a folder, one must be able to write to it
                os.rename(below, uuid.uuid4().hex, src_dir_fd=inner, dst_dir_fd=top)
                done = True
    finally:
        os.close(inner)
    return _gone(os.rmdir, top, name) or done


def _opened(above: int, name: str) -> int:
    """Open a folder, whatever its mode, and no link to one. Raises OSError."""
    _let_in(above, name)
    return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=above)


def _let_in(above: int, name: str) -> None:
    found = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=above)
    try:
        with contextlib.suppress(OSError):  # another's: the next step tells
            Path(f"/proc/self/fd/{found}").chmod(0o700)
    finally:
        os.close(found)


def _gone(remove: Callable[..., None], above: int, name: str) -> bool:
    try:
        remove(name, dir_fd=above)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


class Folders:
    """The folders of the runs of one node, and what other nodes on this machine have left."""

    def __init__(self, data: str, node_id: str) -> None:
        """Take `data`, the worker's data folder; empty for one in the system's temporary folder."""
        base = Path(data) if data else Path(tempfile.gettempdir(), f"haulier-{os.geteuid()}")
        self.top = (base / "runs").absolute()
        self.mine = self.top / node_id

    def open(self, *, entered_by_others: bool = False) -> None:
        """Make what is needed. Raises RuntimeUnavailable.

        Nobody else on this host gets to what a task makes, a set-uid file for instance. `entered_by_others`: tasks run
        as users who have to pass through to folders of their own, by names that they know and nobody can list.
        """
        try:
            for folder in (self.top.parent, self.top, self.mine):
                folder.mkdir(parents=True, exist_ok=True)
            _check_owner(self.top.parent)
            for folder in (self.top, self.mine):
                folder.chmod(0o711 if entered_by_others else 0o700)
        except OSError as error:
            raise RuntimeUnavailable(
                f"worker.data: {self.top} cannot be used: {error.strerror}"
            ) from None

    def check(self) -> None:
        """Raise RuntimeUnavailable where no run's folder could be made now: the disk is full, or read-only."""
        probe = self.mine / f"check-{uuid.uuid4().hex}"
        try:
            self.mine.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(probe, bytes(4096), 0o600)
        except OSError as error:
            raise RuntimeUnavailable(f"worker.data: {self.mine}: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)

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
