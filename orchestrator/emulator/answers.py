"""What the pretend model says: by rule, from an answers file, or by repeating what it was told."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import Any

from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.refusals import Refusal
from orchestrator.emulator.rules import Rule, fill
from orchestrator.emulator.schema_sample import sample
from orchestrator.emulator.tables import read_text

# OpenAI's rule of thumb for English text.
CHARACTERS_PER_TOKEN = 4

# Where a key of the form "execution/custom_id" is taken apart to find the custom_id.
_SEPARATOR = re.compile(r"[/:|# ]")


@dataclass(frozen=True, slots=True)
class Tool:
    """A function that the request offers to the model."""

    name: str
    parameters: Any = None


@dataclass(frozen=True, slots=True)
class Question:
    """What the model is asked, whatever the endpoint.

    `turn` counts the rounds of tool calls that are already answered; `must_call` is the name of
    the tool that has to be called, "" for any, None for none. `key` stands for the body, `schema`
    is what the answer has to keep to, None for free text.
    """

    model: str
    text: str
    key: str
    turn: int = 0
    outputs: Sequence[str] = ()
    tools: Sequence[Tool] = ()
    must_call: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    tokens_max: int | None = None
    schema: Any = None


@dataclass(frozen=True, slots=True)
class AskedTool:
    """A tool call that the model asks for; arguments are JSON, unless a rule broke them."""

    name: str
    arguments: str
    type: str = "function_call"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model does: a text, or tool calls, and how the run that says it ends."""

    text: str = ""
    tool_calls: Sequence[AskedTool] = ()
    status: str = "completed"
    reason: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    run_seconds: float | None = None
    lose_run: bool = False
    stale_checks: int = 0

    @property
    def output_tokens(self) -> int:
        """What the answer costs."""
        return tokens_of(self.text, *(call.name + call.arguments for call in self.tool_calls))


class Answers:
    """Answers questions. Remembers only how often a rule with `times` was used."""

    def __init__(self, rules: Sequence[Rule], texts: Mapping[str, str]) -> None:
        self._rules = [(rule, re.compile(rule.match)) for rule in rules]
        self._texts = texts
        self._used: dict[tuple[int, str], int] = {}

    def answer(self, question: Question) -> Answer:
        """What the model does with this question; a Refusal where a rule says so."""
        for position, (rule, pattern) in enumerate(self._rules):
            if rule.model is not None and rule.model != question.model:
                continue
            found = pattern.search(question.text)
            if found is not None and self._may_use(position, rule, question.key):
                return self._by_rule(rule, found, question)
        return self._without_rule(question)

    def _may_use(self, position: int, rule: Rule, key: str) -> bool:
        if rule.times is None:
            return True
        used = self._used.get((position, key), 0)
        self._used[position, key] = used + 1
        return used < rule.times

    def _by_rule(self, rule: Rule, found: re.Match[str], question: Question) -> Answer:
        outputs = "; ".join(question.outputs)
        requests = rule.requests(question.turn)
        if requests:
            return Answer(
                tool_calls=[
                    AskedTool(one.name, _arguments(fill(one.arguments, found, outputs)), one.type)
                    for one in requests
                ],
                run_seconds=rule.run_seconds,
                lose_run=rule.lose_run,
                stale_checks=rule.stale_checks,
            )
        if rule.http_status is not None:
            raise _refusal(rule)
        if rule.answer is None:
            said = self._without_rule(question)
        else:
            said = _capped(fill(rule.answer, found, outputs), question.tokens_max)
        return Answer(
            text=said.text,
            tool_calls=said.tool_calls,
            status=rule.status or said.status,
            reason=rule.reason if rule.status == "incomplete" else said.reason,
            error_code=rule.error_code,
            error_message=rule.error_message,
            run_seconds=rule.run_seconds,
            lose_run=rule.lose_run,
            stale_checks=rule.stale_checks,
        )

    def _without_rule(self, question: Question) -> Answer:
        if question.turn > 0:
            return _capped(f"tool said: {'; '.join(question.outputs)}", question.tokens_max)
        if question.must_call is not None:
            named = [tool for tool in question.tools if question.must_call in {"", tool.name}]
            arguments = _arguments(sample(named[0].parameters) or {})
            return Answer(tool_calls=[AskedTool(named[0].name, arguments)])
        text = self._filed(question)
        if text is None and question.schema is not None:
            text = json.dumps(sample(question.schema), ensure_ascii=False)
        return _capped(question.text if text is None else text, question.tokens_max)

    def _filed(self, question: Question) -> str | None:
        """The answers file's text for this question, by its text or by an id in the metadata."""
        if not self._texts:
            return None
        for value in question.metadata.values():
            ends = [found.end() for found in _SEPARATOR.finditer(value)]
            for start in [0, *ends]:
                if value[start:] in self._texts:
                    return self._texts[value[start:]]
        return self._texts.get(question.text)


def tokens_of(*texts: str) -> int:
    """What these texts cost, in tokens."""
    return ceil(sum(len(text) for text in texts) / CHARACTERS_PER_TOKEN)


def _capped(text: str, tokens_max: int | None) -> Answer:
    if tokens_max is None or tokens_of(text) <= tokens_max:
        return Answer(text)
    cut = text[: tokens_max * CHARACTERS_PER_TOKEN]
    return Answer(cut, status="incomplete", reason="max_output_tokens")


def _arguments(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refusal(rule: Rule) -> Refusal:
    status = rule.http_status or 400
    seconds = rule.retry_after_seconds
    kinds = {401: "invalid_request_error", 429: "rate_limit_exceeded"}
    plain = "server_error" if status >= 500 else "invalid_request_error"  # noqa: PLR2004 - HTTP
    return Refusal(
        status,
        rule.error_message or f"A rule of the emulator refuses this with {status}.",
        rule.error_type or rule.error_code or kinds.get(status, plain),
        rule.error_code,
        headers={} if seconds is None else {"retry-after": f"{seconds:g}"},
    )


def read_answers(path: Path) -> dict[str, str]:
    """Read JSONL lines of {"custom_id" | "input" | "prompt": ..., "answer": ...}.

    Raises EmulatorMistake that names file and line.
    """
    texts: dict[str, str] = {}
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            key, answer = _filed_answer(path, number, line)
            texts[key] = answer
    return texts


def _filed_answer(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        message = f"{path}, line {number}: not valid JSON: {error}"
        raise EmulatorMistake(message) from error
    keys = [
        name
        for name in ("custom_id", "input", "prompt")
        if isinstance(entry, dict) and isinstance(entry.get(name), str)
    ]
    if not keys or "answer" not in entry:
        message = (
            f'{path}, line {number}: needs an "answer", and a "custom_id", an "input" or a '
            '"prompt" to find it by'
        )
        raise EmulatorMistake(message)
    return entry[keys[0]], _arguments(entry["answer"])
