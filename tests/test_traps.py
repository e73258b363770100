"""The traps of polling that people fall into, each as a test on the whole engine."""

import pytest
from support.emulator_client import emulator_client
from support.engine import play

from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.rules import Rule, ToolRequest
from orchestrator.emulator.settings import Settings
from orchestrator.errors import ExecutionStopped


def ask(text, custom_id="a", **more):
    return {"custom_id": custom_id, "prompt": text, **more}


def emulated(*rules, **settings):
    settings = {"queue_seconds": Fixed(0.2), "run_seconds": Fixed(1.0), **settings}
    return Settings(rules=rules, **settings)


class Lookup:
    """A tool that remembers its calls."""

    def __init__(self):
        self.call_ids = []

    async def lookup(self, order_id: str, call_id: str) -> str:
        """Look up an order."""
        self.call_ids.append(call_id)
        return f"{order_id} is on its way"


LOOKUP = Rule(match=r"(O-\d+)", tool_calls=[ToolRequest("lookup", {"order_id": "{1}"})])


async def test_the_status_lags_behind_the_accepted_tool_outputs():
    """Outputs were accepted, the status does not show it for a while: nothing is answered twice."""
    tool = Lookup()
    rule = Rule(
        match=r"(O-\d+)", tool_calls=[ToolRequest("lookup", {"order_id": "{1}"})], stale_checks=5
    )

    played = await play([ask("where is O-1?")], emulated(rule), tools=[tool.lookup])

    assert played.outcomes == {"a": Outcome.COMPLETED}
    assert len(tool.call_ids) == 1
    assert played.served("POST /v1/responses") == 2


async def test_a_run_that_never_ends_is_cancelled_at_its_deadline():
    """It hangs; at the deadline it is cancelled on the server, and the request timed out."""
    emulator = emulated(Rule(status="hang"))

    played = await play([ask("hello")], emulator, deadline_seconds=60)

    result = played.results["a"]
    assert result.outcome is Outcome.TIMED_OUT
    assert result.error.code == "deadline_exceeded"
    assert 60 <= result.seconds < 61
    assert played.books["runs"]["by_status"] == {"cancelled": 1}


async def test_an_unknown_status_is_an_error_that_names_it():
    """No endless loop, but an outcome with the word that the server used."""
    played = await play([ask("hello")], emulated(Rule(status="reticulating")))

    assert played.outcomes == {"a": Outcome.UNKNOWN}
    assert "reticulating" in played.results["a"].error.message


async def test_a_failure_that_says_retry_is_run_again():
    """`server_error` is the server's own trouble: a new run brings the result."""
    rule = Rule(status="failed", error_code="server_error", error_message="sorry", times=2)

    played = await play([ask("hello")], emulated(rule))

    assert played.outcomes == {"a": Outcome.COMPLETED}
    assert played.results["a"].creates == 3
    assert played.orchestrator.totals.retries == 2


async def test_a_failure_that_does_not_say_retry_is_final():
    """A refused prompt is refused the second time too: one run, and the server's own words."""
    rule = Rule(status="failed", error_code="invalid_prompt", error_message="not like this")

    played = await play([ask("hello")], emulated(rule))

    result = played.results["a"]
    assert (result.outcome, result.error.code) == (Outcome.FAILED, "invalid_prompt")
    assert result.error.message == "not like this"
    assert played.served("POST /v1/responses") == 1


async def test_endless_server_errors_end():
    """Attempts are bounded."""
    rule = Rule(status="failed", error_code="server_error")

    played = await play([ask("hello")], emulated(rule), attempts_max=4)

    assert played.outcomes == {"a": Outcome.FAILED}
    assert played.served("POST /v1/responses") == 4


async def test_a_lost_run_is_expired():
    """The run was created and is not to be found: 404 three times is enough."""
    played = await play([ask("hello")], emulated(Rule(lose_run=True)))

    assert played.outcomes == {"a": Outcome.EXPIRED}
    assert played.served("GET /v1/responses/{id}") == 3
    assert played.served("POST /v1/responses") == 1


