"""What our journal and the emulator have on the same execution, and what must be true of the two.

Every request carries its custom_id in its metadata, so the emulator knows it by the same name.
"""

import json
import sqlite3
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import dataclass, field

# Creates that begin a run, and those that go on with one.
FIRST = {"response", "chat", "assistants_run", "agent_session"}
TURNS = {"response_turn", "chat_turn"}

# Runs that wait on the server for their tool outputs, and are looked for when a create was lost.
HELD = {"/v1/threads/runs", "/v1/agents/sessions"}

# Causes of a failed call after which nobody knows what came of it.
MAYBE_DONE = {"connection_lost", "call_timed_out", "process_ended"}

ANSWERS = {"run_created", "outputs_accepted"}


@dataclass
class Journaled:
    """What a journal tells of each request, by its custom_id.

    Attributes:
        known: Ids of runs that were received.
        paying: Calls for which something may have to be paid, and which may have left.
        finished_tools: (custom_id, call id) of every handler that has returned.
        entries: How many entries there are.
    """

    known: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    paying: Counter[str] = field(default_factory=Counter)
    finished_tools: set[tuple[str, str]] = field(default_factory=set)
    entries: int = 0

    @classmethod
    def read(cls, folder):
        """The journal as it is; an empty one where a process was killed before it was made."""
        found, walks = cls(), {}
        rows = rows_of(
            folder,
            "SELECT custom_id, url, number, kind, data FROM events"
            " JOIN requests USING (number) ORDER BY seq",
        )
        for custom_id, url, number, kind, data in rows:
            walk = walks.setdefault(number, _Walk(url))
            found._take(custom_id, walk, kind, json.loads(data))
        return found

    @staticmethod
    def sessions(folder):
        """How many processes have begun to work."""
        return len(rows_of(folder, "SELECT number FROM sessions"))

    def _take(self, custom_id, walk, kind, data):
        self.entries += 1
        self.paying[custom_id] += walk.take(kind, data)
        if kind in ANSWERS:
            self.known[custom_id].add(data["run_id"].rpartition("/")[2])  # behind its thread's
        if kind == "tool_finished":
            self.finished_tools.add((custom_id, data["call_id"]))


class _Walk:
    """Goes through the entries of one request, and says which of its calls may have to be paid.

    A thread costs nothing, nor does a look for a create whose answer was lost.
    """

    def __init__(self, url):
        self._held = url in HELD
        self._prepares = url == "/v1/threads/runs"
        self._prepared = False
        self._out = None  # what the call was that is out: "pays" or "free"
        self._lost = self._looked_for = 0

    def take(self, kind, data):
        """How many more calls may have to be paid."""
        if kind == "create_sent":
            self._end_in_doubt()
            looks = self._held and self._lost > self._looked_for
            self._out = "free" if looks or (self._prepares and not self._prepared) else "pays"
            return self._out == "pays"
        if kind == "outputs_sent":
            self._end_in_doubt()
            self._out = "free" if self._held else "pays"
            return self._out == "pays"
        if kind == "run_prepared":
            self._prepared, self._looked_for = True, self._lost
        elif kind in {"create_failed", "outputs_failed"}:
            if data["cause"] in MAYBE_DONE:
                self._end_in_doubt()
            elif self._out == "pays":
                self._out = None
                return -1  # refused, or it never left
        elif kind == "run_created":
            self._lost = self._looked_for = 0
        if kind not in {"tool_finished", "run_seen"}:
            self._out = None
        return 0

    def _end_in_doubt(self):
        self._lost += self._out == "pays"
        self._out = None


@dataclass
class Compared:
    """The figures of one execution, from both sides; what is wrong is told in words.

    Attributes:
        lost_theirs: What the emulator did and we never knew of.
        lost_ours: What our lines call lost.
        unreached: Of ours, intents that were kept and whose call never got to the emulator.
    """

    requests: int = 0
    missing: int = 0
    twice: int = 0
    not_completed: int = 0
    created: int = 0
    created_again_though_known: int = 0
    outputs_taken_twice: int = 0
    without_intent: int = 0
    handlers_called: int = 0
    lost_theirs: int = 0
    lost_theirs_delivered: int = 0
    lost_ours: int = 0
    unreached: int = 0
    unexplained: int = 0
    wrong: list[str] = field(default_factory=list)


