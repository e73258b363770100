"""What must be true when all is done: one right outcome for each request, and books that agree."""

import json
from bisect import bisect_left
from collections import Counter, defaultdict
from math import ceil

from simulation.punctuality import Punctuality
from simulation.scenario import ATTEMPTS_MIN
from simulation.witness import EVERYBODY, Look, Violation

from orchestrator.adapters.result_file import ERRORS_NAME, RESULTS_NAME, SUMMARY_NAME
from orchestrator.core.rules import Rules
from orchestrator.core.settings import GIVE_UP

WINDOW_SECONDS = 60.0
FORGOTTEN = {"previous_response_not_found", "bad_request"}  # the latter without codes
MISSING = {"any_missing_is_400", "any_missing_is_500"}
COMMITS_AWAITED = 2  # the one that is being written, and its own
MALFORMED_MAX = Rules.malformed_max
AFTERWARDS_SECONDS = 60.0  # a cancel may still be on its way

ENDED = """
SELECT outcome, code, seconds FROM requests WHERE custom_id = ? AND is_reopened = 0
"""
LOST = "SELECT sum(lost) FROM requests WHERE custom_id = ?"


class Verdict:
    """Looks at a play that is over."""

    def __init__(self, playing, *, is_spent):
        self._is_spent = is_spent
        self._play = playing
        self._witness = playing.witness
        self._scenario = playing.scenario
        self._folder = playing.machine.folder
        self._look = Look(self._folder)
        self._orders = [line["custom_id"] for line in playing.scenario.requests]
        self.wrong = []

    def close(self):
        self._look.close()

    def judge(self):
        lines = self._lines()
        if self.wrong:
            return  # nothing below could be read
        for order in lines:
            self._outcome(order, lines[order])
            self._lost(order)
            self._unwatched(order)
        self._summary(lines)
        self._windows()
        self._calls()
        if self._scenario.is_calm:
            self.wrong.extend(Punctuality(self._play, self._knows).wrong())

    # Results.

    def _lines(self):
        found = {}
        for name in (RESULTS_NAME, ERRORS_NAME):
            for text in (self._folder / name).read_bytes().splitlines(keepends=True):
                try:
                    line = json.loads(text)
                except ValueError:
                    self.wrong.append(f"{name} has a line that is none: {text[:80]!r}")
                    continue
                order = line["custom_id"]
                if order in found or not text.endswith(b"\n"):
                    self.wrong.append(f"{order} has two lines, or half of one")
                found[order] = line
        missing = [order for order in self._orders if order not in found]
        if missing and not self._is_spent:
            self.wrong.append(f"no line for {', '.join(missing)}")
        return found

    def _outcome(self, order, line):
        [(outcome, code, seconds)] = self._look.rows(ENDED, order)
        if outcome != line.get("outcome", "completed"):
            self.wrong.append(f"{order} is {outcome} in the journal, not so in its line")
        problem = self._problem(order, outcome, code, seconds, line)
        if problem:
            self.wrong.append(f"{order} is {outcome} ({code}): {problem}")

    def _problem(  # noqa: C901, PLR0911 - one for each reason
        self, order, outcome, code, seconds, line
    ):
        """What is wrong with this outcome; None when there is a reason for it."""
        play, faults = self._play, self._scenario.server.faults
        deaths = sum(ended.killed for ended in play.processes)
        away_seconds = max(ended.fate.pause_seconds for ended in play.processes)
        was_away = away_seconds > self._scenario.server.retention_seconds
        match outcome:
            case "completed":
                return self._wrong_with_answer(order, line)
            case "unknown" if was_away and not MISSING.isdisjoint(self._scenario.server.deviations):
                return None  # it is forgotten, and the server does not say it as others do
            case "unknown" if self._witness.troubles[order] >= Rules.check_failures_max:
                return None
            case "unknown" if code == "create_lost":
                is_wanted = self._scenario.settings.lost_creates == GIVE_UP
                return None if is_wanted else "nobody wanted that"
            case "timed_out" if self._is_starved():
                return None
            case "timed_out" if code == "run_deadline_exceeded":
                return None if "hang" in faults else "nothing hangs"
            case "timed_out":
                if seconds < self._scenario.settings.deadline_seconds:
                    return f"after {seconds:.0f} s already"
                return None if "hang" in faults else "nothing hangs"
            case "failed":
                if code in FORGOTTEN and (was_away or "hang" in faults):
                    return None  # what hangs may hold all connections for longer than it is kept
                counts = self._witness.troubles
                troubles = counts[order] + counts[EVERYBODY] + deaths
                least = MALFORMED_MAX if code == "malformed_answer" else ATTEMPTS_MIN
                return None if troubles >= least else f"after {troubles} troubles"
            case "unknown" if "hang" in faults and code == "unknown_status":
                return None  # the emulator answers what hangs after an hour, and has nothing
            case "expired":
                return None if was_away or "hang" in faults else "nobody was away"
        return "there is no reason for it"

    def _is_starved(self):
        """Whether so few calls get through that a deadline may come first.

        After each refusal the limiter pauses and begins slowly, so that half of a minute's calls
        are seldom sent; whether it knows a limit makes no difference then.
        """
        return self._scenario.server.faults.get("error_429", 0.0) > 1 / 2

    def _wrong_with_answer(self, order, line):
        url = next(r["url"] for r in self._scenario.requests if r["custom_id"] == order)
        if line["response"] is None:
            return "it has no answer"
        said = json.dumps(line["response"]["body"])
        if url == "/v1/embeddings":
            return None if '"embedding"' in said else "no embedding"
        if not self._scenario.has_tools:
            return None if order in said else "another one's answer"
        told = (f"{order} is on its way", f"{order} can't be found", "look_up")
        return None if any(each in said for each in told) else "it quotes no tool"

    # What may be paid for nothing.

    def _lost(self, order):
        [(lost,)] = self._look.rows(LOST, order)
        names = (*self._witness.runs[order], *self._witness.batches[order])
        unknown = [each for each in names if not self._knows(each[0])]
        if len(unknown) > lost:
            self.wrong.append(
                f"{order}: {len(unknown)} runs that nobody knows, {lost} told as lost"
            )

    def _knows(self, name):
        sql = "SELECT count(*) FROM events WHERE instr(data, ?)"
        return self._look.count(sql, name) or self._look.count(
            "SELECT count(*) FROM requests WHERE instr(run_id, ?)", name
        )

    def _unwatched(self, order):
        [(outcome, _, _)] = self._look.rows(ENDED, order)
        now = self._play.machine.now() + AFTERWARDS_SECONDS
        for names in self._witness.runs[order]:
            status = self._witness.status(names[-1], order, now)
            is_at_work = status in {"queued", "in_progress", "requires_action", "waiting"}
            # What hangs is left in the end, and so is what can't be cancelled in so much trouble.
            is_left = "hang" in self._scenario.server.faults or (
                outcome == "failed" and self._witness.troubles[order] >= ATTEMPTS_MIN
            )
            is_left = is_left or self._witness.is_late(names[0], now)
            if is_at_work and self._knows(names[-1]) and not is_left:
                self.wrong.append(f"{order} is {outcome}, and its run {names} is {status}")

    # Books.

    def _summary(self, lines):
        summary = json.loads((self._folder / SUMMARY_NAME).read_bytes())
        outcomes = Counter(line.get("outcome", "completed") for line in lines.values())
        told = {name: count for name, count in summary["outcomes"].items() if count}
        told.pop("stopped", None)
        if told != outcomes or summary["requests"] != len(self._orders):
            self.wrong.append(f"the summary tells {told}, the lines {dict(outcomes)}")
        self._told = summary
        tokens = self._play.emulator.books.snapshot(self._play.machine.now())["tokens"]
        allowed = self._scenario.settings.max_tokens
        if allowed is not None and tokens["input"] + tokens["output"] > allowed:
            self.wrong.append(f"{tokens} are more than {allowed} tokens")

    def _windows(self):
        """No process sends more than it may in any minute, as its limiter counts minutes.

        A call has its permit before its intent is on disk, so it leaves a little later.
        """
        rpm = self._scenario.settings.rpm
        if rpm is None:
            return
        late_seconds = COMMITS_AWAITED * 2 * self._scenario.commit_seconds_max
        allowed = rpm + ceil(rpm * late_seconds / WINDOW_SECONDS)
        allowed += self._scenario.settings.checks_rpm or 0
        served = self._play.emulator.books.calls(0, 10**9)
        start = 0
        for ended in self._play.processes:
            by_model = defaultdict(list)
            for record in served[start : start + ended.calls]:
                by_model[record.model].append(record.at_seconds)
            start += ended.calls
            for model, times in by_model.items():
                most = max(
                    at - bisect_left(times, now - WINDOW_SECONDS + 1e-6) + 1
                    for at, now in enumerate(times)
                )
                if model and most > allowed:
                    self.wrong.append(f"{most} calls for {model} in a minute, {rpm} are allowed")

    def _calls(self):
        """Ours and theirs, but for those of which nobody could keep that they were made."""
        by_status = Counter()
        for kind in self._told["calls"].values():
            by_status.update(kind["by_status"])
        ours = by_status.total() - by_status["not_sent"]
        theirs = self._play.emulator.books.calls_served
        uncounted = sum(ended.uncounted for ended in self._play.processes)
        # A call that was given up on its way may never have arrived.
        given_up = by_status["cancelled"] + by_status["call_timed_out"]
        if not theirs - uncounted <= ours <= theirs + given_up:
            self.wrong.append(f"{ours} calls by our books, {theirs} by theirs, {uncounted} unsure")


def judge(playing, *, is_spent):
    """Compare everything; what a spent budget has left undone is no fault.

    Raises:
        Violation: Something is not as it was promised.
    """
    verdict = Verdict(playing, is_spent=is_spent)
    try:
        verdict.judge()
    finally:
        verdict.close()
    if verdict.wrong:
        raise Violation("; ".join(verdict.wrong))
