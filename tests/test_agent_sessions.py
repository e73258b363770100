"""Agent sessions from the request to the result, on the emulator in virtual time."""

import asyncio
import json
from collections import Counter

import pytest
from support.engine import play

from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.ports import CallKind

CREATE = "POST /v1/agents/sessions"
LIST = "GET /v1/agents/sessions"
RETRIEVE = "GET /v1/agents/sessions/{session_id}"
EVENTS = "POST /v1/agents/sessions/{session_id}/events"
TURNS = "GET /v1/agents/sessions/{session_id}/turns"
LOOK_UP = ToolRequest("look_up", {"order_id": "{0}"})
ORDERS = Rule(match=r"O-\d+", tool_calls=[LOOK_UP])


def asking(*texts, **body):
    """One session for each text, which is its custom_id too."""
    for text in texts:
        agent = {"agent": {"model": "gpt-5-mini"}, "environment": {"type": "none"}}
        yield {
            "custom_id": text,
            "url": "/v1/agents/sessions",
            "body": {**agent, "input": text, **body},
        }


def look_up_into(calls, seconds=0.5):
    async def look_up(order_id: str, call_id: str) -> str:
        """Look up an order."""
        calls.append(call_id)
        await asyncio.sleep(seconds)
        return f"{order_id} is on its way"

    return look_up


class Watched(Emulator):
    """Remembers what was sent to sessions, and how it was answered."""

    def __init__(self, settings):
        super().__init__(settings)
        self.events = []

    def handle(self, call, now):
        reply = super().handle(call, now)
        if call.path.endswith("/events"):
            key = call.headers.get("idempotency-key")
            self.events.append((reply.status, key, json.loads(call.body)["events"]))
        return reply


async def test_the_result_is_the_session_with_its_turn_and_items():
    """What was said, in order, with what the server tells of times and tokens."""
    rule = Rule(answer="It is on its way.")
    settings = Settings(queue_seconds=Fixed(1), run_seconds=Fixed(3), rules=[rule])

    played = await play(asking("where"), settings)

    result = played.results["where"]
    session = json.loads(result.answer.body)
    question, answer = session["items"]
    assert (result.outcome, result.run_id) == (Outcome.COMPLETED, session["id"])
    assert (session["status"], session["turn"]["status"]) == ("idle", "completed")
    assert question["content"][0]["text"] == "where"
    assert answer["content"][0]["text"] == "It is on its way."
    assert result.times.started - result.times.queued == 1
    assert result.times.completed - result.times.started == 3
    assert result.usage.output_tokens == session["turn"]["usage"]["output_tokens"] > 0


async def test_tool_results_go_out_as_events_with_a_key():
    """All results of a round in one call, each handler called once, each round its own key."""
    calls = []
    rule = Rule(match=r"O-\d+", turns=[[LOOK_UP, LOOK_UP], [LOOK_UP]])
    emulator = Watched(Settings(rules=[rule]))

    played = await play(asking("O-1"), emulator, tools=[look_up_into(calls)])

    result = played.results["O-1"]
    assert (result.outcome, result.turns) == (Outcome.COMPLETED, 2)
    assert b"O-1 is on its way" in result.answer.body
    assert [(status, len(events)) for status, _, events in emulator.events] == [(202, 2), (202, 1)]
    first, second = (key for _, key, _ in emulator.events)
    assert first
    assert second
    assert first != second
    assert len(calls) == len(set(calls)) == 3


async def test_a_handler_that_fails_is_told():
    """The agent learns that there is no result, and why."""

    async def look_up(order_id: str) -> str:
        """Look up an order."""
        message = f"no such order: {order_id}"
        raise LookupError(message)

    emulator = Watched(Settings(rules=[ORDERS]))

    played = await play(asking("O-1"), emulator, tools=[look_up])

    ((_, _, (event,)),) = emulator.events
    assert played.outcomes == {"O-1": Outcome.COMPLETED}
    assert (event["success"], "no such order: O-1" in event["error"]) == (False, True)


async def test_the_race_for_a_call_that_was_just_announced():
    """A result that came too soon ("Unknown pending tool call") is sent again, same key."""
    calls = []
    emulator = Watched(Settings(rules=[ORDERS], pending_call_lag_seconds=5))

    played = await play(asking("O-1"), emulator, tools=[look_up_into(calls)])

    statuses = [status for status, _, _ in emulator.events]
    assert played.outcomes == {"O-1": Outcome.COMPLETED}
    assert statuses[-1] == 202
    assert set(statuses[:-1]) == {400}
    assert len({key for _, key, _ in emulator.events}) == 1
    assert len(calls) == 1


