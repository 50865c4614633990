"""Real services for tests and demos: a Docker engine, RabbitMQ, MongoDB, a registry, Podman.

The `tools/services` command starts them on free ports with all their data under `.services/`,
and stops them leaving nothing. One module per service; `commands.py` is the way in.
"""
