"""The reference of all settings, made from the tree: `python -m shared.config.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from shared.config.settings import Setting, settings
from shared.config.values import allowed, shown

_INTRODUCTION = """\
# Configuration

This page is made from the code (`make docs`); change the descriptions there.

Settings are read in this order, and later wins:

1. the defaults below;
2. a file, `haulier.toml`: the one that `--config` or `HAULIER_CONFIG` names, else the first of
   `./haulier.toml`, `~/.config/haulier/haulier.toml` and `/etc/haulier/haulier.toml`;
3. environment variables: `HAULIER_` and the setting's path, in capitals and with `_` for each dot;
4. the command line: `--set broker.type=rabbitmq`, or a flag of its own (see
   `haulier run worker --help`).

An unknown setting in the file or on the command line, and a bad value anywhere, stop the start;
all that is wrong is said at once. An unknown variable that begins with `HAULIER_` only warns.
`haulier config` prints what is in effect and where each value came from, with secrets masked.

How values are written:

| kind | in variables and flags | in the file |
|---|---|---|
| duration | `90s`, `1h30m`, `250ms` (units ns, us, ms, s, m, h) | the same, in quotes |
| size | `500K`, `16M`, `1048576`; units count in 1024s | the same, in quotes; or a number |
| list | separated by commas: `a,b` | `["a", "b"]` |
| map | one for each key: `HAULIER_WORKER_QUEUES_VIDEO=2`, `--set worker.queues.video=2` | a table |
| boolean | `true`, `false` (`1`, `0`, `yes`, `no`, `on`, `off` too) | `true`, `false` |

The keys of a map are lower-cased where they come from a variable; a queue whose name holds other
characters is named in the file or by a flag (`--queue "Big Jobs=2"`). Slots of 0 leave a queue out.
Naming any queue takes the place of the default.
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
