"""An image of our own that waits: one program of a few bytes, made here, so that nothing is pulled.

Its containers own a network namespace that tasks join, and show what the engine sees of the worker.
"""

from __future__ import annotations

import io
import struct
import tarfile

from docker import APIClient
from docker.errors import APIError, ImageNotFound

from worker.runtime.docker.engine import Engine

IMAGE = "haulier/pause-1:latest"
PROGRAM = "pause"
_BASE = 0x400000
_ELF, _HEADER = 64, 56
# for (;;) pause();
_MACHINES = {
    "x86_64": (62, bytes.fromhex("b8220000000f05ebf7")),
    # ppoll(0, 0, 0, 0): this architecture has no pause
    "aarch64": (
        183,
        bytes.fromhex("000080d2010080d2020080d2030080d2280980d2010000d4faffff17"),
    ),
}
_OTHER_NAMES = {"amd64": "x86_64", "arm64": "aarch64"}


def have(engine: Engine) -> str | None:
    """Return the image's name; None for a machine we have no program for. Raises APIError."""
    api = engine.api
    architecture = str(engine.info.get("Architecture"))
    machine = _MACHINES.get(_OTHER_NAMES.get(architecture, architecture))
    if machine is None:
        return None
    try:
        api.inspect_image(IMAGE)  # type: ignore[no-untyped-call]  # the SDK's stubs
    except ImageNotFound:
        _load(api, program(*machine))
    return IMAGE


def _load(api: APIClient, contents: bytes) -> None:
    repository, _, tag = IMAGE.partition(":")
    answer = api.import_image_from_data(
        _layer(contents),
        repository=repository,
        tag=tag,
        changes=[f'ENTRYPOINT ["/{PROGRAM}"]', "LABEL haulier.role=pause"],
    )
    if '"error"' in answer:
        raise APIError(f"the image {IMAGE} cannot be made: {answer.strip()}")


def _layer(contents: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(PROGRAM)
        info.mode, info.size = 0o755, len(contents)
        tar.addfile(info, io.BytesIO(contents))
    return buffer.getvalue()


def program(machine: int, code: bytes) -> bytes:
    """Return an executable of the Linux of a machine (its ELF number) that runs `code`."""
    entry, size = _BASE + _ELF + _HEADER, _ELF + _HEADER + len(code)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01" + bytes(9),
        2,  # an executable
        machine,
        1,
        entry,
        _ELF,
        0,
        0,
        _ELF,
        _HEADER,
        1,
        0,
        0,
        0,
    )
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + segment + code
