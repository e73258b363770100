"""The summary says what happened: every count, the cost, and why requests failed."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.failures import Cause
from orchestrator.core.model import (
    NO_USAGE,
    Body,
    Family,
    Outcome,
    Request,
    Result,
    RunError,
    Usage,
)
from orchestrator.core.pace import MOMENTS_MAX, Moment, Pace, Standing, seconds_left
from orchestrator.core.tally import FAILURE_CODES_MAX, OTHER, Tally, percentile
from orchestrator.core.totals import Totals

PRICED = "model-a"


class NoBody(Body):
    def read(self):
        return b"{}"


def price(model, usage):
    return usage.total_tokens / 1_000 if model == PRICED else None


def result(
    outcome=Outcome.COMPLETED,
    *,
    custom_id="r-1",
    model=PRICED,
    usage=NO_USAGE,
    error=None,
    batch_usage=NO_USAGE,
):
    return Result(
        request=Request(custom_id, "/v1/responses", Family.RESPONSES, model, 10, NoBody()),
        outcome=outcome,
        answer=None,
        error=error,
        usage=usage,
        run_id="",
        creates=1,
        checks=0,
        turns=0,
        seconds=1.0,
        batch_usage=batch_usage,
    )


def tally_of(*results):
    tally = Tally(price)
    for each in results:
        tally.count(each)
    return tally


def summary_of(tally, **changes):
    given = {
        "source": "requests.jsonl",
        "started_at": "2026-11-20T12:00:00Z",
        "version": "1.2.3",
        "requests": tally.ended,
        "totals": Totals(),
        "calls": Counter(),
        "tasks_max": 40,
        "wall_seconds": 12.34567,
    }
    return tally.summary(**(given | changes))


class TestCounting:
    def test_every_outcome_is_in_the_summary(self):
        """A script can read any outcome's count without asking whether it is there."""
        summary = summary_of(tally_of(result(), result(Outcome.EXPIRED)))
        assert set(summary["outcomes"]) == {outcome.value for outcome in Outcome}
        assert summary["outcomes"]["completed"] == 1
        assert summary["outcomes"]["expired"] == 1
        assert summary["outcomes"]["failed"] == 0

    @given(st.lists(st.sampled_from(Outcome)), st.integers(0, 100))
    def test_nothing_is_lost(self, outcomes, not_read):
        """Outcomes and what was not started add up to the requests of the source."""
        tally = tally_of(*(result(outcome) for outcome in outcomes))
        summary = summary_of(tally, requests=len(outcomes) + not_read)
        assert sum(summary["outcomes"].values()) == len(outcomes) == tally.done + tally.failed
        assert summary["not_started"] == not_read
        assert sum(group["count"] for group in summary["failures"]) == tally.failed

    def test_tokens_add_up(self):
        """Tokens of all results are summed, whatever became of the request."""
        tally = tally_of(
            result(usage=Usage(100, 10, 50, 5)),
            result(Outcome.INCOMPLETE, usage=Usage(200, 20, 0, 20)),
        )
        assert summary_of(tally)["tokens"] == {
            "input": 300,
            "output": 30,
            "cached": 50,
            "reasoning": 25,
        }

    def test_the_summary_is_plain_json(self):
        """The summary can be written as JSON by anything and read back the same."""
        error = RunError("server_error", "half of a pair: \ud800")
        tally = tally_of(result(Outcome.FAILED, error=error))
        totals = Totals(created=1, created_to_check=1, checks=3)
        totals.detection_delays_seconds.append(0.25)
        stopped = RunError("invalid_api_key", "half of a pair: \ud800")
        summary = summary_of(tally, totals=totals, stopped=stopped)
        assert json.loads(json.dumps(summary).encode()) == summary
        assert json.dumps(summary, ensure_ascii=False).encode()
        assert summary["stopped"] == {"code": "invalid_api_key", "message": "half of a pair: ?"}