async def test_a_call_that_is_never_known_ends_the_request():
    """A race that is none has a bound, and the session is cancelled."""
    calls = []
    emulator = Watched(Settings(rules=[ORDERS], pending_call_lag_seconds=3_000))

    played = await play(asking("O-1"), emulator, tools=[look_up_into(calls)], attempts_max=5)

    result = played.results["O-1"]
    assert result.outcome is Outcome.FAILED
    assert "Unknown pending tool call" in result.error.message
    assert [status for status, _, _ in emulator.events] == [400] * 5 + [202]
    assert len(calls) == 1


async def test_a_status_that_lags_is_not_answered_again():
    """202 is accepted, not done: the session may ask for the same calls for a while."""
    calls = []
    rule = Rule(match=r"O-\d+", tool_calls=[LOOK_UP], stale_checks=4)
    emulator = Watched(Settings(rules=[rule], list_lag_seconds=3))

    played = await play(asking("O-1"), emulator, tools=[look_up_into(calls)])

    assert played.outcomes == {"O-1": Outcome.COMPLETED}
    assert (len(emulator.events), len(calls)) == (1, 1)


@pytest.mark.parametrize(("lag_seconds", "retrieves"), [(4, (0, 0)), (20, (50, 10**9))])
async def test_a_list_that_lags(lag_seconds, retrieves):
    """New sessions are waited for; what is missing for long is asked for by itself."""
    names = [f"s{n}" for n in range(50)]
    settings = Settings(list_lag_seconds=lag_seconds, run_seconds=Fixed(15))

    played = await play(asking(*names), settings)

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert retrieves[0] <= played.served(RETRIEVE) <= retrieves[1]
    assert played.served(LIST) < 30


async def test_one_list_answers_for_a_group():
    """A hundred sessions, one call a round, and no retrieve."""
    names = [f"s{n}" for n in range(100)]

    played = await play(asking(*names), Settings(run_seconds=Fixed(20)))

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.served(RETRIEVE) == 0
    assert played.served(LIST) <= 12
    assert played.orchestrator.totals.checks >= 50 * played.served(LIST)


async def test_a_server_without_filtered_lists_is_asked_one_by_one():
    """A list that is refused says nothing about the sessions."""

    class NoLists(Emulator):
        def handle(self, call, now):
            if call.method == "GET" and call.path.endswith("/sessions"):
                call = type(call)(call.method, f"{call.path}/none", {}, call.headers, call.body)
            return super().handle(call, now)

    names = [f"s{n}" for n in range(5)]
    emulator = NoLists(Settings(rules=[Rule(run_seconds=30)]))

    played = await play(asking(*names), emulator)

    checks = Counter(record.status for record in played.calls if record.kind is CallKind.CHECK)
    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert checks["404"] > 3
    assert checks["200"] > 15


async def test_idle_before_the_turn_has_begun_is_no_success():
    """Neither at the create nor at a check: the turn tells."""
    rule = Rule(answer="done")
    settings = Settings(queue_seconds=Fixed(5), turn_lag_seconds=3, rules=[rule])

    played = await play(asking("a", "b"), settings)

    for result in played.results.values():
        assert result.outcome is Outcome.COMPLETED
        assert b'"text":"done"' in result.answer.body
        assert result.seconds > 8


async def test_a_turn_of_a_subagent_is_not_the_one_to_go_by():
    """The latest root turn decides, whatever became of the helpers."""
    calls = []
    settings = Settings(rules=[ORDERS], subagent_turns=True)

    played = await play(asking("O-1"), settings, tools=[look_up_into(calls)])

    result = played.results["O-1"]
    assert result.outcome is Outcome.COMPLETED
    assert json.loads(result.answer.body)["turn"]["subagent_id"] is None


@pytest.mark.parametrize(
    ("rule", "outcome", "code", "creates"),
    [
        (Rule(answer="well"), Outcome.COMPLETED, None, 1),
        (
            Rule(status="failed", error_code="context_length_exceeded"),
            Outcome.FAILED,
            "context_length_exceeded",
            1,
        ),
        (Rule(status="failed", error_code="sandbox_error", times=2), Outcome.COMPLETED, None, 3),
        (Rule(status="failed", error_code="server_overloaded"), Outcome.FAILED, None, 4),
        (Rule(status="session_failed", error_message="broken"), Outcome.FAILED, "failed", 1),
        (Rule(status="dreaming"), Outcome.UNKNOWN, "unknown_status", 1),
        (Rule(http_status=400, error_code="no_good"), Outcome.FAILED, "no_good", 0),
        (Rule(lose_run=True), Outcome.EXPIRED, None, 1),
    ],
    ids=[
        "completed",
        "at fault",
        "the server's trouble",
        "the server's trouble for ever",
        "the session fails",
        "a status that nobody knows",
        "refused",
        "forgotten",
    ],
)
async def test_every_status_has_its_outcome(rule, outcome, code, creates):
    """A failed turn in an idle session is a failure, and its code decides about a new one."""
    played = await play(asking("text"), Settings(rules=[rule]), attempts_max=4)

    result = played.results["text"]
    assert (result.outcome, result.creates) == (outcome, creates)
    if code is not None:
        assert result.error.code == code


