"""Checks, in both directions, whether the engine sees the worker's files under the same paths."""

from __future__ import annotations

import contextlib
import os
import uuid
from pathlib import Path

from docker.errors import APIError

from worker.runtime import task_folder
from worker.runtime.docker import labels, pause_image, task_files
from worker.runtime.docker.binds import BindSource
from worker.runtime.docker.engine import Engine
from worker.runtime.docker.task_files import ArchiveEntry
from worker.runtime.task_folder import Folders

_INSIDE = "/probe"


async def shares_files(engine: Engine, folders: Folders) -> bool:
    """Return whether the worker's folders can be bound into containers, and removed afterwards."""
    options = " ".join(engine.info.get("SecurityOptions") or [])
    if "selinux" in options:
        return False
    if os.statvfs(folders.mine).f_flag & os.ST_NOEXEC:
        return False
    return await engine.call(_try, engine, folders)


def _try(engine: Engine, folders: Folders) -> bool:
    folder = folders.new()
    word = uuid.uuid4().hex.encode()
    folder.mkdir()
    folder.chmod(0o777)
    (folder / "word").write_bytes(word)
    try:
        return _goes_both_ways(engine, folders.mine.name, folder, word)
    except APIError:
        return False
    finally:
        task_folder.remove_folder(folder)


def _goes_both_ways(engine: Engine, node_id: str, folder: Path, word: bytes) -> bool:
    image = pause_image.have(engine)
    if image is None:
        return False
    api = engine.api
    body = {
        "Image": image,
        "Labels": {labels.NODE: node_id, labels.ROLE: "probe"},
        "HostConfig": {
            "Mounts": [{"Type": "bind", "Source": str(folder), "Target": _INSIDE}],
            "NetworkMode": "none",
        },
    }
    container = api.create_container_from_config(  # type: ignore[no-untyped-call]  # the SDK's stubs
        body, labels.fresh_name()
    )["Id"]
    try:
        if task_files.get_plain(api, container, f"{_INSIDE}/word", len(word)) != word:
            return False
        # Only who may remove what the engine's root has made can use folders.
        task_files.put_archive(
            api, container, [ArchiveEntry("made/by/engine", word[::-1], 0o600)], _INSIDE
        )
        made = folder / "made/by/engine"
        return made.exists() and task_folder.remove_folder(folder)
    finally:
        with contextlib.suppress(APIError):
            api.remove_container(container, force=True, v=True)


def mounts_what_we_open(engine: Engine, folders: Folders) -> bool:
    """Return whether the engine can mount a folder that this process has opened: both see the same mounts."""
    folder = folders.new()
    word = uuid.uuid4().hex.encode()
    folder.mkdir()
    (folder / "word").write_bytes(word)
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    source = BindSource(str(folder), opened)
    try:
        return _read_from_volume(engine, folders.mine.name, source, len(word)) == word
    except APIError:
        return False
    finally:
        os.close(opened)
        task_folder.remove_folder(folder)


def _read_from_volume(
    engine: Engine, node_id: str, source: BindSource, length: int
) -> bytes | None:
    api, marks = engine.api, {labels.NODE: node_id, labels.ROLE: "probe"}
    volume = container = labels.fresh_name()
    options = {"type": "none", "o": "bind", "device": source.device}
    mount = {
        "Type": "volume",
        "Source": volume,
        "Target": _INSIDE,
        "VolumeOptions": {"NoCopy": True},
    }
    body = {
        "Image": pause_image.IMAGE,
        "Labels": marks,
        "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
    }
    try:
        api.create_volume(volume, "local", options, marks)
        api.create_container_from_config(body, container)  # type: ignore[no-untyped-call]  # the SDK's stubs
        return task_files.get_plain(api, container, f"{_INSIDE}/word", length)
    finally:
        with contextlib.suppress(APIError):
            api.remove_container(container, force=True, v=True)
        with contextlib.suppress(APIError):
            api.remove_volume(volume)
