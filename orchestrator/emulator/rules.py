"""Rules that say how the pretend model answers, from a TOML or JSON file or made in Python.

A rule that matches the last user text first asks for its tool calls, turn by turn. When all are
answered it refuses the call (`http_status`), or gives the run its status (`status`), or answers
(`answer`; without one, as if there were no rule).
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.tables import read_table

# A run with this status is in progress for ever.
HANG = "hang"

# What an agent session can wait for; every other API knows function calls only.
REQUEST_TYPES = (
    "function_call",
    "mcp_approval_request",
    "computer_use_approval_request",
    "environment_connection",
)

_PLACE = re.compile(r"\{(\w+)\}")


class ToolRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tool that the model asks for. Arguments as a string go out as they are, valid or not.

    `type` is for agent sessions, which wait for approvals and connections as well.
    """

    name: str
    arguments: dict[str, Any] | str = {}
    type: str = "function_call"

    def __post_init__(self) -> None:
        """Refuse what nobody can wait for."""
        if self.type not in REQUEST_TYPES:
            message = f"type must be one of {', '.join(REQUEST_TYPES)}, got {self.type!r}"
            raise ValueError(message)


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model does when the last user text matches.

    In `answer` and in the strings of arguments `{0}` is the whole match, `{1}` or `{name}` a
    group, `{outputs}` the tool outputs.

    Attributes:
        match: A regular expression, searched in the last user text; empty matches everything.
        model: Only for this model.
        answer: The text of the answer.
        tool_calls: The tools to ask for on the first turn, all at once.
        turns: The same for several turns, one list each.
        status: What the run ends as: "failed", "incomplete", "hang" (in progress for ever), or
            anything else: a status that nobody knows, shown for ever. Assistants runs also know
            "expired" and "cancelled"; with "session_failed" a session fails with its turn.
        reason: Why it is incomplete.
        http_status: Refuse the create call with this status.
        error_code: Code of the failure or the refusal.
        error_type: Type of the refusal.
        error_message: Message of the failure or the refusal.
        retry_after_seconds: Goes out as `retry-after` with the refusal.
        times: Only for the first so many creates with the same body, metadata apart; then as if
            not there.
        run_seconds: How long the run takes.
        lose_run: The run is created, and unknown ever after.
        stale_checks: So many retrieves after the end still show "in_progress"; of runs that are
            given tool outputs, so many still show the calls that were answered.
    """

    match: str = ""
    model: str | None = None
    answer: str | None = None
    tool_calls: list[ToolRequest] | None = None
    turns: list[list[ToolRequest]] | None = None
    status: str | None = None
    reason: str = "max_output_tokens"
    http_status: int | None = None
    error_code: str | None = None
    error_type: str | None = None
    error_message: str | None = None
    retry_after_seconds: float | None = None
    times: int | None = None
    run_seconds: float | None = None
    lose_run: bool = False
    stale_checks: int = 0

    def __post_init__(self) -> None:
        """Refuse what can't be meant."""
        try:
            re.compile(self.match)
        except re.error as error:
            message = f"match {self.match!r} is no regular expression: {error}"
            raise ValueError(message) from error
        if self.tool_calls is not None and self.turns is not None:
            message = "tool_calls is the short form of turns; give one of the two"
            raise ValueError(message)
        if self.http_status is not None and not 400 <= self.http_status <= 599:  # noqa: PLR2004 - HTTP
            message = f"http_status must be from 400 to 599, got {self.http_status}"
            raise ValueError(message)
        for name in ("times", "run_seconds", "stale_checks", "retry_after_seconds"):
            if (getattr(self, name) or 0) < 0:
                message = f"{name} must be 0 or more, got {getattr(self, name)}"
                raise ValueError(message)

    def requests(self, turn: int) -> Sequence[ToolRequest]:
        """The tools to ask for on this turn, 0 being the first."""
        turns = [self.tool_calls] if self.tool_calls else self.turns or []
        return turns[turn] if turn < len(turns) else []


def fill(template: Any, found: re.Match[str], outputs: str) -> Any:
    """The template with its places filled, down to the strings inside lists and objects."""
    if isinstance(template, Mapping):
        return {name: fill(value, found, outputs) for name, value in template.items()}
    if isinstance(template, list):
        return [fill(value, found, outputs) for value in template]
    if not isinstance(template, str):
        return template

    def filled(place: re.Match[str]) -> str:
        name = place[1]
        if name == "outputs":
            return outputs
        try:
            return found[int(name) if name.isdecimal() else name] or ""
        except IndexError:
            return place[0]  # no such group: braces of another meaning, JSON for example

    return _PLACE.sub(filled, template)


def read_rules(path: Path) -> tuple[Rule, ...]:
    """The rules of a TOML file (`[[rules]]`) or a JSON file (a list, or {"rules": [...]}).

    Raises EmulatorMistake that names the file and the rule.
    """
    table = read_table(path)
    listed = table.get("rules") if isinstance(table, dict) else table
    if not isinstance(listed, list):
        message = f"{path}: no rules in it; each rule starts with [[rules]]"
        raise EmulatorMistake(message)
    rules = []
    for position, given in enumerate(listed, 1):
        try:
            rules.append(msgspec.convert(given, Rule))
        except msgspec.ValidationError as error:
            message = f"{path}, rule {position}: {error}"
            raise EmulatorMistake(message) from error
    return tuple(rules)
