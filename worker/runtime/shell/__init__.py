"""Tasks as local processes."""

from worker.runtime.shell.runtime import ShellRuntime

__all__ = ["ShellRuntime"]
