"""Executions that are killed with SIGKILL at random moments, and gone on with until they end.

Every run of requests is compared on both sides: what our journal and our result lines say, and what
the emulator did. `KILLS=200 pytest -n 0 -s -m slow tests/test_killed.py` spreads so many kills over
as many executions of 2,000 requests as it takes, and prints figures; `SEED` gives other moments.
"""

import os
from collections import Counter
from dataclasses import asdict
from random import Random

import pytest
from support.both_books import compare, compare_batches
from support.executions import (
    handler_calls,
    requests_of,
    summary_of,
    write_requests,
    write_rules,
)
from support.killer import Killer
from support.processes import emulator_process
from test_mixed_families import on_chat

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

KILLS = int(os.environ.get("KILLS", "0"))
SEED = int(os.environ.get("SEED", "1"))

# From 0.05 s to 1 s: some answers are on their way at any moment.
DURATIONS = "seconds\n" + "".join(f"{0.05 * n:.2f}\n" for n in range(1, 21))

# A request takes about two seconds with its tools, so 2,000 of them outlive some 30 kills.
WORDS = ("--max-in-flight", 100)

MUST_BE_NONE = (
    "missing",
    "twice",
    "not_completed",
    "created_again_though_known",
    "outputs_taken_twice",
    "without_intent",
    "unexplained",
)


def kill_and_compare(folder, number, kills, seed):
    """One execution, killed so often or until it has ended; the kills, and the figures."""
    folder.mkdir()
    (folder / "durations.csv").write_text(DURATIONS)
    requests = list(requests_of(number))
    write_requests(folder, requests)
    words = ("--rules", write_rules(folder), "--durations", folder / "durations.csv")
    with emulator_process(*map(str, words), "--seed", str(seed)) as emulator:
        chance = Random(seed)  # noqa: S311 - it keeps no secret
        killer = Killer(folder, emulator, chance, kills, words=WORDS)
        code, _, err = killer.run()
        asked = [request["custom_id"] for request in requests]
        found = compare(asked, folder / "out", emulator.creates(), handler_calls(folder))

    assert killer.wrong == []
    assert found.wrong == []
    assert {name: getattr(found, name) for name in MUST_BE_NONE} == dict.fromkeys(MUST_BE_NONE, 0)
    assert code == 0, err
    summary = summary_of(folder / "out")
    assert summary["creates_lost"] == found.lost_ours == found.lost_theirs + found.unreached
    assert summary["requests"] == summary["outcomes"]["completed"] == number
    figures = {name: value for name, value in asdict(found).items() if name != "wrong"}
    return killer, Counter(figures)


@pytest.mark.skipif(KILLS > 0, reason="the long one is asked for")
def test_some_kills(tmp_path):
    """Nothing is lost, doubled or created again though known; every lost create is explained."""
    killer, _ = kill_and_compare(tmp_path / "killed", number=600, kills=20, seed=SEED)
    assert killer.killed > 10
    assert 0 < killer.before_work < killer.killed


@pytest.mark.parametrize("number", [2_000 if KILLS else 400])
def test_kills_of_batches(tmp_path, number):
    """By batch no line is sent twice, whether its upload, its create or its results were cut."""
    requests = list(requests_of(number, [on_chat]))
    write_requests(tmp_path, requests)
    words = ("--rules", write_rules(tmp_path), "--batch-seconds", 3)
    with emulator_process(*map(str, words)) as emulator:
        killer = Killer(
            tmp_path,
            emulator,
            Random(SEED),  # noqa: S311 - it keeps no secret
            KILLS or 12,
            words=("--via", "batch"),
        )
        code, _, err = killer.run()
        asked = [request["custom_id"] for request in requests]
        wrong = compare_batches(asked, tmp_path / "out", emulator)

    assert code == 0, err
    assert killer.wrong == []
    assert wrong == []
    assert summary_of(tmp_path / "out")["creates_lost"] == 0
    assert killer.killed > 5


@pytest.mark.skipif(not KILLS, reason="KILLS=200 asks for it")
def test_many_kills(tmp_path):
    """The same with 2,000 requests each, until there were as many kills as wanted."""
    killed, figures = Counter(), Counter()
    while killed["kills"] < KILLS:
        seed = SEED + killed["executions"]
        folder = tmp_path / str(seed)
        killer, found = kill_and_compare(folder, 2_000, min(KILLS - killed["kills"], 50), seed)
        figures += found
        killed["executions"] += 1
        killed["kills"] += killer.killed
        killed["before_work"] += killer.before_work
        print(f"seed {seed}: {killer.killed} kills, {dict(found)}")  # noqa: T201 - the figures are the point
    print(f"\n{dict(killed)}\n{dict(figures)}")  # noqa: T201 - the figures are the point
