"""How a search matches jobs, defined once so that every datastore finds the same ones.

A word is a run of letters and digits, without regard to case; in languages without spaces, each two
letters in a row; and each symbol. What surrounds words separates them and counts for nothing else, in
a job and in a question alike. So no question has a syntax that could be broken.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.store.codec import FieldShape, StoredField, fields_of, stored_key
from coordinator.store.port import NO_LIMITS, Viewer
from shared.model.documents import Document, JobDocument, Micros
from shared.model.queries import Above, Below, Between, Has, In, Not, Where

MAX_WORDS = 5_000
"""Different words of a job by which it can be found; of longer texts the first so many."""
MAX_WORD = 64
"""Characters that count of a word."""
EVERYONE = "everyone"
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
"""Letters of languages that put no space between words: each of them is a word, and each two in a row."""
_SIGNS = "\u2190-\u2bff\U0001f000-\U0001faff"
"""Arrows, symbols and emoji."""
_WORD = re.compile(rf"[{_UNSPACED}]+|[{_SIGNS}]|(?:(?![{_UNSPACED}])[^\W_])+")
_RUN = re.compile(rf"[{_UNSPACED}]+")


class Search(msgspec.Struct, frozen=True):
    """What a job must have: all words, of each set of tags one, the state, one of the readers
    (None: any), and what `where` matches.
    """

    words: tuple[str, ...]
    tags_any: tuple[tuple[str, ...], ...]
    state: str | None
    readers: tuple[str, ...] | None
    where: Where = NO_LIMITS

    @property
    def unworded(self) -> bool:
        """Whether there is nothing to look up in the index of words."""
        return not self.words and not self.tags_any and self.state is None and self.readers is None

    @property
    def unfiltered(self) -> bool:
        """Whether it finds every job."""
        return self.unworded and not self.where


def words_of(*texts: str, asked: bool = False) -> list[str]:
    """Return the different words of `texts`, in their order. `asked`: it is a question, which need not name
    parts of what it names."""
    found: dict[str, None] = {}
    for text in texts:
        folded = unicodedata.normalize("NFKC", text).casefold()
        for word in _words_in(folded, asked=asked):
            if len(found) == MAX_WORDS:
                return list(found)
            found[word] = None
    return list(found)


def _words_in(text: str, *, asked: bool) -> Iterator[str]:
    for match in _WORD.finditer(text):
        run = match[0]
        if not _RUN.fullmatch(run):
            yield run[:MAX_WORD]
            continue
        if not asked or len(run) == 1:
            yield from run
        yield from (run[at : at + 2] for at in range(len(run) - 1))


def job_words(job: JobDocument) -> list[str]:
    """Return the words by which a job is found, beside its state."""
    return words_of(job.name, *job.tags, job.description)


def job_readers(job: JobDocument) -> list[str]:
    """Return tokens of those who may see a job."""
    if not job.permissions:
        return [EVERYONE]
    users = [token("user", each.user) for each in job.permissions if each.user]
    return users + [token("role", each.role) for each in job.permissions if each.role]


def understood(
    terms: Sequence[str],
    tags_any: Sequence[Sequence[str]],
    state: str | None,
    viewer: Viewer | None,
    where: Where = NO_LIMITS,
) -> Search | None:
    """Return what a question asks for, or None where no job could fit.

    Terms without a letter or digit say nothing; if all are such, nothing is found."""
    words = words_of(*terms, asked=True)
    if (terms and not words) or not all(tags_any):
        return None
    return Search(
        words=tuple(words),
        tags_any=tuple(tuple(tags) for tags in tags_any),
        state=state,
        readers=None if viewer is None else readers_of(viewer),
        where=where,
    )


def readers_of(viewer: Viewer) -> tuple[str, ...]:
    """Return the tokens of what somebody may read."""
    roles = (token("role", role) for role in viewer.roles)
    return (EVERYONE, token("user", viewer.username), *roles)


def token(*parts: str) -> str:
    """Return one word of letters and digits that stands for any texts, case and all."""
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return "x" + hashlib.blake2s(text, digest_size=12).hexdigest()


def tag_tokens(tags: Iterable[str]) -> list[str]:
    """Return the tokens of tags."""
    return [token("tag", tag) for tag in tags]


def log_owner(
    job_id: str | None,
    task_ids: Sequence[str] | None,
    since: Micros | None = None,
    until: Micros | None = None,
) -> Where:
    """Return what matches the log parts of a job, or tasks (of both, where both are given), of `since` to `until`."""
    where: dict[str, Any] = {}
    if job_id is not None:
        where["job_id"] = job_id
    if task_ids is not None:
        where["task_id"] = In(tuple(task_ids))
    if until is not None:
        where["created_at"] = Between(since or 0, until)
    elif since is not None:
        where["created_at"] = Above(since - 1)
    return where


def log_order(*, oldest_first: bool) -> tuple[str, str]:
    """Return how log parts are listed."""
    return ("created_at", "number") if oldest_first else ("-created_at", "-number")


def storable(text: str) -> bool:
    """Return whether a text can be stored at all, and so be asked for: Unicode without lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