class TestCost:
    def test_cost_is_the_sum_of_prices(self):
        """Each result is priced by its own model and usage; the sum is rounded to a millionth."""
        tally = tally_of(result(usage=Usage(100, 23)), result(usage=Usage(1)))
        assert summary_of(tally)["cost_usd"] == 0.124
        assert summary_of(tally)["cost_note"] is None

    def test_half_price_by_batch(self):
        """What came by batch costs half; a call of the same request beside it costs all."""
        by_batch = result(usage=Usage(80, 20), batch_usage=Usage(80, 20))
        assert summary_of(tally_of(by_batch))["cost_usd"] == 0.05
        last_turn_alone = result(usage=Usage(160, 40), batch_usage=Usage(80, 20))
        assert summary_of(tally_of(last_turn_alone))["cost_usd"] == 0.15
        together = summary_of(tally_of(by_batch, last_turn_alone, result(usage=Usage(100))))
        assert together["cost_usd"] == 0.3
        assert together["tokens"]["input"] == 80 + 160 + 100

    def test_no_price_by_batch_either(self):
        """Half of an unknown price is unknown."""
        tally = tally_of(result(model="model-x", usage=Usage(5), batch_usage=Usage(5)))
        assert (tally.cost_usd, tally.cost_note) == (None, "no price is known for: model-x")

    def test_no_price_no_cost(self):
        """One model without a price makes the cost unknown, and the summary names the model."""
        tally = tally_of(result(usage=Usage(5)), result(model="model-x", usage=Usage(5)))
        assert summary_of(tally)["cost_usd"] is None
        assert summary_of(tally)["cost_note"] == "no price is known for: model-x"

    def test_no_tokens_need_no_price(self):
        """An unknown model that used nothing costs nothing."""
        tally = tally_of(result(Outcome.STOPPED, model="model-x"))
        assert summary_of(tally)["cost_usd"] == 0.0
        assert summary_of(tally)["cost_note"] is None

    def test_many_unknown_models_are_not_all_named(self):
        """The note stays readable, and small, when every request names a model of its own."""
        models = (f"model-{number:04}" for number in range(1_000))
        tally = tally_of(*(result(model=model, usage=Usage(1)) for model in models))
        names = ", ".join(f"model-{number:04}" for number in range(5))
        assert tally.cost_note == f"no price is known for: {names} and others"


class TestFailures:
    def test_a_refusal_and_a_failed_run_of_the_same_code_are_told_apart(self):
        """One is the server's answer to a call, the other the end of a run that was paid for."""
        of_a_call = RunError("server_error", "bad gateway", Cause.SERVER_ERROR)
        of_a_run = RunError("server_error", "it broke down")
        groups = summary_of(
            tally_of(*(result(Outcome.FAILED, error=error) for error in (of_a_call, of_a_run)))
        )["failures"]
        assert [(group["cause"], group["reason"]) for group in groups] == [
            ("server_error", "5xx and 408: the server's own trouble passes"),
            (None, None),
        ]

    def test_grouped_with_an_example(self):
        """Failures of one kind are one entry with its first example, the commonest first."""
        timed_out = result(Outcome.TIMED_OUT, custom_id="slow")
        failed = [
            result(
                Outcome.FAILED,
                custom_id=f"r-{number}",
                error=RunError("server_error", f"message {number}"),
            )
            for number in range(3)
        ]
        assert summary_of(tally_of(timed_out, *failed))["failures"] == [
            {
                "outcome": "failed",
                "code": "server_error",
                "cause": None,
                "reason": None,
                "count": 3,
                "example_custom_id": "r-0",
                "example_message": "message 0",
            },
            {
                "outcome": "timed_out",
                "code": "timed_out",
                "cause": None,
                "reason": None,
                "count": 1,
                "example_custom_id": "slow",
                "example_message": "",
            },
        ]

    def test_bounded(self):
        """A server that makes up a new code for each failure does not fill the memory."""
        tally = Tally(price)
        for number in range(1_000):
            error = RunError(f"code-{number}", "m" * 100_000)
            tally.count(result(Outcome.FAILED, error=error))
            tally.count(result(Outcome.EXPIRED, error=error))
        assert len(tally.failures) == 2 * (FAILURE_CODES_MAX + 1)
        rest = [group for group in tally.failures if group.code == OTHER]
        assert [group.count for group in rest] == [1_000 - FAILURE_CODES_MAX] * 2
        assert max(len(group.example_message) for group in tally.failures) == 500


