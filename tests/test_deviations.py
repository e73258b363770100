"""Servers that speak the API otherwise: every request gets a right outcome all the same."""

import pytest
from support.engine import play
from test_mixed_families import EVERY, RULE, LookUp, is_right, mixed, on_assistants, on_sessions

from orchestrator.core.model import Outcome
from orchestrator.emulator.deviations import PRESET_ALL, Deviation
from orchestrator.emulator.rules import Rule
from orchestrator.emulator.settings import Settings

# With these no client could have a result (see test_batches), or nothing is to be told here.
ALONE = sorted({deviation.value for deviation in Deviation if deviation.value.startswith("batch")})
OTHERS = sorted({deviation.value for deviation in Deviation} - set(ALONE))


@pytest.mark.parametrize("deviation", OTHERS)
async def test_each_deviation_by_itself(deviation):
    """Tools are called, results are right, and the books agree."""
    emulator = Settings(rules=[RULE], deviations=[deviation])

    played = await play(mixed(18), emulator, tools=[LookUp().tool()])

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert all(is_right(result) for result in played.results.values())


@pytest.mark.parametrize("via", [None, "batch"])
async def test_all_deviations_at_once(via):
    """A server that does everything otherwise is served by the same rules."""
    look_up = LookUp()
    emulator = Settings(rules=[RULE], deviations=PRESET_ALL)

    played = await play(mixed(60, EVERY), emulator, tools=[look_up.tool()], via=via)

    outcomes = played.outcomes
    if via == "batch":
        # This server batches no responses; its refusal is the right outcome.
        refused = [r for r in played.results.values() if r.request.url == "/v1/responses"]
        assert {result.outcome for result in refused} == {Outcome.FAILED}
        assert all("/v1/responses" in result.error.message for result in refused)
        outcomes = {name: o for name, o in outcomes.items() if o is not Outcome.FAILED}
        assert len(outcomes) == 40
    assert set(outcomes.values()) == {Outcome.COMPLETED}
    assert all(is_right(played.results[name]) for name in outcomes)
    assert len(set(look_up.call_ids)) == len(look_up.call_ids)


@pytest.mark.parametrize("kind", [on_assistants, on_sessions])
async def test_failing_runs_on_such_a_server(kind):
    """The server's own trouble is worth another run, however it is told."""
    fails = Rule(status="failed", error_code="server_error", times=2)
    played = await play(mixed(4, [kind]), Settings(rules=[fails], deviations=PRESET_ALL))

    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert sum(result.sent for result in played.results.values()) >= 4 * 3
