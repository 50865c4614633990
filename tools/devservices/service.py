"""What every service module offers; the commands know no more of it than this."""

from __future__ import annotations

from typing import Protocol


class Service(Protocol):
    """One service. Every function may be called at any time and any number of times."""

    NAME: str

    def env(self) -> dict[str, str]:
        """The variables that tell tests where it is; empty where it is not."""

    def answers(self) -> bool:
        """Whether it truly serves now, whoever started it."""

    def ours(self) -> bool:
        """Whether this clone started it and it still runs."""

    def start(self) -> None:
        """Have it answering; use one that does already. Raises ServiceError."""

    def stop(self) -> None:
        """End ours and remove its data; leave everybody else's alone."""
