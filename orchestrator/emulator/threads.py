"""Threads of the Assistants API: what is said in them, and the runs that work on them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.chance import draw
from orchestrator.emulator.conversation import Conversation, Part, check_metadata, text_of
from orchestrator.emulator.deviations import Deviation
from orchestrator.emulator.pages import page_of
from orchestrator.emulator.refusals import refuse_invalid, refuse_missing_run, refuse_not_found
from orchestrator.emulator.runs import BILLED
from orchestrator.emulator.state import Route, State, Visit
from orchestrator.emulator.tool_runs import OVER, PendingCall, ToolRun
from orchestrator.emulator.writing import Api

BETA = "assistants=v2"
ROLES = ("user", "assistant")
ORDERS = ("asc", "desc")


class MessageRequest(msgspec.Struct):
    """A message as it is sent, alone or with a thread or a run."""

    role: str
    content: str | list[Part]
    metadata: dict[str, str] | None = None


class ThreadRequest(msgspec.Struct):
    """The body of POST /threads."""

    messages: list[MessageRequest] | None = None
    metadata: dict[str, str] | None = None
    tool_resources: dict[str, Any] | None = None


@dataclass(slots=True, kw_only=True)
class AssistantRun(ToolRun):
    """A run on a thread; `shown` are the fields that never change.

    `answered` are the calls whose outputs came last, and `stale_looks` says how many retrieves
    still show them; `said` tells that its message is in the thread.
    """

    API: ClassVar[Api] = Api.ASSISTANTS
    WAITS_AS: ClassVar[str] = "requires_action"
    CANCELS_AS: ClassVar[str] = "cancelling"

    thread_id: str
    assistant_id: str
    shown: Mapping[str, Any]
    answered: Sequence[PendingCall] = ()
    stale_looks: int = 0
    said: bool = False


@dataclass(slots=True, kw_only=True)
class Message:
    """One message of a thread."""

    id: str
    role: str
    texts: Sequence[str]
    created_at: float
    metadata: Mapping[str, str]
    run: AssistantRun | None = None


@dataclass(slots=True, kw_only=True)
class Thread:
    """A thread. What a run says is in it from the moment it was said."""

    id: str
    created_at: float
    metadata: Mapping[str, str]
    tool_resources: Mapping[str, Any] | None
    runs: list[AssistantRun] = field(default_factory=list)
    _messages: list[Message] = field(default_factory=list)

    def messages(self, state: State, now: float) -> list[Message]:
        """All messages by now, oldest first."""
        ended = [run for run in self.runs if not run.said and run.status(now) in BILLED]
        for run in sorted(ended, key=lambda one: one.ends_at):
            run.said = True
            self._messages.append(
                Message(
                    id=state.new_id("msg_", run.id, api=Api.ASSISTANTS),
                    role="assistant",
                    texts=[run.answer.text],
                    created_at=run.ends_at,
                    metadata={},
                    run=run,
                )
            )
        return self._messages

    def add(self, state: State, now: float, message: Message) -> None:
        """Say something more."""
        self.messages(state, now).append(message)

    def active_run(self, now: float) -> AssistantRun | None:
        """The run that has the thread for itself, the newest where several share it."""
        return next((run for run in reversed(self.runs) if run.status(now) not in OVER), None)

    def conversation(self, state: State, now: float) -> Conversation:
        """What the model reads."""
        conversation = Conversation()
        for message in self.messages(state, now):
            conversation.say(message.role, "\n".join(message.texts))
        return conversation


class Threads:
    """All threads by id."""

    def __init__(self) -> None:
        self.by_id: dict[str, Thread] = {}


def new_thread(state: State, visit: Visit, request: ThreadRequest) -> Thread:
    """A thread with these messages."""
    check_metadata(request.metadata)
    check_messages("messages", request.messages or [])
    thread = Thread(
        id=state.new_id("thread_", visit.key, api=Api.ASSISTANTS),
        created_at=visit.now,
        metadata=request.metadata or {},
        tool_resources=request.tool_resources,
    )
    say(state, visit, thread, request.messages or [])
    state.memory(Threads).by_id[thread.id] = thread
    return thread


def check_messages(param: str, messages: Sequence[MessageRequest]) -> None:
    """Refuse messages that no thread takes."""
    for position, message in enumerate(messages):
        place = f"{param}[{position}]"
        if message.role not in ROLES:
            expected = "Supported values are: 'user' and 'assistant'."
            text = f"Invalid value: '{message.role}'. {expected}"
            refuse_invalid(text, param=f"{place}.role", code="invalid_value")
        if not text_of(message.content):
            refuse_invalid("Message content must be non-empty.", param=f"{place}.content")
        check_metadata(message.metadata)


def say(
    state: State, visit: Visit, thread: Thread, messages: Sequence[MessageRequest]
) -> list[Message]:
    """Put these messages into the thread."""
    start = len(thread.messages(state, visit.now))
    said = [
        Message(
            id=state.new_id("msg_", thread.id, start + position, api=Api.ASSISTANTS),
            role=given.role,
            texts=[given.content]
            if isinstance(given.content, str)
            else [part.text for part in given.content if part.text is not None],
            created_at=visit.now,
            metadata=given.metadata or {},
        )
        for position, given in enumerate(messages)
    ]
    for message in said:
        thread.add(state, visit.now, message)
    return said


def find_thread(state: State, visit: Visit) -> Thread:
    """The thread that the path names first."""
    state.check_beta(visit, "Assistants", BETA)
    thread = state.memory(Threads).by_id.get(visit.ids[0])
    if thread is None:
        refuse_missing_run(f"No thread found with id '{visit.ids[0]}'.")
    return thread


def read_order(visit: Visit) -> str:
    """Newest first unless asked otherwise."""
    order = visit.call.query.get("order") or "desc"
    if order not in ORDERS:
        message = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
        refuse_invalid(message, param="order", code="invalid_value")
    return order


def create(state: State, visit: Visit) -> Reply:
    """POST /threads."""
    state.check_beta(visit, "Assistants", BETA)
    request = visit.read(ThreadRequest) if visit.call.body.strip() else ThreadRequest()
    visit.metadata = request.metadata
    state.admit_control(visit)
    thread = new_thread(state, visit, request)
    return json_reply(_shown(state, thread))


def retrieve(state: State, visit: Visit) -> Reply:
    """GET /threads/{thread_id}."""
    thread = find_thread(state, visit)
    state.admit_control(visit)
    return json_reply(_shown(state, thread))


def delete(state: State, visit: Visit) -> Reply:
    """DELETE /threads/{thread_id}."""
    thread = find_thread(state, visit)
    state.admit_control(visit)
    del state.memory(Threads).by_id[thread.id]
    return json_reply({"id": thread.id, "object": "thread.deleted", "deleted": True})


def create_message(state: State, visit: Visit) -> Reply:
    """POST /threads/{thread_id}/messages; refused while a run has the thread for itself."""
    thread = find_thread(state, visit)
    request = visit.read(MessageRequest)
    visit.metadata = request.metadata
    check_messages("messages", [request])
    state.admit_control(visit)
    run = thread.active_run(visit.now)
    if run is not None:
        refuse_invalid(f"Can't add messages to {thread.id} while a run {run.id} is active.")
    (message,) = say(state, visit, thread, [request])
    return json_reply(_shown_message(state, thread, message))


def list_messages(state: State, visit: Visit) -> Reply:
    """GET /threads/{thread_id}/messages."""
    thread = find_thread(state, visit)
    state.admit_control(visit)
    wanted = visit.call.query.get("run_id")
    state.books.creates.looked_at(wanted or "")
    messages = [
        message
        for message in thread.messages(state, visit.now)
        if not wanted or (message.run is not None and message.run.id == wanted)
    ]
    if read_order(visit) == "desc":
        messages.reverse()
    if Deviation.ASSISTANTS_MESSAGES_SHUFFLED in state.deviations:
        messages.sort(key=lambda message: draw(state.settings.seed, "order", message.id))
    before = visit.call.query.get("before")
    if before:
        ids = [message.id for message in messages]
        messages = messages[: ids.index(before)] if before in ids else messages
    page, more = page_of(visit.call, messages)
    return json_reply(shown_list([_shown_message(state, thread, one) for one in page], more=more))


def retrieve_message(state: State, visit: Visit) -> Reply:
    """GET /threads/{thread_id}/messages/{message_id}."""
    thread = find_thread(state, visit)
    state.admit_control(visit)
    messages = thread.messages(state, visit.now)
    found = next((message for message in messages if message.id == visit.ids[1]), None)
    if found is None:
        refuse_not_found(f"No message found with id '{visit.ids[1]}'.")
    return json_reply(_shown_message(state, thread, found))


ROUTES = (
    Route("POST", "/threads", create),
    Route("GET", "/threads/{thread_id}", retrieve),
    Route("DELETE", "/threads/{thread_id}", delete),
    Route("POST", "/threads/{thread_id}/messages", create_message),
    Route("GET", "/threads/{thread_id}/messages", list_messages),
    Route("GET", "/threads/{thread_id}/messages/{message_id}", retrieve_message),
)


def shown_list(shown: Sequence[Mapping[str, Any]], *, more: bool) -> dict[str, Any]:
    """A page of a list as JSON."""
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": more,
    }


def _shown(state: State, thread: Thread) -> dict[str, Any]:
    return {
        "id": thread.id,
        "object": "thread",
        "created_at": state.time(thread.created_at, Api.ASSISTANTS),
        "metadata": thread.metadata,
        "tool_resources": thread.tool_resources or {},
    }


def _shown_message(state: State, thread: Thread, message: Message) -> dict[str, Any]:
    created_at = state.time(message.created_at, Api.ASSISTANTS)
    incomplete = message.run is not None and message.run.ends_as == "incomplete"
    return {
        "id": message.id,
        "object": "thread.message",
        "created_at": created_at,
        "assistant_id": None if message.run is None else message.run.assistant_id,
        "thread_id": thread.id,
        "run_id": None if message.run is None else message.run.id,
        "role": message.role,
        "status": "incomplete" if incomplete else "completed",
        "completed_at": None if incomplete else created_at,
        "incomplete_at": created_at if incomplete else None,
        "incomplete_details": {"reason": "max_tokens"} if incomplete else None,
        "content": [
            {"type": "text", "text": {"value": text, "annotations": []}} for text in message.texts
        ],
        "attachments": [],
        "metadata": message.metadata,
    }