def compare(asked, folder, creates, calls_of_handlers):
    """Compare what an execution that has ended left with what the emulator did for it.

    Args:
        asked: The custom_ids of the requests.
        folder: Its output.
        creates: Of the emulator.
        calls_of_handlers: (custom_id, call id) of every call of a handler.
    """
    result = Compared(requests=len(asked), created=len(creates))
    journaled = Journaled.read(folder)
    lines = lines_of(folder / "results.jsonl") + lines_of(folder / "errors.jsonl")
    by_name = Counter(line["custom_id"] for line in lines)
    result.missing = len(asked) - len(by_name.keys() & set(asked))
    result.twice = sum(count - 1 for count in by_name.values())
    result.not_completed = sum(line["error"] is not None for line in lines)
    if extra := by_name.keys() - set(asked):
        result.wrong.append(f"lines that nobody asked for: {sorted(extra)[:3]}")
    theirs = defaultdict(list)
    for one in creates:
        theirs[one["key"]].append(one)
    lost_ours = {line["custom_id"]: line.get("answers_lost", 0) for line in lines}
    for name in asked:
        _compare_request(result, name, theirs.pop(name, []), journaled, lost_ours.get(name, 0))
    if theirs:
        result.wrong.append(f"created for nobody: {sorted(theirs)[:3]}")
    result.handlers_called = len(calls_of_handlers)
    if unanswered := set(asked) - {name for name, _ in calls_of_handlers}:
        result.wrong.append(f"no handler was called for {sorted(unanswered)[:3]}")
    return result


def _compare_request(result, name, creates, journaled, lost_ours):
    known = journaled.known[name]
    lost = [one for one in creates if one["run_id"] not in known]
    unreached = journaled.paying[name] - len(creates)
    result.lost_theirs += len(lost)
    result.lost_theirs_delivered += sum(one["delivered"] for one in lost)
    result.lost_ours += lost_ours
    result.unreached += max(unreached, 0)
    result.without_intent += max(-unreached, 0)
    if lost_ours != len(lost) + unreached:
        result.unexplained += abs(lost_ours - len(lost) - unreached)
        result.wrong.append(
            f"{name}: we say {lost_ours} lost; they have {len(lost)}, and {unreached} never came"
        )
    for one in lost:
        if one["looked_at"] or one["continued"]:
            result.wrong.append(f"{name}: {one['run_id']} is unknown to us, and was gone on with")
    for kinds in (FIRST, TURNS):
        numbers = [one["number"] for one in creates if one["kind"] in kinds]
        those_known = [
            one["number"] for one in creates if one["kind"] in kinds and one["run_id"] in known
        ]
        again = sum(number > min(those_known) for number in numbers) if those_known else 0
        result.created_again_though_known += again
        # The emulator's side alone: of what it did for a request, one of a kind was wanted.
        if numbers and len(numbers) - 1 != sum(one["kind"] in kinds for one in lost):
            result.wrong.append(f"{name}: {len(numbers)} creates of {kinds}, {len(lost)} lost")
    held = [one for one in creates if one["kind"] in {"assistants_run", "agent_session"}]
    result.outputs_taken_twice += sum(max(one["continued"] - 1, 0) for one in held)


def rows_of(folder, statement):
    """What a statement finds in a journal; nothing where there is none yet."""
    path = folder / "journal.sqlite"
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as journal:
        if not journal.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return []
        return journal.execute(statement).fetchall()


def lines_of(path):
    """The JSON lines of a file; every one of them is whole."""
    content = path.read_bytes() if path.exists() else b""
    assert content.endswith(b"\n") or not content, f"{path} ends in the middle of a line"
    return [json.loads(line) for line in content.splitlines()]
