"""Limits of cost, tokens and time as a person or a program meets them, on the emulator."""

import json

import pytest
from support.command import AT_ONCE, command_in, json_lines, write_job
from support.engine import MODEL, play

from orchestrator import Outcome
from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.settings import Settings as EmulatorSettings
from orchestrator.errors import RequestUnusable


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    return command_in(tmp_path, monkeypatch, capsys)


def lines(count, **body):
    for n in range(count):
        yield {"custom_id": f"r{n}", "prompt": f"say {n}", "max_output_tokens": 50, **body}


def budget_of(played):
    return played.orchestrator.budget


@pytest.mark.parametrize("via", [None, "batch"])
async def test_a_program_spends_no_more_than_it_may(via):
    """The emulator counts the tokens that it charges; they stay below the limit."""
    chat = ({**line, "url": "/v1/chat/completions"} for line in lines(60, max_tokens=50))
    given = lines(60) if via is None else chat
    played = await play(given, via=via, max_tokens=300)

    assert played.stopped is not None
    assert played.stopped.facts["reason"].startswith("the limit is 300 tokens, and ")
    outcomes = set(played.outcomes.values())
    assert outcomes == {Outcome.COMPLETED, Outcome.STOPPED}
    used = sum(result.usage.total_tokens for result in played.results.values())
    assert used == budget_of(played).spent.tokens <= 300
    assert played.served("POST /v1/responses" if via is None else "POST /v1/batches") > 0


async def test_lost_answers_are_paid_from_the_budget():
    """All that the emulator did, heard of or not, is within the limit."""
    emulator = EmulatorSettings(seed=3, faults={"drop_after": 0.3})
    played = await play(lines(80), emulator, max_tokens=4_000)

    budget = budget_of(played)
    lost = played.orchestrator.totals.creates_lost
    assert lost > 0
    assert budget.assumed.tokens > 50 * lost
    assert budget.spent.tokens <= 4_000
    used = sum(result.usage.total_tokens for result in played.results.values())
    assert budget.spent.tokens == used + budget.assumed.tokens


async def test_everything_runs_when_the_limit_is_enough():
    """A limit that is not reached changes nothing."""
    played = await play(lines(60), max_tokens=60 * 100, max_cost_usd=1.0)
    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert played.stopped is None
    assert 0 < budget_of(played).spent.usd < 0.01


async def test_a_model_without_a_price_is_refused_by_name():
    """Nobody can hold a limit of the cost without knowing it."""
    with pytest.raises(RequestUnusable, match=r"'r0'.*'no-such-model' has no price"):
        await play(lines(3, model="no-such-model"), max_cost_usd=1.0)


async def test_a_hung_run_is_replaced():
    """The emulator never ends some runs; each request completes by another one."""
    emulator = EmulatorSettings(seed=2, faults={"hang": 0.3}, run_seconds=Fixed(1.0))
    played = await play(lines(40), emulator, run_deadline_seconds=20.0)
    assert set(played.outcomes.values()) == {Outcome.COMPLETED}
    assert max(result.creates for result in played.results.values()) > 1
    assert played.served("POST /v1/responses/{id}/cancel") > 0


async def test_the_time_of_an_execution():
    """Runs that hang and requests that wait end together, and the server is told."""
    emulator = EmulatorSettings(faults={"hang": 1.0})
    played = await play(lines(30), emulator, execution_deadline_seconds=30.0, max_in_flight=20)
    assert set(played.outcomes.values()) == {Outcome.TIMED_OUT}
    assert {result.error.code for result in played.results.values()} == {"execution_deadline"}
    assert played.served("POST /v1/responses/{id}/cancel") == 20
    assert played.stopped is not None


async def test_refusals_alike_stop_a_program():
    """A model that the server does not have is not asked for a thousand times."""
    played = await play(
        lines(200, model="gpt-none"),
        EmulatorSettings(models={MODEL}),
        same_failures_max=7,
        connections=1,
    )
    assert played.stopped is not None
    assert "7 requests in a row were refused with" in played.stopped.facts["reason"]
    assert played.served("POST /v1/responses") < 20


class TestCommand:
    pytestmark = pytest.mark.real_time

    def test_a_spent_budget_has_an_exit_code_of_its_own(self, command, tmp_path):
        """Exit code 3, and both the summary and the closing lines say what was spent."""
        body = "\n[defaults.body]\nmax_completion_tokens = 40\n"
        toml = AT_ONCE.replace("[emulator]", f"{body}\n[emulator]")
        write_job(tmp_path / "job", ["hello"] * 12, toml)
        words = ("--max-tokens", "70", "--connections", "1", "--out", "out")
        ended = command("run", "job", "--emulator", *words)

        assert ended.code == 3
        assert "the limit is 70 tokens" in ended.err
        assert "  budget: " in ended.out
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        assert summary["stopped"]["code"] == "budget_spent"
        assert 0 < summary["budget"]["spent_tokens"] <= 70
        assert summary["outcomes"]["stopped"] + summary["not_started"] > 0
        assert (tmp_path / "out/errors.jsonl").read_bytes() == b""

        # What is left is sent when there is more to spend; what was spent before counts.
        ended = command("run", "job", "--emulator", "--max-tokens", "48", "--out", "out")
        assert ended.code == 3
        ended = command("run", "job", "--emulator", "--max-tokens", "700", "--out", "out")
        assert ended.code == 0
        results = json_lines(tmp_path / "out/results.jsonl")
        assert len({line["custom_id"] for line in results}) == len(results) == 12
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        assert summary["budget"]["spent_tokens"] == 48

    def test_a_model_without_a_price_is_a_mistake(self, command, tmp_path):
        """Exit code 2 before anything is sent, with the names of the models."""
        write_job(tmp_path / "job", ["hello"], AT_ONCE.replace("gpt-5-nano", "no-such-model"))
        ended = command("run", "job", "--emulator", "--max-cost", "1")
        assert ended.code == 2
        assert "no price is known for no-such-model" in ended.err
        assert not (tmp_path / "executions").exists()

    def test_the_time_of_an_execution_ends_with_3(self, command, tmp_path):
        """Stopped early, and what was not begun is told."""
        toml = AT_ONCE.replace("run_seconds = 0.02", "run_seconds = 30")
        write_job(tmp_path / "job", ["hello"] * 2, toml)
        ended = command("run", "job", "--emulator", "--execution-deadline", "0.3")
        assert ended.code == 3
        assert "timed_out, execution_deadline" in ended.out
