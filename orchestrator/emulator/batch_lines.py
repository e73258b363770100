"""How each line of a batch is answered: by the code that answers a direct call with its body.

What differs is in `LineState`: no limits, no deviations, books of their own, and an answer that
hangs never comes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import inf

import msgspec

from orchestrator.emulator import at_once, chat, responses
from orchestrator.emulator.batch_work import Answered, Line
from orchestrator.emulator.calls import JSON_HEADERS, Call
from orchestrator.emulator.faults import Fault, Faults
from orchestrator.emulator.refusals import Refusal
from orchestrator.emulator.runs import Run, Runs
from orchestrator.emulator.state import Handler, State, Visit

HANDLERS: Mapping[str, Handler] = {
    "/v1/responses": responses.create,
    "/v1/chat/completions": chat.create,
    "/v1/embeddings": at_once.embed,
    "/v1/completions": at_once.complete,
    "/v1/moderations": at_once.moderate,
}

# What a hanging answer takes here, in seconds: longer than any batch lives.
FOR_EVER_SECONDS = 1e12


class Usage(msgspec.Struct):
    """Tokens, in the words of either API."""

    input_tokens: int = 0
    output_tokens: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Answer(msgspec.Struct):
    """What an answer cost."""

    usage: Usage | None = None


class LineState(State):
    """The state in which the lines of one batch are answered.

    Rules with `times` count lines and calls together, and a response that a line made can be
    retrieved and continued; the books see neither a create call nor a run.
    """

    def __init__(self, state: State) -> None:
        free = replace(
            state.settings,
            rpm=None,
            tpm=None,
            faults={},
            deviations=(),
            hang_seconds=FOR_EVER_SECONDS,
            webhook_url=None,  # a line is no run of its own
        )
        super().__init__(free)
        rate = state.settings.faults.get(Fault.ERROR_LINE, 0.0)
        self.faults = Faults(free.seed, {Fault.ERROR_500: rate})
        self.answers = state.answers
        self.runs = _GuestRuns(state.runs)
        self._met = state.books.met

    def play(self, visit: Visit, fault: Fault) -> None:
        """Note a failing line as such; no other fault strikes here."""
        visit.played.append(fault)
        self._met(Fault.ERROR_LINE.value)


class _GuestRuns(Runs):
    """Adds runs to those of others, where they can be found but are not counted."""

    def __init__(self, hosts: Runs) -> None:
        super().__init__(inf)
        self._hosts = hosts

    def add(self, run: Run, now: float) -> None:  # noqa: ARG002 - a guest stays for good
        self._hosts.add_guest(run)

    def find(self, run_id: str, now: float) -> Run | None:
        return self._hosts.find(run_id, now)


def answerer(state: State, batch_id: str, endpoint: str) -> Callable[[Line, float], Answered]:
    """What answers the lines of this batch."""
    lines = LineState(state)
    handler = HANDLERS[endpoint]
    # With the batch in it, the same body in another batch has ids and chances of its own.
    route = f"{batch_id} POST {endpoint}"

    def answer(line: Line, now: float) -> Answered:
        call = Call("POST", endpoint, {}, JSON_HEADERS, line.body)
        try:
            reply = handler(lines, lines.receive(call, route, None, now))
        except Refusal as refusal:
            refused = refusal.reply()
            return Answered(refused.status, refused.body, seconds=0.0)
        usage = msgspec.json.decode(reply.body, type=Answer).usage or Usage()
        return Answered(
            reply.status,
            reply.body,
            seconds=inf if reply.delay_seconds >= FOR_EVER_SECONDS else reply.delay_seconds,
            input_tokens=usage.input_tokens + usage.prompt_tokens,
            output_tokens=usage.output_tokens + usage.completion_tokens,
        )

    return answer
