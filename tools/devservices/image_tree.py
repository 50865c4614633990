"""The files of a small image, written straight into an archive, all owned by root."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path, PurePosixPath

FOLDERS = {
    **dict.fromkeys(("/bin", "/dev", "/etc", "/home", "/lib", "/opt", "/proc", "/root"), 0o755),
    **dict.fromkeys(("/run", "/sys", "/usr", "/usr/bin", "/usr/lib", "/var"), 0o755),
    **dict.fromkeys(("/tmp", "/var/tmp"), 0o1777),  # noqa: S108 - the image's own
}
FILES = {
    "/etc/passwd": (
        "root:x:0:0:root:/root:/bin/sh\n"
        "daemon:x:1:1:daemon:/:/bin/false\n"
        "nobody:x:65534:65534:nobody:/:/bin/false\n"
    ),
    "/etc/group": "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n",
    "/etc/os-release": 'NAME="Haulier stand-in"\nID=haulier-stand-in\n',
}


class Tree:
    """An image's file tree in the making."""

    def __init__(self) -> None:
        self._members: dict[str, tuple[tarfile.TarInfo, bytes]] = {}
        for path, mode in FOLDERS.items():
            self._folder(path, mode)
        for path, text in FILES.items():
            self.file(path, text.encode(), 0o644)

    def file(self, path: str, content: bytes, mode: int) -> None:
        """Put a file there; the folders above it are made."""
        info = self._entry(path, mode)
        info.size = len(content)
        self._members[path] = (info, content)

    def link(self, path: str, target: str) -> None:
        """Put a symbolic link there."""
        info = self._entry(path, 0o777)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self._members[path] = (info, b"")

    def program(self, path: str, source: str) -> None:
        """Put one of the machine's programs there, with the libraries it is linked with."""
        self.file(path, Path(source).resolve().read_bytes(), 0o755)
        for library in _libraries(source):
            self.file(library, Path(library).resolve().read_bytes(), 0o755)

    def archive(self) -> bytes:
        """The whole as a tar archive, parents before children."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for _, (info, content) in sorted(self._members.items()):
                tar.addfile(info, io.BytesIO(content))
        return buffer.getvalue()

    def _entry(self, path: str, mode: int) -> tarfile.TarInfo:
        for parent in reversed(PurePosixPath(path).parents):
            if str(parent) not in {"/", *self._members}:
                self._folder(str(parent), 0o755)
        info = tarfile.TarInfo(path.lstrip("/"))
        info.mode = mode
        return info

    def _folder(self, path: str, mode: int) -> None:
        info = tarfile.TarInfo(path.lstrip("/"))
        info.mode, info.type = mode, tarfile.DIRTYPE
        self._members[path] = (info, b"")


def _libraries(program: str) -> list[str]:
    """Paths of the shared libraries, the loader included, as ldd tells them."""
    told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return sorted({word for word in told.split() if word.startswith("/")})