class TestNumbersOfTheSummary:
    def test_calls_by_kind(self):
        """Calls are told by kind and status, also the kinds that never happened."""
        calls = Counter(
            {
                ("create", "200"): 3,
                ("create", "429"): 2,
                ("check", "429"): 1,
                ("check", "timeout"): 4,
            }
        )
        summary = summary_of(tally_of(), calls=calls, kinds=("create", "check", "cancel"))
        assert summary["calls"] == {
            "create": {"total": 5, "by_status": {"200": 3, "429": 2}},
            "check": {"total": 5, "by_status": {"429": 1, "timeout": 4}},
            "cancel": {"total": 0, "by_status": {}},
        }
        assert summary["http_429"] == 3

    def test_what_the_scheduler_counted(self):
        """The scheduler's counts are in the summary under their own names."""
        totals = Totals(
            created=4,
            created_to_check=3,
            checks=10,
            turns=4,
            tool_calls=5,
            retries=6,
            creates_lost=1,
            in_flight_max=7,
        )
        summary = summary_of(tally_of(), totals=totals)
        assert summary["checks_per_run"] == 3.333
        assert summary["turns"] == 4
        assert summary["tool_calls"] == 5
        assert summary["retries"] == 6
        assert summary["creates_lost"] == 1
        assert summary["in_flight_max"] == 7
        assert summary["tasks_max"] == 40
        assert summary["wall_seconds"] == 12.346

    def test_batches(self):
        """Batches are told by how they ended, their lines by what became of them."""
        totals = Totals(batches=3, lines_sent=1_400, lines_answered=1_000, lines_undone=400)
        totals.batches_by_end.update({"completed": 2, "expired": 1})
        assert summary_of(tally_of(), totals=totals)["batches"] == {
            "created": 3,
            "by_end": {"completed": 2, "expired": 1},
            "lines_sent": 1_400,
            "lines_answered": 1_000,
            "lines_undone": 400,
            "left": [],
        }

    def test_lines_without_a_result_make_the_cost_unknown(self):
        """A batch that goes on without us costs what it costs; a part would look like the whole."""
        totals = Totals(batches=1, lines_sent=200, batches_left=["batch_7"])
        summary = summary_of(tally_of(), totals=totals)
        assert summary["cost_usd"] is None
        assert "200 lines" in summary["cost_note"]
        assert summary["batches"]["left"] == ["batch_7"]

    def test_nothing_measured(self):
        """Where nothing was measured the summary says null, not zero."""
        summary = summary_of(tally_of())
        assert summary["detection_delay_seconds"] is None
        assert summary["checks_per_run"] is None
        assert summary["stopped"] is None

    def test_detection_delay(self):
        """Delays are told as percentiles, in seconds."""
        totals = Totals()
        totals.detection_delays_seconds.extend(float(n) for n in range(100, 0, -1))
        summary = summary_of(tally_of(), totals=totals)
        assert summary["detection_delay_seconds"] == {"p50": 50.0, "p95": 95.0, "max": 100.0}

    @given(st.lists(st.floats(0, 1e6), min_size=1), st.integers(1, 100))
    def test_nearest_rank(self, values, percent):
        """A percentile is the smallest value that enough of all values do not exceed."""
        ascending = sorted(values)
        enough = [
            value
            for value in ascending
            if 100 * sum(other <= value for other in values) >= percent * len(values)
        ]
        assert percentile(ascending, percent) == enough[0]


class TestPace:
    def test_unknown_until_something_ended(self):
        """There is no estimate before the first request has ended, nor of an endless source."""
        assert seconds_left([], 5) is None
        assert seconds_left([Moment(0, 0), Moment(9, 0)], 5) is None
        assert seconds_left([Moment(0, 0), Moment(9, 3)], None) is None
        assert seconds_left([Moment(0, 0), Moment(9, 9)], 0) == 0.0

    @given(st.integers(1, 50), st.integers(2, 5_000), st.integers(1, 100_000))
    def test_steady(self, per_second, seconds, left):
        """At a steady pace the estimate is right, however long it has been going on."""
        pace = Pace()
        for second in range(seconds + 1):
            pace.note(1_000.0 + second, second * per_second)
        assert pace.seconds_left(left) == pytest.approx(left / per_second)
        assert len(pace.moments) <= MOMENTS_MAX

    def test_slow_start_is_forgotten(self):
        """Minutes before the first result do not weigh on the estimate for ever."""
        pace = Pace()
        for quarter in range(4 * 600):
            seconds = quarter / 4
            pace.note(seconds, max(0, int((seconds - 300) * 10)))
        assert pace.seconds_left(1_000) == pytest.approx(100, rel=0.1)

    def test_pause(self):
        """A pause makes the estimate longer, never unknown or endless."""
        pace = Pace()
        for second in range(100):
            pace.note(second, second)
        for second in range(100, 160):
            pace.note(second, 99)
        assert 100 < pace.seconds_left(100) < 300

    def test_suspended(self):
        """Hours in which the process was suspended are not counted as slowness."""
        pace = Pace()
        for second in range(200):
            hours_away = 8 * 3_600 if second > 150 else 0
            pace.note(second + hours_away, second)
        assert pace.seconds_left(100) == pytest.approx(100, rel=0.2)

    @given(
        st.lists(st.tuples(st.floats(0, 1_000), st.integers(0, 50)), max_size=300),
        st.integers(0, 10**6),
    )
    def test_any_history(self, steps, left):
        """Whatever the history, the estimate is a positive number, zero at the end, or unknown."""
        pace, now, ended = Pace(), 0.0, 0
        for seconds, more in steps:
            now, ended = now + seconds, ended + more
            pace.note(now, ended)
        estimate = pace.seconds_left(left)
        assert estimate is None or 0 <= estimate < float("inf")
        assert len(pace.moments) <= MOMENTS_MAX


def test_standing_counts_what_ended():
    """What has ended is what completed and what failed."""
    standing = Standing(10, 3, 2, 0, 4, 1, 60.0, None, 0, 0, None, None, 1.0)
    assert standing.ended == 5