async def test_a_refused_key_costs_one_call():
    """401 at the first call: the execution stops, and nothing else was sent."""
    requests = [ask("hello", f"r{n}") for n in range(200)]

    played = await play(requests, emulated(api_key="another"), max_in_flight=100)

    assert played.emulator.books.calls_served == 1
    assert set(played.outcomes.values()) == {Outcome.STOPPED}
    assert "OPENAI_API_KEY" in str(played.stopped)


async def test_an_empty_account_stops_the_execution():
    """A quota 429 is not a rate limit: no retry, no wait."""
    rule = Rule(http_status=429, error_code="insufficient_quota", error_message="You exceeded it")
    requests = [ask("hello", f"r{n}") for n in range(200)]

    played = await play(requests, emulated(rule), max_in_flight=100)

    assert played.emulator.books.calls_served == 1
    assert "You exceeded it" in str(played.stopped)


async def test_an_account_that_runs_empty_keeps_what_is_paid():
    """What was created before the quota ended is fetched; the rest is stopped, not failed."""
    requests = [ask(f"hello {n}" if n < 50 else "poor", f"r{n}") for n in range(100)]
    rule = Rule(match="poor", http_status=429, error_code="insufficient_quota")

    played = await play(requests, emulated(rule), max_in_flight=100, connections=4)

    assert all(played.outcomes[f"r{n}"] is Outcome.COMPLETED for n in range(50))
    assert all(played.outcomes[f"r{n}"] is Outcome.STOPPED for n in range(50, 100))
    assert played.books["runs"]["created"] == 50


async def test_two_requests_with_the_same_body_are_two_runs():
    """Same body, different ids: two runs, two results."""
    played = await play([ask("hello", "a"), ask("hello", "b")], emulated())

    assert played.outcomes == {"a": Outcome.COMPLETED, "b": Outcome.COMPLETED}
    assert played.books["runs"]["created"] == 2


async def test_the_servers_hint_is_respected():
    """`openai-poll-after-ms` is a lower bound for every gap."""
    emulator = emulated(poll_after_ms=20_000, run_seconds=Fixed(50.0))

    played = await play([ask("hello")], emulator)

    assert played.results["a"].checks <= 4


async def test_an_incomplete_response_is_told_apart():
    """The model stopped at max_output_tokens: not completed, and what there is is kept."""
    played = await play([ask("one two three four five", max_output_tokens=2)], emulated())

    result = played.results["a"]
    assert (result.outcome, result.error.code) == (Outcome.INCOMPLETE, "max_output_tokens")
    assert b"incomplete" in result.answer.body


async def test_a_request_too_large_for_the_limit_fails_by_itself():
    """429 for ever for one request: it is given up, and the others are not held up."""
    requests = [ask("x" * 40_000, "large"), ask("hello", "small")]

    played = await play(requests, emulated(tpm=1_000), tpm=1_000, deadline_seconds=900)

    assert played.outcomes["small"] is Outcome.COMPLETED
    assert played.outcomes["large"] in {Outcome.FAILED, Outcome.TIMED_OUT}


