"""Haulier for Python: an asynchronous client of its REST API, and the `haulier` command."""

from importlib import metadata

from haulier.client import Client
from haulier.errors import ApiError, HaulierError, UnreachableError

__all__ = ["ApiError", "Client", "HaulierError", "UnreachableError", "__version__"]

__version__ = metadata.version("haulier")
