"""What webhooks must save, and what they may cost when they fail: the bars, end to end.

The whole engine with its receiver and the pure emulator, in virtual time; and two commands on real
sockets. `python -m pytest tests/test_webhook_bars.py -s -m "slow or not slow"` prints the figures.
"""

import json
import os
import socket
import subprocess
import sys
from collections import Counter

import pytest
from support.command import KEY, write_job
from support.hybrid import play_hybrid
from support.processes import emulator_process
from support.webhook_carrier import SECRET
from test_hybrid import GAP_SECONDS, batched, prompts, sessions
from test_real_time import KINDS

from orchestrator.adapters.webhook import Verdict
from orchestrator.core.ears import HEARD_PER_PROBE
from orchestrator.core.model import Outcome
from orchestrator.emulator.durations import Fixed, Lognormal

FEW = 30
MANY = 2_000

# Half of the runs end within 20 s, one of a thousand takes more than two minutes.
LASTING = {"queue_seconds": Fixed(0.2), "run_seconds": Lognormal(20.0, 0.6)}
TROUBLE = ("webhook_doubled", "webhook_overtaken", "webhook_forged")
IN_TROUBLE = {**dict.fromkeys(TROUBLE, 0.1), "webhook_lost": 0.05}
OUTAGE_AT = 10.0

REAL_RUNS = 200


@pytest.fixture(params=[pytest.param(FEW), pytest.param(MANY, marks=pytest.mark.slow)])
def number(request):
    return request.param


async def played(name, requests, number, *, emulator=(), **options):
    emulator, options = {**LASTING, **dict(emulator)}, {"max_in_flight": number, **options}
    heard = await play_hybrid(requests, emulator=emulator, **options)
    changes = [(round(each.at, 1), each.are_heard) for each in heard.totals.hearing_changes]
    print(  # noqa: T201 - figures, for who asks pytest for them
        f"\n{name}, {number} runs: {heard.checks} checks, {heard.checks_per_run:.3f} a run, "
        f"noticed {heard.late_max:.2f} s late at most, {dict(heard.verdicts)}, changes {changes}"
    )
    assert list(heard.outcomes.values()) == [Outcome.COMPLETED] * number
    return heard


def answers(heard):
    """What each request got, without the ids that every server makes anew."""
    return {
        custom_id: json.loads(result.answer.body)["output"][0]["content"]
        for custom_id, result in heard.results.items()
    }


def all_forged_refused(heard):
    """By both sides' books; whether there were some is said as well."""
    told = Counter(heard.books.webhooks.summary())
    theirs = told["forged_refused"] + told["replayed_refused"]
    ours = heard.verdicts[Verdict.FORGED] + heard.verdicts[Verdict.STALE]
    return ours == theirs > 0 == told["forged_accepted"] + told["replayed_accepted"]


def under_way(heard):
    """Events that were not delivered, or lost, when all was done."""
    return sum(not sending["over"] for sending in heard.books.webhooks.page(0, 10**9))


def at_rate(rate, number, names):
    """Of a few, more have to be met by a fault, or there would be none to see."""
    return {"faults": dict.fromkeys(names, rate if number == MANY else 4 * rate)}


async def test_one_status_call_for_a_run(number):
    """1.00 to two digits; the few more find out that silence is none, and whether some are lost."""
    heard = await played("all arrive", prompts(number), number, emulator=LASTING)

    assert heard.checks <= number + 3 + number // HEARD_PER_PROBE
    assert number < MANY or round(heard.checks_per_run, 2) == 1.00
    assert heard.late_max < 0.2


async def test_a_twentieth_lost(number):
    """At most 1.10 calls a run, and no run is noticed later than the safety net's gap."""
    emulator = at_rate(0.05, number, ["webhook_lost"])
    heard = await played("5 % lost", prompts(number), number, emulator=emulator)

    assert heard.books.webhooks.summary()["lost"] > 0
    assert heard.checks_per_run <= 1.10
    assert heard.late_max <= GAP_SECONDS
    assert heard.totals.hearing_changes == []


@pytest.mark.slow
async def test_all_lost_from_some_moment_on():
    """Polled again within one gap, which is never needed whole; and so is all that comes later."""
    emulator = {"webhook_outage_from_seconds": OUTAGE_AT}
    heard = await played("all lost from 10 s on", prompts(MANY), MANY, emulator=emulator)

    [change] = heard.totals.hearing_changes
    assert not change.are_heard
    assert OUTAGE_AT < change.at <= OUTAGE_AT + GAP_SECONDS
    assert heard.late_max <= GAP_SECONDS


@pytest.mark.slow
async def test_lost_for_a_while():
    """Polled meanwhile, and relied on again when they are back."""
    outage = {"webhook_outage_from_seconds": OUTAGE_AT, "webhook_outage_until_seconds": 70.0}
    name, few = "all lost from 10 s to 70 s", MANY // 10
    heard = await played(name, prompts(MANY), MANY, emulator=outage, max_in_flight=few)

    assert [change.are_heard for change in heard.totals.hearing_changes] == [False, True]
    assert heard.late_max <= GAP_SECONDS


