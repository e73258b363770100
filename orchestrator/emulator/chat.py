"""The Chat Completions API: one call, one answer, tools by sending the whole conversation again."""

from typing import Any

import msgspec

from orchestrator.emulator.answers import Answer, Question, tokens_of
from orchestrator.emulator.calls import Reply, json_reply
from orchestrator.emulator.conversation import (
    Conversation,
    Part,
    answer_schema,
    check_metadata,
    check_tokens_max,
    must_call,
    read_tools,
    refuse_stream,
    text_of,
)
from orchestrator.emulator.direct import direct_seconds, finish_reason
from orchestrator.emulator.refusals import refuse_invalid, refuse_missing
from orchestrator.emulator.state import Route, State, Visit

CHOICES_MAX = 128  # as the real API has it


class ChatToolCall(msgspec.Struct):
    """A tool call in an assistant message; what it asked for does not matter any more."""

    id: str


class ChatMessage(msgspec.Struct):
    """One message of the conversation."""

    role: str
    content: str | list[Part] | None = None
    tool_calls: list[ChatToolCall] | None = None
    tool_call_id: str | None = None


class ChatRequest(msgspec.Struct):
    """The body, as far as the emulator looks at it."""

    model: str | None = None
    messages: list[ChatMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    response_format: dict[str, Any] | None = None
    n: int | None = None
    stream: bool | None = None
    metadata: dict[str, str] | None = None


def create(state: State, visit: Visit) -> Reply:
    """POST /chat/completions."""
    request = visit.read(ChatRequest)
    model = state.check_model(request.model)
    visit.metadata = request.metadata
    _check(request)
    conversation = _read_messages(request.messages or [])
    tools = read_tools(request.tools)
    forced = must_call(request.tool_choice, tools)
    tokens_max = request.max_completion_tokens or request.max_tokens
    tokens_in = tokens_of(*conversation.texts)
    state.admit(visit, model, max(tokens_max or 0, tokens_in))
    answer = state.answers.answer(
        Question(
            model=model,
            text=conversation.text,
            key=visit.body_digest,
            turn=conversation.turn,
            outputs=conversation.outputs,
            tools=tools,
            must_call=forced,
            metadata=request.metadata or {},
            tokens_max=tokens_max,
            schema=answer_schema(request.response_format),
        )
    )
    delay = direct_seconds(state, visit, answer)
    choices = [_choice(state, visit, answer, index) for index in range(request.n or 1)]
    tokens_out = answer.output_tokens * len(choices)
    completion_id = state.new_id("chatcmpl-", visit.key)
    state.created(visit, "chat_turn" if conversation.turn else "chat", completion_id)
    state.books.spent(tokens_in, tokens_out)
    completion = {
        "id": completion_id,
        "object": "chat.completion",
        "created": int(state.unix(visit.now)),
        "model": model,
        "choices": choices,
        "usage": {
            "prompt_tokens": tokens_in,
            "completion_tokens": tokens_out,
            "total_tokens": tokens_in + tokens_out,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
        },
        "service_tier": "default",
        "system_fingerprint": "fp_emulator",
        "metadata": request.metadata,
    }
    return json_reply(completion, delay_seconds=delay)


ROUTES = (Route("POST", "/chat/completions", create),)


def _check(request: ChatRequest) -> None:
    refuse_stream(request.stream)
    check_metadata(request.metadata)
    check_tokens_max("max_tokens", request.max_tokens)
    check_tokens_max("max_completion_tokens", request.max_completion_tokens)
    if request.messages is None:
        refuse_missing("messages")
    if not request.messages:
        message = "Invalid 'messages': empty array. Expected an array with minimum length 1."
        refuse_invalid(message, param="messages", code="empty_array")
    if request.n is not None and not 1 <= request.n <= CHOICES_MAX:
        message = f"Invalid 'n': expected a value from 1 to {CHOICES_MAX}, got {request.n}."
        refuse_invalid(message, param="n")


def _read_messages(messages: list[ChatMessage]) -> Conversation:
    conversation = Conversation()
    for position, message in enumerate(messages):
        if message.role == "tool":
            if not conversation.answer(message.tool_call_id or "", text_of(message.content)):
                refuse_invalid(
                    "Invalid parameter: messages with role 'tool' must be a response to a "
                    "preceding message with 'tool_calls'.",
                    param=f"messages.[{position}].role",
                )
            continue
        _refuse_unanswered(conversation)
        if message.content is not None or message.role != "assistant":
            conversation.say(message.role, text_of(message.content))
        for call in message.tool_calls or []:
            conversation.ask(call.id)
    _refuse_unanswered(conversation)
    return conversation


def _refuse_unanswered(conversation: Conversation) -> None:
    if conversation.unanswered:
        refuse_invalid(
            "An assistant message with 'tool_calls' must be followed by tool messages responding "
            "to each 'tool_call_id'. The following tool_call_ids did not have response messages: "
            + ", ".join(conversation.unanswered),
            param="messages",
        )


def _choice(state: State, visit: Visit, answer: Answer, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": answer.text, "refusal": None}
    if answer.tool_calls:
        message["content"] = None
        message["tool_calls"] = [
            {
                "id": state.new_id("call_", visit.key, index, position),
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for position, call in enumerate(answer.tool_calls)
        ]
    return {
        "index": index,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(answer),
    }
