"""`orchestrator story`: everything that happened to one request, from the journal."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.adapters.journal import Admitted, Ended, Happening, JournalReader, story_of
from orchestrator.cli.telling import tell
from orchestrator.core import events
from orchestrator.core.entries import BatchOver, CancelSent, CreateSent, Entry, OutputsSent
from orchestrator.core.failures import Failure
from orchestrator.core.model import Seen
from orchestrator.errors import ExecutionMissing, RequestUnknown

# A tool's output may be a whole document.
TEXT_CHARACTERS_MAX = 200

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The folder of an execution.")]
CustomId = Annotated[str, typer.Argument(metavar="CUSTOM_ID", help="Of the request.")]


def story(folder: Folder, custom_id: CustomId) -> None:
    """Tell everything that happened to one request, while it runs or after.

    Checks that found nothing new are not kept, and not told.

    Exit codes: 0 told, 2 there is no such execution, or nothing has happened to the request yet.
    """
    if not JournalReader.is_there(folder):
        raise ExecutionMissing(path=folder)
    with JournalReader.open(folder) as journal:
        happenings = story_of(journal, custom_id)
    if not happenings:
        raise RequestUnknown(custom_id=custom_id, path=folder)
    session = 1
    for happening in happenings:
        if happening.session != session:
            session = happening.session
            tell(f"  -- process {session} --")
        when = datetime.fromtimestamp(happening.unix, UTC).astimezone()
        tell(f"{when.isoformat(' ', 'milliseconds')}  {_told(happening)}")


def _told(happening: Happening) -> str:
    match happening.what:
        case Admitted(number=number, line=line, model=model):
            return f"read from line {line} as number {number}, for {model}"
        case Ended(outcome=outcome, code=code, message=message):
            why = f": {code}: {message}" if code or message else ""
            return f"ended as {outcome.value}{why}"
        case entry:
            batch = "its batch: " if entry.number < 0 else ""
            return batch + _told_of_entry(entry)


def _told_of_entry(entry: Entry) -> str:  # noqa: C901, PLR0911, PLR0912 - one arm for each kind
    match entry:
        case CreateSent(lines=lines):
            return f"file sent, with {len(lines):,} lines" if lines else "create sent"
        case OutputsSent():
            return "tool outputs sent"
        case CancelSent():
            return "cancel sent"
        case BatchOver():
            return "over"
        case events.RunPrepared():
            return "prepared: what the create needs is there"
        case events.RunCreated(seen=seen):
            found = ", found again after its answer was lost" if seen.found else ""
            return f"created{found}: {_seen(seen)}"
        case events.OutputsAccepted(seen=seen):
            return f"tool outputs accepted: {_seen(seen)}"
        case events.RunSeen(seen=seen) | events.ResultFetched(seen=seen):
            return f"looked at: {_seen(seen)}"
        case events.CancelAccepted(seen=seen):
            return f"cancelled: {_seen(seen)}"
        case events.ToolFinished(output=output):
            how = "failed" if output.failed else "finished"
            return f"tool call {output.call_id} {how}: {_cut(output.output)}"
        case events.LineAnswered(answer=Seen() as seen):
            return f"its line in the batch: {_seen(seen)}"
        case events.LineAnswered(answer=Failure() as failure):
            return f"its line in the batch: {_failure(failure)}"
        case events.CreateFailed(failure=failure):
            return f"create failed: {_failure(failure)}"
        case events.OutputsFailed(failure=failure):
            return f"tool outputs not taken: {_failure(failure)}"
        case (
            events.CheckFailed(failure=failure)
            | events.FetchFailed(failure=failure)
            | events.CancelFailed(failure=failure)
        ):
            return f"not answered: {_failure(failure)}"
        case _:
            return type(entry).__name__


def _seen(seen: Seen) -> str:
    said = f"{seen.run_id} is {seen.said}"
    if seen.tool_calls:
        calls = ", ".join(f"{call.name}({_cut(call.arguments)})" for call in seen.tool_calls)
        said += f", asks for {calls}"
    if seen.error is not None:
        said += f", {seen.error.code}: {_cut(seen.error.message)}"
    return said


def _failure(failure: Failure) -> str:
    status = f" ({failure.status_code})" if failure.status_code else ""
    return f"{failure.cause.value}{status}: {_cut(failure.message)}"


def _cut(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[:TEXT_CHARACTERS_MAX]}..."
