"""`orchestrator compare-policies`: what is read, what is told, and what can't be used."""

import json
from random import Random

import pytest
from typer.testing import CliRunner

from orchestrator.cli.app import app
from orchestrator.core.polling import Polling
from orchestrator.errors import PlotUnusable, TraceUnusable
from orchestrator.traces import Assumptions, Trace, check_plot, compare, costs_of, read_trace
from orchestrator.traces.comparison import BACKOFF, LEARNED, OFFLINE

POLICIES = ["fixed-1s", "fixed-2.5s", "backoff", "learned", "offline-optimum"]


def file_of(folder, text):
    path = folder / "trace.csv"
    path.write_text(text)
    return path


@pytest.fixture
def trace_file(tmp_path):
    chance = Random(1)  # noqa: S311 - no secret
    rows = [f"{n},{'ab'[n % 2]},{chance.uniform(8, 12):.3f},done" for n in range(60)]
    return file_of(tmp_path, "\n".join(["id,model,took_s,state", *rows, "9,a,,failed", ""]))


def told(*words):
    result = CliRunner().invoke(app, ["compare-policies", *map(str, words)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_programs_are_told_every_policy(trace_file):
    """With --json: checks and delay of each, the dial set so that nobody waits longer."""
    said = json.loads(told(trace_file, "--key", "model", "--json"))
    by = {each["policy"]: each for each in said["policies"]}

    assert (said["runs"], said["keys"], said["left_out"]) == (60, 2, 1)
    assert list(by) == POLICIES
    assert by["learned"]["checks_per_run"] < by["backoff"]["checks_per_run"]
    assert by["learned"]["delay_mean_seconds"] <= by["backoff"]["delay_mean_seconds"]
    assert all(each["delay_p50_seconds"] <= each["delay_p95_seconds"] for each in said["policies"])
    assert by["fixed-1s"]["calls_per_minute"] == pytest.approx(
        100 * by["fixed-1s"]["checks_per_run"]
    )


def test_people_are_told_a_table_and_its_assumptions(trace_file):
    """A line for each policy and for webhooks, and what the money was reckoned with."""
    lines = told(trace_file, "--column", "took_s", "--skip-first", 20).splitlines()

    assert lines[0].endswith("trace.csv: 40 runs by took_s, 1 left out")
    assert [line.split()[0] for line in lines if line][1:-2] == [
        "policy",
        "per",
        *POLICIES,
        "webhooks",
    ]
    assert "100 runs a minute" in lines[-2]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "begins"), [("a.png", b"\x89PNG"), ("b.svg", b"<?xml")])
def test_a_plot_is_drawn(trace_file, tmp_path, name, begins):
    """A PNG or an SVG, as the file is called."""
    told(trace_file, "--plot", tmp_path / name)

    assert (tmp_path / name).read_bytes().startswith(begins)


@pytest.mark.parametrize("name", ["a.pdf", "no_folder/a.png"])
def test_where_no_plot_can_be_drawn_is_said_first(tmp_path, name):
    """Before minutes of work."""
    with pytest.raises(PlotUnusable):
        check_plot(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("took_ms\n1500\n", [("", 1.5)]),
        ("1.5\n2.5\n", [("", 1.5), ("", 2.5)]),
        ("a,seconds\nx,1\ny,-1\nz,nan\nw,1e9\nv\n,oops\n", [("", 1.0)]),
        ("\ufeffseconds;x\n".replace(";", ",") + "3,\n", [("", 3.0)]),
    ],
    ids=["milliseconds", "no names", "what is no duration", "byte order mark"],
)
def test_durations_are_found(tmp_path, text, runs):
    """In the only column that can be meant, whatever else is in it."""
    column = "seconds" if "oops" in text else None
    assert read_trace(file_of(tmp_path, text), column=column).runs == runs


@pytest.mark.parametrize(
    ("text", "column", "words"),
    [
        ("start_s,end_s\n1,2\n", None, "start_s, end_s"),
        ("a,b\nx,y\n", None, "no numbers"),
        ("seconds\n1\n", "minutes", "Use: seconds"),
        ("seconds\n-1\n", None, "no durations"),
        ("", None, "no numbers"),
    ],
)
def test_what_is_no_trace_is_told(tmp_path, text, column, words):
    """With what is there instead."""
    with pytest.raises(TraceUnusable, match=words):
        read_trace(file_of(tmp_path, text), column=column)


def test_a_missing_file_is_told(tmp_path):
    """No traceback for a slip."""
    with pytest.raises(TraceUnusable, match="No such file"):
        read_trace(tmp_path / "none.csv")


@pytest.mark.parametrize("runs", [1, 5, 12])
def test_with_few_runs_it_is_backoff(runs):
    """Where nothing can be learned, nothing is lost."""
    figures = compare(Trace([("", 3.0)] * runs, "", 0), Polling()).figures
    by = {each.policy: each.checks_per_run for each in figures}

    assert by[LEARNED] == by[BACKOFF]


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.5, 30.0])
def test_constant_durations_are_no_trap(seconds):
    """No more than 5 % over the backoff's checks, at no more delay."""
    figures = compare(Trace([("", seconds)] * 100, "", 0), Polling()).figures
    by = {each.policy: each for each in figures}

    assert by[LEARNED].checks_per_run <= 1.05 * by[BACKOFF].checks_per_run
    assert by[LEARNED].delay_mean_seconds <= by[BACKOFF].delay_mean_seconds
    assert by[OFFLINE].checks_per_run == 1.0


def test_webhooks_pay_from_some_number_of_runs_on():
    """With 4 checks a run 2 calls' work is saved each time; with 2 checks nothing is."""
    assumed = Assumptions(cpu_ms_per_call=3_600.0, usd_per_cpu_hour=1.0, endpoint_usd_per_month=8)

    assert costs_of(4.0, assumed).break_even_runs_per_month == pytest.approx(4_000)
    assert costs_of(2.0, assumed).break_even_runs_per_month is None
