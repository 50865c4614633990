"""The datastore of many coordinators: a MongoDB server or replica set."""

from coordinator.store.mongodb.store import MongoStore

__all__ = ["MongoStore"]
