"""The lists that a server has: all of them are asked for, printed, completed and picked from in the same way."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

import click
from click.shell_completion import CompletionItem

from haulier.cli.answers import converted, decoded
from haulier.cli.calls import ask, asks_server, client_of
from haulier.cli.forms import (
    Decorator,
    Form,
    Layout,
    all_option,
    page_options,
    prints,
    show_rows,
    tell,
)
from haulier.cli.output import plain_text, say_on_stderr, show_json_value
from haulier.cli.times import wall_time
from haulier.cli.tree import short
from haulier.client import Client
from haulier.errors import ApiError, HaulierError
from haulier.results import Page


class Named(Protocol):
    """What has an id and a name."""

    @property
    def id(self) -> str:
        """Its id, which may be shortened."""
        ...

    @property
    def name(self) -> str:
        """Its name, which others may have too."""
        ...


_T = TypeVar("_T")
_N = TypeVar("_N", bound=Named)

_LEAST_DIGITS: Final = 6
"""Digits of an id, at least, that can stand for it."""
_PATIENCE: Final = 2.0
"""Seconds that a shell waits for what an id may be."""


class Listing(Layout[_T], frozen=True, kw_only=True):
    """A list of things of a kind that a server has at a path.

    `noun`: what one of them is called. `hides`: which are shown only with --all, said as so many `hidden`. `size`,
    `most`: how many are on a page by default, and at most; 0 where the list has no pages. `about_all`: what --all adds.
    """

    path: str
    kind: type[_T]
    noun: str
    hides: Callable[[_T], bool] = lambda _: False
    hidden: str = ""
    size: int = 0
    most: int = 0
    about_all: str = "All of them, which are listed without it too."


def lists(listing: Listing[Any]) -> Decorator:
    """Give a command the options of a list: how much of it, and in which form."""
    paged = page_options(listing.size, listing.most) if listing.most else []
    about = "All pages, not just one." if paged else listing.about_all
    return prints(all_option(about), *paged)


def show_list(client: Client, form: Form, listing: Listing[_T], **filters: str | None) -> int:
    """Print a list, or what `filters` leave of it, and say if there is more."""
    answer = ask(client, lambda client: answer_of(client, listing, form, **filters))
    if form.as_json:
        show_json_value(answer)
        return 0
    page, found = _read(listing, answer)
    shown = [each for each in found if form.everything or not listing.hides(each)]
    show_rows(form, listing, shown, wall_time(client))
    if not form.quiet:
        _note_more(listing, page, len(found) - len(shown))
    return 0


def _note_more(listing: Listing[Any], page: Page[Any], hidden: int) -> None:
    if page.has_more:
        pages = f"{page.total_pages:,}{' or more' if page.total_capped else ''}"
        text = f"page {page.number} of {pages}: --page {page.number + 1} shows more"
        say_on_stderr(f"{text}, --all shows all")
    if hidden and listing.hidden:
        say_on_stderr(f"not shown: {hidden} {listing.hidden}; --all shows all")


async def answer_of(
    client: Client, listing: Listing[Any], form: Form, **filters: str | None
) -> Any:
    """Return a list as the server answers it, as plain data; the items of all pages are put on one."""
    if not listing.most:
        return decoded(await client.request("GET", listing.path))
    if form.everything:
        items = await all_items(client, listing.path, listing.most, **filters)
        whole = {"number": 1, "size": len(items), "totalPages": 1, "totalItems": len(items)}
        return {"items": items, **whole}
    page = {"page": form.page or 1, "size": form.size or listing.size}
    return decoded(await client.request("GET", listing.path, params={**filters, **page}))


async def all_items(client: Client, path: str, size: int, **filters: str | None) -> list[Any]:
    """Return what is on all pages of a list, as plain data. `size`: how many a page may have."""
    items: list[Any] = []
    for number in itertools.count(1):
        params = {**filters, "page": number, "size": size}
        page = converted(decoded(await client.request("GET", path, params=params)), Page[Any])
        items += page.items
        if not page.has_more:
            break
    return items


def _read(listing: Listing[_T], answer: Any) -> tuple[Page[Any], list[_T]]:
    page = converted(answer if listing.most else {"items": answer}, Page[Any])
    return page, [converted(each, listing.kind) for each in page.items]


def change_command(
    listing: Listing[Any],
    name: str,
    help: str,
    change: Callable[[Client, str], Coroutine[Any, Any, None]],
    done: str,
    text: str,
) -> click.Command:
    """Return a command that changes one of a list, says so by `text`, with {id}, {short} and {name}, and calls its
    status `done`."""

    @click.command(name, help=help)
    @id_argument(listing, "which")
    @prints()
    @asks_server
    def command(client: Client, form: Form, which: str) -> int:
        async def changed(client: Client) -> Named:
            found: Named = await meant(client, listing, which)
            await change(client, found.id)
            return found

        found = ask(client, changed)
        said = text.format(id=found.id, short=short(found.id), name=found.name)
        tell(form, said, id=found.id, status=done)
        return 0

    return command


async def meant(client: Client, listing: Listing[_N], which: str) -> _N:
    """Return the one of a list that has an id, the beginning of one, or a name. A server that does not know `which`
    answers all there are, as it does for a list without pages."""
    answer = await answer_of(client, listing, Form(everything=True), which=which)
    _, found = _read(listing, answer)
    for matches in (
        [each for each in found if each.id == which],
        [each for each in found if each.name == which],
        [each for each in found if len(which) >= _LEAST_DIGITS and each.id.startswith(which)],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            raise ApiError(409, f"more than one {listing.noun} is meant by {which}: use its id")
    raise ApiError(404, f"no {listing.noun} has the id or name {which}")


def id_argument(listing: Listing[Any], name: str, **more: Any) -> Decorator:
    """Return an argument that names one of a list, or several with `nargs`; shells complete it."""

    def complete(
        ctx: click.Context, _param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        try:
            found = asyncio.run(_newest(client_of(ctx, timeout=_PATIENCE), listing))
        except HaulierError:
            return []
        items = [CompletionItem(short(each.id), help=plain_text(each.name)) for each in found]
        return [item for item in items if item.value.startswith(incomplete)]

    metavar = "ID..." if "nargs" in more else "ID"
    return click.argument(name, **{"metavar": metavar, "shell_complete": complete, **more})


async def _newest(client: Client, listing: Listing[_N]) -> list[_N]:
    async with client:
        form = Form(size=listing.most and min(listing.most, 20))
        return _read(listing, await answer_of(client, listing, form))[1]
