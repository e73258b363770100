"""For who embeds the orchestrator without a folder: nothing is kept, nobody waits for a disk."""

from collections.abc import Callable

import anyio

from orchestrator.core.entries import Entry
from orchestrator.core.model import Request, Result


class NoJournal:
    """A journal that forgets at once."""

    def admitted(self, number: int, request: Request, at: float) -> None:
        """Nothing is kept."""

    def keep(self, entry: Entry, at: float) -> None:
        """Nothing is kept."""

    def ended(self, number: int, result: Result, at: float) -> None:
        """Nothing is kept."""

    def heard(self, webhook_id: str) -> None:
        """Nothing is kept."""

    def after(self, then: Callable[[], None]) -> None:
        """There is nothing to wait for."""
        then()

    async def run(self) -> None:
        """Nothing is ever to be written."""
        await anyio.sleep_forever()
