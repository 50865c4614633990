"""How the output of a command is asked for: the options for it, the same for all commands, and what they do."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import click
import msgspec

from haulier.cli.output import plain_text, say, say_fitting, show_json_value, show_table
from haulier.cli.times import wall_time

_T = TypeVar("_T")

Decorator = Callable[[Any], Any]


class Form(msgspec.Struct, frozen=True):
    """How the output is asked for: JSON (which wins), ids alone, of a list all of it or a page of `size` items."""

    as_json: bool = False
    quiet: bool = False
    everything: bool = False
    page: int | None = None
    size: int | None = None


json_option: Final[Decorator] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
follow_option: Final[Decorator] = click.option(
    "--follow", "-f", is_flag=True, help="Follow the job to its end."
)
input_option: Final[Decorator] = click.option(
    "--input", "-i", "inputs", multiple=True, metavar="NAME=VALUE", help="An input."
)
secret_option: Final[Decorator] = click.option(
    "--secret",
    "secrets",
    multiple=True,
    metavar="NAME=SOURCE",
    help="A secret, from a variable of the environment (env:NAME) or a file (file:PATH).",
)
_quiet_option: Final[Decorator] = click.option(
    "-q", "--quiet", is_flag=True, help="Print ids or names only, one a line."
)


def all_option(about: str) -> Decorator:
    """Return the option for all of a list."""
    return click.option("-a", "--all", "everything", is_flag=True, help=about)


def page_options(size: int, most: int) -> list[Decorator]:
    """Return the options for one page of a list. `size`, `most`: items on it by default, and at most."""
    about = f"Items per page, at most {most} (default: {size})."
    return [
        click.option("--page", type=click.IntRange(1), help="Page number, from 1."),
        click.option("--size", type=click.IntRange(1, most), help=about),
    ]


def prints(*options: Decorator) -> Decorator:
    """Give a command the options `-q` and `--json`, and `options` of this module, as its `form`."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_form(*args: Any, **given: Any) -> Any:
            asked = {name: given.pop(name) for name in Form.__struct_fields__ if name in given}
            return command(*args, form=Form(**asked), **given)

        for option in reversed([*options, _quiet_option, json_option]):
            with_form = option(with_form)
        return with_form

    return decorated


def tell(form: Form, text: str, **fields: Any) -> None:
    """Say in one line what was done, or the same by fields as JSON, or the first of them alone: an id or a name."""
    if form.as_json:
        show_json_value(fields)
    elif form.quiet:
        say(plain_text(next(iter(fields.values()))))
    else:
        say_fitting(plain_text(text))


class Layout(msgspec.Struct, Generic[_T], frozen=True, kw_only=True):
    """How things of a kind are listed: `name` is the id or name that stands for one alone.

    `row` has a cell for each heading, with times as seen from the one it is given. `empty` is said where there is
    nothing to list. Where the terminal is too narrow, `flexible` columns are cut, and `optional` ones are left out.
    """

    headings: tuple[str, ...]
    row: Callable[[_T, datetime], tuple[str, ...]]
    name: Callable[[_T], str]
    empty: str
    flexible: tuple[str, ...] = ("NAME",)
    optional: tuple[str, ...] = ()


def show_rows(
    form: Form, layout: Layout[_T], found: Sequence[_T], at: datetime | None = None
) -> None:
    """Print things as a table, or by their ids or names alone."""
    if form.quiet:
        for each in found:
            say(plain_text(layout.name(each)))
        return
    rows = [layout.row(each, at or wall_time()) for each in found]
    optional, flexible = layout.optional, layout.flexible
    show_table(layout.headings, rows, layout.empty, flexible=flexible, optional=optional)