async def test_a_session_that_hangs_is_cancelled_at_the_deadline():
    """Its turn ends a moment after the cancel."""
    settings = Settings(rules=[Rule(status="hang")], cancelling_seconds=5)

    played = await play(asking("never"), settings, deadline_seconds=60)

    result = played.results["never"]
    assert (result.outcome, result.error.code) == (Outcome.TIMED_OUT, "deadline_exceeded")
    assert 65 <= result.seconds <= 75
    assert played.books["runs"]["by_status"] == {"cancelled": 1}


async def test_a_tool_that_takes_too_long_is_cut_by_the_deadline():
    """The session waits on the server, so it is cancelled there."""
    calls = []

    played = await play(
        asking("O-1"),
        Settings(rules=[ORDERS]),
        tools=[look_up_into(calls, seconds=500)],
        tool_timeout_seconds=1_000,
        deadline_seconds=60,
    )

    assert played.results["O-1"].outcome is Outcome.TIMED_OUT
    assert played.results["O-1"].seconds < 70
    assert played.books["runs"]["by_status"] == {"cancelled": 1}


APPROVAL = ToolRequest("pay", {"amount": 3}, type="mcp_approval_request")
BROWSE = ToolRequest(
    "browser_origin_access", {"origin": "https://a.org"}, type="computer_use_approval_request"
)
LOG_IN = ToolRequest(
    "browser_authentication", {"origin": "https://a.org"}, type="computer_use_approval_request"
)
CONNECTION = ToolRequest("env_1", type="environment_connection")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (LOOK_UP, "tools"),
        (APPROVAL, "mcp_approval_request"),
        (BROWSE, "computer_use_approval_request"),
        (CONNECTION, "environment_connection"),
    ],
    ids=["function", "approval", "browser", "connection"],
)
async def test_what_nobody_can_answer_is_cancelled_and_failed(asked, named):
    """A clear error instead of a wait for ever."""
    played = await play(asking("text"), Settings(rules=[Rule(tool_calls=[asked])]))

    result = played.results["text"]
    assert result.outcome is Outcome.FAILED
    assert result.error.code == ("no_tool_handlers" if asked is LOOK_UP else "unknown_action")
    assert named in result.error.message
    assert result.seconds < 30
    assert played.books["calls"][EVENTS] == {"202": 1}
    assert played.books["runs"]["by_status"] == {"cancelled": 1}


async def test_a_connection_is_not_waited_for_even_with_tools():
    """It is nothing that a tool could give."""
    calls = []
    settings = Settings(rules=[Rule(tool_calls=[LOOK_UP, CONNECTION])])

    played = await play(asking("text"), settings, tools=[look_up_into(calls)])

    assert played.results["text"].error.code == "unknown_action"
    assert calls == []


@pytest.mark.parametrize(
    ("said", "decision"),
    [("approve", "approve"), ("deny", "deny"), ("cancel", "cancel"), ("well, yes", "deny")],
)
async def test_an_approval_is_given_by_a_handler_of_its_name(said, decision):
    """It sees the request and says one word; anything else approves nothing."""
    seen = []

    async def mcp_approval_request(request: dict) -> str:
        """Approve what the agent wants to do."""
        seen.append(request)
        return said

    emulator = Watched(Settings(rules=[Rule(tool_calls=[APPROVAL])]))

    played = await play(asking("text"), emulator, tools=[mcp_approval_request])

    ((status, _, (event,)),) = emulator.events
    assert played.outcomes == {"text": Outcome.COMPLETED}
    assert seen[0]["name"] == "pay"
    assert (status, event["response"]) == (202, {"type": "mcp_tool_call", "decision": decision})


async def test_an_approval_whose_handler_fails_is_denied():
    """A bug approves nothing."""

    async def mcp_approval_request(request: dict) -> str:
        """Approve what the agent wants to do."""
        raise ValueError(request)

    emulator = Watched(Settings(rules=[Rule(tool_calls=[APPROVAL])]))

    await play(asking("text"), emulator, tools=[mcp_approval_request])

    ((_, _, (event,)),) = emulator.events
    assert event["response"]["decision"] == "deny"


