"""Faults on request: the same whatever the order, at the rate that was asked for."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.emulator_client import content, get, post

from orchestrator.emulator.durations import Fixed
from orchestrator.emulator.emulator import Emulator
from orchestrator.emulator.faults import PRESET_ALL, Fault, Faults, parse_faults
from orchestrator.emulator.mistakes import EmulatorMistake
from orchestrator.emulator.settings import Settings


def emulator_with(**rates):
    return Emulator(Settings(seed=7, faults=rates, queue_seconds=Fixed(1), run_seconds=Fixed(1)))


def background(text):
    return {"model": "m", "input": text, "background": True}


def outcome(reply):
    """What the caller notices."""
    return reply.status, reply.drop, reply.delay_seconds


@given(order=st.permutations(range(12)))
def test_faults_do_not_depend_on_the_order_of_calls(order):
    """The same requests in another order meet the same faults, and get the same run ids."""
    rates = dict.fromkeys(parse_faults("all"), 0.3)
    straight, shuffled = emulator_with(**rates), emulator_with(**rates)
    expected, seen = {}, {}
    for number in range(12):
        expected[number] = post(straight, "/responses", background(f"text {number}"))
    for number in order:
        seen[number] = post(shuffled, "/responses", background(f"text {number}"))

    assert {n: outcome(reply) for n, reply in seen.items()} == {
        n: outcome(reply) for n, reply in expected.items()
    }
    for number, reply in seen.items():
        if reply.status == 200:
            assert content(reply)["id"] == content(expected[number])["id"]


def test_another_seed_is_another_night():
    """The seed decides."""
    keys = [str(number) for number in range(200)]
    rates = {"slow": 0.5}

    assert [Faults(1, rates).of_call(key) for key in keys] != [
        Faults(2, rates).of_call(key) for key in keys
    ]


def test_sending_again_draws_again():
    """A request that met a fault doesn't meet it for ever."""
    emulator = emulator_with(error_500=0.5)
    statuses = [post(emulator, "/responses", background("same")).status for _ in range(60)]

    assert set(statuses) == {200, 500}


def test_each_fault_comes_at_its_rate_and_independently():
    """Ten percent are ten percent, and two faults at once are one percent."""
    faults, tries = Faults(3, {"slow": 0.1, "drop_after": 0.1}), 20_000
    drawn = [faults.of_call(str(number)) for number in range(tries)]

    assert sum(Fault.SLOW in one for one in drawn) == pytest.approx(0.1 * tries, rel=0.1)
    assert sum(len(one) == 2 for one in drawn) == pytest.approx(0.01 * tries, rel=0.25)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("error_500", 500, "server_error"),
        ("error_503", 503, "server_is_overloaded"),
        ("error_429", 429, "rate_limit_exceeded"),
    ],
)
def test_an_error_does_no_work(fault, status, code):
    """500, 503 and 429 leave no run and no tokens behind, and the 429 says nothing of when."""
    emulator = Emulator(Settings(faults={fault: 1.0}, rpm=100))
    reply = post(emulator, "/responses", background("x"))

    assert reply.status == status
    assert content(reply)["error"]["code"] == code
    if status == 429:
        assert not [name for name in reply.headers if "retry" in name or "ratelimit" in name]
    books = emulator.books.snapshot(0)
    assert books["runs"]["created"] == 0
    assert books["creates"]["by_digest"] == {}
    assert books["faults"] == {fault: 1}


def test_errors_strike_checks_too():
    """A retrieve can fail like a create."""
    emulator = emulator_with(error_500=0.5)
    replies = [post(emulator, "/responses", background(str(number))) for number in range(20)]
    run_id = next(content(reply)["id"] for reply in replies if reply.status == 200)

    statuses = {get(emulator, f"/responses/{run_id}").status for _ in range(40)}

    assert statuses == {200, 500}


def test_drop_before_does_nothing_and_drop_after_everything():
    """Both lose the answer; only the second has created a run."""
    before, after = emulator_with(drop_before=1.0), emulator_with(drop_after=1.0)
    for emulator in (before, after):
        assert post(emulator, "/responses", background("x")).drop

    assert before.books.snapshot(0)["runs"]["created"] == 0
    assert after.books.snapshot(0)["runs"]["created"] == 1
    assert before.books.snapshot(0)["calls"] == {"POST /v1/responses": {"dropped_before": 1}}
    assert after.books.snapshot(0)["calls"] == {"POST /v1/responses": {"dropped_after": 1}}


