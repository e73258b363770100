"""What a request says to the model, in the words that both conversation APIs share."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from orchestrator.emulator.answers import Tool
from orchestrator.emulator.refusals import refuse_invalid

METADATA_PAIRS_MAX = 16
METADATA_NAME_CHARACTERS_MAX = 64
METADATA_VALUE_CHARACTERS_MAX = 512


class Part(msgspec.Struct):
    """A piece of a message's content; only texts are understood, images cost nothing here."""

    type: str = ""
    text: str | None = None


class Conversation:
    """The last user text, and the rounds of tool calls since then.

    `turn` counts the rounds, `outputs` are those of the newest round, `unanswered` the ids of
    calls that wait for their output, in order.
    """

    def __init__(self, text: str = "", turn: int = 0, calls: Iterable[str] = ()) -> None:
        self.text = text
        self.turn = turn
        self.outputs: list[str] = []
        self.unanswered = dict.fromkeys(calls)
        self.texts: list[str] = []
        self._in_round = bool(self.unanswered)
        self._user_spoke = bool(text)

    def say(self, role: str, text: str) -> None:
        """A message. Without any user message, the first message of another role stands in."""
        self.texts.append(text)
        if role == "user" or not self._user_spoke:
            self.text, self.turn, self.outputs = text, 0, []
            self._in_round = False
            self._user_spoke = self._user_spoke or role == "user"

    def ask(self, call_id: str) -> None:
        """A tool call by the model; calls that follow one another are one round."""
        if not self._in_round:
            self.turn += 1
            self.outputs = []
            self._in_round = True
        self.unanswered[call_id] = None

    def answer(self, call_id: str, output: str) -> bool:
        """The output of a tool call; False if no call waits for it."""
        if call_id not in self.unanswered:
            return False
        del self.unanswered[call_id]
        self.outputs.append(output)
        self.texts.append(output)
        self._in_round = bool(self.unanswered)
        return True


def text_of(content: str | Sequence[Part] | None) -> str:
    """The text of a message's content, pieces joined by line breaks."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if part.text is not None)


def read_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[Tool]:
    """The functions among the offered tools, in the form of either API."""
    functions = []
    for position, tool in enumerate(tools or []):
        if tool.get("type") != "function":
            continue
        inner = tool.get("function", tool)
        name = inner.get("name") if isinstance(inner, Mapping) else None
        if not isinstance(name, str) or not name:
            place = f"tools[{position}].name"
            refuse_invalid(f"Missing required parameter: '{place}'.", param=place)
        functions.append(Tool(name, inner.get("parameters")))
    return functions


def must_call(choice: str | Mapping[str, Any] | None, tools: Sequence[Tool]) -> str | None:
    """The tool that has to be called: its name, "" for any, None for none."""
    if choice is None or choice in ("auto", "none"):
        return None
    if isinstance(choice, str):
        if choice != "required":
            refuse_invalid(f"Invalid value: '{choice}'.", param="tool_choice", code="invalid_value")
        if not tools:
            message = "Tool choice 'required' must be specified with 'tools' parameter."
            refuse_invalid(message, param="tool_choice")
        return ""
    if choice.get("type") != "function":
        return None
    inner = choice.get("function", choice)
    name = inner.get("name") if isinstance(inner, Mapping) else None
    if not isinstance(name, str) or name not in {tool.name for tool in tools}:
        message = f"Tool choice '{name}' not found in 'tools' parameter."
        refuse_invalid(message, param="tool_choice")
    return name


def answer_schema(wanted: Any) -> Any:
    """The JSON schema that the answer has to keep to, in the form of either API; None for none."""
    if not isinstance(wanted, Mapping) or wanted.get("type") != "json_schema":
        return None
    inner = wanted.get("json_schema", wanted)
    return inner.get("schema") if isinstance(inner, Mapping) else None


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """Refuse metadata that is bigger than the real API takes."""
    if metadata is None:
        return
    if len(metadata) > METADATA_PAIRS_MAX:
        message = f"Invalid 'metadata': too many properties, the maximum is {METADATA_PAIRS_MAX}."
        refuse_invalid(message, param="metadata")
    for name, value in metadata.items():
        if len(name) > METADATA_NAME_CHARACTERS_MAX or len(value) > METADATA_VALUE_CHARACTERS_MAX:
            message = (
                f"Invalid 'metadata.{name[:METADATA_NAME_CHARACTERS_MAX]}': string too long; names "
                f"take {METADATA_NAME_CHARACTERS_MAX} and values {METADATA_VALUE_CHARACTERS_MAX} "
                "characters."
            )
            refuse_invalid(message, param="metadata", code="string_above_max_length")


def check_tokens_max(param: str, tokens_max: int | None) -> None:
    """Refuse a maximum of tokens that leaves no room for an answer."""
    if tokens_max is not None and tokens_max < 1:
        message = f"Invalid '{param}': expected a value >= 1, but got {tokens_max} instead."
        refuse_invalid(message, param=param, code="integer_below_min_value")


def refuse_stream(stream: object) -> None:
    """Say that streams are not played here."""
    if stream:
        message = "The emulator does not stream; leave out 'stream' or set it to false."
        refuse_invalid(message, param="stream", code="unsupported_value")
