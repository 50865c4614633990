from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coordinator.store.port import Viewer
from coordinator.store.search import (
    MAX_WORD,
    MAX_WORDS,
    job_readers,
    job_words,
    understood,
    words_of,
)
from shared.model import language
from tests.contract.documents import job


def test_words() -> None:
    assert words_of("The data-import_2: ÉTÉ, İstanbul & x.y") == [
        *("the", "data", "import", "2", "été", "i", "stanbul", "x", "y")
    ]
    assert words_of("", "*", "a A") == ["a"]


def test_words_are_bounded() -> None:
    assert len(words_of(" ".join(map(str, range(MAX_WORDS + 5))))) == MAX_WORDS
    assert words_of("a" * 100) == ["a" * MAX_WORD]


@given(st.text())
def test_what_is_found_is_found_by_its_own_text(text: str) -> None:
    search = understood([text], [], None, None)
    assert search is None or set(search.words) <= set(job_words(job("j", name=text)))
    assert (search is None) == (not job_words(job("j", name=text)))


@given(st.text())
def test_words_are_words_of_themselves(text: str) -> None:
    words = words_of(text)
    assert words_of(" ".join(words)) == words


def test_readers() -> None:
    both = [language.Permission(user="x"), language.Permission(role="x")]
    user, role = job_readers(job("j", permissions=both))
    assert user != role
    viewer = understood([], [], None, Viewer("x", ("y",)))
    assert viewer is not None
    assert viewer.readers is not None
    assert user in viewer.readers
    assert role not in viewer.readers
    assert job_readers(job("j")) == [viewer.readers[0]]


def test_what_can_find_nothing() -> None:
    assert understood(["*"], [], None, None) is None
    assert understood([], [["a"], []], None, None) is None
    everything = understood([], [], None, None)
    assert everything is not None
    assert everything.unfiltered
