"""Code that the coordinator and the worker share."""