@pytest.mark.parametrize("url", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize("background", [True, False])
async def test_tools_are_answered_on_every_endpoint(url, background):
    """Several turns, several calls at once, each answered once, in one submission a turn."""
    tool = Lookup()
    rule = Rule(
        match=r"(O-\d+) and (O-\d+)",
        turns=[
            [
                ToolRequest("lookup", {"order_id": "{1}"}),
                ToolRequest("lookup", {"order_id": "{2}"}),
            ],
            [ToolRequest("lookup", {"order_id": "O-9"})],
        ],
    )
    body = {"model": "gpt-5-mini"}
    text = "O-1 and O-2?"
    if url == "/v1/responses":
        body |= {"input": text, "background": background}
    else:
        body |= {"messages": [{"role": "user", "content": text}]}

    played = await play(
        [{"custom_id": "a", "url": url, "body": body}], emulated(rule), tools=[tool.lookup]
    )

    result = played.results["a"]
    assert (result.outcome, result.turns, len(tool.call_ids)) == (Outcome.COMPLETED, 2, 3)
    assert played.served(f"POST {url}") == 3
    assert b"O-9 is on its way" in result.answer.body


async def test_without_handlers_a_tool_call_is_a_result():
    """Who gives no tools wants to see the model's calls, as from a batch."""
    request = {
        "custom_id": "a",
        "url": "/v1/responses",
        "body": {
            "model": "gpt-5-mini",
            "input": "O-1",
            "tools": [{"type": "function", "name": "lookup", "parameters": {"type": "object"}}],
        },
    }

    played = await play([request], emulated(LOOKUP))

    assert played.outcomes == {"a": Outcome.COMPLETED}
    assert b"function_call" in played.results["a"].answer.body


@pytest.mark.parametrize("background", [True, False])
async def test_a_forced_tool_choice_is_forced_once(background):
    """`tool_choice: required` sent again with the outputs would make the model call for ever."""
    tool = Lookup()
    request = ask("hello", tool_choice="required", background=background)

    played = await play([request], emulated(), tools=[tool.lookup])

    assert played.outcomes == {"a": Outcome.COMPLETED}
    assert len(tool.call_ids) == 1


async def test_a_model_that_calls_tools_in_a_circle_is_stopped():
    """The number of turns is bounded."""
    tool = Lookup()
    rule = Rule(turns=[[ToolRequest("lookup", {"order_id": "O-1"})]] * 50)

    played = await play([ask("go")], emulated(rule), tools=[tool.lookup], turns_max=5)

    result = played.results["a"]
    assert (result.outcome, result.error.code) == (Outcome.FAILED, "too_many_turns")
    assert len(tool.call_ids) == 5


async def test_a_tool_that_hangs_does_not_hold_up_the_run():
    """Its time limit tells the model, and the run goes on."""

    async def lookup(order_id: str) -> str:
        """Look up an order, for ever."""
        import asyncio  # noqa: PLC0415 - the tool's own affair

        await asyncio.sleep(10**6)

    played = await play([ask("O-1")], emulated(LOOKUP), tools=[lookup], tool_timeout_seconds=3.0)

    assert played.outcomes == {"a": Outcome.COMPLETED}
    assert played.results["a"].seconds < 10


async def test_the_deadline_holds_while_tools_run():
    """A tool is at work when the deadline passes: it is stopped, and the request timed out."""
    stopped = []

    async def lookup(order_id: str) -> str:
        """Look up an order, for ever."""
        import asyncio  # noqa: PLC0415 - the tool's own affair

        try:
            await asyncio.sleep(10**6)
        except asyncio.CancelledError:
            stopped.append(order_id)
            raise

    played = await play(
        [ask("O-1")],
        emulated(LOOKUP),
        tools=[lookup],
        tool_timeout_seconds=10**5,
        deadline_seconds=30,
    )

    assert played.outcomes == {"a": Outcome.TIMED_OUT}
    assert stopped == ["O-1"]


async def test_the_books_would_show_a_difference():
    """The comparison of books can fail: a call beside the engine is found."""
    played = await play([ask("hello")], emulated())
    client = emulator_client(played.emulator)
    await client.models.list()

    from support.engine import compare_books  # noqa: PLC0415 - only this test asks again

    with pytest.raises(AssertionError):
        compare_books(played.calls, played.emulator.books.calls(0, 10**9))


def test_stopping_is_an_error_with_exit_code_3():
    """Scripts rely on it."""
    assert ExecutionStopped(reason="x", cure="y").exit_code == 3