Matcher = In | Not | Below | Above | Between | Has


class Target(msgspec.Struct, frozen=True):
    """A field, or with `key` an entry of the map or struct in it, by its stored name."""

    field: StoredField
    key: str | None = None


class Condition(msgspec.Struct, frozen=True):
    """A target and what it must match; a plain value is an `In` of one."""

    target: Target
    matcher: Matcher


class Order(msgspec.Struct, frozen=True):
    """A target to sort by."""

    target: Target
    falling: bool


@functools.lru_cache(maxsize=4096)
def target_of(kind: type[Document], path: str) -> Target:
    """Return what `path` names. `ValueError` where a kind has nothing of that name."""
    name, dot, key = path.partition(".")
    field = fields_of(kind).get(name)
    if field is None:
        raise ValueError(f"{kind.noun()} has no field {name!r}")
    if not dot:
        return Target(field)
    if field.shape is FieldShape.MAP:
        return Target(field, stored_key(key))
    if key not in field.keys:
        raise ValueError(f"{kind.noun()}.{name} has no {key!r} that a store could see")
    return Target(field, field.keys[key])


def conditions_of(kind: type[Document], where: Where) -> list[Condition]:
    """Return what must match. `ValueError` where a store could not tell."""
    return [_condition(kind, path, wanted) for path, wanted in where.items()]


def _condition(kind: type[Document], path: str, wanted: Any) -> Condition:
    target = target_of(kind, path)
    matcher = wanted if isinstance(wanted, Matcher) else In((wanted,))
    shape = target.field.shape
    closed = shape is FieldShape.CLOSED or shape is FieldShape.THEN
    if closed and matcher not in (In((None,)), Not(None)):
        raise ValueError(f"{kind.noun()}.{path} is closed: only its presence can be matched")
    if isinstance(matcher, Has) and shape not in (FieldShape.LIST, FieldShape.MAP):
        raise ValueError(f"{kind.noun()}.{path} is no list or map")
    return Condition(target, matcher)


def orders_of(kind: type[Document], order: Sequence[str]) -> list[Order]:
    """Return what to sort by; `-` before a name makes it fall."""
    return [Order(target_of(kind, name.removeprefix("-")), name.startswith("-")) for name in order]


FIXED: Mapping[str, tuple[str, ...]] = {
    "jobs": ("name", "description", "tags", "permissions", "created_at")
}
"""Fields by which documents are found as they were when stored: no change may touch them."""


def targets_of(kind: type[Document], set: Mapping[str, Any]) -> list[tuple[Target, Any]]:
    """Return what a change sets. `ValueError` where it may not be changed."""
    for path in set:
        if path.partition(".")[0] in ("id", "then", *FIXED.get(kind.collection, ())):
            raise ValueError(f"{kind.noun()}.{path} can not be set")
    return [(target_of(kind, path), value) for path, value in set.items()]