@pytest.mark.parametrize(
    ("said", "access", "login"),
    [
        ("approve", "approve", "cancel"),
        ("nonsense", "deny", "cancel"),
        (["a", "list"], "deny", "cancel"),
        (ValueError("broken"), "deny", "cancel"),
    ],
    ids=["a word", "nonsense", "a list", "a failure"],
)
async def test_requests_of_the_browser_are_always_answered(said, access, login):
    """Each kind in its own words; what a word can't give, a login for one, is cancelled."""

    async def computer_use_approval_request(request: dict) -> object:
        """Decide about the browser."""
        if isinstance(said, Exception):
            raise said
        return said

    emulator = Watched(Settings(rules=[Rule(turns=[[BROWSE], [LOG_IN]])]))

    played = await play(asking("text"), emulator, tools=[computer_use_approval_request])

    answers = [event["response"] for _, _, (event,) in emulator.events]
    assert played.outcomes == {"text": Outcome.COMPLETED}
    assert answers == [
        {"type": "browser_origin_access", "decision": access},
        {"type": "browser_authentication", "action": login},
    ]


async def test_a_login_is_given_as_an_object():
    """It goes out as the handler made it."""
    given = {"type": "browser_authentication", "action": "submit", "fields": []}

    async def computer_use_approval_request(request: dict) -> dict:
        """Log in."""
        return given

    emulator = Watched(Settings(rules=[Rule(tool_calls=[LOG_IN])]))

    played = await play(asking("text"), emulator, tools=[computer_use_approval_request])

    ((status, _, (event,)),) = emulator.events
    assert (status, event["response"]) == (202, given)
    assert played.outcomes == {"text": Outcome.COMPLETED}


async def test_a_spend_limit_goes_out_as_it_was_given():
    """It is the server's to keep; the session shows it."""
    played = await play(asking("text", spend_control={"limit": 50}))

    session = json.loads(played.results["text"].answer.body)
    assert session["spend_control"]["limit"] == 50


@pytest.mark.parametrize("number", [20, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", ["drop_after", "drop_before", "error_500", "error_429"])
async def test_faults_cost_no_result_and_no_second_call_of_a_handler(fault, number):
    """A lost answer to accepted results is no reason to work twice."""
    calls = []
    rule = Rule(match=r"O-\d+", turns=[[LOOK_UP, LOOK_UP], [LOOK_UP]])
    settings = Settings(seed=5, rules=[rule], faults={fault: 0.2})
    names = [f"O-{n}" for n in range(number)]

    played = await play(asking(*names), settings, tools=[look_up_into(calls)])

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert len(calls) == len(set(calls)) == 3 * number


def altered(reply, body):
    return type(reply)(
        **{
            name: json.dumps(body).encode() if name == "body" else getattr(reply, name)
            for name in type(reply).__dataclass_fields__
        }
    )


async def test_a_session_that_can_not_be_read_does_not_spoil_the_list():
    """What is wrong with one is no fault of the others."""

    class Garbled(Emulator):
        """Shows one session without its status."""

        bad = ""

        def handle(self, call, now):
            reply = super().handle(call, now)
            if call.method != "GET" or "/turns" in call.path or "/items" in call.path:
                return reply
            body = json.loads(reply.body)
            for session in body.get("data", [body]):
                self.bad = self.bad or session["id"]
                if session["id"] == self.bad:
                    session["status"] = None
            return altered(reply, body)

    names = [f"s{n}" for n in range(10)]

    played = await play(asking(*names), Garbled(Settings()))

    outcomes = sorted(played.outcomes.values())
    assert outcomes == [Outcome.COMPLETED] * 9 + [Outcome.UNKNOWN]


async def test_calls_without_a_turn_find_it():
    """Some servers leave `turn_id` out of what they ask for."""

    class NoTurns(Watched):
        def handle(self, call, now):
            reply = super().handle(call, now)
            if call.method != "GET" or "/turns" in call.path or "/items" in call.path:
                return reply
            body = json.loads(reply.body)
            for session in body.get("data", [body]):
                for action in session["required_actions"]:
                    action["turn_id"] = None
                    action["arguments"] = json.loads(action["arguments"])
            return altered(reply, body)

    calls = []
    emulator = NoTurns(Settings(rules=[ORDERS]))

    played = await play(asking("O-1"), emulator, tools=[look_up_into(calls)])

    ((status, _, (event,)),) = emulator.events
    assert played.outcomes == {"O-1": Outcome.COMPLETED}
    assert (status, event["turn_id"][:5]) == (202, "turn_")
