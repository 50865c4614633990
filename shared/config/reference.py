"""Generates the reference of all settings from the tree: `python -m shared.config.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from shared.config.flat_settings import Setting, settings
from shared.config.values import allowed, shown

_INTRODUCTION = """\
# Configuration

This page is generated from the code (`make docs`).

Settings come from these sources; later ones override earlier ones:

1. the defaults below;
2. a configuration file: the one named by `--config` or `HAULIER_CONFIG`, or else the first that exists of
   `./haulier.toml`, `~/.config/haulier/haulier.toml` and `/etc/haulier/haulier.toml`;
3. environment variables: `HAULIER_` followed by the setting's path in capitals, with `_` instead of each dot;
4. the command line: `--set broker.type=rabbitmq`, or one of the flags for common settings (see
   `haulier run worker --help`).

If a setting in the file or on the command line is unknown, or any value is invalid, the process does not start; it
reports all errors at once. For an unknown environment variable that starts with `HAULIER_` it only logs a warning.
Every secret, and every address that may hold a password, can also stand in a file of its own, as Docker and Kubernetes
provide secrets: add `_FILE` to the variable, or `_file` to the setting. `HAULIER_ENCRYPTION_KEY_FILE=/run/secrets/key`
is the same as `HAULIER_ENCRYPTION_KEY` with the file's content, without the line end. A list has one value per line.

`haulier config` prints the settings in effect and where each one comes from, with secrets masked.

Values have these formats:

| kind | in variables and flags | in the file |
|---|---|---|
| duration | `90s`, `1h30m`, `250ms` (units ns, us, ms, s, m, h) | the same, in quotes |
| size | `500K`, `16M`, `1048576`; 1K is 1024 bytes | the same, in quotes; or a number |
| list | comma-separated: `a,b` | `["a", "b"]` |
| map | one variable or flag for each key: `HAULIER_WORKER_QUEUES_VIDEO=2`, `--set worker.queues.video=2` | a table |
| boolean | `true`, `false` (also `1`, `0`, `yes`, `no`, `on`, `off`) | `true`, `false` |

Map keys that come from an environment variable are converted to lower case. To use a queue whose name contains other
characters, set it in the file or with a flag (`--queue "Big Jobs=2"`). If you set any queue, the default queue no
longer applies. A queue with 0 slots is left out.
"""

_MACHINE_DEFAULTS = {
    "datastore.sqlite.path": "`~/.local/share/haulier/haulier.db` (or below `$XDG_DATA_HOME`)",
    "worker.data": "`~/.local/share/haulier/worker` (or below `$XDG_DATA_HOME`)",
    "worker.queues": "`default`: one slot per CPU",
}


def reference() -> str:
    """Return the page, in Markdown."""
    return "\n".join([_INTRODUCTION, *_tables()])


def _tables() -> Iterator[str]:
    group = ""
    for setting in settings().values():
        top = setting.path.split(".")[0]
        if top != group:
            group = top
            yield f"## {group}\n\n| setting | default | values | |\n|---|---|---|---|"
        yield _row(setting) + _end_of_table(setting)


def _row(setting: Setting) -> str:
    default = _MACHINE_DEFAULTS.get(setting.path) or f"`{_default(setting)}`"
    description = setting.description.replace("|", "\\|")
    return f"| `{setting.path}` | {default} | {allowed(setting)} | {description} |"


def _default(setting: Setting) -> str:
    return shown(setting, setting.default)


def _end_of_table(setting: Setting) -> str:
    paths = list(settings())
    following = paths[paths.index(setting.path) + 1 :]
    ends = bool(following) and following[0].split(".")[0] != setting.path.split(".")[0]
    return "\n" if ends else ""


def write_reference() -> None:
    """Write the page to the file that is named."""
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(reference() + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_reference()
