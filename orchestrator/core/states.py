"""The states a run goes through, as a table; the diagram in the README is printed from it.

Rules: every change of state is looked up here, and nowhere else does a state follow from another.
What is not in the table is a bug, and `next_state` says so. A change named "..._sent" means that
the driver has taken the call; until its answer is handled nothing else is done to the run.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType

from orchestrator.core.model import Family


class State(StrEnum):
    """Where a run stands with us."""

    WAITING = "waiting"  # to be created, now or when its time to try again has come
    CREATING = "creating"
    RUNNING = "running"  # at work on the server; to be checked when due
    CHECKING = "checking"
    TOOLS = "tools"  # tool handlers are at work
    ANSWERED = "answered"  # all tool outputs are there, to be submitted
    SUBMITTING = "submitting"
    FINISHED = "finished"  # at an end on the server; its result is to be fetched
    FETCHING = "fetching"
    STOPPING = "stopping"  # to be cancelled on the server
    CANCELLING = "cancelling"
    ENDED = "ended"


class Change(StrEnum):
    """What moves a run from one state to another."""

    CREATE_SENT = "create sent"
    CREATE_FAILED = "create failed"
    PREPARED = "prepared"
    SEEN_PENDING = "seen pending"
    SEEN_TOOL_CALLS = "seen tool calls"
    RUN_AGAIN = "to be run again"
    CHECK_SENT = "check sent"
    CHECK_FAILED = "check failed"
    TOOLS_FINISHED = "tools finished"
    OUTPUTS_SENT = "outputs sent"
    OUTPUTS_FAILED = "outputs failed"
    OUTPUTS_REFUSED = "outputs refused"
    TOOLS_TOO_LATE = "tools too late"
    SEEN_FINISHED = "seen finished"
    FETCH_SENT = "fetch sent"
    FETCH_FAILED = "fetch failed"
    MORE_TO_FETCH = "more to fetch"
    STOP_WANTED = "stop wanted"
    CANCEL_SENT = "cancel sent"
    CANCEL_FAILED = "cancel failed"
    CANCEL_REFUSED = "cancel refused"
    ENDED = "ended"


# A call for the run is out; its answer decides what comes next.
CALL_OUT = frozenset(
    {State.CREATING, State.CHECKING, State.SUBMITTING, State.CANCELLING, State.FETCHING}
)

# A run is on the server and not known to have ended; it does not wait for our tools.
AT_WORK = frozenset({State.RUNNING, State.CHECKING, State.STOPPING, State.CANCELLING})

# The work is done and paid for; nothing but its result is missing. No deadline holds here.
DONE = frozenset({State.FINISHED, State.FETCHING})

_S, _C = State, Change

# Endpoints that answer at once: no run is left behind on the server, so nothing is checked and
# nothing can be cancelled. Tool outputs go out in a call of their own.
_AT_ONCE: dict[tuple[State, Change], State] = {
    (_S.WAITING, _C.CREATE_SENT): _S.CREATING,
    (_S.CREATING, _C.CREATE_FAILED): _S.WAITING,
    (_S.CREATING, _C.SEEN_TOOL_CALLS): _S.TOOLS,
    (_S.CREATING, _C.RUN_AGAIN): _S.WAITING,
    (_S.TOOLS, _C.TOOLS_FINISHED): _S.ANSWERED,
    (_S.ANSWERED, _C.OUTPUTS_SENT): _S.SUBMITTING,
    (_S.SUBMITTING, _C.OUTPUTS_FAILED): _S.ANSWERED,
    (_S.SUBMITTING, _C.SEEN_TOOL_CALLS): _S.TOOLS,
    (_S.SUBMITTING, _C.RUN_AGAIN): _S.WAITING,
    (_S.WAITING, _C.ENDED): _S.ENDED,
    (_S.CREATING, _C.ENDED): _S.ENDED,
    (_S.TOOLS, _C.ENDED): _S.ENDED,
    (_S.ANSWERED, _C.ENDED): _S.ENDED,
    (_S.SUBMITTING, _C.ENDED): _S.ENDED,
}

# Runs that live on the server: looked at when due, cancelled when not wanted any more. A response
# that asks for tools has ended on the server: while tools are at work there is nothing to cancel.
_POLLED: dict[tuple[State, Change], State] = _AT_ONCE | {
    (_S.CREATING, _C.SEEN_PENDING): _S.RUNNING,
    (_S.RUNNING, _C.CHECK_SENT): _S.CHECKING,
    (_S.CHECKING, _C.SEEN_PENDING): _S.RUNNING,
    (_S.CHECKING, _C.CHECK_FAILED): _S.RUNNING,
    (_S.CHECKING, _C.SEEN_TOOL_CALLS): _S.TOOLS,
    (_S.CHECKING, _C.RUN_AGAIN): _S.WAITING,
    (_S.SUBMITTING, _C.SEEN_PENDING): _S.RUNNING,
    (_S.RUNNING, _C.STOP_WANTED): _S.STOPPING,
    (_S.STOPPING, _C.CANCEL_SENT): _S.CANCELLING,
    (_S.CANCELLING, _C.CANCEL_FAILED): _S.STOPPING,
    (_S.CANCELLING, _C.CANCEL_REFUSED): _S.RUNNING,
    (_S.CANCELLING, _C.SEEN_PENDING): _S.RUNNING,
    (_S.CANCELLING, _C.SEEN_TOOL_CALLS): _S.TOOLS,
    (_S.RUNNING, _C.RUN_AGAIN): _S.WAITING,
    (_S.STOPPING, _C.RUN_AGAIN): _S.WAITING,
    (_S.CANCELLING, _C.RUN_AGAIN): _S.WAITING,
    (_S.RUNNING, _C.ENDED): _S.ENDED,
    (_S.CHECKING, _C.ENDED): _S.ENDED,
    (_S.STOPPING, _C.ENDED): _S.ENDED,
    (_S.CANCELLING, _C.ENDED): _S.ENDED,
}

# Runs that stay on the server while their tools are at work: they can be cancelled meanwhile, they
# may expire, and after a refused submission a look tells how things stand. The result takes a call.
_HELD: dict[tuple[State, Change], State] = _POLLED | {
    (_S.TOOLS, _C.STOP_WANTED): _S.STOPPING,
    (_S.ANSWERED, _C.STOP_WANTED): _S.STOPPING,
    (_S.TOOLS, _C.TOOLS_TOO_LATE): _S.RUNNING,
    (_S.SUBMITTING, _C.OUTPUTS_REFUSED): _S.RUNNING,
    (_S.CREATING, _C.PREPARED): _S.WAITING,
    (_S.CREATING, _C.SEEN_FINISHED): _S.FINISHED,
    (_S.CHECKING, _C.SEEN_FINISHED): _S.FINISHED,
    (_S.SUBMITTING, _C.SEEN_FINISHED): _S.FINISHED,
    (_S.CANCELLING, _C.SEEN_FINISHED): _S.FINISHED,
    (_S.FINISHED, _C.FETCH_SENT): _S.FETCHING,
    (_S.FETCHING, _C.FETCH_FAILED): _S.FINISHED,
    (_S.FETCHING, _C.MORE_TO_FETCH): _S.FINISHED,
    (_S.FETCHING, _C.SEEN_PENDING): _S.RUNNING,
    (_S.FETCHING, _C.RUN_AGAIN): _S.WAITING,
    (_S.FINISHED, _C.ENDED): _S.ENDED,
    (_S.FETCHING, _C.ENDED): _S.ENDED,
}

_ABOUT_TOOLS = frozenset({_S.TOOLS, _S.ANSWERED, _S.SUBMITTING})

# A batch asks for nothing and is not run again: what it leaves undone goes into another batch, line
# by line. The runs that it carries are in states of their own, as if each was a call.
_BATCH: dict[tuple[State, Change], State] = {
    (state, change): following
    for (state, change), following in _HELD.items()
    if _ABOUT_TOOLS.isdisjoint({state, following}) and change is not _C.RUN_AGAIN
}

TABLE: Mapping[Family, Mapping[tuple[State, Change], State]] = MappingProxyType(
    {
        Family.DIRECT: MappingProxyType(_AT_ONCE),
        Family.RESPONSES: MappingProxyType(_POLLED),
        Family.ASSISTANTS: MappingProxyType(_HELD),
        Family.AGENT_SESSIONS: MappingProxyType(_HELD),
        Family.BATCH: MappingProxyType(_BATCH),
    }
)


def next_state(family: Family, state: State, change: Change) -> State:
    """The state that follows.

    Raises:
        KeyError: The table has no such change; the caller knows the run and tells its story.
    """
    return TABLE[family][state, change]


def diagram(family: Family) -> str:
    """The states of a family as a Mermaid diagram, for the README."""
    return "\n".join(["stateDiagram-v2", *_arrows(family)])


def _arrows(family: Family) -> Iterator[str]:
    yield f"    [*] --> {State.WAITING}"
    changes: dict[tuple[State, State], list[Change]] = {}
    for (state, change), following in TABLE[family].items():
        if following is not State.ENDED:
            changes.setdefault((state, following), []).append(change)
    for (state, following), labels in changes.items():
        yield f"    {state} --> {following}: {', '.join(labels)}"
    for state in State:
        if (state, Change.ENDED) in TABLE[family]:
            yield f"    {state} --> [*]"
