"""The Batch API: many requests of one url and one model in a file, done within a day at half price.

Rules: a create is an upload and a call; where the answer of that call was lost, the list is looked
at before another one is sent. Batches are looked at a hundred at a time. What came of the lines
stands in two files, in any order, and each line is read as if it were the answer to a call of its
own.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import anyio.lowlevel
import msgspec

from orchestrator.apis.batch_files import answers_in, line_for, spooled
from orchestrator.apis.direct import Direct
from orchestrator.apis.reading import (
    decoded,
    error_of,
    id_in,
    malformed,
    number_of,
    object_of,
    objects_of,
    text_of,
)
from orchestrator.apis.refusals import MESSAGE_CHARACTERS_MAX, free_of_charge
from orchestrator.apis.transport import CALL_TIMEOUT_SECONDS, Reply, Transport
from orchestrator.core.actions import (
    CancelRun,
    CheckRuns,
    CreateRun,
    FetchResult,
    SubmitToolOutputs,
)
from orchestrator.core.failures import Cause, Failure
from orchestrator.core.lanes import BATCH_LANE
from orchestrator.core.model import (
    BatchSeen,
    Prepared,
    RunError,
    Seen,
    Status,
    Times,
)
from orchestrator.ports import CallFailed, CallKind

PATH = "/batches"
NAME_KEY = "orchestrator_batch"
PAGE_MAX = 100
WINDOW = "24h"  # the only one there is

STATUS_OF = {
    "validating": Status.PENDING,
    "in_progress": Status.PENDING,
    "finalizing": Status.PENDING,
    "cancelling": Status.PENDING,
    "completed": Status.COMPLETED,
    "failed": Status.FAILED,
    "expired": Status.EXPIRED,
    "cancelled": Status.CANCELLED,
    "canceled": Status.CANCELLED,
}

# So many lines are written before others on the event loop have their turn.
LINES_AT_ONCE = 64

ENDS = frozenset({Status.COMPLETED, Status.FAILED, Status.EXPIRED, Status.CANCELLED})

# Lines were answered and no file of them is named: so long it is waited for.
OUTPUT_LATE_SECONDS = 60.0

# People were told: Enqueued token limit reached for (a model). Limit: 90,000 enqueued tokens.
DIGITS_MAX = 15
QUEUE_LIMIT = re.compile(r"limit:?\s+([\d][\d,._]*)", re.IGNORECASE)


# What one page showed answers for a look at another one, for so long: two rounds.
GLIMPSE_SECONDS_MAX = 120.0


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What a list said of a batch, and when."""

    seen: Seen | Failure
    at: float


