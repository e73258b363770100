"""A journal in memory that outlives who wrote it, as a file outlives a process."""

from collections import deque

import anyio

from orchestrator.core.entries import CreateSent, Past
from orchestrator.core.model import Outcome


class MemoryJournal:
    """Keeps entries; what was told is "on disk" `seconds` later. After `die` nothing more is."""

    def __init__(self, seconds=0.003):
        self.seconds = seconds
        self.requests = {}
        self.results = {}
        self.entries = []  # (at, entry)
        self.webhook_ids = []
        self._pending = []
        self._then = deque()
        self._wake = anyio.Event()
        self.dead = False
        self.base = 0.0
        self.offset = 0.0

    def admitted(self, number, request, at):
        self._tell("admitted", number, request, at)

    def keep(self, entry, at):
        self._tell("entry", None, entry, at)

    def heard(self, webhook_id):
        self.webhook_ids.append(webhook_id)

    def ended(self, number, result, at):
        self._tell("ended", number, result, at)

    def _tell(self, kind, number, what, at):
        self._pending.append((kind, number, what, at + self.offset))
        self._wake.set()

    def after(self, then):
        if not self._pending:
            then()
        else:
            self._then.append((len(self._pending), then))

    async def run(self):
        while True:
            while not self._pending:
                self._wake = anyio.Event()
                await self._wake.wait()
            count = len(self._pending)
            await anyio.sleep(self.seconds)
            if self.dead:
                await anyio.sleep_forever()
            for item in self._pending[:count]:
                self._commit(*item)
            del self._pending[:count]
            due = [then for n, then in self._then if n <= count]
            self._then = deque((n - count, then) for n, then in self._then if n > count)
            for then in due:
                then()

    def _commit(self, kind, number, what, at):
        self.base = at
        if kind == "admitted":
            assert number not in self.requests
            self.requests[number] = what
        elif kind == "entry":
            self.entries.append((at, what))
        elif what.outcome is not Outcome.STOPPED:
            assert number not in self.results, "a second end"
            self.results[number] = what

    def die(self):
        """The process is killed: nothing more gets to the disk."""
        self.dead = True

    def reborn(self):
        """What the next process opens."""
        journal = MemoryJournal(self.seconds)
        journal.requests, journal.results = self.requests, self.results
        journal.entries, journal.base = self.entries, self.base
        return journal

    def past(self):
        """What is left in flight; its times end now."""
        entries = list(self.entries)

        def shifted(now):
            self.offset = self.base - now
            for at, entry in entries:
                yield at - self.offset, entry

        sent = [entry for _, entry in entries if isinstance(entry, CreateSent)]
        unfinished = sorted(self.requests.keys() - self.results.keys())
        return Past(
            in_flight=[(number, self.requests[number]) for number in unfinished],
            entries=shifted,
            numbers_issued=max(self.requests, default=0),
            batches_issued=-min((entry.number for entry in sent), default=0) if sent else 0,
            groups_issued=max((entry.group for entry in sent), default=0),
        )
