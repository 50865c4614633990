"""The datastore: the port and its adapters."""