class Batch:
    """The family of batches.

    Args:
        transport: The way out.
        direct: Makes the body of each line and reads its answer.
        key: Begins the values of our `metadata` key, unique for an execution.
        delete_files: Whether the uploaded file of a batch that is over is removed.
    """

    def __init__(
        self, transport: Transport, direct: Direct, key: str, *, delete_files: bool
    ) -> None:
        self._transport = transport
        self._direct = direct
        self._key = key
        self._delete_files = delete_files
        self._order: list[str] = []  # the ids of all batches of ours, the oldest first
        self._rank_of: dict[int, int] = {}  # of groups, in the order of their creation
        self._nameless_since: dict[str, float] = {}  # batches without an output file, by id
        self._glimpses: dict[str, Glimpse] = {}  # by id of the batch

    async def create(self, action: CreateRun) -> Seen | Prepared:
        """Upload, look whether it is there already, or create: one call at a time."""
        self._rank_of.setdefault(action.group, len(self._rank_of))
        if action.prepared is None:
            return await self._upload(action)
        so_far = msgspec.json.decode(action.prepared)
        if action.lost > so_far["lost"]:
            return await self._look_for(action, so_far)
        body = {
            "input_file_id": so_far["file_id"],
            "endpoint": so_far["endpoint"],
            "completion_window": WINDOW,
            "metadata": {NAME_KEY: self._name_of(action)},
        }
        try:
            reply = await self._send(CallKind.CREATE, "POST", PATH, msgspec.json.encode(body))
        except CallFailed as failed:
            raise _not_visible_yet(failed) from failed
        return self._noted(decoded(reply.body), reply)

    async def check(self, action: CheckRuns) -> Mapping[int, Seen | Failure]:
        """List a group, or retrieve the one batch that a list did not show."""
        first = action.runs[0]
        if not action.group:
            reply = await self._send(CallKind.CHECK, "GET", _path_of(first.run_id))
            return {first.number: self._seen(decoded(reply.body), reply)}
        try:
            reply = await self._send(CallKind.CHECK, "GET", self._page_of(action.group))
        except CallFailed as failed:
            if failed.failure.cause in {Cause.NOT_FOUND, Cause.BAD_REQUEST}:
                return {}  # a server without a list; it says nothing about the batches
            raise
        self._take_in(objects_of(decoded(reply.body), "data"), reply)
        oldest = self._transport.clock.now() - GLIMPSE_SECONDS_MAX
        return {
            run.number: glimpse.seen
            for run in action.runs
            if (glimpse := self._glimpses.pop(run.run_id, None)) and glimpse.at >= oldest
        }

    async def submit(self, action: SubmitToolOutputs) -> Seen:
        """Never asked: tool outputs go out as lines of another batch."""
        raise NotImplementedError(action)

    async def cancel(self, action: CancelRun) -> Seen:
        """Cancel it; what was done until then is kept, and takes up to ten minutes to come."""
        reply = await self._send(CallKind.CANCEL, "POST", f"{_path_of(action.run_id)}/cancel")
        return self._seen(decoded(reply.body), reply)

    async def fetch(self, action: FetchResult) -> Seen:
        """One file at a time: the answers, the errors; then the uploaded one is removed."""
        finished = action.finished
        (step, file_id), *steps = msgspec.json.decode(finished.continuation or b"[]")
        batch = replace(finished.batch or BatchSeen(), lines=())
        path = f"/files/{quote(file_id, safe='')}"
        if step == "remove":
            await self._remove(path)
        else:
            spool = spooled()
            try:
                await self._transport.download(
                    CallKind.FETCH, f"{path}/content", spool, lane=BATCH_LANE
                )
            except BaseException:
                spool.close()
                raise
            batch = replace(
                batch,
                lines=answers_in(
                    spool, action.lines, self._direct, finished.times, self._transport.masked
                ),
            )
        continuation = msgspec.json.encode(steps) if steps else None
        return replace(finished, continuation=continuation, batch=batch)

    # Creating.

    async def _upload(self, action: CreateRun) -> Prepared:
        with spooled() as spool:
            for at, line in enumerate(action.lines):
                spool.write(line_for(line, self._direct))
                if at % LINES_AT_ONCE == 0:
                    await anyio.lowlevel.checkpoint()
            name = f"{action.request.custom_id}.jsonl"
            try:
                reply = await self._transport.upload(
                    CallKind.PREPARE, "/files", {"purpose": "batch"}, name, spool, lane=BATCH_LANE
                )
                file_id = id_in(reply.body)
            except CallFailed as failed:
                raise free_of_charge(failed) from failed
        endpoint = action.lines[0].request.url
        so_far = {"file_id": file_id, "endpoint": endpoint, "lost": action.lost}
        return Prepared(msgspec.json.encode(so_far))

    async def _look_for(self, action: CreateRun, so_far: dict[str, Any]) -> Seen | Prepared:
        """A create whose answer was lost may have worked: then the batch is in the list."""
        try:
            reply = await self._send(CallKind.PREPARE, "GET", f"{PATH}?limit={PAGE_MAX}")
            listed = objects_of(decoded(reply.body), "data")
        except CallFailed as failed:
            if failed.failure.cause not in {Cause.NOT_FOUND, Cause.BAD_REQUEST}:
                raise free_of_charge(failed) from failed
            listed = []  # a server without a list
        for batch in listed:
            if object_of(batch, "metadata").get(NAME_KEY) == self._name_of(action):
                return replace(self._noted(batch, reply), found=True)
        return Prepared(msgspec.json.encode({**so_far, "lost": action.lost}))

    def _name_of(self, action: CreateRun) -> str:
        return f"{self._key}/{action.request.custom_id}"

    def _noted(self, batch: Mapping[str, Any], reply: Reply) -> Seen:
        seen = self._seen(batch, reply)
        if seen.run_id not in self._order:
            self._order.append(seen.run_id)
        return seen

    # Looking.

    def _page_of(self, group: int) -> str:
        """The page of the list that shows this group: lists go back from the newest of all.

        Groups are filled one after the other, so each has its hundred places in the order of
        creation; near the borders a batch may stand on the page of the group beside its own.
        """
        above = (self._rank_of.setdefault(group, len(self._rank_of)) + 1) * PAGE_MAX
        after = quote(self._order[above], safe="") if above < len(self._order) else ""
        return f"{PATH}?limit={PAGE_MAX}" + (f"&after={after}" if after else "")

    def _take_in(self, newest_first: list[dict[str, Any]], reply: Reply) -> None:
        """Keep what a page says of our batches, also of those that were not asked for.

        It tells their order too: creates that are out together may be answered in another one.
        """
        now = self._transport.clock.now()
        listed = {text_of(batch, "id"): batch for batch in newest_first}
        places = [at for at, batch_id in enumerate(self._order) if batch_id in listed]
        known = {self._order[at] for at in places}
        in_order = [batch_id for batch_id in reversed(listed) if batch_id in known]
        for at, batch_id in zip(places, in_order, strict=True):
            self._order[at] = batch_id
            self._glimpses[batch_id] = Glimpse(self._listed(listed[batch_id], reply), now)

    def _listed(self, batch: Mapping[str, Any], reply: Reply) -> Seen | Failure:
        """What the list says of one batch; what is wrong with it is no fault of the others."""
        try:
            return self._seen(batch, reply)
        except CallFailed as failed:
            return failed.failure

    def _seen(self, batch: Mapping[str, Any], reply: Reply) -> Seen:
        run_id, said = text_of(batch, "id"), text_of(batch, "status")
        if not (run_id and said):
            raise malformed("it has no id or no status")
        status = STATUS_OF.get(said, Status.UNKNOWN)
        counts = object_of(batch, "request_counts")
        completed, failed = _count(counts, "completed"), _count(counts, "failed")
        times = _times(batch)
        ended_at = times.completed
        ago = None if ended_at is None else self._transport.clock.unix() - ended_at
        error, about = None, BatchSeen(answered=completed + failed)
        if status is Status.FAILED:
            error, about = _validation(batch, about, self._transport.masked)
        if completed and status in ENDS and not text_of(batch, "output_file_id"):
            # It is named a moment later, or never.
            since = self._nameless_since.setdefault(run_id, self._transport.clock.now())
            if self._transport.clock.now() - since < OUTPUT_LATE_SECONDS:
                return Seen(run_id, Status.PENDING, said, batch=about)
            about = replace(about, output_missing=True)
        expires_at = number_of(batch, "expires_at")
        lives = expires_at - times.queued if expires_at and times.queued else None
        steps = self._steps(batch) if status not in {Status.PENDING, Status.UNKNOWN} else []
        return Seen(
            run_id=run_id,
            status=status,
            said=said,
            error=error,
            look_again_seconds=reply.look_again_seconds,
            finished_seconds_ago=ago,
            lives_seconds=lives if lives and lives > 0 else None,
            times=times,
            batch=about,
            continuation=msgspec.json.encode(steps) if steps else None,
        )

    def _steps(self, batch: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What is still to be done about a batch that is over. Some servers name "" for no file."""
        files = {"answers": "output_file_id", "errors": "error_file_id"}
        if self._delete_files:
            files["remove"] = "input_file_id"
        return [(step, text_of(batch, key)) for step, key in files.items() if text_of(batch, key)]

    async def _remove(self, path: str) -> None:
        try:
            await self._send(CallKind.REMOVE, "DELETE", path)
        except CallFailed:
            return  # it is in nobody's way, and goes by itself after 30 days

    async def _send(
        self, kind: CallKind, method: str, path: str, body: bytes | None = None
    ) -> Reply:
        return await self._transport.send(
            kind, method, path, body, lane=BATCH_LANE, timeout_seconds=CALL_TIMEOUT_SECONDS
        )


def _path_of(run_id: str) -> str:
    return f"{PATH}/{quote(run_id, safe='')}"


def _count(value: Mapping[str, Any], key: str) -> int:
    found = value.get(key)
    return found if type(found) is int and found > 0 else 0


def _not_visible_yet(failed: CallFailed) -> CallFailed:
    """A file that was just uploaded may not be known everywhere yet."""
    failure = failed.failure
    is_about_file = failure.cause is Cause.BAD_REQUEST and "input_file_id" in failure.message
    return CallFailed(replace(failure, cause=Cause.CONFLICT)) if is_about_file else failed


def _times(batch: Mapping[str, Any]) -> Times:
    ends = (f"{end}_at" for end in ("completed", "expired", "cancelled", "failed"))
    ended_at = next((at for end in ends if (at := number_of(batch, end)) is not None), None)
    return Times(number_of(batch, "created_at"), number_of(batch, "in_progress_at"), ended_at)


def _validation(
    batch: Mapping[str, Any], about: BatchSeen, masked: Callable[[str], str]
) -> tuple[RunError, BatchSeen]:
    """Why a batch was refused: as a whole, or because of these lines."""
    told = objects_of(object_of(batch, "errors"), "data")
    errors = []
    for one in told:
        error = error_of({"error": one}, "error", "failed")
        message = masked(error.message)[:MESSAGE_CHARACTERS_MAX]
        errors.append((_count(one, "line"), replace(error, message=message)))
    line_errors = {line: error for line, error in errors if line}
    whole = next((error for line, error in errors if not line), None)
    first = whole or next(iter(line_errors.values()), None)
    error = first or error_of(batch, "error", otherwise="failed")
    limit = QUEUE_LIMIT.search(error.message)
    digits = re.sub(r"\D", "", limit[1])[:DIGITS_MAX] if limit else ""
    # No queue is of length 0.
    about = replace(about, line_errors=line_errors, queue_tokens_max=int(digits or 0) or None)
    return error, about