def test_a_slow_answer_comes_later():
    """`slow` adds its seconds to whatever the answer takes anyway."""
    emulator = emulator_with(slow=1.0)
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}

    assert post(emulator, "/responses", background("x")).delay_seconds == 5
    assert post(emulator, "/chat/completions", chat).delay_seconds == 1 + 5


def test_a_run_that_hangs_is_in_progress_for_ever():
    """`hang` strikes the run once and for all; cancelling still ends it."""
    emulator = emulator_with(hang=1.0)
    run_id = content(post(emulator, "/responses", background("x")))["id"]

    for now in (2, 1_000, 1_000_000):
        assert content(get(emulator, f"/responses/{run_id}", now=now))["status"] == "in_progress"

    cancelled = post(emulator, f"/responses/{run_id}/cancel", now=1_000_001)
    assert content(cancelled)["status"] == "cancelled"


def test_a_direct_call_that_hangs_takes_an_hour():
    """Where there is no run to look at, the call itself hangs."""
    chat = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
    embedding = {"model": "m", "input": "x"}

    assert post(emulator_with(hang=1.0), "/chat/completions", chat).delay_seconds == 3600
    assert post(emulator_with(hang=1.0), "/embeddings", embedding).delay_seconds == 3600

    emulator = emulator_with(hang=1.0)
    several = post(emulator, "/completions", {"model": "m", "prompt": ["x", "y"]})
    assert several.delay_seconds == 3600
    assert emulator.books.snapshot(0)["faults"] == {"hang": 1}  # one call, however many prompts


def test_malformed_is_200_with_half_a_json():
    """The work is done, the body can't be read."""
    emulator = emulator_with(malformed=1.0)
    reply = post(emulator, "/responses", background("x"))

    assert reply.status == 200
    with pytest.raises(json.JSONDecodeError):
        content(reply)
    assert emulator.books.snapshot(0)["runs"]["created"] == 1


def test_the_emulators_own_pages_meet_no_faults():
    """Books stay readable in the worst night."""
    emulator = emulator_with(**dict.fromkeys(Fault, 1.0))

    for page in ("health", "books", "calls"):
        assert get(emulator, f"/emulator/{page}").status == 200


def test_names_rates_and_lists_are_understood(tmp_path):
    """One name, several with rates, the preset, a TOML and a JSON file."""
    toml, in_json = tmp_path / "faults.toml", tmp_path / "faults.json"
    toml.write_text("slow = 0.5\nhang = 0.01\n")
    in_json.write_text('{"all": 0.2, "slow": 0}')

    assert parse_faults("slow") == {"slow": 0.1}
    assert parse_faults("slow=0.3, drop_after") == {"slow": 0.3, "drop_after": 0.1}
    assert parse_faults("all=0.05") == dict.fromkeys(PRESET_ALL, 0.05)
    assert "malformed" not in parse_faults("all")
    assert parse_faults(str(toml)) == {"slow": 0.5, "hang": 0.01}
    assert parse_faults(str(in_json)) == {**dict.fromkeys(PRESET_ALL, 0.2), "slow": 0}


@pytest.mark.parametrize("text", ["slow=2", "slow=-1", "slow=often", "slow=nan"])
def test_a_rate_is_a_number_from_0_to_1(text):
    """Anything else is refused with the fault's name."""
    with pytest.raises(EmulatorMistake, match=r"slow .*from 0 to 1"):
        parse_faults(text)


def test_an_unknown_fault_is_told_the_known_ones():
    """A typing mistake gets the list."""
    with pytest.raises(EmulatorMistake, match=r"'sloow'; known are error_500, .* and all"):
        parse_faults("sloow")
    with pytest.raises(EmulatorMistake, match="unknown fault 'sloow'"):
        Settings(faults={"sloow": 0.1})


def test_many_shuffled_checks_meet_the_same_faults():
    """For checks it is the run and how often it was asked for that decide, not the moment."""

    def statuses(order):
        emulator = emulator_with(error_503=0.3)
        ids = {}
        for name in "abcdef":
            while name not in ids:
                reply = post(emulator, "/responses", background(name))
                if reply.status == 200:
                    ids[name] = content(reply)["id"]
        seen = {name: [] for name in ids}
        for name in order:
            seen[name].append(get(emulator, f"/responses/{ids[name]}").status)
        return seen

    order = list("abcdef" * 8)
    straight = statuses(order)

    assert statuses(sorted(order)) == straight
    assert any(503 in seen for seen in straight.values())
