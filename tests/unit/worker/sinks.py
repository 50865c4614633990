"""Where the output of a test's run goes."""

from __future__ import annotations

from shared.redaction import StreamRedactor


class NoLog:
    """A sink that keeps nothing, and shows no secret."""

    def __init__(self, *secrets: str) -> None:
        self._secrets = secrets

    async def write(self, data: bytes) -> None:
        pass

    async def progress(self, percent: float) -> None:
        pass

    async def redacted(self, text: str) -> str:
        stream = StreamRedactor(self._secrets)
        return stream.feed(text) + stream.flush()
