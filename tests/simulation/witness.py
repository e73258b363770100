"""Sees every call, every tool handler and every line, and says at once when a promise is broken.

It looks into the journal's file, from outside: only what is committed counts as known.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from math import inf

from simulation.punctuality import Notices
from simulation.sight import Eyes, Kind
from simulation.waiting import left_over, wrong_with_waiting

from orchestrator.adapters.journal import JOURNAL_NAME
from orchestrator.adapters.result_file import RESULTS_NAME
from orchestrator.core import invariants
from orchestrator.emulator.sessions import Sessions

CONNECT = sqlite3.connect  # the machine puts another one in its place

# Between two looks at the whole scheduler.
STEPS_BETWEEN = 61

# What a run can be on the server while it may still do something, or has done what is wanted.
NOT_IN_VAIN = {
    "queued",
    "in_progress",
    "requires_action",
    "waiting",
    "completed",
    "validating",
    "finalizing",
}

HTTP_REFUSED = 400

EVERYBODY = "everybody"  # whose trouble it is when a list is not answered

OVER_AS_BATCH = {"completed", "failed", "expired", "cancelled"}

COUNT_OWN = """
SELECT count(*) FROM requests JOIN events USING (number) WHERE custom_id = ? AND kind = ?
"""
COUNT_OF_BATCHES = """
SELECT count(*) FROM requests JOIN batch_lines USING (number)
JOIN events ON events.number = batch_lines.batch WHERE custom_id = ? AND kind = ?
"""
KNOWS = """
SELECT count(*) FROM events LEFT JOIN requests USING (number)
WHERE instr(data, ?) AND coalesce(is_reopened, 0) = 0
"""
REOPENED = "SELECT count(*) FROM requests WHERE custom_id = ? AND is_reopened = 1"
OUTCOME = "SELECT outcome FROM requests WHERE custom_id = ? AND is_reopened = 0"


class Violation(AssertionError):  # noqa: N818 - named for what happened
    """A promise was broken."""


class Look:
    """The committed state of a journal."""

    def __init__(self, folder):
        path = folder / JOURNAL_NAME
        self._connection = None
        if path.exists() and path.stat().st_size:
            self._connection = CONNECT(f"{path.as_uri()}?mode=ro", uri=True, isolation_level=None)

    def rows(self, sql, *values):
        if self._connection is None:
            return []
        return self._connection.execute(sql, values).fetchall()

    def count(self, sql, *values):
        rows = self.rows(sql, *values)
        return rows[0][0] if rows else 0

    def close(self):
        if self._connection is not None:
            self._connection.close()


class Witness:
    """Stands between the processes and the emulator.

    Args:
        emulator: The server.
        machine: Where the processes run; set before the first one begins.
        postman: Who carries the server's webhooks; set as early.
    """

    def __init__(self, emulator):
        self.emulator = emulator
        self.machine = None
        self.postman = None
        self.orchestrator = None  # of the process that lives
        self.complaints = []
        self.eyes = Eyes()
        self.notices = Notices(emulator.books.webhooks)
        self.runs = defaultdict(list)  # by order, each with its ids: one for each turn, told or not
        self.batches = defaultdict(list)  # by order
        self.run_seconds_max = inf  # after which a run may be replaced, whatever it is
        self.created_at = {}  # by the id of a run
        self.never_twice = frozenset()  # orders of which what was lost is given up
        self.troubles = Counter()  # by order
        self.creates_arrived = Counter()
        self.carried = Counter()  # by order, calls for a batch with it
        self.submits_arrived = Counter()
        self.accepted = defaultdict(list)  # by order: what was told, and the id that it led to
        self._look = None

    # Looking into the journal.

    def look(self):
        if self._look is None:
            self._look = Look(self.machine.folder)
        return self._look

    def let_go(self):
        """The file is about to be closed, or is another one from now on."""
        look, self._look = self._look, None
        if look is not None:
            look.close()

    def knows(self, name):
        """Whether this id is in the journal."""
        return self.look().count(KNOWS, name) > 0

    def complain(self, text):
        self.complaints.append(text)

    def calls_counted(self):
        """How many calls the process that lives has counted."""
        return 0 if self.orchestrator is None else self.orchestrator.calls.total()

    # What happens.

    def on_step(self):
        """Between any two steps of the loop."""
        if self.complaints:
            raise Violation("; ".join(self.complaints))
        if self.machine.steps % STEPS_BETWEEN == 0 and self.orchestrator is not None:
            driver = self.orchestrator._driver
            invariants.check(driver.scheduler)
            self.complaints.extend(wrong_with_waiting(driver.scheduler, driver._clock.now()))

    def on_exit(self, orchestrator):
        """An engine has ended by itself."""
        self.orchestrator = None
        if self.machine.lives:
            self.complaints.extend(left_over(orchestrator._driver.scheduler))

    def on_line(self, name, line):
        """A line is about to be written to a result file."""
        custom_id = json.loads(line)["custom_id"]
        found = self.look().rows(OUTCOME, custom_id)
        if not found or found[0][0] is None:
            self.complain(f"the line of {custom_id} is written before its end is in the journal")
        elif (found[0][0] == "completed") is not (name == RESULTS_NAME):
            self.complain(f"{custom_id} is {found[0][0]} and stands in {name}")

    def on_handler(self, order, call_id):
        """A tool handler is called."""
        if self.look().count(f"{COUNT_OWN} AND instr(data, ?)", order, "tool_finished", call_id):
            self.complain(f"the tool for {order} ({call_id}) is called though its output is kept")

    def handle(self, call, _now):
        """A call arrives at the server."""
        now = self.machine.now()
        sight = self.eyes.look(call)
        if sight.kind is Kind.CREATE:
            self._before_create(sight, now)
        elif sight.kind is Kind.SUBMIT:
            self._before_submit(sight)
        elif sight.kind is not Kind.OTHER:
            self._before_batch(sight, now)
        reply = self.emulator.handle(call, now)
        self._after(sight, call, reply)
        self.postman.look()
        self.machine.call_arrived()
        return reply

    def _before_create(self, sight, now):
        for order in sight.orders:
            self.creates_arrived[order] += 1
            intents = self.look().count(COUNT_OWN, order, "create_sent")
            if intents < self.creates_arrived[order]:
                self.complain(f"a create of {order} arrives before it is in the journal")
            self._created_again(order, now)

    def _created_again(self, order, now):
        for names in (*self.runs[order], *self.batches[order]):
            status = self.status(names[-1], order, now)
            if status not in NOT_IN_VAIN:
                continue
            if self.is_late(names[0], now):
                continue  # it did not say in time how it had ended
            if any(map(self.knows, names)) and not self.look().count(REOPENED, order):
                self.complain(f"{order} is created again, though {names} is known, and {status}")
            elif order in self.never_twice and not self.look().count(REOPENED, order):
                self.complain(f"{order} is created again, though {names} may be there")

    def _before_submit(self, sight):
        for order in sight.orders:
            self.submits_arrived[order] += 1
            intents = self.look().count(COUNT_OWN, order, "outputs_sent")
            if intents < self.submits_arrived[order]:
                self.complain(f"tool outputs of {order} arrive before they are in the journal")
            self._submitted_again(order, sight.answers[order])

    def _submitted_again(self, order, told):
        for position, (before, led_to) in enumerate(self.accepted[order], 1):
            if before != told:
                continue
            count = self.look().count(COUNT_OWN, order, "outputs_accepted")
            if self.knows(led_to) if led_to else count >= position:
                self.complain(f"tool outputs of {order} are submitted twice ({told})")

    def _before_batch(self, sight, now):
        for order in sight.orders:
            self.carried[order] += 1
            intents = self.look().count(COUNT_OF_BATCHES, order, "create_sent")
            if intents < self.carried[order]:
                self.complain(f"a batch with {order} is sent before it is in the journal")
            if order in sight.answers:
                self._submitted_again(order, sight.answers[order])
            elif sight.kind is Kind.CREATE_BATCH:
                self._created_again(order, now)

    def _after(self, sight, call, reply):
        self.notices.on_answer(call, reply, self.machine.now())
        new_id = self.eyes.remember(sight, call, reply)
        if reply.status >= HTTP_REFUSED or self.emulator.books._records[-1].fault:
            self.troubles.update(sight.orders or [EVERYBODY])
        if not new_id:
            return
        seconds = reply.delay_seconds + self.postman.latency_seconds
        self.notices.created(new_id, self.postman.process, self.machine.now() + seconds)
        for order in sight.orders:
            if sight.kind is Kind.CREATE and not call.path.endswith("/threads"):
                self.created_at[new_id] = self.machine.now()
                self.runs[order].append([new_id])
            elif sight.kind is Kind.CREATE_BATCH:
                self.batches[order].append([new_id])
            elif sight.kind is Kind.SUBMIT:
                led_to = "" if "/threads/" in call.path or "/agents/" in call.path else new_id
                self.accepted[order].append((sight.answers[order], led_to))
                if led_to and self.runs[order]:
                    self.runs[order][-1].append(led_to)

    def is_late(self, name, now):
        """Whether a run has taken so long that its request may have got another one."""
        return now - self.created_at.get(name, now) > self.run_seconds_max

    def status(self, name, order, now):
        """What a run is on the server, or its line in a batch that is over.

        What answers at once has been done, and is gone.
        """
        state = self.emulator._state
        if name.startswith("batch_") and (batch := state.batches.find(name, now)) is not None:
            status = batch.status(now).value
            if status not in OVER_AS_BATCH:
                return status
            file = state.files.find(batch.output_file_id or "", now)
            lines = file.content.splitlines() if file is not None else ()
            is_done = any(_is_answer(json.loads(line), order) for line in lines)
            return "completed" if is_done else "undone"
        session = state.memory(Sessions).by_id.get(name)
        if session is not None:
            return session.turns[-1].status(now)
        run = state.runs.find(name, now)
        return "gone" if run is None else run.status(now)


def _is_answer(line, order):
    return line["custom_id"] == order and line["response"]["status_code"] < HTTP_REFUSED
