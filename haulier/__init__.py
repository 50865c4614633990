"""Haulier for Python: an asynchronous client of its REST API, and the `haulier` command."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from haulier.client import Client
    from haulier.errors import ApiError, HaulierError, UnreachableError
    from haulier.transport import TlsFiles

    __version__: str

DEFAULT_SERVER: Final = "http://localhost:8000"
"""The server that is asked where none is named."""

__all__ = ["ApiError", "Client", "HaulierError", "TlsFiles", "UnreachableError", "__version__"]

_HOMES: Final = {
    "ApiError": "haulier.errors",
    "Client": "haulier.client",
    "HaulierError": "haulier.errors",
    "TlsFiles": "haulier.transport",
    "UnreachableError": "haulier.errors",
}


def __getattr__(name: str) -> Any:
    """Return what is imported only once it is asked for: a command is to start at once."""
    if name == "__version__":
        from importlib import metadata

        found: Any = metadata.version("haulier")
    elif name in _HOMES:
        from importlib import import_module

        found = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found
