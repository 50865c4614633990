"""Haulier for Python: an asynchronous client of its REST API, and the `haulier` command."""

from haulier.client import Client
from haulier.errors import ApiError, HaulierError, UnreachableError
from shared.version import version

__all__ = ["ApiError", "Client", "HaulierError", "UnreachableError", "__version__"]

__version__ = version()
