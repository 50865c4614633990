"""Tasks in containers, by any engine that speaks Docker's API."""

from worker.runtime.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime"]