async def test_doubled_overtaken_and_forged(number):
    """The same results as without; whatever was forged is refused."""
    plain = await played("all arrive", prompts(number), number)
    heard = await played(
        "in trouble", prompts(number), number, emulator=at_rate(0.1, number, TROUBLE)
    )

    assert answers(heard) == answers(plain)
    assert heard.verdicts[Verdict.ACCEPTED] == number - under_way(heard) > 0.99 * number - 2
    assert heard.verdicts[Verdict.REPEATED] > 0
    assert all_forged_refused(heard)
    assert number < MANY or round(heard.checks_per_run, 2) <= 1.01


@pytest.mark.slow
@pytest.mark.parametrize("faults", [{}, IN_TROUBLE], ids=["well", "in trouble"])
async def test_sessions(faults):
    """Those that ended together share a look: less than one call for each."""
    heard = await played("sessions", sessions(200), 200, emulator={"faults": faults})

    assert heard.checks_per_run <= 1.10
    assert heard.late_max <= GAP_SECONDS
    assert not faults or all_forged_refused(heard)


@pytest.mark.slow
@pytest.mark.parametrize("faults", [{}, IN_TROUBLE], ids=["well", "in trouble"])
async def test_batches(faults):
    """Each end is heard of; a look finds whatever else has ended by then."""
    emulator = {"batch_seconds": Lognormal(300.0, 0.5), "faults": faults}
    heard = await played(
        "batches", batched(200), 200, emulator=emulator, via="batch", batch_lines=5
    )

    assert heard.late_max <= GAP_SECONDS
    assert heard.checks_per_run <= 1.10


@pytest.fixture
def port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run_in_a_process(folder, base_url, port):
    """`orchestrator run --webhooks`, as a person types it; its folder, summary and calls."""
    words = ["--webhooks", f"127.0.0.1:{port}", "--base-url", base_url]
    words += ["--out", "out", "--log-level", "debug"]
    environment = {**os.environ, "OPENAI_API_KEY": KEY, "OPENAI_WEBHOOK_SECRET": SECRET}
    command = [sys.executable, "-m", "orchestrator", "run", "job", *words]
    subprocess.run(command, cwd=folder, env=environment, check=True, timeout=300)
    logged = [json.loads(line) for line in (folder / "out/log.jsonl").read_text().splitlines()]
    ended = [line for line in logged if line["event"] == "call.ended"]
    calls = {(line["call_id"], line["kind"], line["status"]) for line in ended}
    return json.loads((folder / "out/summary.json").read_text()), calls


@pytest.mark.slow
@pytest.mark.real_time
def test_two_processes_on_real_sockets(tmp_path, port):
    """Both sides' books agree call by call, and webhook by webhook."""
    toml = '[defaults]\nmodel = "gpt-5-mini"\n[webhooks]\ngap_seconds = 20\n'
    write_job(tmp_path / "job", [f"Name river {n}." for n in range(REAL_RUNS)], toml)
    (tmp_path / "secret").write_text(SECRET)
    faults = ",".join(f"{name}={rate}" for name, rate in IN_TROUBLE.items())
    seconds = [2.0 + n / 25 for n in range(100)]
    (tmp_path / "durations.csv").write_text("".join(f"{each}\n" for each in ["seconds", *seconds]))
    words = ["--faults", faults, "--durations", f"{tmp_path / 'durations.csv'}:seconds"]
    words += ["--webhook-url", f"http://127.0.0.1:{port}/"]
    words += ["--webhook-secret-file", str(tmp_path / "secret")]
    with emulator_process(*words) as emulator:
        summary, ours = run_in_a_process(tmp_path, emulator.base_url, port)
        served, told = emulator.calls(), emulator.get("/emulator/webhooks")["counts"]
    theirs = {(one["client_request_id"], KINDS[one["route"]], one["status"]) for one in served}
    received = Counter(summary["webhooks"]["received"])
    print(  # noqa: T201 - figures, for who asks pytest for them
        f"\n{REAL_RUNS} runs: {summary['checks_per_run']} checks a run, {dict(received)}, {told}"
    )

    assert ours == theirs
    assert len(theirs) == len(served)
    assert summary["outcomes"]["completed"] == REAL_RUNS
    assert summary["checks_per_run"] <= 1.10
    assert received["forged"] + received["stale"] == (
        told["forged_refused"] + told["replayed_refused"]
    )
    assert received["forged"] + received["stale"] > 0
    assert not {"forged_accepted", "replayed_accepted"} & told.keys()
    assert received["accepted"] + told["lost"] <= REAL_RUNS
    assert received["accepted"] >= REAL_RUNS - told["lost"] - 3  # those still on their way
    assert received["repeated"] > 0
    assert summary["webhooks"]["heard"] <= received["accepted"]
    assert summary["webhooks"]["unknown"] == 0
    assert summary["webhooks"]["changes"] == []
    assert summary["detection_delay_seconds"]["max"] <= 20 + 5  # a busy machine is late by itself
