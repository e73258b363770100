"""Runs that stop for their tool calls and go on with the outputs, as functions of time.

Assistants runs and the turns of agent sessions are both of this kind: a row of stretches, each of
which ends with tool calls that wait, or with the run's end.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

from orchestrator.emulator.answers import Answer, AskedTool, Question
from orchestrator.emulator.runs import BILLED, ENDS, NEVER, Run
from orchestrator.emulator.state import State, Visit
from orchestrator.emulator.writing import Api

OVER = ENDS | {"cancelled", "expired"}


@dataclass(frozen=True, slots=True)
class PendingCall:
    """A tool call that waits for its output."""

    id: str
    asked: AskedTool


@dataclass(slots=True, kw_only=True)
class ToolRun(Run):
    """A run whose `started_at`, `ends_at` and `ends_as` are those of its newest stretch.

    `calls` are what that stretch ends with; `begun_at` is when the first one started. A run that
    is neither over nor cancelled at `expires_at` is expired. `cancelled_at` lies in the future
    while the cancelling takes its time.
    """

    kept: ClassVar[bool] = True
    API: ClassVar[Api]
    WAITS_AS: ClassVar[str]
    CANCELS_AS: ClassVar[str]

    question: Question
    answer: Answer
    calls: Sequence[PendingCall] = ()
    begun_at: float = inf
    expires_at: float = inf
    earlier_tokens: tuple[int, int] = (0, 0)

    def status(self, now: float) -> str:
        """What the run is at this time."""
        if self.cancelled_at is not None:
            return "cancelled" if now >= self.cancelled_at else self.CANCELS_AS
        if now >= self.expires_at and self._uncut(self.expires_at) not in OVER:
            return "expired"
        return self._uncut(now)

    def _uncut(self, now: float) -> str:
        """The status if nothing cuts the run short."""
        if now < self.started_at:
            return "queued"
        if not self.calls and self.ends_as not in OVER and self.ends_as != NEVER:
            return self.ends_as  # a status that nobody knows
        if now < self.ends_at:
            return "in_progress"
        return self.WAITS_AS if self.calls else self.ends_as

    def is_over(self, now: float) -> bool:
        """Whether it shows its last status."""
        return self.over_at <= now

    @property
    def over_at(self) -> float:
        """When it shows its last status, as far as is known now; inf for never."""
        if self.cancelled_at is not None:
            return self.cancelled_at
        ends = not self.calls and self.ends_as in OVER and self.ends_at <= self.expires_at
        return self.ends_at if ends else self.expires_at

    def billed(self, now: float) -> tuple[int, int]:
        """Tokens in and out that it has cost by now; each stretch is paid when it has ended."""
        tokens_in, tokens_out = self.earlier_tokens
        cut = self.expires_at if self.cancelled_at is None else self.cancelled_at
        said = bool(self.calls) or self.ends_as in BILLED
        if said and self.ends_at <= min(now, cut):
            return tokens_in + self.input_tokens, tokens_out + self.output_tokens
        return tokens_in, tokens_out

    def go_on(self, state: State, question: Question, answer: Answer, now: float) -> None:
        """Start a stretch that gives this answer; it starts now, and is queued by the caller."""
        self.earlier_tokens = self.billed(now)
        self.question, self.answer = question, answer
        self.calls = tuple(
            PendingCall(
                state.new_id("call_", self.id, question.turn, position, api=self.API), asked
            )
            for position, asked in enumerate(answer.tool_calls)
        )
        self.ends_as = answer.status
        self.started_at = now
        seconds = state.answer_seconds(answer, f"{self.id}/{question.turn}")
        self.ends_at = now + seconds if self.calls or self.ends_as in OVER else inf
        self.output_tokens = answer.output_tokens
        self.stale_checks = answer.stale_checks
        self.begun_at = min(self.begun_at, now)


def next_question(run: ToolRun, outputs: Sequence[str]) -> Question:
    """What the model is asked when all calls have their outputs."""
    return replace(run.question, turn=run.question.turn + 1, outputs=tuple(outputs))


def first_answer(state: State, visit: Visit, question: Question) -> Answer:
    """What the model does first; a run that hangs says nothing, for ever."""
    answer = state.answers.answer(question)
    return replace(answer, status=NEVER, tool_calls=()) if state.hangs(visit) else answer
