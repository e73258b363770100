"""Packs runs into shards, of which each becomes a batch: by url and model, within every limit.

A shard is closed when one more line would be too much, or when nothing more has come for a while.
Prompt tokens that wait for a model are limited too, over all its batches: `Queue` keeps that count.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator

from orchestrator.core.rules import Rules
from orchestrator.core.runs import Run, Shard

# As everywhere else; batches count the prompt only, and count it themselves.
BYTES_PER_TOKEN = 4

# A queue that refuses what should fit is used by others too, or counts otherwise than we do. It is
# believed to be smaller by this, down to a part of what it says.
SHRINKS_BY = 0.75
PART_MIN = 0.125


class Packing:
    """The shards that are still open."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self.lines_max = rules.batch_lines_max
        self.bytes_max = rules.batch_bytes_max
        self.queue = Queue(rules.batch_queue_tokens)
        self._open: dict[tuple[str, str], Shard] = {}
        self._closes_at: dict[tuple[str, str], float] = {}

    def add(self, run: Run, now: float) -> Shard | None:
        """Put a run into the open shard of its kind; the one that this closes, if it does."""
        rules, request = self._rules, run.request
        place = request.url, request.model
        size, tokens = self._measures(run)
        closed = None
        shard = self._open.get(place)
        if shard is not None and not (
            self._fits(shard, size, tokens, request.inputs)
            and request.custom_id not in shard.custom_ids
        ):
            closed, shard = shard, None
        if shard is None:
            shard = self._open[place] = Shard(*place, opened_at=now)
        self._put(run, shard, size, tokens)
        self._closes_at[place] = min(
            now + rules.batch_idle_seconds, shard.opened_at + rules.batch_open_seconds_max
        )
        return closed

    def packed_before(self, runs: Iterable[Run], at: float) -> Shard:
        """For a replay: the shard that a batch on a server carries, whatever the limits are now."""
        runs = list(runs)
        shard = Shard(runs[0].request.url, runs[0].request.model, opened_at=at)
        for run in runs:
            self._put(run, shard, *self._measures(run))
        self.queue.count(shard)
        return shard

    def _measures(self, run: Run) -> tuple[int, int]:
        size = _bytes_of(run) + self._rules.batch_line_bytes
        return size, -(-size // BYTES_PER_TOKEN)

    def _put(self, run: Run, shard: Shard, size: int, tokens: int) -> None:
        shard.runs[run.number] = run
        shard.custom_ids.add(run.request.custom_id)
        shard.bytes += size
        shard.tokens += tokens
        shard.inputs += run.request.inputs

    def _fits(self, shard: Shard, size: int, tokens: int, inputs: int) -> bool:
        return (
            len(shard.runs) < self.lines_max
            and shard.bytes + size <= self.bytes_max
            and shard.inputs + inputs <= self._rules.batch_inputs_max
            and shard.tokens + tokens <= self.queue.tokens_max(shard.model)
        )

    def take_closed(self, now: float) -> Iterator[Shard]:
        """The shards whose time has come."""
        for place in [place for place, at in self._closes_at.items() if at <= now]:
            del self._closes_at[place]
            yield self._open.pop(place)

    def next_due(self) -> float | None:
        """When a shard will be closed."""
        return min(self._closes_at.values(), default=None)

    def holds(self, run: Run) -> bool:
        """Whether this run is in an open shard."""
        shard = self._open.get((run.request.url, run.request.model))
        return shard is not None and run.number in shard.runs

    def remove(self, run: Run) -> None:
        """This run waits no longer; nothing happens when it did not."""
        place = run.request.url, run.request.model
        shard = self._open.get(place)
        if shard is None or shard.runs.pop(run.number, None) is None:
            return
        if not shard.runs:
            del self._open[place], self._closes_at[place]

    def halve(self, shard: Shard) -> None:
        """A server took this shard for too large."""
        self.lines_max = max(1, min(self.lines_max, len(shard.places) // 2))
        self.bytes_max = max(1, min(self.bytes_max, shard.bytes // 2))


class Queue:
    """The prompt tokens of the batches that are on a server, and how many each model may have.

    Args:
        tokens_max: For every model; None until a server tells.
    """

    def __init__(self, tokens_max: int | None) -> None:
        self._given = float("inf") if tokens_max is None else tokens_max
        self._learned: dict[str, float] = {}
        self._tokens: Counter[str] = Counter()
        self._held: defaultdict[str, deque[Run]] = defaultdict(deque)

    def tokens_max(self, model: str) -> float:
        return min(self._given, self._learned.get(model, self._given))

    def enter(self, batch: Run, shard: Shard) -> bool:
        """Count a shard that is to be sent; if there is no room it is kept until there is.

        An empty queue has room for everything: what is too large for it the server says itself.
        """
        tokens = self._tokens[shard.model]
        if tokens and tokens + shard.tokens > self.tokens_max(shard.model):
            self._held[shard.model].append(batch)
            return False
        self.count(shard)
        return True

    def count(self, shard: Shard) -> None:
        """This shard is on its way, or on the server."""
        self._tokens[shard.model] += shard.tokens

    def leave(self, batch: Run, shard: Shard) -> None:
        """A batch is over, or is not wanted any more before it could enter."""
        held = self._held[shard.model]
        if batch in held:
            held.remove(batch)
        else:
            self._tokens[shard.model] -= shard.tokens

    def take_next(self, model: str) -> Run | None:
        """The batch that has waited longest, if there may be room for it now."""
        held = self._held[model]
        tokens = self._tokens[model]
        if held and held[0].shard is not None:
            fits = tokens + held[0].shard.tokens <= self.tokens_max(model)
            return held.popleft() if fits or not tokens else None
        return None

    def holds(self, batch: Run) -> bool:
        return batch.shard is not None and batch in self._held[batch.shard.model]

    def learn(self, shard: Shard, told: int | None) -> bool:
        """A shard was refused because the queue is full; whether our own batches fill it."""
        ours = self._tokens[shard.model]
        limit = self.tokens_max(shard.model) if told is None else told
        is_explained = ours > limit
        if not is_explained:
            believed = min(self.tokens_max(shard.model), ours) * SHRINKS_BY
            limit = max(believed, PART_MIN * (told or 0), 1)
        self._learned[shard.model] = limit
        # Then one of ours that ends makes room, or less at a time has room at once.
        return is_explained or (ours > shard.tokens and ours > limit)


def _bytes_of(run: Run) -> int:
    """What the line's body takes, roughly: a turn of tool outputs brings the conversation along."""
    answering = run.answering
    if answering is None:
        return run.request.body_bytes
    outputs = sum(len(output.output) for output in answering.outputs.values())
    return run.request.body_bytes + len(answering.continuation or b"") + outputs
