"""The whole engine against the emulator, without sockets, in virtual time; both books compared."""

from dataclasses import dataclass
from typing import Any

from orchestrator.apis.transport import CallRecord
from orchestrator.core import invariants
from orchestrator.core.model import Outcome, Result
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.settings import Settings
from orchestrator.errors import ExecutionStopped
from orchestrator.ports import CallKind
from orchestrator.service import Orchestrator
from support.emulator_client import emulator_client

MODEL = "gpt-5-mini"

INVARIANTS_EVERY = 97

# How the emulator calls what we count by kind. Tool outputs go out in a call to the same place as
# a create, so the two are compared together.
SENT = {
    "POST /v1/responses": (CallKind.CREATE, CallKind.SUBMIT),
    "POST /v1/chat/completions": (CallKind.CREATE, CallKind.SUBMIT),
    "GET /v1/responses/{id}": (CallKind.CHECK,),
    "POST /v1/responses/{id}/cancel": (CallKind.CANCEL,),
    "GET /v1/threads/{thread_id}/runs/{run_id}": (CallKind.CHECK,),
    "POST /v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs": (CallKind.SUBMIT,),
    "POST /v1/threads/{thread_id}/runs/{run_id}/cancel": (CallKind.CANCEL,),
    "POST /v1/files": (CallKind.PREPARE,),
    "GET /v1/files/{id}/content": (CallKind.FETCH,),
    "DELETE /v1/files/{id}": (CallKind.REMOVE,),
    "GET /v1/batches": (CallKind.CHECK, CallKind.PREPARE),
    "GET /v1/batches/{id}": (CallKind.CHECK,),
    "POST /v1/batches/{id}/cancel": (CallKind.CANCEL,),
    "POST /v1/threads": (CallKind.PREPARE,),
    "GET /v1/threads/{thread_id}/messages": (CallKind.FETCH,),
    "GET /v1/agents/sessions": (CallKind.CHECK, CallKind.PREPARE),
    "GET /v1/threads/{thread_id}/runs": (CallKind.PREPARE,),
    "GET /v1/agents/sessions/{session_id}": (CallKind.CHECK,),
    "POST /v1/agents/sessions/{session_id}/events": (CallKind.SUBMIT, CallKind.CANCEL),
    "GET /v1/agents/sessions/{session_id}/turns": (CallKind.FETCH,),
    "GET /v1/agents/sessions/{session_id}/items": (CallKind.FETCH,),
}


@dataclass
class Played:
    """An execution that is over."""

    results: dict[str, Result]
    orchestrator: Orchestrator
    emulator: Emulator
    calls: list[CallRecord]
    stopped: ExecutionStopped | None = None

    @property
    def outcomes(self) -> dict[str, Outcome]:
        return {custom_id: result.outcome for custom_id, result in self.results.items()}

    @property
    def books(self) -> dict[str, Any]:
        return self.emulator.books.snapshot(10**9)

    def served(self, route: str) -> int:
        """How many calls of this kind the emulator counted."""
        return sum(self.books["calls"].get(route, {}).values())


async def play(requests, emulator=None, *, latency_seconds=0.01, **options) -> Played:
    """Run all requests to the end and compare the books.

    `emulator` is an emulator or the settings of one.
    """
    if not isinstance(emulator, Emulator):
        emulator = Emulator(emulator or Settings())
    client = emulator_client(emulator, latency_seconds=latency_seconds)
    calls: list[CallRecord] = []
    results: dict[str, Result] = {}
    stopped = None
    options = {"model": MODEL, "seed": 1, **options}
    async with Orchestrator(client, on_call=calls.append, **options) as orchestrator:
        try:
            async for result in orchestrator.run_many(requests):
                assert result.custom_id not in results, "a second result for one request"
                results[result.custom_id] = result
                # It looks at every run in flight, so not after every result of thousands.
                if len(results) % INVARIANTS_EVERY == 0:
                    invariants.check(orchestrator._driver.scheduler)
        except ExecutionStopped as error:
            stopped = error
    compare_books(calls, emulator.books.calls(0, 10**9))
    return Played(results, orchestrator, emulator, calls, stopped)


def compare_books(ours: list[CallRecord], theirs) -> None:
    """Every call that we counted is one that the emulator counted, with the same status.

    A call that we gave up (its time was over) was answered into the void, and what was dropped
    has no status with us. A call that never got a connection is in our books only.
    """
    by_id = {record.client_request_id: record for record in theirs}
    assert len(by_id) == len(theirs), "a call without an id of ours, or one sent twice"
    ours_by_id = {record.call_id: record for record in ours if record.status != "not_sent"}
    assert ours_by_id.keys() == by_id.keys()
    for call_id, record in ours_by_id.items():
        served = by_id[call_id]
        assert record.kind in SENT.get(served.route, (CallKind.CREATE,)), (record, served)
        if served.status in {"dropped_before", "dropped_after"}:
            assert record.status in {"connection_lost", "call_timed_out", "cancelled"}
        elif record.status not in {"call_timed_out", "cancelled"}:
            assert record.status == served.status
