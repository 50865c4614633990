"""The table of mechanisms, as a page of the documentation."""

from __future__ import annotations

from collections.abc import Sequence

from tests.mechanisms.catalogue import ELSEWHERE, MECHANISMS, PROMISES
from tests.mechanisms.mechanism import Mechanism

HEAD = """# The mechanisms, and the tests that miss them

Made by `make docs` from `tests/mechanisms/catalogue.py`.

Each promise of the engine rests on a few mechanisms. `python -m tests.mechanisms` takes out one after another, while
the program runs and without touching anything else, and shows that the tests named beside it pass with it and fail
without it. Where the sweeper would mend what its absence breaks, the test looks at what the sweeper counted
(`haulier_noted` in `/metrics`). To look at one:

```
.venv/bin/python -m pytest -p tests.mechanisms.plugin --without=pulse tests/unit/engine -x -q
```
"""


def page(mechanisms: Sequence[Mechanism] = MECHANISMS) -> str:
    """Return the whole page."""
    return "\n".join([HEAD, *rows(mechanisms), "", *_promises(mechanisms), ""])


def rows(mechanisms: Sequence[Mechanism]) -> list[str]:
    """Return the lines of the table."""
    lines = [
        "| mechanism | promise | taken out | the test that catches it | how |",
        "|---|---|---|---|---|",
    ]
    for mechanism in mechanisms:
        promises = ", ".join(str(number) for number in mechanism.promises)
        tests = "<br>".join(f"`{_short(test)}`" for test in mechanism.tests)
        lines.append(
            f"| {mechanism.name} | {promises} | {mechanism.out} | {tests} | {mechanism.how} |"
        )
    return lines


def _promises(mechanisms: Sequence[Mechanism]) -> list[str]:
    lines = [
        "## By promise",
        "",
        "| # | promise | mechanisms | with real processes |",
        "|---|---|---|---|",
    ]
    for number, promise in PROMISES.items():
        names = ", ".join(m.name for m in mechanisms if number in m.promises)
        real = "<br>".join(f"`{_short(test)}`" for test in ELSEWHERE[number])
        lines.append(f"| {number} | {promise} | {names} | {real} |")
    return lines


def _short(test: str) -> str:
    return test.removeprefix("tests/")
