"""Runs tasks in containers, with any engine that supports the Docker API."""

from worker.runtime.docker.runtime import DockerRuntime

__all__ = ["DockerRuntime"]
